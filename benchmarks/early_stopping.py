"""python -m benchmarks.early_stopping: what early stopping has found by a share of the epochs, one grid left out.

Every contender is replayed over recorded grids in the same shuffled orders, beside random search: trials in that order,
each to its full budget. Parameters that a contender leaves to its user are chosen for each grid on the other grids
alone: those that leave least, as a ratio to random search. Ours has none to choose. The questions and their figures are
in benchmarks/early_stopping_grids.py, the contenders in benchmarks/early_stopping_contenders.py.

Intervals are Student's, of the mean over the orders, 95 %: they tell the luck of the order on this grid, not how
another grid would differ. Regrets that differ by less than a seed's noise count as equal.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, geometric_mean
from typing import TypedDict

import numpy as np
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from analysis.stats import Estimate
from benchmarks.curves import recorded
from benchmarks.early_stopping_contenders import (
    OURS,
    RANDOM,
    SYNE_TUNE,
    AtRandom,
    Build,
    Ours,
    Settings,
    contenders,
    installed,
)
from benchmarks.early_stopping_grids import GIVEN, QUESTIONS, RECORDED, Grid, Question, floors, recorded_grids
from benchmarks.early_stopping_replays import CHANCES, SHARES, Floats, Replays
from benchmarks.record import circumstances, write
from trainables.commands import run_command
from vqcore.config import ConfigError

UNSEEN = ("glyphs", "long")
"""The grids that were first replayed when freeze-thaw search stood: nothing of it was made while looking at them."""
SHOWN = (0.25, 0.35, 0.5)
"""Those in the tables."""
LEAST = 1e-3
"""What is left counts as at least so much in a ratio, which says little of next to nothing."""
WIDTH = 120
"""Of the tables, in columns."""


@dataclass(frozen=True)
class EarlyStoppingBenchmark:
    """Replay early stopping over the recorded grids, each judged with parameters chosen on the others."""

    grid: Path | None = None
    """The ``results.parquet`` of a sweep trained in full: judge every contender on it, choosing nothing there."""
    orders: int = 30
    """Orders in which the trials come."""
    slots: int = 4
    """Trials that train at once."""
    out: Path = Path("benchmarks/results/early_stopping.json")
    """The JSON file to write."""


def chosen(replays: Replays, settings: Settings, question: Question, grids: Sequence[str]) -> str:
    """The label of the setting that leaves least on ``grids``, averaged over the shares, as random search leaves it."""

    def left(build: Build) -> float:
        random = (replays.left(grid, AtRandom(), question).mean() for grid in grids)
        own = (replays.left(grid, build, question).mean() for grid in grids)
        return fmean(max(mine, LEAST) / max(theirs, LEAST) for mine, theirs in zip(own, random, strict=True))

    return min(settings, key=lambda label: left(settings[label]))


class Ratio(TypedDict):
    """What a contender leaves of what random search leaves."""

    ratio: float
    """The mean over the grids."""
    worst: str
    """The grid where it is largest."""
    worst_ratio: float


Summary = dict[str, dict[str, Ratio]]
"""By contender and share."""
OwnEnds = dict[str, dict[str, dict[str, float]]]
"""By grid and chance."""
Judged = dict[str, dict[str, tuple[str, Floats]]]
"""By grid and contender: its setting there, and what is left in each order at each share."""


def judge(replays: Replays, question: Question, judged: Iterable[str], others: Sequence[str]) -> Judged:
    """Every contender on each grid of ``judged``, with a setting chosen on ``others`` without that grid."""
    found: Judged = {}
    for grid in judged:
        found[grid] = {}
        for name, settings in contenders(question).items():
            label = chosen(replays, settings, question, [other for other in others if other != grid])
            found[grid][name] = label, replays.left(grid, settings[label], question)
    return found


def estimates(left: Floats) -> dict[str, dict[str, float]]:
    """By share: the mean and its interval."""
    found = {}
    for share, values in zip(SHARES, left.T, strict=True):
        estimate = Estimate.of(values.tolist())
        low, high = estimate.interval() or (estimate.mean, estimate.mean)
        found[f"{share:g}"] = {"mean": estimate.mean, "low": low, "high": high}
    return found


def summary(question: Question, judged: Judged, floor: Mapping[str, float]) -> Summary:
    """What each contender leaves of what random search leaves, over the grids.

    The mean of the ratios; of regrets, none of which counts as less than the floor, the geometric mean.
    """
    regret = question.figure == "regret"
    ratios: dict[str, dict[str, Floats]] = {}
    for grid, by_name in judged.items():
        least = max(floor[grid], LEAST) if regret else LEAST
        means = {name: np.maximum(left.mean(axis=0), least) for name, (_, left) in by_name.items()}
        for name, mean in means.items():
            ratios.setdefault(name, {})[grid] = mean / means[RANDOM]
    found: Summary = {}
    for name, of in ratios.items():
        found[name] = {}
        for place, share in enumerate(SHARES):
            at = {grid: float(ratio[place]) for grid, ratio in of.items()}
            worst = max(at, key=at.__getitem__)
            mean = geometric_mean(at.values()) if regret else fmean(at.values())
            found[name][f"{share:g}"] = Ratio(ratio=mean, worst=worst, worst_ratio=at[worst])
    return found


def below_random(question: Question, judged: Judged, floor: Mapping[str, float]) -> list[tuple[str, float]]:
    """The grids and shares at which ours leaves more than random search does.

    By more than the standard error of the difference over the orders, and of a regret by more than the floor.
    """
    found = []
    for grid, by_name in judged.items():
        more = by_name[OURS][1] - by_name[RANDOM][1]
        error = more.std(axis=0, ddof=1) / math.sqrt(len(more)) if len(more) > 1 else np.zeros(len(SHARES))
        bound = np.maximum(error, floor[grid]) if question.figure == "regret" else error
        found += [(grid, share) for share, worse in zip(SHARES, more.mean(axis=0) > bound, strict=True) if worse]
    return found


def own_ends(replays: Replays, question: Question, judged: Iterable[str]) -> OwnEnds:
    """Of freeze-thaw search, where nothing is spent beyond its rule."""
    builds = {f"{chance:g}": Ours(question, chance, spends=False) for chance in CHANCES}
    return {
        grid: {chance: replays.own_end(grid, build, question) for chance, build in builds.items()} for grid in judged
    }


def results_table(judged: Judged) -> Table:
    """For the terminal: what is left on each grid, in percent."""
    names = list(next(iter(judged.values())))
    table = Table("grid", "at", padding=(0, 0, 0, 1))
    for name in names:
        table.add_column(name, justify="right")
    for grid, by_name in judged.items():
        at = {name: estimates(left) for name, (_, left) in by_name.items()}
        for share in SHOWN:
            cells = [_percent(at[name][f"{share:g}"]) for name in names]
            table.add_row(grid, f"{share:.0%}", *cells, end_section=share == SHOWN[-1])
    return table


def summary_rows(summaries: Mapping[str, Summary]) -> list[list[str]]:
    """The summary as plain rows, the first its head: the ratio to random search, and in brackets the worst grid's."""
    rows = [["question", "contender", *(f"{share:.0%}" for share in SHOWN)]]
    for question, by_name in summaries.items():
        for name, by_share in by_name.items():
            places = [by_share[f"{share:g}"] for share in SHOWN]
            cells = [f"{at['ratio']:.2f} ({at['worst']} {at['worst_ratio']:.2f})" for at in places]
            rows += [[question, name, *cells]] if name != RANDOM else []
    return rows


