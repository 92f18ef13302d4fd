"""Which trials freeze-thaw search lets go on: decisions over curves that are known, without a sweep."""

import math
import random
from collections.abc import Iterator

import pytest

from analysis.objectives import objectives
from analysis.stopping import EARLY
from benchmarks.curves import Curve, replay, shuffled
from sweeps.engine.queue import TrialQueue
from sweeps.engine.stopping import EarlyStopping, FreezeThaw
from vqcore.config import ConfigError

EPOCHS = 12
MSE, BOTH = objectives(["mse"]), objectives(["mse", "perplexity"])


def curve(number: int, beta: float, size: int = 512, noise: float = 0.0) -> Curve:
    """The larger beta, the slower the start and the better the end."""
    best, start = 0.03 / (1 + beta), 0.1 * (1 + beta)
    epochs = tuple(
        {"mse": best + start * 0.6**epoch + noise, "perplexity": 100 * beta + epoch} for epoch in range(1, EPOCHS + 1)
    )
    return Curve(f"t{number}", {"commitment_weight": beta, "codebook_size": size}, epochs)


def grid(trials: int = 40, sizes: tuple[int, ...] = (512,)) -> list[Curve]:
    dice = random.Random(0)
    return [curve(n, dice.uniform(0.1, 4), sizes[n % len(sizes)], dice.uniform(0, 1e-4)) for n in range(trials)]


def search(curves: list[Curve], rule: FreezeThaw, slots: int = 2, budget: int | None = None) -> dict[str, int]:
    """The epoch that each trial reached."""
    queue = TrialQueue(slots, rule.start(EPOCHS), budget=budget)
    queue.add((job, 0) for job in shuffled(curves, seed=0))
    return {step.key: step.epoch for step in replay(curves, queue)}


def test_who_starts_slowly_and_ends_best_is_found_for_half_of_the_epochs() -> None:
    curves = grid()
    reached = search(curves, FreezeThaw(MSE))
    best = min(curves, key=lambda one: one.final["mse"])
    assert max(curves, key=lambda one: one.epochs[0]["mse"]).config["commitment_weight"] > 3, "the worst at first"
    assert reached[best.key] == EPOCHS
    assert sum(reached.values()) < 0.5 * EPOCHS * len(curves)
    assert min(reached.values()) == 1, "every trial that is known is looked at"


def test_each_group_has_a_best_of_its_own() -> None:
    curves = grid(60, sizes=(64, 256, 1024))
    reached = search(curves, FreezeThaw(MSE, group_by="codebook_size"))
    for size in (64, 256, 1024):
        of = [one for one in curves if one.config["codebook_size"] == size]
        assert reached[min(of, key=lambda one: one.final["mse"]).key] == EPOCHS


def test_a_budget_is_spent_whole_and_on_the_most_promising() -> None:
    curves = grid()
    budget = EPOCHS * len(curves) // 3
    reached = search(curves, FreezeThaw(BOTH), budget=budget)
    assert sum(reached.values()) == budget
    assert reached[max(curves, key=lambda one: one.final["perplexity"]).key] == EPOCHS


def test_a_larger_chance_stops_more() -> None:
    spent = [sum(search(grid(), FreezeThaw(BOTH, chance=chance)).values()) for chance in (0.001, 0.05, 0.4)]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > spent[-1]


def test_the_first_four_and_one_in_eight_are_never_paused() -> None:
    stopping = FreezeThaw(MSE).start(EPOCHS)
    curves = grid(24)
    waited = [stopping.on_result(one.key, one.config, 1, one.epochs[0]) for one in curves]
    assert [n for n, waits in enumerate(waited) if not waits] == [0, 1, 2, 3, 8, 16]


def test_nobody_is_stopped_before_there_is_a_forecast() -> None:
    stopping = FreezeThaw(MSE).start(EPOCHS)
    for one in grid(6):
        stopping.on_result(one.key, one.config, 1, one.epochs[0])
    assert stopping.choose(lambda: "drawn", spare=False) == "t4", "one that waits before a new one"
    stopping.promote("t4")
    stopping.promote("t5")
    assert stopping.choose(lambda: "drawn", spare=False) == "drawn"


def through(curves: list[Curve], rule: FreezeThaw) -> tuple[EarlyStopping, list[Curve]]:
    """A search in which the first four are through and the next four wait at the first rung, and those."""
    stopping = rule.start(EPOCHS)
    for one in curves[:4]:
        for epoch, metrics in enumerate(one.epochs, start=1):
            stopping.on_result(one.key, one.config, epoch, metrics)
    for one in curves[4:8]:
        assert stopping.on_result(one.key, one.config, 1, one.epochs[0])
    return stopping, curves[4:8]


