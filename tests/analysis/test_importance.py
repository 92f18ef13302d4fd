"""Importance of fields in searches that were made so that one field matters."""

import numpy as np
import optuna
import pytest

from analysis.importance import Importance, importance
from analysis.results import load
from tests.analysis.conftest import MakeRun, RunMaker

SPACE = {
    "decay": {"low": 0.8, "high": 0.99, "log": False},
    "commitment_weight": {"low": 0.05, "high": 4.0, "log": True},
    "codebook_size": [128, 256, 512],
    "estimator": ["rotation", "ste"],
}


def searched(make_run: MakeRun, trials: int, stops: bool = False) -> RunMaker:
    """The nearer the decay to 0.95 the lower the MSE; the larger the codebook the higher the perplexity."""
    dice = np.random.default_rng(0)
    run = make_run(swept=list(SPACE), sampler="random", **SPACE)
    for _ in range(trials):
        config = {
            "decay": float(dice.uniform(0.8, 0.99)),
            "commitment_weight": float(np.exp(dice.uniform(np.log(0.05), np.log(4)))),
            "codebook_size": int(dice.choice([128, 256, 512])),
            "estimator": str(dice.choice(["rotation", "ste"])),
        }
        mse = 0.02 * np.exp(5 * abs(config["decay"] - 0.95) + dice.normal(0, 0.05))
        perplexity = config["codebook_size"] / 2 * np.exp(dice.normal(0, 0.05))
        stopped = stops and mse > 0.03
        curve = [(mse * w, perplexity / w) for w in (2.5, 1.6, 1.2, 1.0)][: 2 if stopped else 4]
        run.trial(curve, *(("stopped", "rung 2: rank 9 of 9") if stopped else ()), **config)
    return run


def found(run: RunMaker) -> Importance:
    return importance(load(run.done()))


@pytest.mark.parametrize("stops", [False, True], ids=["all trained in full", "the worse half stopped"])
def test_the_field_that_decides_is_first_and_the_others_are_chance(make_run: MakeRun, stops: bool) -> None:
    before = optuna.logging.get_verbosity()
    told = found(searched(make_run, 80, stops))
    assert list(told.shares) == ["mse", "perplexity"]
    for column, field in (("mse", "decay"), ("perplexity", "codebook_size")):
        shares, chance = told.shares[column], told.chance[column]
        assert next(iter(shares)) == field
        assert sum(shares.values()) == pytest.approx(1)
        assert [name for name in shares if shares[name] > chance[name]] == [field]
    assert told.sentences["mse"].startswith("Who is best by MSE is decided by decay (")
    assert ("count as forecast" in told.note) == stops
    assert told.missing == ""
    assert optuna.logging.get_verbosity() == before


def test_it_is_the_same_each_time_and_needs_no_recorded_space(make_run: MakeRun) -> None:
    run = searched(make_run, 40)
    once = importance(load(run.folder))
    assert importance(load(run.folder)) == once
    run.journal.write("sweep", sweep="pareto", name="r", swept=list(SPACE), params={"decay": [0.5]})
    assert next(iter(importance(load(run.done())).shares["mse"])) == "decay"


def test_where_there_is_none_it_says_why(make_run: MakeRun) -> None:
    run = make_run(swept=["decay", "commitment_weight"])
    assert importance(load(run.folder)).missing == "0 trials with an end: importance takes 12."
    for number in range(12):
        run.trial([(0.02, 100.0 + number)] * 4, decay=0.5 + number / 100)
    told = found(run)
    assert told.missing == "Tried with one value only: commitment weight. All trials have the same MSE."
    assert list(told.shares) == ["perplexity"]
