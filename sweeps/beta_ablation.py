"""The beta ablation: how much commitment? The paper's table 3 (E4), for any estimators, with repeated seeds.

python -m sweeps.beta_ablation --num-gpus 8 --data cifar10
"""

from dataclasses import dataclass

from sweeps.cli import main
from sweeps.engine.spec import SweepSpec
from sweeps.flags import EstimatorNames, Flags


@dataclass(frozen=True)
class BetaAblation(Flags):
    """Train a VQ-VAE for each commitment weight beta and each estimator, with repeated seeds."""

    betas: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0, 2.0)
    """Commitment weights."""
    estimators: EstimatorNames = ("rotation",)


def spec(flags: BetaAblation) -> SweepSpec:
    """The swept fields and their values."""
    return SweepSpec({"estimator": flags.estimators, "commitment_weight": flags.betas})


if __name__ == "__main__":
    main("beta_ablation", BetaAblation, spec)