def own_end_rows(ends: Mapping[str, OwnEnds]) -> list[list[str]]:
    """Plain rows, the first their head: what ours spends where it need not spend all, and what is left."""
    rows = [["question", "grid", *(f"chance {chance:g}" for chance in CHANCES)]]
    for question, by_grid in ends.items():
        for grid, at in by_grid.items():
            rows.append([question, grid, *(f"{one['epochs']:.0%}: {one['left']:.1%}" for one in at.values())])
    return rows


def told(judged: Judged) -> dict[str, dict[str, object]]:
    """For the file: by grid and contender, its setting and what is left by share."""
    return {
        grid: {name: {"setting": label, "shares": estimates(left)} for name, (label, left) in by_name.items()}
        for grid, by_name in judged.items()
    }


def table_of(rows: Sequence[Sequence[str]], title: str) -> Table:
    """Plain rows for the terminal, with a line between questions."""
    table = Table(*rows[0], title=title, title_justify="left")
    for row, following in zip(rows[1:], [*rows[2:], [""]], strict=True):
        table.add_row(*row, end_section=row[0] != following[0])
    return table


def _percent(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['mean']:.1f}±{100 * (estimate['high'] - estimate['mean']):.1f}"


def check(benchmark: EarlyStoppingBenchmark) -> tuple[list[Grid], list[Grid]]:
    """The grids to choose on, and those to judge. ``ConfigError`` with all that is wrong, before anything runs."""
    problems = []
    if benchmark.orders < 1:
        problems.append(f"orders = {benchmark.orders}: must be at least 1; 30 is usual")
    if benchmark.slots < 1:
        problems.append(f"slots = {benchmark.slots}: must be at least 1")
    others: list[Grid] = []
    given: list[Grid] = []
    try:
        others = recorded_grids(RECORDED, but=benchmark.grid)
        if len(others) < (needed := 1 if benchmark.grid else 2):
            problems.append(f"{RECORDED}: {len(others)} grids to choose parameters on; {needed} or more are needed")
        given = [Grid.of(GIVEN, recorded(benchmark.grid))] if benchmark.grid else []
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    return others, given or others


