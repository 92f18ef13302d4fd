"""The benchmark of the report's estimate knows what stopping did cost."""

import random

from benchmarks.curves import Curve
from benchmarks.early_stopping_grids import QUESTIONS, Part
from benchmarks.stopping_cost import estimated

QUESTION = QUESTIONS["best at each size"]


def part(surprise: bool) -> Part:
    """30 trials whose order never changes, but for one that comes from far behind to half of the best, if asked."""
    curves = []
    for number in range(30):
        level = 0.02 + random.Random(number).random() / 10
        epochs = [{"mse": level * (1 + 1 / epoch), "perplexity": 10.0, "bits": 64.0} for epoch in range(1, 9)]
        if surprise and number == 29:
            epochs = [{**one, "mse": 0.4} for one in epochs[:-1]] + [{**epochs[-1], "mse": 0.01}]
        curves.append(Curve(f"t{number}", {"codebook_size": 512, "seed": 0}, tuple(epochs)))
    return Part(curves)


def test_what_it_cost_is_seen_where_the_best_was_stopped_and_nowhere_else() -> None:
    costs = [estimated(part(surprise=True), QUESTION, order, 4) for order in range(6)]
    assert {cost[0] > 0.4 for cost in costs if cost} == {True, False}, "unless the audit had it"
    plain = estimated(part(surprise=False), QUESTION, 0, 4)
    assert plain is not None
    assert plain[0] == 0
