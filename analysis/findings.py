"""Findings as sentences: no claim from one seed, none from a seed that had a part in choosing, and none where the
seeds' spread could make the difference."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.text import Text

from analysis import fronts
from analysis.alarms import Alarm
from analysis.estimators import estimator_sentences
from analysis.fronts import DOUBT
from analysis.layout import Table, counted, enumerated, shown
from analysis.objectives import Objective
from analysis.results import Group, Results, once, ranked
from analysis.stats import Estimate, significant_differences
from analysis.stopping import stopping_sentence
from trainables.runs import described
from vqcore.psnr import psnr

_BECAME = {
    "completed": "completed",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "running": "not finished",
}
"""A trial's status, as a sentence has it."""

_FAILURES = 5
"""Failed trials that are named on the screen; the files name all."""

_ALARMS = 5
"""Alarms on the screen; ``tables/results.md`` has all."""


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
    alarms: tuple[Alarm, ...] = ()
    """What looks wrong, that first which puts most in doubt."""

    def renderable(self) -> RenderableType:
        """The findings for a terminal; names in them are never taken for markup."""
        parts: list[RenderableType] = [self.table.rich(), Text("")] if self.table else []
        parts += map(shown, self.lines)
        parts += [shown(alarm.sentence) for alarm in self.alarms[:_ALARMS]]
        if (more := len(self.alarms) - _ALARMS) > 0:
            parts.append(shown(f"{counted(more, 'more alarm')} in tables/results.md"))
        if self.paths:
            parts_of = (path.relative_to(self.folder).parts for path in self.paths)
            names = dict.fromkeys(first + ("/" if rest else "") for first, *rest in parts_of)
            parts.append(Text(f"Written to {self.folder}: {', '.join(names)}", style="dim", overflow="fold"))
        return Stack(*parts)


@once
def sentences(results: Results) -> tuple[str, ...]:
    """The state of the run, its best configurations, its front, its estimators, and what is not compared."""
    lines = [_state(results)]
    if results.groups:
        lines += [_best(results, objective) for objective in results.objectives]
        lines += filter(None, (front_sentence(results), certainty_sentence(results)))
        lines += estimator_sentences(results)
        lines += filter(None, [stopping_sentence(results)])
    lines += [f"Not compared: {reason}" for reason in _left_out(results)]
    return tuple(lines)


def not_begun(results: Results) -> int:
    """Trials of the plan that are still to begin: none once the budget of epochs is spent."""
    return 0 if _spent(results) else _planned(results) - len(results.trials)


def _planned(results: Results) -> int:
    return max(int(results.record.sweep.get("trials") or 0), len(results.trials))  # more seeds come on top


def _spent(results: Results) -> bool:
    """Not by the journal's "done": the sweep asks for its findings before it writes that."""
    budget = str(results.metadata("budget"))
    return budget.isdecimal() and sum(trial.last_epoch for trial in results.trials) >= int(budget)


def _state(results: Results) -> str:
    """What became of the trials, and what of them is compared."""
    planned = _planned(results)
    counts = Counter(_BECAME.get(trial.status, trial.status) for trial in results.trials)
    counts["not begun"] = planned - len(results.trials)
    became = ", ".join(f"{counts[kind]} {kind}" for kind in (*_BECAME.values(), "not begun") if counts[kind])
    state = f"{counted(planned, 'trial')}: {became}"
    if _spent(results):
        state += f"; the budget of {results.metadata('budget')} epochs is spent"
    elif counts["not begun"] or counts[_BECAME["running"]]:
        state += "; the run is not finished"
    if not results.groups:
        both = " and ".join(results.columns)
        none = f"no completed trial reports {both}" if counts["completed"] else "no trial completed"
        return f"{state}. Nothing to compare: {none}."
    after = f"after epoch {results.epoch} on {results.data}"
    if results.screening is None:
        order = " (an order, not a claim)" if results.searched else ""
        return f"{state}. Compared {after}, {results.seeds} a configuration{order}."
    screened, more = sum(group.screened is not None for group in results.groups), len(results.estimated)
    return (
        f"{state}. Seed {results.screening} took {counted(screened, 'configuration')} to the end and chose {more} for "
        f"{results.seeds} more: the estimates are of those seeds alone, {after}."
    )


def _best(results: Results, objective: Objective) -> str:
    winner, *_ = ranked(results.groups, objective)
    alone = len(results.estimated) == 1  # best among whom?
    name = objective.name if alone else objective.best
    of = " of the one configuration with more seeds" if alone and len(results.groups) > 1 else ""
    of += "" if objective in results.aims else ", no aim of this search"
    sentence = f"{name[0].upper()}{name[1:]}{of}: {_with_value(results, winner, objective)}."
    if winner in results.several:
        return sentence + ("" if alone else _lead(results, winner, objective))
    sentence += " One seed: how far others spread is not known." if alone else " One seed: an order, not a claim."
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
    among = f", whichever of the {number} is picked" if number > 1 else ""
    return f"95 % interval {estimate.interval_text()}{among}"


