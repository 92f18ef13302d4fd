"""What was found, in words: no claim from one seed, and none where the seeds' spread could make the difference."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.text import Text

from analysis.comparisons import told_apart_from
from analysis.estimators import estimator_words
from analysis.groups import Group, described
from analysis.layout import Table, shown
from analysis.objectives import Objective
from analysis.results import Results
from analysis.tradeoff import front_words, names, rate_words, sure_words
from vqcore.metrics import psnr

_LISTED = 5
"""So many trials that failed are named; the files name all."""


@dataclass(frozen=True)
class Findings:
    """The last page of a sweep."""

    lines: tuple[str, ...]
    """What was found, a sentence or two a line; plain text."""
    folder: Path
    """The run's."""
    paths: tuple[Path, ...]
    """The files that were written, below ``folder``."""
    table: Table | None = None
    """The configurations compared."""

    def renderable(self) -> RenderableType:
        """The findings for a terminal; names in them are never taken for markup."""
        parts: list[RenderableType] = [self.table.rich(), Text("")] if self.table else []
        parts += map(shown, self.lines)
        if self.paths:
            names = ", ".join(path.relative_to(self.folder).as_posix() for path in self.paths)
            parts.append(Text(f"Written to {self.folder}: {names}", style="dim", overflow="fold"))
        return Stack(*parts)


def words(results: Results) -> tuple[str, ...]:
    """What the run shows, as far as it went."""
    lines = [_state(results)]
    if results.groups:
        lines += [_best(results, objective) for objective in results.objectives]
        told = (front_words(results), sure_words(results), rate_words(results))
        lines += [line for line in told if line]
        lines += estimator_words(results)
    lines += [f"Not compared: {why}" for why in _left_out(results)]
    kinds = {(t.info.get("device"), t.info.get("precision")) for group in results.groups for t in group.trials}
    if len(kinds) > 1:
        named = "; ".join(sorted(f"{precision} on {device}" for device, precision in kinds))
        lines.append(f"Compared trials did not all run alike: {named}.")
    return tuple(lines)


def _state(results: Results) -> str:
    completed = sum(trial.status == "completed" for trial in results.trials)
    planned = max(int(results.record.sweep.get("trials") or 0), len(results.trials))  # more seeds come on top
    state = f"{completed} of {planned} trials completed"
    # Not by the journal's "done": the sweep asks for its findings before it writes that.
    if _spent(results):
        state += f"; the budget of {results.told('budget')} epochs is spent"
    elif sum(trial.status != "running" for trial in results.trials) < planned:
        state += "; the run is not finished"
    if not results.groups:
        return f"{state}. Nothing to compare yet."
    return f"{state}. Compared after epoch {results.epoch} on {results.data}, {results.seeds} a configuration."


def _spent(results: Results) -> bool:
    budget = str(results.told("budget"))
    return budget.isdecimal() and sum(trial.last_epoch for trial in results.trials) >= int(budget)


def _best(results: Results, objective: Objective) -> str:
    winner = results.best(objective)
    several = [group for group in results.groups if len(group.seeds) > 1]
    said = f"{objective.best[0].upper()}{objective.best[1:]}: {_said(winner, objective)}."
    if winner in several:
        return said + _lead(results.groups, several, winner, objective)
    said += " One seed: an order, not a claim."
    if not several:
        return said
    repeated = replace(results, groups=tuple(several)).best(objective)
    return f"{said} Of those with more seeds: {_said(repeated, objective)}."


def _said(group: Group, objective: Objective) -> str:
    estimate = group.estimate(objective.column)
    assert estimate is not None  # a compared trial has reported both objectives
    decibel = f", {psnr(estimate.mean):.1f} dB" if objective.column == "mse" else ""
    seeds = f" (95 % interval {estimate.interval_text}, n = {estimate.n})" if estimate.n > 1 else ""
    return f"{group.label}, {estimate.text} {objective.unit}{decibel}{seeds}"


def _lead(groups: Sequence[Group], several: Sequence[Group], winner: Group, objective: Objective) -> str:
    """Whether the winner's lead over the others is more than the seeds' spread; nothing if there are no others."""
    if len(groups) == 1:
        return ""
    single = len(groups) - len(several)
    untested = f" {single} with one seed were not tested." if single else ""
    if len(several) == 1:
        return " No other configuration has a second seed, so its lead is no claim."
    alike = _not_told_apart(several, winner, objective.column)
    if alike:
        return f" Within the seeds' spread, so not told apart from: {names(alike)}.{untested}"
    others = "each of the others with several seeds" if single else "each other one"
    return f" Its lead over {others} is more than the seeds' spread (paired t tests, Holm's correction).{untested}"


def _not_told_apart(groups: Sequence[Group], winner: Group, metric: str) -> list[Group]:
    # corrected for all pairs: the winner was chosen among them by the same numbers
    place = groups.index(winner)
    apart = told_apart_from(place, [group.by_seed(metric) for group in groups])
    return [group for other, group in enumerate(groups) if other != place and not apart[other]]


def _left_out(results: Results) -> list[str]:
    named = [
        f"{described(trial.config, [*results.swept, 'seed']) or trial.key}, {why}"
        for trial, why in results.left_out
        if trial.status not in ("running", "stopped")
    ]
    told = named[:_LISTED]
    if len(named) > _LISTED:
        told.append(f"{len(named) - _LISTED} more that did not complete, each with its reason in tables/results.md")
    # the rank, or how little was used, is each trial's own; what stopped it is not
    stopped = sorted((t for t, _ in results.left_out if t.status == "stopped"), key=lambda t: t.last_epoch)
    stops = Counter(trial.reason.split(":")[0] for trial in stopped)  # of equally many the earlier first
    if stops:
        kinds = ", ".join(f"{what or 'for no recorded reason'} ({count})" for what, count in stops.most_common())
        told.append(f"{stops.total()} stopped early: {kinds}; each with its reason in tables/results.md")
    if unfinished := sum(trial.status == "running" for trial, _ in results.left_out):
        told.append(f"{unfinished} not finished")
    return told
