"""Which trial gets a slot: simulated without training."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.objectives import objectives
from sweeps.engine.queue import TrialQueue
from sweeps.engine.scheduler import Halving
from trainables.data import DataSet
from trainables.job import TrialJob
from vqcore.config import TrialConfig

DATA = DataSet("made", "0" * 16, "nowhere", 32, 8, 8)


def jobs(count: int, epochs: int) -> list[TrialJob]:
    configs = [TrialConfig().replace(seed=seed, epochs=epochs) for seed in range(count)]
    return [TrialJob(f"trial{i}", i, config, DATA, Path("nowhere")) for i, config in enumerate(configs)]


def makespan(count: int, epochs: int, slots: int) -> tuple[int, dict[str, int]]:
    """Time to the end when an epoch takes 1, and the epochs each trial was trained."""
    queue = TrialQueue(slots)
    queue.add((job, 0) for job in jobs(count, epochs))
    reached = dict.fromkeys((f"trial{i}" for i in range(count)), 0)
    running: list[str] = []
    now = 0
    while not queue.finished:
        while (key := queue.next()) is not None:
            assert key == queue.next(), "asking changes nothing"
            queue.begin(key)
            running.append(key)
        assert len(running) == len(set(running)) == len(queue.running)
        now += 1
        for key in list(running):
            reached[key] += 1
            goes_on = queue.on_result(key, reached[key], {})
            if reached[key] == epochs:
                queue.ended(key)
            if not goes_on:
                running.remove(key)
    return now, reached


@pytest.mark.parametrize(
    ("count", "epochs", "slots", "time"),
    [(5, 4, 2, 10), (1, 4, 2, 4), (2, 4, 2, 4), (3, 8, 2, 12), (9, 16, 8, 18), (4, 4, 1, 16), (6, 4, 3, 8)],
)
def test_no_slot_idles_while_a_last_trial_runs_alone(count: int, epochs: int, slots: int, time: int) -> None:
    assert makespan(count, epochs, slots)[0] == time


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 12))
def test_every_trial_is_trained_once_to_its_end_and_close_to_the_bound(count: int, epochs: int, slots: int) -> None:
    time, reached = makespan(count, epochs, slots)
    assert set(reached.values()) == {epochs}
    bound = max(epochs, count * epochs / slots)
    assert time <= bound + epochs / 2 + 1, "never worse than running the last wave alone, mostly far better"


def begin(queue: TrialQueue) -> str:
    key = queue.next()
    assert key is not None
    queue.begin(key)
    return key


def test_a_resumed_sweep_goes_on_with_what_is_furthest() -> None:
    queue = TrialQueue(1)
    queue.add(zip(jobs(4, 10), [0, 3, 7, 0], strict=True))
    assert begin(queue) == "trial2"
    assert queue.next() is None, "its one slot is taken"


def test_a_trial_whose_process_died_goes_on_and_its_epochs_stay_in_the_budget() -> None:
    queue = TrialQueue(1, budget=4)
    queue.add((job, 0) for job in jobs(2, 4))
    first = begin(queue)
    queue.interrupted(first)
    assert begin(queue) == first
    assert all(queue.on_result(first, epoch, {}) for epoch in (1, 2, 3))
    assert not queue.on_result(first, 4, {})
    queue.ended(first)
    assert queue.finished, "the budget is spent"
    assert [reason for _, reason in queue.stopped()] == ["the budget of 4 epochs is spent"]


def test_a_trial_that_was_promoted_and_died_does_not_wait_again() -> None:
    queue = TrialQueue(1, Halving(objectives(["mse"]), grace_period=1, reduction_factor=2).start(4))
    queue.add((job, 0) for job in jobs(2, 4))
    for mse in (1.0, 2.0):
        key = begin(queue)
        assert not queue.on_result(key, 1, {"mse": mse})
        assert queue.waits(key)
    assert begin(queue) == "trial0"
    queue.interrupted("trial0")
    assert not queue.waits("trial0")
    assert begin(queue) == "trial0"


def test_what_a_trial_leaves_of_the_budget_goes_to_one_that_the_budget_had_cut() -> None:
    queue = TrialQueue(2, Halving(objectives(["mse"]), grace_period=4, reduction_factor=2).start(8), budget=7)
    queue.add((job, 0) for job in jobs(2, 8))
    first, second = begin(queue), begin(queue)
    for epoch in (1, 2, 3):
        kept = queue.on_result(second, epoch, {"mse": 1.0})
    assert not kept, "four epochs were booked for the other"
    queue.on_result(first, 1, {"mse": 1.0})
    queue.ended(first)  # it diverged
    assert begin(queue) == second


def test_new_trials_are_drawn_when_a_slot_has_nothing_else_to_do() -> None:
    drawn = iter(jobs(3, 4))
    queue = TrialQueue(2, draw=lambda: next(drawn, None))
    assert not queue.finished
    assert [begin(queue), begin(queue)] == ["trial0", "trial1"]
    for key in ("trial0", "trial1"):
        queue.ended(key)
    last = begin(queue)
    assert queue.next() is None
    assert not queue.finished
    queue.ended(last)
    assert queue.finished
