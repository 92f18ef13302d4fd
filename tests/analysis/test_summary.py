"""What a run's ``summary.json`` says to those who do not analyse."""

import json

import pytest

from analysis.report import analyse
from analysis.results import load
from analysis.summary import summary


def test_a_run_is_summed_up_by_the_means_that_its_report_has(make_run):
    run = make_run()
    low = run.seeds([0.02, 0.04], [10, 12], commitment_weight=0.1)
    high = run.seeds([0.06, 0.06], [50, 70], commitment_weight=1.0)
    run.seeds([0.07, 0.07], [20, 20], commitment_weight=2.0)
    findings = analyse(run.close())
    found = json.loads((run.folder / "summary.json").read_text())
    area = (1 - 0.03) * (11 - 1) + (1 - 0.06) * (60 - 11)
    assert found["metrics"] == pytest.approx({"best_mse": 0.03, "best_perplexity": 60, "hypervolume": area})
    assert found["front"] == [*low, *high]
    assert found["recommended"] == "beta 0.1"
    assert found["findings"] == list(findings.lines)


def test_objectives_without_a_worst_value_have_no_hypervolume(make_run):
    run = make_run(objectives="mse:min bits:min")
    run.seeds([0.02, 0.04], [10, 12], commitment_weight=0.1)
    metrics = summary(load(run.close()), [])["metrics"]
    assert set(metrics) == {"best_mse", "best_perplexity", "best_bits"}


def test_a_run_in_which_nothing_completed_has_an_empty_summary(make_run):
    run = make_run()
    run.trial([(0.1, 5)], None, commitment_weight=0.1)
    assert summary(load(run.close()), []) == {"metrics": {}, "findings": [], "front": [], "recommended": None}
