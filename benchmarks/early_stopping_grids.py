"""Recorded grids, three questions that a sweep asks, and what is left to find once some trials are found.

Only trials that reached the full budget count as found. Less is better in each figure:

* regret: the best final MSE found at a codebook size above the best there is, averaged over the sizes; a size of which
  none is found counts with its worst;
* spread: the part of the hypervolume of MSE (down) against perplexity (up) that is not found;
* rate: the same of MSE against the bits of a code under an ideal entropy coder (both down).

The reference point of a hypervolume is the grid's worst MSE with a perplexity of 1, or with a rate of one bit more than
the largest codebook's fixed-length code.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Literal

from analysis.fronts import Directions, hypervolume
from analysis.objectives import Objective, objectives
from benchmarks.curves import Curve, recorded
from vqcore.config import Scalar

RECORDED = Path("benchmarks/recorded")
GIVEN = "given"
"""The name of a grid that is no recorded one."""

Figure = Literal["regret", "spread", "rate"]


@dataclass(frozen=True)
class Question:
    """What a sweep is to find."""

    figure: Figure
    objectives: tuple[Objective, ...]
    group_by: str | None


MSE, SPREAD, RATE = objectives(["mse"]), objectives(["mse", "perplexity"]), objectives(["mse", "bits"])
QUESTIONS = {
    "best at each size": Question("regret", MSE, "codebook_size"),
    "MSE and perplexity": Question("spread", SPREAD, "codebook_size"),
    "MSE and rate": Question("rate", RATE, None),
}


class Part:
    """The trials of a grid that share a seed, or all of them."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = {curve.key: curve for curve in curves}
        self.epochs = sum(len(curve.epochs) for curve in curves)
        mse: dict[Scalar, list[float]] = defaultdict(list)
        for curve in curves:
            if math.isfinite(curve.final["mse"]):
                mse[curve.config["codebook_size"]].append(curve.final["mse"])
        self._best, self._worst = ({size: pick(values) for size, values in mse.items()} for pick in (min, max))
        worst = max(self._worst.values(), default=0.0)
        self._references = {"spread": (worst, 1.0), "rate": (worst, math.log2(max(map(float, mse), default=1)) + 1)}
        self._whole = {figure: self._area(figure, curves) for figure in _PLANES}

    def left(self, figure: Figure, keys: Iterable[str]) -> float:
        """Once the trials ``keys`` are found."""
        found = [self.curves[key] for key in keys]
        if figure == "regret":
            return self._regret(found)
        whole = self._whole[figure]
        return 1 - self._area(figure, found) / whole if whole else 0.0

    def _area(self, figure: str, curves: Iterable[Curve]) -> float:
        second, directions = _PLANES[figure]
        points = [(curve.final["mse"], second(curve)) for curve in curves]
        return hypervolume(points, self._references[figure], directions)

    def _regret(self, found: Iterable[Curve]) -> float:
        best = dict(self._worst)
        for curve in found:
            if (size := curve.config["codebook_size"]) in best:
                best[size] = min(best[size], curve.final["mse"])
        return fmean(best[size] / least - 1 for size, least in self._best.items()) if best else 0.0


_PLANES: Mapping[str, tuple[Callable[[Curve], float], Directions]] = {
    "spread": (lambda curve: curve.final["perplexity"], ("min", "max")),
    "rate": (lambda curve: math.log2(curve.final["perplexity"]), ("min", "min")),
}
"""What MSE is seen against."""


@dataclass(frozen=True)
class Grid:
    """A recorded sweep whose trials were all trained to the full budget."""

    name: str
    parts: tuple[Part, ...]
    """One a seed where configurations were trained with several, since a sweep's trials differ in more than luck."""
    noise: float | None
    """The standard deviation of a configuration's log final MSE over seeds, of the median configuration: of the mean
    it would be that of the few that collapse with one seed. None where each has one seed."""

    @classmethod
    def of(cls, name: str, curves: Sequence[Curve]) -> "Grid":
        """The grid that these curves make."""
        noise = _noise(curves)
        if noise is None:
            return cls(name, (Part(curves),), None)
        by_seed: dict[Scalar, list[Curve]] = defaultdict(list)
        for curve in curves:
            by_seed[curve.config["seed"]].append(curve)
        return cls(name, tuple(Part(by_seed[seed]) for seed in sorted(by_seed)), noise)

    def facts(self) -> dict[str, int]:
        """Its size, for the file."""
        counted = {"trials": sum(len(part.curves) for part in self.parts), "seeds": len(self.parts)}
        return {**counted, "epochs": sum(part.epochs for part in self.parts)}

    def part(self, order: int) -> Part:
        """The one that is replayed in an order of that number: the seeds take turns."""
        return self.parts[order % len(self.parts)]


def recorded_grids(folder: Path, but: Path | None = None) -> list[Grid]:
    """All of a folder, without the file ``but``. ``ConfigError`` if one cannot be read."""
    files = [file for file in sorted(folder.glob("*.parquet")) if but is None or file.resolve() != but.resolve()]
    return [Grid.of(file.stem, recorded(file)) for file in files]


def floors(grids: Iterable[Grid], all_recorded: Iterable[Grid]) -> dict[str, float]:
    """By grid: the regret that a seed's luck decides. A grid of one seed has the median of the recorded others'."""
    usual = median([grid.noise for grid in all_recorded if grid.noise is not None] or [0.0])
    return {grid.name: usual if grid.noise is None else grid.noise for grid in grids}


def _noise(curves: Iterable[Curve]) -> float | None:
    by_config: dict[tuple[tuple[str, Scalar], ...], dict[Scalar, float]] = defaultdict(dict)
    for curve in curves:
        if (mse := curve.final["mse"]) > 0 and math.isfinite(mse):
            config = tuple(sorted((name, value) for name, value in curve.config.items() if name != "seed"))
            by_config[config][curve.config["seed"]] = math.log(mse)
    several = [list(logs.values()) for logs in by_config.values() if len(logs) > 1]
    return median(map(stdev, several)) if several else None
