"""python -m benchmarks.early_stopping: what rules of early stopping keep of a recorded grid, and what they spend.

Every rule is replayed over the grid's curves in the same shuffled orders, beside random search (trials in that order,
each to its full budget) until it has spent as many epochs. Three questions, each with its figure:

* regret: the best final MSE found at a codebook size above the best there is, averaged over the sizes;
* spread: the hypervolume of MSE (down) against perplexity (up), of the whole grid's;
* rate: the hypervolume of MSE against an image's rate (both down), of the whole grid's, for an ideal entropy coder and
  for codes of fixed length.

Only trials that reached the full budget count as found; a size without one counts with its worst. The reference point
of a hypervolume is the grid's worst MSE with a perplexity of 1, or with a rate of one bit more than the largest
codebook's fixed-length code. Intervals are of the median over the orders, 95 %, from order
statistics: they tell the luck of the order on this grid, not how another grid would differ.
"""

import importlib.util
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import TypedDict

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from analysis.fronts import Directions, Point, hypervolume
from analysis.objectives import objectives
from benchmarks.curves import Curve, Scheduler, recorded, replay, shuffled
from benchmarks.peer_stopping import InOrder, Stops, moasha, ray_asha
from benchmarks.record import circumstances, write
from sweeps.engine.queue import TrialQueue
from sweeps.engine.scheduler import Rule, SuccessiveHalving, automatic
from trainables.commands import run_command
from trainables.job import TrialJob
from vqcore.config import ConfigError, Scalar, problems_of

BUDGETS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
"""Shares of the grid's epochs."""
SYNE_TUNE = "syne-tune"
MSE, BOTH, RATE = objectives(["mse"]), objectives(["mse", "perplexity"]), objectives(["mse", "bits"])

Build = Callable[[Sequence[TrialJob], int, int | None], Scheduler]
"""A scheduler for these trials on so many slots; it may spend so many epochs, or what its rule leaves."""


@dataclass(frozen=True)
class EarlyStoppingBenchmark:
    """Replay rules of early stopping over a recorded grid."""

    grid: Path = Path("benchmarks/recorded/grid.parquet")
    """The ``results.parquet`` of a sweep whose trials were all trained to the full budget."""
    shuffles: int = 50
    """Orders in which the trials come."""
    slots: int = 4
    """Trials that train at once."""
    out: Path = Path("benchmarks/results/early_stopping.json")
    """The JSON file to write."""


@dataclass(frozen=True)
class Kept:
    """What a replay found, of what the grid holds."""

    regret: float
    spread: float
    rate: float
    fixed_rate: float
    """As ``rate``, with log2 of the codebook size for each code."""


FIGURES = tuple(field.name for field in fields(Kept))


class Interval(TypedDict):
    """The median over the orders and its 95 % interval."""

    median: float
    low: float
    high: float


Summary = dict[str, Interval]
"""Of each field of ``Kept``, and of ``epochs``: the share of the grid's that was spent."""


class Ended(TypedDict):
    """A rule that stops by itself, and random search at as many epochs."""

    rule: Summary
    random: Summary


class Replayed(TypedDict):
    """All that was found."""

    ended: dict[str, Ended]
    """By contender."""
    budgets: dict[str, dict[str, Summary]]
    """By contender or ``random``, and by the share of the grid's epochs that might be spent."""


