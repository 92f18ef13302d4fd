"""How many codes? The paper's table 2 (E3): small, medium, large and x-large, with repeated seeds.

python -m sweeps.codebook_sizes --num-gpus 8 --data cifar10 --preset paper
"""

from dataclasses import dataclass

from sweeps.cli import main
from sweeps.engine.spec import SweepSpec
from sweeps.flags import EstimatorNames, Flags

SIZES = {"small": 256, "medium": 512, "large": 1024, "x-large": 2048}
"""Codes of the paper's sizes (V16)."""


@dataclass(frozen=True)
class CodebookSizes(Flags):
    """Train a VQ-VAE with each number of codes and each estimator, with repeated seeds."""

    sizes: tuple[str, ...] = tuple(SIZES)
    """small, medium, large, x-large (256, 512, 1024, 2048 codes), or any numbers of codes."""
    estimators: EstimatorNames = ("rotation",)


def spec(flags: CodebookSizes) -> SweepSpec:
    """The swept fields and their values."""
    sizes = tuple(SIZES.get(size) or (int(size) if size.isdecimal() else size) for size in flags.sizes)
    return SweepSpec({"estimator": flags.estimators, "codebook_size": sizes})


if __name__ == "__main__":
    main("codebook_sizes", CodebookSizes, spec)
