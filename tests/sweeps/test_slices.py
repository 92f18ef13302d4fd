"""Which trial gets a slot: simulated without training."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.objectives import objectives
from sweeps.engine.pareto_asha import Ladder, Rule
from sweeps.engine.slices import Slices
from trainables.data import DataSet
from trainables.trial import TrialJob
from vqcore.config import TrialConfig

DATA = DataSet("made", "0" * 16, "nowhere", 32, 8, 8)


def jobs(count: int, epochs: int) -> list[TrialJob]:
    configs = [TrialConfig().replace(seed=seed, epochs=epochs) for seed in range(count)]
    return [TrialJob(f"trial{i}", i, config, DATA, Path("nowhere")) for i, config in enumerate(configs)]


def makespan(count: int, epochs: int, slots: int) -> tuple[int, dict[str, int]]:
    """Time to the end when an epoch takes 1, and the epochs each trial was trained."""
    slices = Slices(slots)
    slices.add((job, 0) for job in jobs(count, epochs))
    reached = dict.fromkeys((f"trial{i}" for i in range(count)), 0)
    busy: list[tuple[int, str, int]] = []  # (when the slice is over, trial, its epoch then)
    now = 0
    while not slices.finished:
        while len(busy) < slots and (piece := slices.next()) is not None:
            assert piece.until > reached[piece.job.key]
            assert piece.job.key not in {key for _, key, _ in busy}
            busy.append((now + piece.until - reached[piece.job.key], piece.job.key, piece.until))
        now = min(over for over, _, _ in busy)
        for over, key, epoch in [piece for piece in busy if piece[0] == now]:
            busy.remove((over, key, epoch))
            reached[key] = epoch
            slices.returned(key, epoch, ended=epoch == epochs)
    return now, reached


@pytest.mark.parametrize(
    ("count", "epochs", "slots", "time"),
    [(5, 4, 2, 10), (1, 4, 2, 4), (2, 4, 2, 4), (3, 8, 2, 12), (9, 16, 8, 18), (4, 4, 1, 16), (6, 4, 3, 8)],
)
def test_no_slot_idles_while_a_last_trial_runs_alone(count: int, epochs: int, slots: int, time: int) -> None:
    assert makespan(count, epochs, slots)[0] == time


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 12))
def test_every_trial_is_trained_once_to_its_budget_and_close_to_the_bound(count: int, epochs: int, slots: int) -> None:
    time, reached = makespan(count, epochs, slots)
    assert set(reached.values()) == {epochs}
    bound = max(epochs, count * epochs / slots)
    assert time <= bound + epochs / 2 + 1, "never worse than running the last wave alone, mostly far better"


def test_trials_run_to_their_end_in_order_while_there_are_plenty() -> None:
    slices = Slices(2)
    slices.add((job, 0) for job in jobs(8, 10))
    first, second = slices.next(), slices.next()
    assert first is not None
    assert second is not None
    assert [(p.job.key, p.until) for p in (first, second)] == [("trial0", 10), ("trial1", 10)]


def test_a_resumed_sweep_goes_on_with_what_is_furthest() -> None:
    slices = Slices(1)
    slices.add(zip(jobs(4, 10), [0, 3, 7, 0], strict=True))
    piece = slices.next()
    assert piece is not None
    assert (piece.job.key, piece.until) == ("trial2", 10)


def test_a_trial_that_ends_early_is_not_handed_out_again() -> None:
    slices = Slices(1)
    slices.add((job, 0) for job in jobs(2, 4))
    first = slices.next()
    assert first is not None
    slices.returned(first.job.key, 1, ended=True)
    second = slices.next()
    assert second is not None
    assert second.job.key != first.job.key
    slices.returned(second.job.key, 4, ended=True)
    assert slices.finished
    assert slices.next() is None


def test_a_slice_that_came_to_nothing_is_handed_out_again() -> None:
    slices = Slices(1, budget=10)
    slices.add((job, 0) for job in jobs(2, 4))
    first = slices.next()
    assert first is not None
    slices.again(first.job.key, 0)
    second = slices.next()
    assert second == first
    assert not slices.finished


def test_a_trial_that_was_promoted_and_failed_is_not_judged_twice() -> None:
    slices = Slices(1, Ladder(Rule(objectives(["mse"]), grace=1, reduction=2)))
    slices.add((job, 0) for job in jobs(2, 4))
    for mse in (1.0, 2.0):
        piece = slices.next()
        assert piece is not None
        assert piece.until == 1
        assert slices.returned(piece.job.key, 1, False, {"mse": mse})
    promoted = slices.next()
    assert promoted is not None
    assert (promoted.job.key, promoted.until) == ("trial0", 2)
    assert not slices.returned("trial0", 1, False, {"mse": 1.0}), "it need not wait again"
    assert slices.next() == promoted


def test_new_trials_are_drawn_when_a_slot_has_nothing_else_to_do() -> None:
    waiting = iter(jobs(3, 4))
    slices = Slices(2, draw=lambda: next(waiting, None))
    assert not slices.finished
    pieces = [slices.next(), slices.next()]
    assert [piece.job.key for piece in pieces if piece] == ["trial0", "trial1"]
    for key in ("trial0", "trial1"):
        slices.returned(key, 4, ended=True)
    last = slices.next()
    assert last is not None
    assert slices.next() is None
    assert not slices.finished
    slices.returned(last.job.key, 4, ended=True)
    assert slices.finished
