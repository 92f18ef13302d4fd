"""The trials of a sweep."""

import pytest

from sweeps.engine.spec import SweepSpec
from vqcore.config import ConfigError


def spec(**space: tuple[object, ...]) -> SweepSpec:
    return SweepSpec(space, seeds=2)  # type: ignore[arg-type]


def test_grid_seed_by_seed() -> None:
    configs = spec(estimator=("rotation", "ste"), commitment_weight=(0.1, 1.0)).configs()
    got = [(c.training.seed, c.model.quantizer.estimator, c.model.quantizer.commitment_weight) for c in configs]
    one_seed = [("rotation", 0.1), ("rotation", 1.0), ("ste", 0.1), ("ste", 1.0)]
    assert got == [(seed, *rest) for seed in (0, 1) for rest in one_seed]


def test_swept_is_what_varies() -> None:
    assert spec(estimator=("ste",), commitment_weight=(0.1, 1.0)).swept == ("commitment_weight",)
    assert spec(estimator=("ste",), commitment_weight=(0.1,)).swept == ("estimator", "commitment_weight")


def test_every_problem_of_every_trial_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        SweepSpec({"commitment_weight": (-1.0, 0.1, 0.1), "estimator": ("nope",)}, 0).configs()
    text = str(error.value)
    for part in ("seeds = 0", "-1.0", "'nope'", "each value once"):
        assert part in text
