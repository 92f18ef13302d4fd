"""Findings as sentences: no claim from one seed, none from a seed that had a part in choosing, and none where the
seeds' spread could make the difference."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.text import Text

from analysis import fronts
from analysis.estimators import estimator_sentences
from analysis.fronts import DOUBT
from analysis.layout import Table, shown
from analysis.objectives import Objective
from analysis.results import Group, Results, described, ranked
from analysis.stats import Estimate, significant_differences
from vqcore.psnr import psnr

_FAILURES = 5
"""Failed trials that are named on the screen; the files name all."""


@dataclass(frozen=True)
class Findings:
    """The last page of a sweep."""

    lines: tuple[str, ...]
    """One or two sentences a line; plain text."""
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


def sentences(results: Results) -> tuple[str, ...]:
    """The state of the run, its best configurations, its front, its estimators, and what is not compared."""
    lines = [_state(results)]
    if results.groups:
        lines += [_best(results, objective) for objective in results.objectives]
        lines += filter(None, (front_sentence(results), certainty_sentence(results)))
        lines += estimator_sentences(results)
    lines += [f"Not compared: {reason}" for reason in _left_out(results)]
    kinds = {(t.info.get("device"), t.info.get("precision")) for group in results.groups for t in group.trials}
    if len(kinds) > 1:
        named = "; ".join(sorted(f"{precision} on {device}" for device, precision in kinds))
        lines.append(f"Compared trials did not all run alike: {named}.")
    return tuple(lines)


def _state(results: Results) -> str:
    completed = sum(trial.status == "completed" for trial in results.trials)
    planned = max(int(results.record.sweep.get("trials") or 0), len(results.trials))  # more seeds come on top
    state = f"{completed} of {planned} trials completed"
    budget = str(results.metadata("budget"))
    # Not by the journal's "done": the sweep asks for its findings before it writes that.
    if budget.isdecimal() and sum(trial.last_epoch for trial in results.trials) >= int(budget):
        state += f"; the budget of {budget} epochs is spent"
    elif sum(trial.status != "running" for trial in results.trials) < planned:
        state += "; the run is not finished"
    if not results.groups:
        return f"{state}. Nothing to compare yet."
    compared = f"{state}. Compared after epoch {results.epoch} on {results.data}"
    if results.screening is None:
        order = " (an order, not a claim)" if results.searched else ""
        return f"{compared}, {results.seeds} a configuration{order}."
    screened, more = sum(group.screened is not None for group in results.groups), len(results.estimated)
    return (
        f"{compared}: seed {results.screening} screened {screened} configurations; the estimates are of "
        f"{results.seeds} more, of {more} of them."
    )


def _best(results: Results, objective: Objective) -> str:
    winner, *_ = ranked(results.groups, objective)
    sentence = f"{objective.best[0].upper()}{objective.best[1:]}: {_with_value(results, winner, objective)}."
    if winner in results.several:
        return sentence + _lead(results, winner, objective)
    sentence += " One seed: an order, not a claim."
    for group in ranked(results.several, objective)[:1]:
        sentence += f" Of those with more seeds: {_with_value(results, group, objective)}."
    return sentence


def _with_value(results: Results, group: Group, objective: Objective) -> str:
    estimate = results.estimate(group, objective.column)
    decibel = f", {psnr(estimate.mean):.1f} dB" if objective.column == "mse" else ""
    seeds = f" ({interval_of(results, estimate)}, n = {estimate.n})" if estimate.n > 1 else ""
    return f"{group.label}, {estimate.text} {objective.unit}{decibel}{seeds}"


def interval_of(results: Results, estimate: Estimate) -> str:
    """The interval of a configuration, and among how many it holds however that one was picked."""
    number = len(results.estimated)
    among = f", simultaneous over {number} configurations" if number > 1 else ""
    return f"95 % interval {estimate.interval_text()}{among}"


def _lead(results: Results, winner: Group, objective: Objective) -> str:
    """Whether the winner's lead over the others is more than the seeds' spread; nothing if there are no others."""
    if len(results.groups) == 1:
        return ""
    several = results.several
    single = len(results.groups) - len(several)
    untested = f" {single} {_with_too_few(results)} were not tested." if single else ""
    if len(several) == 1:
        return f" No other configuration has several seeds{_that_count(results)}, so its lead is no claim."
    place = several.index(winner)
    differ = significant_differences(place, [group.by_seed(objective.column) for group in several])
    alike = [group.label for i, group in enumerate(several) if i != place and not differ[i]]
    if alike:
        return f" Within the seeds' spread, so not told apart from: {_listed(alike)}.{untested}"
    others = "each of the others with several seeds" if single else "each other one"
    return f" Its lead over {others} is more than the seeds' spread (paired t tests, Holm's correction).{untested}"


def _with_too_few(results: Results) -> str:
    return (
        "with one seed" if results.screening is None else f"with fewer than two seeds beside seed {results.screening}"
    )


def _that_count(results: Results) -> str:
    return "" if results.screening is None else f" beside seed {results.screening}"


def _left_out(results: Results) -> list[str]:
    failed = [
        f"{described(trial.config, [*results.swept, 'seed']) or trial.key}, {reason}"
        for trial, reason in results.left_out
        if trial.status not in ("running", "stopped")
    ]
    lines = failed[:_FAILURES]
    if len(failed) > _FAILURES:
        lines.append(f"{len(failed) - _FAILURES} more that did not complete, each with its reason in tables/results.md")
    # the rank, or how little was used, is each trial's own; what stopped it is not
    stopped = sorted((t for t, _ in results.left_out if t.status == "stopped"), key=lambda t: t.last_epoch)
    stops = Counter(trial.reason.split(":")[0] for trial in stopped)  # of equally many the earlier first
    if stops:
        kinds = ", ".join(f"{kind or 'for no recorded reason'} ({count})" for kind, count in stops.most_common())
        lines.append(f"{stops.total()} stopped early: {kinds}; each with its reason in tables/results.md")
    if unfinished := sum(trial.status == "running" for trial, _ in results.left_out):
        lines.append(f"{unfinished} begun and not finished")
    return lines


def front_sentence(results: Results, listed: bool = True) -> str:
    """The front of the means, and whether there is a trade-off at all. There must be a group.

    Without ``listed``, how many are on the front, not which.
    """
    if len(results.groups) == 1:
        return "One configuration only: there is no front to speak of."
    first, second = results.objectives
    of = "" if results.screening is None else f" of the {len(results.estimated)} with more seeds"
    several = all(len(group.seeds) > 1 for group in results.front)
    by = f"By the means{of}" if several else f"By a single seed{of}, so an order and no claim"
    named, number = _listed([group.label for group in results.front]), len(results.front)
    if len({(group.mean(first.column), group.mean(second.column)) for group in results.front}) > 1:
        which = f", {first.best} first: {named}" if listed else ""
        return f"{by}: a trade-off, {number} configurations are on the front{which}."
    best = f"best in both {first.name} and {second.name} is {named}{'' if number == 1 else ' (equal)'}"
    return f"{by}: {best}; the front is one point, no trade-off here."


def certainty_sentence(results: Results) -> str | None:
    """Whether the front is settled; none where that is unknown or there is nothing to settle."""
    if len(results.estimated) == 1 or not results.several:
        return None
    if fronts.settled(results.on_front):
        certain = "each configuration is on it or off it with a probability above 95 %"
        if single := sum(len(group.seeds) == 1 for group in results.front):
            return f"By the spread of the others {certain}, but of those on the front {single} have one seed only."
        return f"The front is settled: {certain}."
    probable = zip(results.estimated, results.on_front, strict=True)
    unsettled = sorted(((g, p) for g, p in probable if DOUBT <= p <= 1 - DOUBT), key=lambda pair: -pair[1])
    named = _listed([f"{group.label} ({p:.2f})" for group, p in unsettled], 4)
    are = "configurations" if len(unsettled) > 1 else "configuration"
    return f"The front is not settled: {len(unsettled)} {are} may be on it, with probability: {named}."


def _listed(names: Sequence[str], most: int = 8) -> str:
    """The names, or the first of them and how many more there are."""
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more" if rest > 0 else "")
