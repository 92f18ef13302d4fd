"""Schedulers over recorded curves."""

import random
from pathlib import Path

import pytest

from analysis.objectives import objectives
from benchmarks.curves import Curve, Step, recorded, replay, shuffled
from sweeps.engine.queue import TrialQueue
from sweeps.engine.scheduler import Halving
from vqcore.config import ConfigError

RULE = Halving(objectives(["mse"]), grace_period=2, reduction_factor=3)


def curves(count: int, epochs: int = 20, seed: int = 0) -> list[Curve]:
    """Trials whose order never changes: MSE falls by the same factors from a level of their own."""
    levels = random.Random(seed).sample(range(1, count + 1), count)
    return [
        Curve(
            f"t{number}",
            {"seed": 0, "commitment_weight": 0.01 + number},
            tuple({"mse": level / epoch, "perplexity": 1.0} for epoch in range(1, epochs + 1)),
        )
        for number, level in enumerate(levels)
    ]


def run(
    made: list[Curve], slots: int, rule: Halving | None = None, budget: int | None = None
) -> tuple[list[Step], TrialQueue]:
    queue = TrialQueue(slots, rule.start(len(made[0].epochs)) if rule else None, budget=budget)
    queue.add((job, 0) for job in shuffled(made, seed=1))
    return replay(made, queue), queue


def test_without_a_rule_every_trial_is_trained_in_full_in_the_time_that_the_slots_need() -> None:
    steps, queue = run(curves(8), slots=4)
    assert queue.finished
    assert sum(step.complete for step in steps) == 8
    assert steps[-1].spent == 8 * 20
    assert steps[-1].time == 40.0


def test_seconds_are_the_recorded_ones() -> None:
    made = [Curve("a", {"seed": 0}, ({"mse": 1.0, "seconds": 2.5}, {"mse": 1.0, "seconds": 0.5}))]
    assert run(made, slots=1)[0] == [Step(3.0, 2, "a", 2, True)]


def test_early_stopping_finishes_the_best_for_a_fraction_of_the_epochs_and_says_why_of_the_rest() -> None:
    made = curves(27)
    steps, queue = run(made, 4, RULE)
    best = min(made, key=lambda curve: curve.final["mse"])
    assert best.key in {step.key for step in steps if step.complete}
    assert steps[-1].spent < 0.35 * 27 * 20
    assert queue.finished
    reasons = {job.key: reason for job, reason in queue.stopped()}
    assert len(reasons) + sum(step.complete for step in steps) == 27
    assert all("kept 1 in 3" in reason and reason.startswith("rung ") for reason in reasons.values())


def test_no_more_than_the_budget_is_spent_and_all_of_it() -> None:
    for rule in (RULE, None):
        steps, queue = run(curves(27), 4, rule, budget=300)
        assert steps[-1].spent == 300
        assert queue.finished
        assert len(list(queue.stopped())) == 27 - sum(step.complete for step in steps)


def test_what_the_rungs_leave_of_the_budget_goes_to_the_best_that_wait() -> None:
    made = curves(27)
    alone, _ = run(made, 4, RULE)
    more, _ = run(made, 4, RULE, budget=alone[-1].spent + 60)
    assert sum(step.complete for step in more) > sum(step.complete for step in alone)


def test_a_run_that_is_none() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        recorded(Path("nowhere"))
