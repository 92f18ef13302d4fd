"""Expected improvement and its chance are those of ends drawn from the forecast."""

import numpy as np
import pytest

from analysis.fronts import Point, hypervolume
from analysis.improvement import Ends, improvement, scaled, unscaled
from analysis.objectives import objectives

BETWEEN = {"mse": (0.02, 0.05), "perplexity": (-300.0, -20.0), "bits": (200.0, 500.0)}
REFERENCE = {"mse": 0.06, "perplexity": 5.0, "bits": 600.0}
LIKELY = {"mse": 0.03, "perplexity": -150.0, "bits": 300.0}
DEVIATION = {"mse": 0.3, "perplexity": 0.3, "bits": 60.0}
ORDERS = [["mse", "perplexity"], ["mse", "bits"], ["bits", "mse"], ["perplexity", "mse"]]


@pytest.mark.parametrize("columns", ORDERS, ids=" ".join)
@pytest.mark.parametrize("correlation", [0.0, -0.7])
def test_two_objectives_grow_the_hypervolume_as_drawn_ends_do(columns: list[str], correlation: float) -> None:
    dice, aims = np.random.default_rng(0), objectives(columns)
    found: list[Point] = [tuple(dice.uniform(*BETWEEN[column]) for column in columns) for _ in range(4)]  # type: ignore[misc]
    reference: Point = tuple(REFERENCE[column] for column in columns)  # type: ignore[assignment]
    means = scaled(aims, np.array([[LIKELY[column] for column in columns]]))
    deviations = np.array([[DEVIATION[column] for column in columns]])
    expected, chance = improvement(aims, found, reference, Ends(means, deviations, np.array([correlation])))
    first, other = dice.normal(size=(2, 4000))
    both = np.column_stack([first, correlation * first + np.sqrt(1 - correlation**2) * other])
    before = hypervolume(found, reference)
    ends = [(float(x), float(y)) for x, y in unscaled(aims, means + deviations * both)]
    growth = [hypervolume([*found, end], reference) - before for end in ends]
    beyond = [not any(x <= end[0] and y <= end[1] for x, y in found) for end in ends]
    assert expected[0] == pytest.approx(np.mean(growth), rel=0.08)
    assert chance[0] == pytest.approx(np.mean(beyond), abs=0.03)


def test_one_objective_improves_as_drawn_ends_do() -> None:
    dice, aims = np.random.default_rng(0), objectives(["mse"])
    ends = Ends(np.log([[0.03], [0.05]]), np.array([[0.3], [0.1]]), np.zeros(2))
    expected, chance = improvement(aims, [(0.04, 0.0), (0.05, 0.0)], (0.1, 0.0), ends)
    drawn = np.log(0.04) - (ends.means + ends.deviations * dice.normal(size=(2, 20_000)))
    assert expected == pytest.approx(np.maximum(drawn, 0).mean(axis=1), rel=0.05, abs=1e-6)
    assert chance == pytest.approx((drawn > 0).mean(axis=1), abs=0.01)


def test_with_nothing_found_all_that_is_within_the_reference_counts() -> None:
    ends = Ends(np.array([[np.log(0.03), 300.0]]), np.array([[1e-6, 1e-6]]), np.zeros(1))
    expected, chance = improvement(objectives(["mse", "bits"]), [], (0.05, 500.0), ends)
    assert expected[0] == pytest.approx(0.02 * 200)
    assert chance[0] == 1.0
