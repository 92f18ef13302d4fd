"""What early stopping is estimated to have cost: held against what the stopped trials would have come to."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from analysis.objectives import objectives
from analysis.stopping import Curve, estimated_cost

EPOCHS = 8


@dataclass
class Trial:
    config: dict[str, float]
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)

    def until(self, epoch: int) -> "Trial":
        return Trial(self.config, {at: metrics for at, metrics in self.epochs.items() if at <= epoch})


def trials(number: int, dice: np.random.Generator) -> list[Trial]:
    """The larger beta, the slower the start and the better the end, with some noise of the seed."""
    made = []
    for beta in dice.uniform(0.1, 4, number):
        best = 0.03 / (1 + beta / 4) * np.exp(dice.normal(0, 0.05))
        curve = {at: {"mse": best + 0.05 * (1 + beta) * 0.5**at, "perplexity": 50 * at} for at in range(1, EPOCHS + 1)}
        made.append(Trial({"commitment_weight": float(beta)}, curve))
    return made


def split(made: list[Trial], dice: np.random.Generator) -> tuple[list[Trial], list[Trial]]:
    """Some by lot that are through, the others stopped after epoch 1 to 5."""
    return made[:8], [trial.until(int(dice.integers(1, 6))) for trial in made[8:]]


def test_the_true_cost_is_at_most_what_is_said_in_nine_of_ten() -> None:
    covered = []
    for seed in range(40):
        dice = np.random.default_rng(seed)
        made = trials(24, dice)
        through, stopped = split(made, dice)
        cost = estimated_cost(objectives(["mse"]), through, stopped, EPOCHS)
        assert cost is not None
        best, other = (min(trial.epochs[EPOCHS]["mse"] for trial in some) for some in (made[:8], made[8:]))
        covered.append(max(0.0, 1 - other / best) <= cost.most)
        assert cost.likely <= cost.most
    assert np.mean(covered) >= 0.9


def test_who_is_sure_to_end_worse_cost_nothing() -> None:
    same = {"decay": 0.9}
    good = [Trial(same, {at: {"mse": 0.02 * n / at, "bits": 10.0} for at in (1, 2, 4, 8)}) for n in (1, 2, 3, 4)]
    bad = [Trial(same, {at: {"mse": 3.0 / at, "bits": 20.0} for at in (1, 2, 4)})]
    cost = estimated_cost(objectives(["mse", "bits"]), good, bad, EPOCHS)
    assert cost is not None
    assert cost.most < 0.01


def test_survivors_that_are_alike_make_no_absurd_figure_and_a_lost_line_no_error() -> None:
    dice = np.random.default_rng(0)
    good = [
        Trial({}, {at: {"mse": 0.03 * dice.uniform(0.999, 1.001), "perplexity": 100.0 + at} for at in (1, 2, 4, 8)})
        for _ in range(6)
    ]
    del good[0].epochs[1]
    cost = estimated_cost(
        objectives(["mse", "perplexity"]), good, [Trial({}, {1: {"mse": 0.48, "perplexity": 1.0}})], 8
    )
    assert cost is not None
    assert cost.most < 5


@pytest.mark.parametrize(("through", "stopped"), [(3, 5), (5, 0)])
def test_of_too_few_or_of_nobody_nothing_is_said(through: int, stopped: int) -> None:
    made: list[Curve] = [*trials(through + stopped, np.random.default_rng(0))]
    assert estimated_cost(objectives(["mse"]), made[:through], made[through:], EPOCHS) is None
