"""Forecasts learn from the trials that are through what no rung shows, and keep an order where there is one."""

import math
import random

import pytest

from analysis.fronts import Point
from analysis.objectives import objectives
from sweeps.engine.forecast import Config, Forecast
from sweeps.engine.scheduler import FORECAST_FROM, Rule, SuccessiveHalving

BETAS = (0.1, 0.25, 1.0, 4.0)
BOTH = objectives(["mse", "perplexity"])


def trial(beta: float, estimator: str, luck: float) -> tuple[Config, Point, Point]:
    """Large betas start slowly and end well; the estimator counts at the end alone. MSE and negated perplexity."""
    place, better = BETAS.index(beta), 0.8 if estimator == "rotation" else 1.0
    config: Config = {"commitment_weight": beta, "estimator": estimator, "decay": 0.9}
    return config, (0.04 * 1.1**place * luck, -100 / 1.1**place), (0.03 * 0.9**place * luck * better, -200 * 1.1**place)


def some(number: int, seed: int = 0) -> list[tuple[Config, Point, Point]]:
    dice = random.Random(seed)
    return [
        trial(dice.choice(BETAS), dice.choice(("rotation", "ste")), dice.uniform(0.99, 1.01)) for _ in range(number)
    ]


def test_what_starts_slowly_and_ends_well_is_forecast_to_end_well() -> None:
    configs, points, finals = zip(*some(12), strict=True)
    forecast = Forecast(configs, points, finals)
    slow, fast = trial(4.0, "rotation", 1.0), trial(0.1, "ste", 1.0)
    assert slow[1] > fast[1]
    (slow_ends, fast_ends) = forecast.ends([slow[0], fast[0]], [slow[1], fast[1]])
    assert slow_ends[0] < fast_ends[0]
    assert slow_ends[1] < fast_ends[1]


def test_where_configurations_tell_nothing_the_order_at_the_rung_stays() -> None:
    points = [(0.01 * step, -float(step)) for step in range(1, 9)]
    forecast = Forecast([{"decay": 0.9}] * 8, points, [(mse / 2, both * 3) for mse, both in points])
    ends = forecast.ends([{"decay": 0.9}] * 8, points)
    assert sorted(range(8), key=lambda i: ends[i][0]) == list(range(8))
    assert sorted(range(8), key=lambda i: -ends[i][1]) == list(range(8))


@pytest.mark.parametrize("second", [0.0, 1.0])
def test_what_is_equal_everywhere_divides_by_nothing(second: float) -> None:
    forecast = Forecast([{"decay": 0.9}] * 3, [(0.1, second)] * 3, [(0.1, second)] * 3)
    for strange in ({"decay": 0.9}, {"decay": 0.5}):
        assert all(map(math.isfinite, forecast.ends([strange], [(0.2, second)])[0]))


def arrive(halving: SuccessiveHalving, number: int, one: tuple[Config, Point, Point], epoch: int) -> str:
    config, *points = one
    mse, negated = points[epoch == 8]
    key = f"t{number}"
    halving.on_result(key, config, epoch, {"mse": mse, "perplexity": -negated})
    return key


def test_a_halving_forecasts_once_enough_are_through() -> None:
    halving = SuccessiveHalving(Rule(BOTH, 2, reduction_factor=4, group_by=None, forecast=True), 8)
    slow, fast = trial(4.0, "rotation", 1.0), trial(0.1, "ste", 1.0)
    waiting = [arrive(halving, number, one, 2) for number, one in enumerate([fast, slow, fast, slow])]
    assert halving.promotable() == waiting[0]
    for number, one in enumerate(some(FORECAST_FROM), start=4):
        halving.promote(arrive(halving, number, one, 2))
        arrive(halving, number, one, 8)
    assert halving.promotable("all") == waiting[1]


def test_what_is_not_finite_is_never_promoted_by_a_forecast() -> None:
    halving = SuccessiveHalving(Rule(BOTH, 2, reduction_factor=2, group_by=None, forecast=True), 8)
    for number, one in enumerate(some(FORECAST_FROM)):
        halving.promote(arrive(halving, number, one, 2))
        arrive(halving, number, one, 8)
    halving.on_result("broken", trial(4.0, "rotation", 1.0)[0], 2, {"mse": math.nan, "perplexity": 300.0})
    assert halving.promotable("all") is None
    assert halving.reason("broken").startswith("rung 2: rank")
