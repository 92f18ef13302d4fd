"""python -m benchmarks.selection: how often the interval of a sweep's winner holds, and how wide it is.

Configurations with true values that are normal around 0 are measured with noise of one seed sd, and the one with the
best mean is quoted. Three ways to get there:

* finalists: a search in which one seed screens and the best 8 by it get all other seeds;
* doubling: a search by two objectives as ``sweeps.engine.trials`` runs it, which doubles the seeds of what may be on
  the front as long as that is not settled, by all the seeds that it has;
* grid: all configurations have the same seeds, and no seed chooses.

Beside the intervals of ``analysis.stats.simultaneous_margins`` stand two plain t intervals: over the same seeds, and
with the screening seed among them, as sweeps had it until 2c7fd1d. The first is also the oracle's, who knew beforehand
who would win, so that the width is told as a multiple of its. Three kinds of noise: alike; with an effect of the seed,
as large as the rest, that all configurations share; and uneven, with a sd that differs between configurations.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from analysis.fronts import near_front, probability_on_front
from analysis.stats import Estimate, simultaneous_margins
from benchmarks.record import circumstances, write
from sweeps.engine.trials import MOST_FINALISTS
from trainables.commands import run_command

# Shape suffixes: C configurations, S seeds with the screening one first, O the two objectives.
Floats = NDArray[np.float64]

Way = Literal["finalists", "doubling", "grid"]
Noise = Literal["alike", "shared", "uneven"]

SPREADS = (0.0, 0.5, 1.0, 2.0)
"""The sd of the true values, in seed sds."""
UNEVEN = 0.5
"""The sd of the logarithm of the seed sd, where that is uneven: the noisiest of 60 is then ten times the calmest."""


@dataclass(frozen=True)
class SelectionBenchmark:
    """Simulate how a winner is picked and quoted."""

    repeats: int = 1000
    """Simulated sweeps of each kind; a quarter of them for grids, a tenth for doubling, which takes longest and is
    simulated up to 60 configurations."""
    configurations: tuple[int, ...] = (10, 60, 200)
    seeds: tuple[int, ...] = (3, 5, 10)
    """Beside the screening one; in a grid, all."""
    out: Path = Path("benchmarks/results/selection.json")
    """The JSON file to write."""


@dataclass(frozen=True)
class Case:
    """One kind of sweep."""

    way: Way
    configurations: int
    seeds: int
    spread: float
    noise: Noise = "alike"


@dataclass(frozen=True)
class Outcome:
    """What became of the quoted winners."""

    covered: float
    """Share of the simultaneous intervals that hold the winner's true value."""
    plain: float
    """The same of the plain t interval over the same seeds."""
    screened: float | None
    """The same of the plain t interval with the screening seed; none for a grid."""
    width: float
    """Median of the simultaneous intervals' width, by that of the plain one over the same seeds."""


def simulate(case: Case, repeats: int, seed: int = 0) -> Outcome:
    """So many sweeps of one kind, each with its winner."""
    chance = np.random.default_rng(seed)
    truths, estimates = zip(*(_winner(case, chance) for _ in range(repeats)), strict=True)
    ours, plain, screened = zip(*estimates, strict=True)
    with_screening = None if case.way == "grid" else _covered(screened, truths)
    width = median(map(_half, ours)) / median(map(_half, plain))
    return Outcome(_covered(ours, truths), _covered(plain, truths), with_screening, round(width, 3))


def _covered(estimates: Sequence[Estimate], truths: Sequence[float]) -> float:
    return fmean(abs(one.mean - true) <= _half(one) for one, true in zip(estimates, truths, strict=True))


def _half(estimate: Estimate) -> float:
    low, high = estimate.interval() or (math.nan, math.nan)
    return (high - low) / 2


def _winner(case: Case, chance: np.random.Generator) -> tuple[float, tuple[Estimate, Estimate, Estimate]]:
    """The winner's true value and its estimates: simultaneous, plain, and plain with the screening seed."""
    true_CO = case.spread * chance.normal(size=(case.configurations, 2))
    values_CSO = true_CO[:, None] + _noise(case, chance)
    had = {"finalists": _finalists, "doubling": _doubling, "grid": _grid}[case.way](values_CSO)
    chosen = [c for c, number in enumerate(had) if number > 1]
    counted = [dict(enumerate(values_CSO[c, 1 : had[c], 0].tolist(), 1)) for c in chosen]
    means = [(x, y) for x, y in (values_CSO[c, 1 : had[c]].mean(axis=0).tolist() for c in chosen)]
    margins = simultaneous_margins(counted, means)
    best = min((i for i, margin in enumerate(margins) if margin == margin), key=lambda i: means[i][0])
    plain = Estimate.of(list(counted[best].values()))
    screened = Estimate.of(values_CSO[chosen[best], : had[chosen[best]], 0].tolist())
    return float(true_CO[chosen[best], 0]), (replace(plain, margin=margins[best]), plain, screened)