class Grid:
    """Recorded curves, and what finding some of them is worth."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = {curve.key: curve for curve in curves}
        self.epochs = sum(len(curve.epochs) for curve in curves)
        self._mse: dict[Scalar, list[float]] = defaultdict(list)
        for curve in curves:
            self._mse[curve.config["codebook_size"]].append(curve.final["mse"])
        mse, rate = max(max(values) for values in self._mse.values()), math.log2(max(map(float, self._mse))) + 1
        self._planes: dict[str, _Plane] = {
            "spread": _Plane(lambda curve: curve.final["perplexity"], (mse, 1.0), ("min", "max")),
            "rate": _Plane(lambda curve: math.log2(curve.final["perplexity"]), (mse, rate), ("min", "min")),
            "fixed_rate": _Plane(
                lambda curve: math.log2(float(curve.config["codebook_size"])), (mse, rate), ("min", "min")
            ),
        }
        self._whole = {name: plane.area(curves) for name, plane in self._planes.items()}

    def kept(self, keys: Iterable[str]) -> Kept:
        """Of the trials ``keys``, trained to the full budget."""
        found = [self.curves[key] for key in keys]
        shares = {name: plane.area(found) / self._whole[name] for name, plane in self._planes.items()}
        return Kept(self._regret(found), **shares)

    def _regret(self, found: Sequence[Curve]) -> float:
        best = {size: max(mse) for size, mse in self._mse.items()}
        for curve in found:
            size = curve.config["codebook_size"]
            best[size] = min(best[size], curve.final["mse"])
        return sum(best[size] / min(mse) - 1 for size, mse in self._mse.items()) / len(self._mse)


@dataclass(frozen=True)
class _Plane:
    second: Callable[[Curve], float]
    """What MSE is seen against."""
    reference: Point
    directions: Directions

    def area(self, curves: Iterable[Curve]) -> float:
        points = [(curve.final["mse"], self.second(curve)) for curve in curves]
        return hypervolume(points, self.reference, self.directions)


@dataclass(frozen=True)
class Contender:
    """A way to stop early."""

    build: Build
    spends: bool = True
    """Whether what its rule leaves of a budget goes to those that wait."""


def ours(rule: Rule) -> Build:
    """Our engine, as a sweep runs it."""

    def build(jobs: Sequence[TrialJob], slots: int, budget: int | None) -> TrialQueue:
        queue = TrialQueue(slots, SuccessiveHalving(rule, jobs[0].config.training.epochs), budget=budget)
        queue.add((job, 0) for job in jobs)
        return queue

    return build


def peer(stops: Callable[..., Stops]) -> Build:
    """A peer's class; ``stops`` makes a new one for trials of so many ``epochs``."""

    def build(jobs: Sequence[TrialJob], slots: int, budget: int | None) -> InOrder:
        epochs = jobs[0].config.training.epochs
        return InOrder(list(jobs), stops(epochs=epochs), slots, budget or epochs * len(jobs))

    return build


def at_random(jobs: Sequence[TrialJob], slots: int, budget: int | None) -> TrialQueue:
    """Every trial to its full budget, in the order given."""
    queue = TrialQueue(slots, budget=budget)
    queue.add((job, 0) for job in jobs)
    return queue


def contenders() -> dict[str, Contender]:
    """All that can be run here: without Syne Tune, what is left."""
    sizes, spread, rate = (automatic(aims, 20, known=True) for aims in (MSE, BOTH, RATE))
    rules = {
        # what --early-stopping auto takes for MSE, for MSE and perplexity, for MSE and rate
        "ours, best at each K": sizes,
        "ours, mse and perplexity": spread,
        "ours, mse and rate": rate,
        "ours, best at each K, no forecasts": replace(sizes, forecast=False),
        "ours, best at each K, depth first": replace(sizes, breadth_first=False),
        "ours, best at each K, mse alone": replace(sizes, objectives=MSE),
        "ours, mse and perplexity, over all": replace(spread, group_by=None),
        "ours, mse and rate, forecasts": replace(rate, forecast=True),
        "ours, mse and rate, within K": replace(rate, group_by="codebook_size"),
        "ours, mse and rate, grace 1, reduction 3": replace(rate, grace_period=1, reduction_factor=3),
    }
    found = {name: Contender(ours(rule)) for name, rule in rules.items()}
    # as they are shipped, and as ours
    for grace, reduction in ((1, 4), (4, 2)):
        for objective in BOTH:
            stops = partial(ray_asha, objective, grace=grace, reduction=reduction)
            found[f"Ray ASHA {objective.column}, {grace}, {reduction}"] = Contender(peer(stops), spends=False)
    for grace, reduction in ((1, 3), (4, 2)) if installed(SYNE_TUNE) else ():
        stops = partial(moasha, BOTH, grace=grace, reduction=reduction)
        found[f"Syne Tune MOASHA, {grace}, {reduction}"] = Contender(peer(stops), spends=False)
    return found


