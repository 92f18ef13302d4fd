"""The whole space: which estimator, how much commitment, how many codes, which decay?

python -m sweeps.pareto --num-gpus 8 --data cifar10 --trials 200 --seeds 5
"""

from dataclasses import dataclass

from sweeps.cli import main
from sweeps.engine.space import Range
from sweeps.engine.spec import SweepSpec
from sweeps.flags import EstimatorNames, SearchFlags


@dataclass(frozen=True)
class Pareto(SearchFlags):
    """Search the front of MSE against perplexity over estimators, commitment weights, codebook sizes and decays."""

    estimators: EstimatorNames = ("rotation", "ste")
    codebook_sizes: tuple[int, ...] = (256, 512, 1024, 2048)
    """Numbers of codes."""
    decays: tuple[float, ...] = (0.8, 0.9, 0.97, 0.99)
    """Of the codebook's moving averages."""
    betas: tuple[float, float] = (0.05, 4.0)
    """Least and largest commitment weight."""


def spec(flags: Pareto) -> SweepSpec:
    """What varies: values, or a range."""
    return SweepSpec(
        {
            "codebook_size": flags.codebook_sizes,
            "estimator": flags.estimators,
            "decay": flags.decays,
            "commitment_weight": Range(*flags.betas, log=True),
        }
    )


if __name__ == "__main__":
    main("pareto", Pareto, spec)
