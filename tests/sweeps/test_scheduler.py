"""Which trials are promoted: decisions of successive halving, without a sweep."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fronts import front
from analysis.objectives import objectives
from analysis.stopping import EARLY
from sweeps.engine.scheduler import Halving, SuccessiveHalving
from vqcore.config import ConfigError

BOTH = objectives(["mse", "perplexity"])
MSE = objectives(["mse"])


def at_first_rung(
    points: list[tuple[float, float]], rule: Halving, sizes: list[int] | None = None
) -> SuccessiveHalving:
    halving = SuccessiveHalving(rule, 100)
    for number, (mse, perplexity) in enumerate(points):
        config = {"codebook_size": sizes[number] if sizes else 512}
        metrics = {"mse": mse, "perplexity": perplexity}
        assert halving.on_result(f"t{number}", config, rule.grace_period, metrics)
    return halving


def promoted(halving: SuccessiveHalving, rounding: str = "down") -> list[str]:
    keys = []
    while (key := halving.promotable(rounding)) is not None:  # type: ignore[arg-type]
        halving.promote(key)
        keys.append(key)
    return keys


def test_rungs_are_reduction_times_as_far_each_and_below_the_budget() -> None:
    assert Halving(BOTH, grace_period=2, reduction_factor=3).rungs(20) == (2, 6, 18)
    assert Halving(BOTH, grace_period=1, reduction_factor=2).rungs(8) == (1, 2, 4)
    assert Halving(BOTH, grace_period=1, reduction_factor=1.5).rungs(4) == (1, 2, 3), "close steps give each epoch once"
    assert Halving(BOTH, grace_period=5).rungs(5) == ()


def test_a_trial_waits_at_each_rung_and_nowhere_else() -> None:
    halving = SuccessiveHalving(Halving(BOTH, grace_period=2), 20)
    assert [halving.next_rung(epoch) for epoch in (0, 2, 18)] == [2, 6, 20]
    assert not halving.on_result("a", {}, 3, {"mse": 1.0, "perplexity": 1.0})
    assert halving.on_result("a", {}, 6, {"mse": 1.0, "perplexity": 1.0})


def test_one_in_three_goes_on_the_best_by_rank() -> None:
    # t0 and t4 are dominated by nobody; t4 was seen last
    halving = at_first_rung([(1.0, 10), (2.0, 5), (3.0, 5), (4.0, 5), (2.0, 50), (5.0, 5)], Halving(BOTH))
    assert promoted(halving) == ["t0", "t4"]
    assert halving.reason("t1") == "rung 2: rank 3 of 6, kept 1 in 3"
    assert halving.reason("t1").startswith(EARLY), "as the report knows it"


def test_a_trial_that_waits_goes_on_when_worse_ones_have_come() -> None:
    halving = at_first_rung([(1.0, 1.0), (2.0, 1.0)], Halving(MSE))
    assert promoted(halving) == []
    halving.on_result("late", {"codebook_size": 512}, 2, {"mse": 3.0, "perplexity": 1.0})
    assert promoted(halving) == ["t0"]


def test_the_room_is_rounded_up_once_a_slot_would_stand_still() -> None:
    halving = at_first_rung([(1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0)], Halving(MSE))
    assert promoted(halving) == ["t0"]
    assert promoted(halving, "up") == ["t1"]
    assert promoted(halving, "all") == ["t2", "t3"]


def test_codebook_sizes_are_compared_among_themselves_unless_told_otherwise() -> None:
    points = [(float(i), 100.0 - i) for i in range(6)]
    sizes = [64, 64, 64, 512, 512, 512]
    assert sorted(promoted(at_first_rung(points, Halving(BOTH), sizes))) == ["t0", "t3"]
    assert promoted(at_first_rung(points, Halving(BOTH, group_by=None), sizes)) == ["t0", "t1"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_goes_on(bad: float) -> None:
    halving = at_first_rung([(bad, 5.0), (1.0, bad), (2.0, 5.0)], Halving(BOTH, reduction_factor=1.5))
    halving.on_result("missing", {"codebook_size": 512}, 2, {"mse": 0.1})
    assert promoted(halving, "all") == ["t2"]


def test_a_trial_that_ended_keeps_its_place_and_never_goes_on() -> None:
    halving = at_first_rung([(1.0, 1.0), (2.0, 1.0), (3.0, 1.0)], Halving(MSE))
    halving.drop("t0")
    assert promoted(halving) == []
    assert promoted(halving, "all") == ["t1", "t2"]


def test_higher_rungs_go_first() -> None:
    halving = at_first_rung([(float(i), 1.0) for i in range(3)], Halving(MSE))
    for number in range(10, 13):
        halving.on_result(f"t{number}", {"codebook_size": 512}, 6, {"mse": float(number), "perplexity": 1.0})
    assert promoted(halving) == ["t10", "t0"]


def test_what_it_would_cost() -> None:
    rule = Halving(BOTH, grace_period=2, reduction_factor=3)
    assert rule.plan(27, 20) == "27 to epoch 2, 9 to epoch 6, 3 to epoch 18, 1 to epoch 20"
    assert rule.expected_epochs(27, 20) == 27 * 2 + 9 * 4 + 3 * 12 + 2


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda p: (float(p[0]), float(p[1]))), min_size=1)


@settings(deadline=None)
@given(POINTS, st.floats(1.1, 6), st.integers(0, 5))
def test_nothing_that_nobody_dominates_is_left_where_there_is_room(
    points: list[tuple[float, float]], reduction: float, seed: int
) -> None:
    order = random.Random(seed).sample(points, len(points))
    halving = at_first_rung(order, Halving(BOTH, reduction_factor=reduction))
    kept = {int(key[1:]) for key in promoted(halving, "up")}
    best = set(front(order, ("min", "max")))
    room = math.ceil(len(points) / reduction)
    assert len(kept) == min(room, len(points))
    assert best <= kept or kept <= best


def test_every_problem_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        Halving((), grace_period=0, reduction_factor=1.0)
    for part in ("one or two", "grace = 0", "reduction = 1"):
        assert part in str(error.value)
