"""Which gradient estimator? Each tunes its own commitment weight and decay on one declared budget (E7).

At the textbook's decay one estimator may look worse that is better when tuned. So each gets as many trials, its best
configurations get more seeds, and the report compares those: paired tests with Holm's correction, and the best to
expect after n trials.

python -m sweeps.estimators --num-gpus 8 --data cifar10 --trials 40 --seeds 5
"""

from dataclasses import dataclass

from sweeps.cli import main
from sweeps.engine.space import Range
from sweeps.engine.spec import SweepSpec
from sweeps.flags import EstimatorNames, SearchFlags


@dataclass(frozen=True)
class Estimators(SearchFlags):
    """Compare gradient estimators, each with its own tuned commitment weight and decay."""

    estimators: EstimatorNames = ("rotation", "ste")
    betas: tuple[float, float] = (0.05, 4.0)
    """Least and largest commitment weight."""
    decays: tuple[float, float] = (0.8, 0.995)
    """Least and largest decay of the codebook's moving averages."""


def spec(flags: Estimators) -> SweepSpec:
    """The same range for each estimator, and the same number of trials."""
    return SweepSpec(
        {
            "estimator": flags.estimators,
            "commitment_weight": Range(*flags.betas, log=True),
            "decay": Range(*flags.decays),
        },
        stratify_by="estimator",
    )


if __name__ == "__main__":
    main("estimators", Estimators, spec)