def _lead(results: Results, winner: Group, objective: Objective) -> str:
    """Whether the winner's lead over the others is more than the seeds' spread. There must be others."""
    several = results.several
    single = len(results.groups) - len(several)
    untested = f" Not tested: {single}, with too few seeds." if single else ""
    if len(several) == 1:
        beside = "" if results.screening is None else f" beside seed {results.screening}"
        return f" No other configuration has several seeds{beside}, so its lead is no claim."
    place = several.index(winner)
    differ = significant_differences(place, [group.by_seed(objective.column) for group in several])
    alike = [group.label for i, group in enumerate(several) if i != place and not differ[i]]
    how = "paired t tests, Holm's correction"
    if alike:
        rest = f" Told apart from {_others(sum(differ))}." if any(differ) else ""
        return f" Not told apart from, which does not mean equal to: {enumerated(alike)} ({how}).{rest}{untested}"
    others = ("" if len(several) == 2 else "each of ") + _others(len(several) - 1)
    with_several = " with several seeds" if single else ""
    return f" Its lead over {others}{with_several} is more than the seeds' spread ({how}).{untested}"


def _left_out(results: Results) -> list[str]:
    failed = [
        f"{described(trial.config, [*results.swept, 'seed']) or trial.key}, {reason}"
        for trial, reason in results.left_out
        if trial.status not in ("running", "stopped")
    ]
    lines, reasons = failed[:_FAILURES], "the reasons are in tables/results.md"
    if (more := len(failed) - _FAILURES) > 0:
        lines.append(f"{counted(more, 'more trial')} that did not complete; {reasons}")
    # the rank, or how little was used, is each trial's own; what stopped it is not
    stopped = sorted((t for t, _ in results.left_out if t.status == "stopped"), key=lambda t: t.last_epoch)
    stops = Counter(trial.reason.split(":")[0] for trial in stopped)  # of equally many the earlier first
    if stops:
        kinds = ", ".join(f"{kind or 'no recorded reason'} ({count})" for kind, count in stops.most_common())
        lines.append(f"{counted(stops.total(), 'trial')} stopped early: {kinds}; {reasons}")
    if unfinished := sum(trial.status == "running" for trial, _ in results.left_out):
        lines.append(f"{counted(unfinished, 'trial')} begun and not finished")
    return lines


def front_sentence(results: Results, listed: bool = True) -> str:
    """The front of the means, and whether there is a trade-off at all. There must be a group.

    Without ``listed``, how many are on the front, not which.
    """
    if len(results.groups) == 1:
        return "One configuration only: there is no front to speak of."
    if len(results.estimated) == 1:
        return f"Only one configuration has seeds beside seed {results.screening}: there is no front to speak of."
    first, second = results.objectives
    named, number = enumerated([group.label for group in results.front]), len(results.front)
    if len({(group.mean(first.column), group.mean(second.column)) for group in results.front}) > 1:
        which = f", {first.best} first: {named}" if listed else ""
        return f"{_by(results)}: {number} configurations are on the front{which}."
    best = f"{named} is" if number == 1 else f"{named} are, equal to each other,"
    return f"{_by(results)}: {best} best in both {first.name} and {second.name}; the front is one point, no trade-off."


def _by(results: Results) -> str:
    """What the front of the means is worth."""
    of = "" if results.screening is None else f" of the {len(results.estimated)} with more seeds"
    if not results.several:
        return f"By one seed each{of}, so an order and no claim"
    single = sum(len(group.seeds) == 1 for group in results.front)
    return f"By the means{of}" + (f", {single} of one seed and so no claim" if single else "")


def certainty_sentence(results: Results) -> str | None:
    """Whether the front is settled; none where that is unknown or there is nothing to settle."""
    if len(results.estimated) == 1 or not results.several:
        return None
    of = "" if results.screening is None else f" of the {len(results.estimated)} with more seeds"
    if fronts.settled(results.on_front):
        certain = "each configuration is on it or off it with a probability above 95 %"
        if single := sum(len(group.seeds) == 1 for group in results.front):
            has = "has" if single == 1 else "have"
            return f"By the spread of the others {certain}, but {single} of those on the front {has} one seed only."
        return f"The front{of} is settled: {certain}."
    probable = sorted(zip(results.estimated, results.on_front, strict=True), key=lambda pair: -pair[1])
    certain = enumerated([group.label for group, p in probable if p > 1 - DOUBT]) or "none"
    unsettled = enumerated([f"{group.label} ({p:.2f})" for group, p in probable if DOUBT <= p <= 1 - DOUBT])
    off = sum(p < DOUBT for _, p in probable)
    rest = f" Below 5 %: {_others(off)}." if off else ""
    return (
        f"The front{of} is not settled. On it with a probability above 95 %: {certain}. "
        f"Perhaps, with a probability of: {unsettled}.{rest}"
    )


def _others(number: int) -> str:
    return "the other one" if number == 1 else f"the other {number}"
