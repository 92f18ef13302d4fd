"""The course of searches whose trials were made so that it can be counted by hand."""

import math
from typing import Any

import pytest

from analysis.alarms import alarms
from analysis.history import History, hypervolume_history
from analysis.results import load
from tests.analysis.conftest import MakeRun, RunMaker


def curve(mse: float, perplexity: float = 100.0, epochs: int = 4) -> list[tuple[float, float]]:
    return [(mse * w, perplexity / w) for w in (2.5, 1.6, 1.2, 1.0)][:epochs]


def history(run: RunMaker) -> History:
    found = hypervolume_history(load(run.done()))
    assert found is not None
    return found


def test_it_grows_where_a_trial_ends_that_adds_to_the_front_and_random_search_is_the_mean_of_orders(
    make_run: MakeRun,
) -> None:
    run = make_run(objectives="mse:min")
    for beta, mse in ((0.1, 0.04), (0.25, 0.02), (0.5, 0.03), (1.0, 0.01)):
        run.trial(curve(mse), commitment_weight=beta)
    found = history(run)
    reference = math.log(0.03) + 0.1 * math.log(3)  # a tenth beyond the median
    shares = [max(0.0, (reference - math.log(mse)) / (reference - math.log(0.01))) for mse in (0.04, 0.02, 0.03, 0.01)]
    epochs = found.epochs
    assert epochs.spent == (0, 8, 16, 16)
    assert epochs.found == pytest.approx((0, shares[1], 1, 1))
    assert (epochs.expected[0], epochs.expected[-1]) == (0, 1)
    assert epochs.at[35] == pytest.approx(4.67, abs=0.01)  # one trial is through, each as probably
    assert epochs.expected[35] == pytest.approx(sum(shares) / 4, abs=0.12)
    assert "in random order" in found.sentence
    assert found.what == "lowest MSE"
    assert found.seconds is not None
    assert (found.seconds.unit, found.seconds.spent[-1]) == ("seconds of trials", 24)


def test_trials_that_were_stopped_count_as_forecast_and_cost_random_search_all_their_epochs(make_run: MakeRun) -> None:
    """8 of 16 in full, one of them far ahead: of 40 epochs random search makes 10 trials, and has it in 10 of 16."""
    run = make_run(objectives="mse:min")
    for number in range(8):
        mse = 0.01 if number == 3 else 0.03 + number / 10_000
        run.trial(curve(mse), commitment_weight=0.1, decay=0.5 + number / 100)
        run.trial(
            curve(0.1, epochs=1), "stopped", "rung 1: rank 9 of 9", commitment_weight=4.0, decay=0.5 + number / 50
        )
    found = history(run)
    assert found.epochs.spent[-1] == 40
    assert found.epochs.expected[-1] == pytest.approx(10 / 16, abs=0.12)
    assert "8 of them were not" in found.note


def test_with_too_few_through_it_says_whom_random_search_draws(make_run: MakeRun) -> None:
    run = make_run(sampler="tpe", objectives="mse:min bits:min")
    for beta, mse in ((0.1, 0.04), (0.25, 0.02)):
        run.trial(curve(mse), commitment_weight=beta)
    run.trial(curve(0.05, epochs=2), "stopped", "rung 2: rank 3 of 3", commitment_weight=1.0)
    found = history(run)
    assert found.epochs.expected[-1] == 1
    assert "1 trial not trained in full left out" in found.note
    assert "chosen by a sampler (tpe)" in found.note


@pytest.mark.parametrize(
    "tables",
    [
        {"flags": {"trials_per_gpu": 4}},
        {"flags": {"trials_per_gpu": "auto"}, "sharing": {"trials_per_gpu": 4}},
    ],
    ids=["given", "measured"],
)
def test_seconds_are_of_gpus_where_the_share_is_recorded_and_a_trial_that_diverged_finds_nothing(
    make_run: MakeRun, tables: dict[str, Any]
) -> None:
    run = make_run()
    run.journal.write("sweep", sweep="pareto", name="r", swept=["decay"], toml=tables, params={})
    for number in range(3):
        run.trial(curve(0.02 + number / 100), decay=0.5 + number / 10, info={"device": "NVIDIA H200"})
    run.trial(curve(0.01, epochs=2), "diverged", "loss is not finite", decay=0.9, info={"device": "NVIDIA H200"})
    found = history(run)
    assert found.seconds is not None
    assert (found.seconds.unit, found.seconds.spent[-1]) == ("GPU-seconds", 14 * 1.5 / 4)
    assert found.epochs.expected[-1] == pytest.approx(1)


def test_nothing_is_told_of_less_than_two_ends(make_run: MakeRun) -> None:
    run = make_run()
    assert hypervolume_history(load(run.folder)) is None
    run.trial(curve(0.02))
    run.trial(curve(0.03, epochs=2), None, commitment_weight=2.0)
    results = load(run.close())
    assert hypervolume_history(results) is None
    assert alarms(results) is not None


def test_equal_trials_and_a_lost_line_are_no_error(make_run: MakeRun) -> None:
    run = make_run()
    for number in range(6):
        run.trial(curve(0.02), decay=0.5 + number / 20)
    run.trial(curve(0.05, epochs=3), None, decay=0.3)
    lines = (run.folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    del lines[3], lines[-2]
    (run.folder / "journal.jsonl").write_bytes(b"".join(lines))
    found = history(run)
    assert found.epochs.found[-1] == pytest.approx(1)