def test_a_reason_says_how_probable_it_was() -> None:
    curves = [curve(n, beta) for n, beta in enumerate((0.1, 1.0, 2.0, 4.0, 0.2, 0.3, 0.4, 3.9))]
    stopping, _ = through(curves, FreezeThaw(MSE))
    assert stopping.reason("t4").startswith("forecast: 0.")
    assert stopping.reason("t4").startswith(EARLY), "as the report knows it"
    assert stopping.reason("t4").endswith("% probable to end with the best of codebook_size 512")
    assert stopping.choose(lambda: None, spare=False) == "t7", "the only one that may end best"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_never_goes_on(bad: float) -> None:
    curves = grid(8)
    stopping, waiting = through(curves[:7], FreezeThaw(BOTH))
    stopping.on_result("t7", curves[7].config, 1, {"mse": bad, "perplexity": 300.0})
    for one in waiting:
        stopping.drop(one.key)
    assert stopping.choose(lambda: None, spare=True) is None
    assert stopping.reason("t7") == "forecast: none, as an objective is not finite"


class Log:
    """A search, and what it was told."""

    def __init__(self, stopping: EarlyStopping) -> None:
        self._stopping, self.told = stopping, list[tuple[tuple[object, ...], bool]]()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stopping, name)

    def on_result(self, *result: object) -> bool:
        waits = self._stopping.on_result(*result)  # type: ignore[arg-type]
        self.told.append((result, waits))
        return waits


def order(stopping: EarlyStopping) -> Iterator[str]:
    """All that may go on, the first first."""
    while (key := stopping.choose(lambda: None, spare=True)) is not None:
        yield key
        stopping.promote(key)


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("aims", [MSE, BOTH], ids=["mse", "both"])
def test_its_order_follows_from_the_results_that_arrived_and_from_nothing_else(aims: tuple, slots: int) -> None:
    curves = grid(30, sizes=(64, 512))
    log = Log(FreezeThaw(aims).start(EPOCHS))
    queue = TrialQueue(slots, log, budget=200)  # type: ignore[arg-type]
    queue.add((job, 0) for job in shuffled(curves, seed=0))
    replay(curves, queue)
    resumed = FreezeThaw(aims).start(EPOCHS)
    assert [resumed.on_result(*result) for result, _ in log.told] == [waits for _, waits in log.told]  # type: ignore[arg-type]
    for job in shuffled(curves, seed=0):
        resumed.add(job.key, job.config.flat())
    assert list(order(resumed)) == list(order(log))  # type: ignore[arg-type]


def test_a_group_of_which_nobody_is_through_is_open_whatever_the_objective() -> None:
    """A perplexity that doubles within the grid once had a reference point without a logarithm."""
    curves = grid(48, sizes=(16, 32, 64, 128, 256, 512))
    reached = search(curves, FreezeThaw(objectives(["perplexity"])))
    for size in (16, 32, 64, 128, 256, 512):
        of = [one for one in curves if one.config["codebook_size"] == size]
        assert reached[max(of, key=lambda one: one.final["perplexity"]).key] == EPOCHS


def test_an_objective_that_is_equal_for_all_stops_as_if_it_were_not_asked() -> None:
    curves = [Curve(one.key, one.config, tuple({**m, "usage": 1.0} for m in one.epochs)) for one in grid()]
    alone = sum(search(curves, FreezeThaw(MSE)).values())
    assert sum(search(curves, FreezeThaw(objectives(["mse", "usage"]))).values()) < 1.3 * alone


def test_a_value_that_no_trial_had_is_tried_before_it_is_judged() -> None:
    curves = [curve(n, beta) for n, beta in enumerate((0.1, 1.0, 2.0, 4.0, 0.2, 0.3, 0.4, 0.5))]
    stopping, _ = through(curves, FreezeThaw(MSE))
    stopping.on_result("audited", curves[0].config, 1, curves[0].epochs[0])
    stranger = Curve("fsq", {**curves[0].config, "layer": "fsq"}, ({"mse": 0.9, "perplexity": 1.0},))
    assert stopping.on_result("fsq", stranger.config, 1, stranger.epochs[0])
    assert stopping.choose(lambda: None, spare=False) == "fsq"


def test_trials_that_are_alike_do_not_make_one_that_collapsed_the_most_promising() -> None:
    alike = [curve(n, 1.0 + n / 1000) for n in range(8)]
    stopping, _ = through(alike, FreezeThaw(BOTH))
    stopping.on_result("bad", alike[0].config, 1, {"mse": 0.48, "perplexity": 1.0})
    first = list(order(stopping))
    assert first[-1] == "bad" or stopping.reason("bad").startswith("forecast: 0.")


def test_every_problem_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        FreezeThaw((), chance=1.5)
    for part in ("one or two", "stop_chance = 1.5"):
        assert part in str(error.value)
