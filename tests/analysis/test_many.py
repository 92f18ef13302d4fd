"""A search leaves many configurations: most of them stopped, or with one seed."""

import io
import random

import pytest
from rich.console import Console

from analysis.findings import sentences
from analysis.report import MOST_ROWS, analyse
from analysis.results import load

SWEPT = ("estimator", "commitment_weight")


@pytest.fixture
def search(make_run):
    """200 configurations, half of them stopped, for several reasons; three have three seeds."""
    run, chance = make_run(swept=SWEPT, trials=206), random.Random(0)
    for i in range(100):
        reason = ("rung 1: rank %d of 60, kept 1 in 3", "rung 3: rank %d of 20, kept 1 in 3", "collapsed: usage 0.00%d")
        run.trial([(0.05, 9)], "stopped", reason[i % 3] % (i + 1), commitment_weight=5 + i, estimator="ste")
    for i in range(97):
        point = (0.03 + chance.random() / 100, 200 + 10 * chance.random())
        run.trial([point] * 4, commitment_weight=0.1 + i / 100, estimator=("ste", "rotation")[i % 2])
    for i in range(3):
        run.seeds(
            [0.02 + i / 1000 + chance.gauss(0, 1e-5) for _ in range(3)],
            [300 + 20 * i + chance.gauss(0, 1) for _ in range(3)],
            commitment_weight=2.0 + i,
            estimator="rotation",
        )
    return run.done()


def shown(findings, width=100):
    console = Console(file=io.StringIO(), width=width)
    console.print(findings.renderable())
    return console.file.getvalue()


def test_the_last_page_shows_the_front_and_the_best_and_says_how_many_more(search):
    findings = analyse(search)
    assert findings.table is not None
    assert len(findings.table.rows) == MOST_ROWS
    assert {"rotation, beta 2 *", "rotation, beta 3 *", "rotation, beta 4 *"} <= {r[0] for r in findings.table.rows}
    assert "shown: the front and the lowest MSE; 80 more in tables/results.md" in shown(findings)
    assert len(shown(findings, 80).splitlines()) < 60


def test_every_trial_is_in_the_files(search):
    analyse(search)
    text = (search / "tables" / "results.md").read_text()
    assert text.count("stopped after epoch 1: ") == 100
    assert "stopped after epoch 1: rung 1: rank 1 of 60, kept 1 in 3" in text
    assert text.count("rotation, beta") >= 51


def test_stops_are_counted_by_reason(search):
    assert (
        "Not compared: 100 stopped early: rung 1 (34), rung 3 (33), collapsed (33); "
        "each with its reason in tables/results.md"
    ) in sentences(load(search))


def test_what_has_one_seed_is_not_tested_and_that_is_said(search):
    line = next(line for line in sentences(load(search)) if line.startswith("Lowest MSE: rotation, beta 2,"))
    assert "each of the others with several seeds" in line
    assert line.endswith("97 with one seed were not tested.")


def test_a_lucky_single_seed_does_not_hide_the_best_that_was_repeated(make_run):
    run = make_run()
    run.trial([(0.01, 300)], commitment_weight=0.1)
    run.trial([(0.02, 300)], commitment_weight=1.0, seed=0)
    run.trial([(0.021, 300)], commitment_weight=1.0, seed=1)
    line = next(line for line in sentences(load(run.done())) if line.startswith("Lowest MSE"))
    assert line.startswith(
        "Lowest MSE: beta 0.1, 0.01000 on [-1, 1], 26.0 dB. One seed: an order, not a claim. Of those"
    )
    assert "Of those with more seeds: beta 1, 0.02050 ± 0.00071" in line


def test_a_winner_that_alone_has_seeds_leads_nobody(make_run):
    run = make_run()
    run.seeds([0.01, 0.011], [300, 301], commitment_weight=0.1)
    run.trial([(0.02, 200)] * 4, commitment_weight=1.0)
    line = next(line for line in sentences(load(run.done())) if line.startswith("Lowest MSE"))
    assert line.endswith("No other configuration has a second seed, so its lead is no claim.")


def test_many_failures_are_not_all_on_the_screen(make_run):
    run = make_run(trials=30)
    for i in range(30):
        run.trial([], "failed", "out of memory", commitment_weight=1.0 + i)
    findings = analyse(run.close())
    assert sum("out of memory" in line for line in findings.lines) == 5
    assert any("25 more that did not complete, each with its reason" in line for line in findings.lines)
    assert (run.folder / "tables" / "results.md").read_text().count("out of memory") == 30


def test_a_stop_without_a_reason_is_counted(make_run):
    run = make_run()
    run.trial([(0.1, 5)], "stopped", commitment_weight=1.0)
    assert any("1 stopped early: for no recorded reason (1)" in line for line in sentences(load(run.close())))