def installed(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None


def summary(outcomes: Sequence[Mapping[str, float]]) -> Summary:
    """The median of each figure and its interval."""
    return {name: interval([one[name] for one in outcomes]) for name in outcomes[0]}


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median and its distribution-free interval: order statistics, from the binomial of one half."""
    ordered, n = sorted(values), len(values)
    below = tail = 0  # as many values may lie under the interval as keep the tail small enough
    while tail + math.comb(n, below) <= (1 - confidence) / 2 * 2**n:
        tail += math.comb(n, below)
        below += 1
    ends = (ordered[below - 1], ordered[n - below]) if below else (ordered[0], ordered[-1])
    return Interval(median=median(values), low=ends[0], high=ends[1])


def measure(grid: Grid, benchmark: EarlyStoppingBenchmark, runs: Mapping[str, Contender]) -> Replayed:
    """Every contender in every order, to its own end and within each budget."""
    curves = list(grid.curves.values())
    orders = [shuffled(curves, seed) for seed in range(benchmark.shuffles)]

    def outcomes(build: Build, budgets: Iterable[int | None]) -> list[dict[str, float]]:
        found = []
        for jobs, budget in zip(orders, budgets, strict=True):
            steps = replay(curves, build(jobs, benchmark.slots, budget))
            kept = grid.kept(step.key for step in steps if step.complete)
            found.append({"epochs": steps[-1].spent / grid.epochs, **asdict(kept)})
        return found

    ended: dict[str, Ended] = {}
    for name, contender in runs.items():
        own = outcomes(contender.build, repeat(None, len(orders)))
        spent = [round(outcome["epochs"] * grid.epochs) for outcome in own]
        ended[name] = Ended(rule=summary(own), random=summary(outcomes(at_random, spent)))
    builds = {name: contender.build for name, contender in runs.items() if contender.spends} | {"random": at_random}
    budgets = {
        name: {
            f"{share:g}": summary(outcomes(build, repeat(int(share * grid.epochs), len(orders)))) for share in BUDGETS
        }
        for name, build in builds.items()
    }
    return Replayed(ended=ended, budgets=budgets)


def ends(replayed: Replayed) -> Table:
    """For the terminal: each rule at its own end, and random search beside it."""
    shown = Table("own end (random)", "epochs")
    for name in FIGURES:
        shown.add_column(name, justify="right")
    for name, ended in replayed["ended"].items():
        cells = [_cell(ended["rule"][figure], ended["random"][figure]) for figure in FIGURES]
        shown.add_row(name, f"{ended['rule']['epochs']['median']:.0%}", *cells)
    return shown


def within_budgets(replayed: Replayed, figure: str) -> Table:
    """For the terminal: one figure as a function of what may be spent."""
    shown = Table(f"{figure}, within")
    for share in BUDGETS:
        shown.add_column(f"{share:.0%}", justify="right")
    for name, at in replayed["budgets"].items():
        shown.add_row(name, *(f"{summary[figure]['median']:.4f}" for summary in at.values()))
    return shown


def check(benchmark: EarlyStoppingBenchmark) -> Grid:
    """The grid. ``ConfigError`` with all that is wrong, before anything runs."""
    problems = []
    if benchmark.shuffles < 1:
        problems.append(f"shuffles = {benchmark.shuffles}: must be at least 1; 50 is usual")
    if benchmark.slots < 1:
        problems.append(f"slots = {benchmark.slots}: must be at least 1")
    problems += problems_of(partial(recorded, benchmark.grid))
    if problems:
        raise ConfigError(problems)
    return Grid(recorded(benchmark.grid))


def main(benchmark: OmitArgPrefixes[EarlyStoppingBenchmark]) -> None:
    """Replay rules of early stopping over a recorded grid."""
    grid = check(benchmark)
    facts = circumstances(asdict(benchmark), *([SYNE_TUNE] if installed(SYNE_TUNE) else []))
    console = Console(highlight=False)
    if not installed(SYNE_TUNE):
        console.print(f"{SYNE_TUNE}: skipped, not installed; pip install -e '.[dev]'")
    runs = contenders()
    replayed = measure(grid, benchmark, runs)
    for shown in (ends(replayed), *(within_budgets(replayed, figure) for figure in FIGURES)):
        console.print(shown)
    found = {"trials": len(grid.curves), "epochs": grid.epochs}
    write(benchmark.out, {**replayed, "grid": found, **facts})


def _cell(own: Interval, random: Interval) -> str:
    return f"{own['median']:.4f} ({random['median']:.4f})"


if __name__ == "__main__":
    run_command(main)
