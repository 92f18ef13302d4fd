"""python -m benchmarks.grids.seeded: a grid of which every configuration is trained with as many seeds, to its end.

Two of the recorded grids are made by it, so that the noise of a seed is known there:

    # short and noisy: few large steps a trial, small batches, a tiny model
    python -m benchmarks.grids.seeded --seeds 3 --epochs 8 --batch-size 16 --learning-rate 3e-3 --decays 0.8 0.99 \\
        --betas 0.1 1 4 --precision fp32 --set channels=16 hidden_channels=32 --name noisy
    # grey letters instead of photographs, after `python -m benchmarks.grids.images glyphs data/glyphs`
    python -m benchmarks.grids.seeded --seeds 3 --epochs 12 --batch-size 32 --learning-rate 1e-3 --decays 0.8 0.95 \\
        --betas 0.1 0.5 2 --precision fp32 --set channels=16 hidden_channels=32 --data data/glyphs --name glyphs
"""

from dataclasses import dataclass

from sweeps.cli import main
from sweeps.engine.space import Space
from sweeps.engine.spec import SweepSpec
from sweeps.flags import EstimatorNames, Flags


@dataclass(frozen=True)
class SeededGrid(Flags):
    """Train every configuration with every seed."""

    sizes: tuple[int, ...] = (32, 128, 512)
    """Numbers of codes."""
    estimators: EstimatorNames = ("rotation", "ste")
    decays: tuple[float, ...] = (0.8, 0.95)
    """Of the codebook's moving averages."""
    betas: tuple[float, ...] = (0.1, 0.5, 2.0)
    """Commitment weights."""


def spec(flags: SeededGrid) -> SweepSpec:
    """The swept fields and their values."""
    fields: Space = {"codebook_size": flags.sizes, "estimator": flags.estimators}
    return SweepSpec({**fields, "decay": flags.decays, "commitment_weight": flags.betas})


if __name__ == "__main__":
    main("seeded", SeededGrid, spec)
