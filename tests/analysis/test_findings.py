"""The sentences of the last page, of few configurations and of many."""

import io
import math
import random

import numpy as np
import pytest
from rich.console import Console

from analysis.figures.front import entropy_coded, fixed_length, front, rate
from analysis.findings import certainty_sentence, front_sentence, sentences
from analysis.report import MOST_ROWS, analyse
from analysis.results import load
from analysis.tables import all_tables, front_table

SWEPT = ("estimator", "commitment_weight")


@pytest.fixture
def search(make_run):
    """200 configurations, half of them stopped, for several reasons; three got two seeds besides the screening one."""
    run, chance = make_run(swept=SWEPT, trials=206, sampler="random"), random.Random(0)
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


def test_the_last_page_shows_the_front_and_the_best_and_how_many_more(search):
    findings = analyse(search)
    assert findings.table is not None
    assert len(findings.table.rows) == MOST_ROWS
    assert {"rotation, beta 2 *", "rotation, beta 3 *", "rotation, beta 4 *"} <= {r[0] for r in findings.table.rows}
    assert "shown: the front and the lowest MSE; 80 more in tables/results.md" in shown(findings)
    assert len(shown(findings, 80).splitlines()) < 60


def test_stops_are_counted_by_reason(search):
    assert (
        "Not compared: 100 stopped early: rung 1 (34), rung 3 (33), collapsed (33); "
        "each with its reason in tables/results.md"
    ) in sentences(load(search))


def test_a_search_says_which_seed_chose_and_claims_nothing_from_it(search):
    state, lowest, _, front, *_ = sentences(load(search))
    assert state.endswith("seed 0 screened 100 configurations; the estimates are of 2 seeds more, of 3 of them.")
    assert lowest.startswith("Lowest MSE: rotation, beta 2,")
    assert "simultaneous over 3 configurations, n = 2)" in lowest
    assert "each of the others with several seeds" in lowest
    assert lowest.endswith("97 with fewer than two seeds beside seed 0 were not tested.")
    assert front.startswith("By the means of the 3 with more seeds: ")


def test_a_search_with_one_seed_is_an_order(make_run):
    run = make_run(sampler="random")
    for beta in (0.1, 0.25):
        run.seeds([0.02 + beta / 10], [300 + beta], commitment_weight=beta)
    results = load(run.done())
    lines = sentences(results)
    assert "1 seed a configuration (an order, not a claim)" in lines[0]
    assert [group.label for group in results.front] == ["beta 0.1", "beta 0.25"]
    assert any(line.startswith("By a single seed, so an order and no claim: a trade-off") for line in lines)
    assert all("interval" not in line for line in lines)


FEW = (0.020, 0.024, 0.022), (300, 280, 290)


@pytest.mark.parametrize(
    ("configurations", "expected"),
    [
        ([FEW, ((0.023, 0.021, 0.0225), (295, 285, 289))], "the seeds' spread, so not told apart from: beta 0.25. "),
        ([((0.02,), (300,)), ((0.03,), (200,))], "23.0 dB. One seed: an order, not a claim. "),
        (
            [((0.02,), (300,)), ((0.03,), (200,))],
            "By a single seed, so an order and no claim: best in both MSE and perplexity is",
        ),
        ([FEW], "One configuration only: there is no front to speak of."),
        ([FEW, FEW], "best in both MSE and perplexity is beta 0.1; beta 0.25 (equal)"),
        (
            [((0.01,), (300,)), ((0.02, 0.021), (300, 300))],
            "Lowest MSE: beta 0.1, 0.01000 on [-1, 1], 26.0 dB. One seed: an order, not a claim. Of those with more "
            "seeds: beta 0.25, 0.02050 ± 0.00071",
        ),
        ([FEW, ((0.03,), (200,))], "n = 3). No other configuration has several seeds, so its lead is no claim. "),
        (
            [((0.01,), (400,)), ((0.02, 0.0201), (300, 301))],
            "By the spread of the others each configuration is on it or off it with a probability above 95 %, but of "
            "those on the front 1 have one seed only.",
        ),
    ],
)
def test_sentences_of_few_configurations(make_run, configurations, expected):
    run = make_run()
    for beta, values in zip((0.1, 0.25), configurations, strict=False):
        run.seeds(*values, commitment_weight=beta)
    assert expected in " ".join(sentences(load(run.done())))


