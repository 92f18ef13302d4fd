"""A space: which configurations it makes and which it refuses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.engine.space import (
    MOST_CORNERS,
    Choice,
    Range,
    Space,
    check_space,
    corners,
    every,
    is_finite,
    resolve,
)
from sweeps.flags import Flags, base_config
from vqcore.config import TrialConfig, meaningless, problems_of

BASE = TrialConfig()
FSQ = {"layer": "fsq", "levels": "8,5,5,5"}

CONDITIONAL: dict[str, Choice] = {
    "layer": ("vq", "fsq"),
    "levels": ("8,5,5,5", "4,4,4"),
    "symmetric": (False, True),
    "codebook": ("ema", "ema_debiased", "gradient"),
    "estimator": ("rotation", "rotation_unscaled", "ste", "reflection", "gumbel"),
    "max_rescale": (2.0, 10.0),
    "obtuse": ("rotate", "ste"),
    "temperature": (0.5, 1.0),
    "commitment_weight": (0.25, 1.0),
    "decay": (0.9, 0.99),
    "nu": (0.0, 0.1),
    "codebook_weight": (0.5, 1.0),
    "affine": ("none", "learned", "statistics"),
    "affine_groups": (1, 4),
    "affine_rate": (0.5, 1.0),
    "revive_below": (0.0, 0.1),
    "revive_share": (0.1, 0.5),
    "alternate": (False, True),
}
drawn = st.fixed_dictionaries({name: st.sampled_from(choice) for name, choice in CONDITIONAL.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base", "changes", "name", "value"),
    [
        ({}, {"codebook": "gradient", "decay": 0.9}, "decay", 0.99),
        ({}, {"codebook": "gradient", "decay": 0.9, "revive_below": 0.1}, "decay", 0.9),
        ({"max_rescale": 2.0}, {"estimator": "ste"}, "max_rescale", 10.0),
        ({}, {"levels": "8,5,5,5"}, "levels", ""),
        ({}, {"codebook": "gradient", "estimator": "gumbel", "nu": 0.1}, "nu", 0.0),
        ({"codebook": "gradient", "affine": "learned", "affine_groups": 4}, {"codebook": "ema"}, "affine_groups", 1),
        ({}, {**FSQ, "codebook_size": 512}, "codebook_size", 1000),
    ],
)
def test_what_changes_nothing_is_put_back(
    base: dict[str, Any], changes: dict[str, Any], name: str, value: object
) -> None:
    assert resolve(BASE.replace(**base), changes).flat()[name] == value


@given(drawn, drawn)
def test_configurations_that_train_alike_are_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    config = resolve(BASE, one)
    idle = meaningless(config.flat())
    assert resolve(config, {}) == config
    assert resolve(BASE, {**one, **{name: other[name] for name in idle if name in other}}) == config
    assert all(config.flat()[n] == value for n, value in idle.items() if n not in ("codebook_size", "dim"))


def test_a_space_in_which_nothing_is_wrong() -> None:
    check_space(CONDITIONAL, BASE)
    check_space({"commitment_weight": Range(0.05, 4, log=True), "codebook_size": Range(64, 1024)}, BASE)


def test_the_first_values_of_a_space_need_not_have_a_meaning_together() -> None:
    base = base_config(Flags(), {"layer": ("vq", "fsq"), "levels": ("8,8", "4,4"), "codebook_size": (64, 16)})
    assert (base.model.quantizer.levels, base.model.quantizer.codebook_size) == ("", 64)


def test_everything_that_is_wrong_at_once() -> None:
    space: dict[str, Any] = {
        "beta": (0.1, 1.0),
        "seed": (0, 1),
        "epochs": (5, 10),
        "estimator": (),
        "decay": (0.9, 0.9),
        "nu": (-1.0, 0.1),
        "codebook": ("gradient",),
        "init": Range(0, 1),
        "symmetric": Range(0, 1),
        "codebook_size": Range(64, 1024.5),
        "batch_size": Range(64, 32),
        "channels": Range(32, 32),
        "learning_rate": Range(0, 1e-3, log=True),
        "commitment_weight": Range(0.1, float("inf")),
        "temperature": Range(True, 2),
        "codebook_weight": Range(-1.0, 1.0),
    }
    problems = problems_of(lambda: check_space(space, BASE))
    assert [problem.split(" ")[0].rstrip(":") for problem in problems] == [
        "beta", "seed", "epochs", "estimator", "decay", "init", "symmetric", "codebook_size", "batch_size", "channels",
        "learning_rate", "commitment_weight", "temperature", "nu", "codebook_weight",
    ]  # fmt: skip
    for part in (
        "beta: no such field; there are codebook_size",
        "seed: repeats configurations and is not one of their fields; --seeds says how often",
        "epochs: is the budget of all trials alike; --epochs sets it",
        "estimator: no values to sweep",
        "decay = (0.9, 0.9): each value once",
        "init: a range is of numbers",
        "codebook_size from 64 to 1024.5, log = False: must go from a finite number up to a larger one, in whole",
        "nu = -1.0: must be a finite number, 0 or more",
        "codebook_weight = -1.0: must be",
    ):
        assert part in "\n".join(problems)


@pytest.mark.parametrize(
    ("base", "space", "problem"),
    [
        ({"estimator": "ste"}, {"max_rescale": (2.0, 10.0)}, "max_rescale: changes nothing here"),
        ({}, {"levels": ("8,8", "4,4")}, "levels: changes nothing here"),
        (
            {"layer": "fsq", "levels": "8,8", "estimator": "ste", "commitment_weight": 0},
            {"estimator": ("ste", "rotation"), "symmetric": (False, True)},
            "estimator: changes nothing here",
        ),
        (
            {"codebook": "gradient"},
            {"affine": ("learned",), "affine_groups": (1, 3)},
            "must divide codebook_size = 512",
        ),
        ({}, {"layer": ("vq", "fsq")}, "levels = '': fsq needs whole numbers"),
    ],
)
def test_what_one_cannot_vary_alone(base: dict[str, Any], space: Space, problem: str) -> None:
    (found,) = problems_of(lambda: check_space(space, BASE.replace(**base)))
    assert problem in found


def test_a_large_space_is_checked_by_a_part_that_holds_every_value() -> None:
    found = list(corners(CONDITIONAL))
    assert len(found) == MOST_CORNERS
    for name, choice in CONDITIONAL.items():
        assert {changes[name] for changes in found} == set(choice)  # type: ignore[arg-type]


def test_a_finite_space_is_listed_without_repetition() -> None:
    space: Space = {"estimator": ("rotation", "ste"), "max_rescale": (2.0, 10.0), "codebook_size": Range(8, 10)}
    found = list(every(space, BASE))
    assert is_finite(space)
    assert len(found) == len(set(found)) == (2 + 1) * 3
    assert not is_finite({**space, "decay": Range(0.8, 0.99)})
    grouped: Space = {
        "codebook": ("gradient",),
        "affine": ("learned",),
        "affine_groups": (1, 4),
        "codebook_size": (8, 9),
    }
    assert len(list(every(grouped, BASE))) == 3, "4 groups of 9 codes are none"