def main(benchmark: OmitArgPrefixes[EarlyStoppingBenchmark]) -> None:
    """Replay early stopping over the recorded grids, each judged with parameters chosen on the others."""
    others, to_judge = check(benchmark)
    facts = circumstances(asdict(benchmark), "ray", *([SYNE_TUNE] if installed(SYNE_TUNE) else []))
    console = Console(highlight=False, width=WIDTH)
    if not installed(SYNE_TUNE):
        console.print(f"{SYNE_TUNE}: skipped, not installed; pip install -e '.[dev]'")
    grids = {grid.name: grid for grid in (*others, *to_judge)}
    replays = Replays(grids.values(), benchmark.orders, benchmark.slots)
    floor = floors(to_judge, others)
    names = [grid.name for grid in others]
    judged = {name: judge(replays, question, floor, names) for name, question in QUESTIONS.items()}
    summaries = {name: summary(question, judged[name], floor) for name, question in QUESTIONS.items()}
    unseen = {
        name: summary(question, {grid: of for grid, of in judged[name].items() if grid in UNSEEN}, floor)
        for name, question in QUESTIONS.items()
    }
    below = {name: below_random(question, judged[name], floor) for name, question in QUESTIONS.items()}
    ends = {name: own_ends(replays, question, floor) for name, question in QUESTIONS.items()}
    for name, found in judged.items():
        console.print(f"\n{name}: left, % ± half the 95 % interval of the mean", results_table(found))
    console.print(table_of(summary_rows(summaries), "left, as a ratio to random search (the worst grid)"))
    if any(unseen.values()):
        console.print(table_of(summary_rows(unseen), f"the same, on {' and '.join(UNSEEN)}, that ours was not made on"))
    worse = [f"{name}, {grid}, at {share:.0%}" for name, places in below.items() for grid, share in places]
    console.print(f"{OURS} worse than random search: {'; '.join(worse) or 'none'}")
    console.print(table_of(own_end_rows(ends), f"{OURS} at its own end: epochs spent, left"))
    written = {
        "questions": {name: told(one) for name, one in judged.items()},
        "summary": summaries,
        "unseen": unseen,
        "below_random": [
            {"question": name, "grid": grid, "share": share} for name, places in below.items() for grid, share in places
        ],
        "own_ends": ends,
        "grids": {grid.name: {**grid.facts(), "floor": floor[grid.name]} for grid in to_judge},
    }
    write(benchmark.out, {**written, **facts})


if __name__ == "__main__":
    run_command(main)