def test_many_failures_are_not_all_on_the_screen(make_run):
    run = make_run(trials=30)
    for i in range(30):
        run.trial([], "failed", "out of memory", commitment_weight=1.0 + i)
    run.trial([(0.1, 5)], "stopped", commitment_weight=0.5)
    findings = analyse(run.close())
    assert sum("out of memory" in line for line in findings.lines) == 5
    assert "Not compared: 1 stopped early: for no recorded reason (1); each" in " ".join(findings.lines)
    assert any("25 more that did not complete, each with its reason" in line for line in findings.lines)
    assert (run.folder / "tables" / "results.md").read_text().count("out of memory") == 30


def one_winner(run):
    """The largest codebook is best in both, and costs most bits."""
    for i, codes in enumerate((128, 256, 512)):
        run.seeds([0.03 - i / 100, 0.0301 - i / 100], [60 * 2**i, 61 * 2**i], codebook_size=codes)
    return load(run.done())


def test_a_clear_front_is_settled(make_run):
    results = one_winner(make_run(swept=("codebook_size",)))
    assert certainty_sentence(results) == (
        "The front is settled: each configuration is on it or off it with a probability above 95 %."
    )
    assert front_sentence(results).endswith(
        "best in both MSE and perplexity is K 512; the front is one point, no trade-off here."
    )
    table = front_table(results)
    assert table is not None
    assert [row[:3] for row in table.rows] == [("K 512 *", "2", "1.00")]
    assert table.notes[0] == certainty_sentence(results)


def test_a_front_within_the_spread_is_not_settled_and_names_them(make_run):
    run = make_run()
    run.seeds([0.020, 0.024, 0.022], [300, 280, 290], commitment_weight=0.1)
    run.seeds([0.023, 0.021, 0.0225], [295, 285, 289], commitment_weight=0.25)
    run.seeds([0.9, 0.91, 0.92], [2, 2.1, 2.2], commitment_weight=1.0)
    results = load(run.done())
    sentence = certainty_sentence(results)
    assert sentence is not None
    assert sentence.startswith(
        "The front is not settled: 2 configurations may be on it, with probability: beta 0.1 (0."
    )
    table = front_table(results)
    assert table is not None
    assert [row[0] for row in table.rows] == ["beta 0.1 *", "beta 0.25"]
    assert all(0.05 < float(row[2]) < 0.95 for row in table.rows)
    assert table.notes[-1].endswith("others on it with less than 5 %: 1")


@pytest.mark.parametrize("configurations", [1, 3])
def test_one_seed_or_one_configuration_states_no_certainty(make_run, configurations):
    run = make_run()
    for i in range(configurations):
        run.trial([(0.02 + i / 100, 300)], commitment_weight=0.1 + i)
    results = load(run.done())
    assert (certainty_sentence(results), front_table(results)) == (None, None)
    assert "front" not in all_tables(results)


def test_rates_of_an_image(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.1, codebook_size=256)
    (group,) = load(run.done()).groups
    assert entropy_coded(group) == {0: (pytest.approx(64 * math.log2(200)), 0.02)}
    assert fixed_length(group) == {0: (64 * 8, 0.02)}


def test_a_rate_that_is_not_known_is_left_out(make_run):
    run = make_run(image_size=None)
    run.trial([(0.2, 1.0)], commitment_weight=0.1)
    run.trial([(0.3, 1.0)], commitment_weight=1.0)
    results = load(run.done())
    assert fixed_length(results.groups[0]) == {}
    assert rate(results) is not None


def test_rate_has_a_front_for_both_codes(make_run):
    figure = rate(one_winner(make_run(swept=("codebook_size",))))
    left, right = figure.axes
    assert "entropy coder" in left.get_xlabel()
    assert "fixed length" in right.get_xlabel()
    assert left.get_title(loc="left") == "MSE against rate: cifar10-mini, after epoch 4, 2 seeds"
    steps = [line.get_xydata() for line in right.lines if line.get_linestyle() == "--" and line.get_color() == "0.35"]
    assert {448.0, 512.0, 576.0} <= set(np.concatenate(steps)[:, 0])


def test_one_seed_has_no_band(make_run):
    run = make_run()
    for i in range(3):
        run.trial([(0.02 + i / 100, 300 + i)], commitment_weight=0.1 + i)
    labels = [text.get_text() for text in front(load(run.done())).legends[0].get_texts()]
    assert "95 % band of the front" not in labels
