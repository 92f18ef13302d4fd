"""Forecasts learn from the trials that are through what no rung shows, and say how sure they are."""

import math
import random

import numpy as np
import pytest

from analysis.forecast import Config, Fields, Floats, Forecast, rungs, told_by

BETAS = (0.1, 0.25, 1.0, 4.0)


def trial(beta: float, estimator: str, luck: float) -> tuple[Config, list[float], list[float]]:
    """Large betas start slowly and end well; the estimator counts at the end alone. log MSE and negated log perplexity,
    at the first rung and at the end."""
    place, better = BETAS.index(beta), 0.8 if estimator == "rotation" else 1.0
    config: Config = {"commitment_weight": beta, "estimator": estimator, "decay": 0.9}
    start, end = 0.04 * 1.1**place * luck, 0.03 * 0.9**place * luck * better
    return config, [math.log(start), -math.log(100 / 1.1**place)], [math.log(end), -math.log(200 * 1.1**place)]


def some(number: int, seed: int = 0) -> tuple[list[Config], Floats, Floats]:
    """Configurations, what they reached at the first rung, and their ends."""
    dice = random.Random(seed)
    kinds = ((dice.choice(BETAS), dice.choice(("rotation", "ste")), dice.uniform(0.99, 1.01)) for _ in range(number))
    configs, starts, ends = zip(*(trial(*kind) for kind in kinds), strict=True)
    return list(configs), np.array(starts)[:, None], np.array(ends)


def test_rungs_are_half_as_far_again_each_and_below_the_last_epoch() -> None:
    assert rungs(20) == (1, 2, 3, 5, 8, 12, 18)
    assert rungs(2) == (1,)
    assert rungs(1) == ()
    assert [told_by(rung) for rung in (0, 1, 2, 8)] == [(), (1,), (1, 2), (5, 8)]


def test_what_starts_slowly_and_ends_well_is_forecast_to_end_well() -> None:
    configs, reached, ends = some(12)
    forecast = Forecast(Fields(configs), configs, reached, ends)
    slow, fast = trial(4.0, "rotation", 1.0), trial(0.1, "ste", 1.0)
    assert slow[1][0] > fast[1][0]
    found = forecast.ends([slow[0], fast[0]], np.array([[slow[1]], [fast[1]]]))
    assert found.means[0, 0] < found.means[1, 0]
    assert found.means[0, 0] == pytest.approx(slow[2][0], abs=2 * found.deviations[0, 0])


def test_its_deviations_are_those_of_ends_that_it_did_not_know() -> None:
    """On curves with noise of a known size: more than its 68 % lie within one deviation, and not nearly all."""
    dice = np.random.default_rng(0)
    inside = []
    for seed in range(20):
        configs, reached, ends = some(40, seed)
        ends = ends + dice.normal(0, 0.1, ends.shape)
        forecast = Forecast(Fields(configs), configs[:20], reached[:20], ends[:20])
        found = forecast.ends(configs[20:], reached[20:])
        inside.append(np.abs(found.means - ends[20:]) < found.deviations)
    assert 0.6 < np.mean(inside) < 0.85


def test_a_value_that_no_trial_had_that_is_through_makes_it_vague() -> None:
    configs, reached, ends = some(12)
    stranger = {**configs[0], "estimator": "simvq"}
    forecast = Forecast(Fields([*configs, stranger]), configs, reached, ends)
    known, unknown = forecast.ends([configs[0], stranger], reached[[0, 0]]).deviations
    assert (unknown > 1.5 * known).all()


def test_errors_that_go_together_are_seen_to() -> None:
    dice = np.random.default_rng(0)
    configs, reached, ends = some(60)
    common = dice.normal(0, 0.1, (60, 1))
    for sign in (1, -1):
        both = Forecast(Fields(configs), configs, reached, ends + common * [1, sign])
        assert both.ends(configs[:1], reached[:1]).correlations[0] * sign > 0.7


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_what_is_equal_everywhere_divides_by_nothing(epochs: int) -> None:
    same: Config = {"decay": 0.9}
    forecast = Forecast(Fields([same]), [same] * 3, np.full((3, epochs, 2), 0.1), np.full((3, 2), 0.1))
    for strange in (same, {"decay": 0.5}, {}):
        found = forecast.ends([strange], np.full((1, epochs, 2), 0.2))
        assert np.isfinite(np.concatenate([found.means, found.deviations])).all()