def _noise(case: Case, chance: np.random.Generator) -> Floats:
    shape = (case.configurations, case.seeds + 1, 2)
    noise_CSO = chance.normal(size=shape)
    if case.noise == "uneven":
        noise_CSO *= np.exp(UNEVEN * chance.normal(size=(case.configurations, 1, 1)))
    if case.noise == "shared":
        noise_CSO += chance.normal(size=shape[1:])
    return noise_CSO


def _grid(values_CSO: Floats) -> list[int]:
    """How many seeds each has, the first of them left out."""
    return [values_CSO.shape[1]] * len(values_CSO)


def _finalists(values_CSO: Floats) -> list[int]:
    order = np.argsort(values_CSO[:, 0, 0], kind="stable")[:MOST_FINALISTS]
    return [values_CSO.shape[1] if c in order else 1 for c in range(len(values_CSO))]


def _doubling(values_CSO: Floats) -> list[int]:
    points = [[(x, y) for x, y in one] for one in values_CSO.tolist()]
    had = [1] * len(points)
    while True:
        by_seed = [dict(enumerate(one[:number])) for one, number in zip(points, had, strict=True)]
        near = near_front(by_seed, probability_on_front(by_seed), MOST_FINALISTS)
        more = [c for c in near if had[c] < values_CSO.shape[1]]
        if not more:
            return had
        for c in more:
            had[c] = min(2 * had[c], values_CSO.shape[1])


def cases(benchmark: SelectionBenchmark) -> list[Case]:
    """Every kind of sweep; successive doubling, which takes long, with one kind of noise."""
    ways: Sequence[tuple[Way, Noise]] = [
        ("finalists", "alike"), ("doubling", "alike"), ("grid", "alike"),
        ("finalists", "shared"), ("grid", "shared"), ("finalists", "uneven"), ("grid", "uneven"),
    ]  # fmt: skip
    kinds = product(ways, benchmark.configurations, benchmark.seeds, SPREADS)
    found = [Case(way, number, seeds, spread, noise) for (way, noise), number, seeds, spread in kinds]
    return [case for case in found if case.way != "doubling" or case.configurations <= 60]


def main(benchmark: OmitArgPrefixes[SelectionBenchmark]) -> None:
    """Simulate how a winner is picked and quoted, and print how often its interval holds."""
    facts, outcomes = circumstances(asdict(benchmark)), dict[Case, Outcome]()
    share = {"finalists": 1, "grid": 4, "doubling": 10}
    console = Console()
    for case in cases(benchmark):
        outcomes[case] = simulate(case, max(benchmark.repeats // share[case.way], 2))
        if case.spread == SPREADS[-1]:
            console.print(f"{case.way}, {case.noise}: {case.configurations} configurations, {case.seeds} seeds")
    console.print(summary(outcomes))
    found = [asdict(case) | asdict(one) for case, one in outcomes.items()]
    write(benchmark.out, {"outcomes": found, **facts})


def summary(outcomes: dict[Case, Outcome]) -> Table:
    """By way and noise: the worst over configurations and seeds of each figure, a column a spread for the coverage."""
    worst: dict[tuple[Way, Noise], list[tuple[Case, Outcome]]] = defaultdict(list)
    for case, outcome in outcomes.items():
        worst[case.way, case.noise].append((case, outcome))
    table = Table(
        "way", "noise", *(f"spread {spread:g}" for spread in SPREADS), "plain", "with seed 0", "width", box=None
    )
    for kind, found in worst.items():
        by_spread = [min(one.covered for case, one in found if case.spread == spread) for spread in SPREADS]
        plain, screened = min(one.plain for _, one in found), min(one.screened or math.inf for _, one in found)
        cells = [f"{value:.3f}" if value < math.inf else "–" for value in (*by_spread, plain, screened)]
        table.add_row(*kind, *cells, f"{max(one.width for _, one in found):.2f}")
    return table


if __name__ == "__main__":
    run_command(main)
