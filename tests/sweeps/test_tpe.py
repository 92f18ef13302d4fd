"""The estimator: its densities are densities, it learns from the right trials, it goes where they were good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna.trial import TrialState

from analysis.fronts import ranks
from sweeps.engine.tpe import IDLE, Array, _density, _fading, best, good, propose

COMPLETE, PRUNED, RUNNING = (float(state) for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
shares = arrays(float, st.integers(0, 60), elements=st.floats(0, 1))
losses = arrays(float, st.tuples(st.integers(1, 60), st.just(2)), elements=st.integers(-4, 4).map(float))


@given(shares)
def test_the_density_of_numbers_integrates_to_one(seen_N: Array) -> None:
    grid = (np.arange(4000) + 0.5) / 4000
    assert _density(seen_N, _fading(len(seen_N)), 0)(grid).mean() == pytest.approx(1, abs=1e-3)


@given(arrays(float, st.integers(0, 60), elements=st.integers(0, 4).map(lambda word: (word + 0.5) / 5)))
def test_the_density_of_words_sums_to_one_and_leaves_none_out(seen_N: Array) -> None:
    likely = _density(seen_N, _fading(len(seen_N)), 5)((np.arange(5) + 0.5) / 5)
    assert likely.sum() == pytest.approx(1)
    assert (likely > 0).all()


@given(shares, st.integers(0, 2**32))
def test_draws_are_shares_where_the_density_is(seen_N: Array, seed: int) -> None:
    density = _density(seen_N, np.ones(len(seen_N)), 0)
    drawn = density.draw(np.random.default_rng(seed))
    assert ((drawn >= 0) & (drawn <= 1)).all()
    assert (density(drawn) > 0).all()


@given(losses, st.integers(1, 60))
def test_the_best_come_front_by_front(losses_N2: Array, count: int) -> None:
    chosen = best(losses_N2, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(losses_N2))
    distinct = np.unique(losses_N2, axis=0)  # of equal points all but one stand back
    rank_N = ranks([(first, second) for first, second in distinct])
    fronts = [rank_N[i] for i in best(distinct, count)]
    left_out = [rank for i, rank in enumerate(rank_N) if i not in best(distinct, count)]
    assert max(fronts) <= min(left_out, default=max(fronts))


def test_a_front_too_long_keeps_what_covers_most() -> None:
    front = np.array([[0.0, 1.0], [0.3, 0.3], [0.31, 0.29], [1.0, 0.0]])
    assert best(front, 1) == [1]
    assert set(best(front, 3)) == {0, 1, 3}, "the two in the middle cover nearly the same"


def test_a_single_objective_given_twice_is_ordered_by_it() -> None:
    losses = np.array([3.0, 1.0, 2.0, 0.5, 9.0])
    assert best(np.stack([losses, losses], axis=1), 3) == [3, 1, 2]


def test_completed_trials_come_before_pruned_ones_and_those_before_what_misses_a_bound() -> None:
    state = np.array([PRUNED, RUNNING, COMPLETE, COMPLETE, COMPLETE, *[PRUNED] * 17])
    violation = np.array([0.0, 0.0, 0.0, 0.0, 2.0, *[1.0] * 16, 0.5])
    losses = np.array([[0, 0], [0, 0], [5, 5], [4, 4], [0, 0], *[[0, 0]] * 17], dtype=float)
    assert good(state, violation, losses).nonzero()[0].tolist() == [0, 2, 3], "a tenth of 21, rounded up"
    assert good(state, np.maximum(violation, 0.1), losses).sum() == 3
    assert not good(np.array([RUNNING]), np.zeros(1), np.zeros((1, 2))).any()


def test_it_goes_where_trials_were_good_and_few_are() -> None:
    rng = np.random.default_rng(0)
    good_ND = np.stack([rng.normal(0.2, 0.02, 10), np.full(10, 2.5 / 3), np.full(10, IDLE)], axis=1)
    rest_ND = rng.random((90, 3))
    proposed = np.array([propose(good_ND, rest_ND, (0, 3, 0), rng) for _ in range(50)])
    assert abs(np.median(proposed[:, 0]) - 0.2) < 0.05
    assert (proposed[:, 1] == 2.5 / 3).mean() > 0.9
    assert proposed[:, 2].std() > 0.1, "of a field that the good ones do not have nothing is known"


def test_running_trials_push_away() -> None:
    good_ND, running_ND = np.array([[0.2], [0.8]]), np.full((8, 1), 0.8)

    def share(rest_ND: Array) -> float:
        return float(np.mean([propose(good_ND, rest_ND, (0,), np.random.default_rng(s))[0] < 0.5 for s in range(100)]))

    assert share(running_ND) > share(np.empty((0, 1))) + 0.2


def test_old_trials_fade() -> None:
    assert _fading(10).tolist() == [1.0] * 10
    weights = _fading(100)
    assert weights[0] == 0.01
    assert (np.diff(weights) >= 0).all()
    assert weights[-25:].tolist() == [1.0] * 25
