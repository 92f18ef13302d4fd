"""The sentences of the last page, of few configurations and of many."""

import io
import math
import random

import numpy as np
import pytest
from rich.console import Console

from analysis.figures.front import front, rate
from analysis.findings import certainty_sentence, sentences
from analysis.rates import entropy_coded, fixed_length
from analysis.report import analyse
from analysis.results import MOST, load
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
        mse, perplexity = 0.03 + chance.random() / 100, 200 + 10 * chance.random()
        run.trial(
            [(mse * w, perplexity) for w in (2, 1.5, 1.2, 1)],
            commitment_weight=0.1 + i / 100,
            estimator=("ste", "rotation")[i % 2],
        )
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
    assert len(findings.table.rows) == MOST
    assert {"rotation, beta 2 *", "rotation, beta 3 *", "rotation, beta 4 *"} <= {r[0] for r in findings.table.rows}
    assert "shown: the front and the lowest MSE; 88 more in tables/results.md" in shown(findings)
    assert len(shown(findings, 80).splitlines()) <= 60


def test_stops_are_counted_by_reason(search):
    assert (
        "Not compared: 100 trials stopped early: rung 1 (34), rung 3 (33), collapsed (33); "
        "the reasons are in tables/results.md"
    ) in sentences(load(search))


FEW = (0.020, 0.024, 0.022), (300, 280, 290)
LEADS = (0.010, 0.0101, 0.0102), (200, 202, 201)
ONE, OTHER = ((0.02,), (300,)), ((0.03,), (310,))
ORDER = "One seed: an order, not a claim."
SURE = "each configuration is on it or off it with a probability above 95 %."


@pytest.mark.parametrize(
    ("configurations", "expected"),
    [
        (
            [ONE],
            "1 trial: 1 completed. Compared after epoch 4 on cifar10-mini, 1 seed a configuration.\n"
            "MSE: beta 0.1, 0.02000 on [-1, 1], 23.0 dB. One seed: how far others spread is not known.\n"
            "Perplexity: beta 0.1, 300.0 of the whole test set. One seed: how far others spread is not known.\n"
            "One configuration only: there is no front to speak of.",
        ),
        (
            [FEW],
            "3 trials: 3 completed. Compared after epoch 4 on cifar10-mini, 3 seeds a configuration.\n"
            "MSE: beta 0.1, 0.0220 ± 0.0020 on [-1, 1], 22.6 dB (95 % interval [0.0170, 0.0270], n = 3).\n"
            "Perplexity: beta 0.1, 290 ± 10 of the whole test set (95 % interval [265, 315], n = 3).\n"
            "One configuration only: there is no front to speak of.",
        ),
        (
            [ONE, OTHER],
            "2 trials: 2 completed. Compared after epoch 4 on cifar10-mini, 1 seed a configuration.\n"
            f"Lowest MSE: beta 0.1, 0.02000 on [-1, 1], 23.0 dB. {ORDER}\n"
            f"Highest perplexity: beta 0.25, 310.0 of the whole test set. {ORDER}\n"
            "By one seed each, so an order and no claim: 2 configurations are on the front, lowest MSE "
            "first: beta 0.1; beta 0.25.",
        ),
        (
            [FEW, LEADS],
            "6 trials: 6 completed. Compared after epoch 4 on cifar10-mini, 3 seeds a configuration.\n"
            "Lowest MSE: beta 0.25, 0.01010 ± 0.00010 on [-1, 1], 26.0 dB (95 % interval [0.00509, 0.01511], whichever "
            "of the 2 is picked, n = 3). Its lead over the other one is more than the seeds' spread (paired t tests, "
            "Holm's correction).\n"
            "Highest perplexity: beta 0.1, 290 ± 10 of the whole test set (95 % interval [254, 326], whichever of the "
            "2 is picked, n = 3). Its lead over the other one is more than the seeds' spread (paired t tests, Holm's "
            "correction).\n"
            "By the means: 2 configurations are on the front, lowest MSE first: beta 0.25; beta 0.1.\n"
            f"The front is settled: {SURE}",
        ),
        (
            [FEW, FEW],
            "By the means: beta 0.1; beta 0.25 are, equal to each other, best in both MSE and perplexity; the front is "
            f"one point, no trade-off.\nThe front is settled: {SURE}",
        ),
        ([FEW, OTHER], "n = 3). No other configuration has several seeds, so its lead is no claim.\n"),
        (
            [((0.01,), (300,)), ((0.02, 0.021), (300, 300))],
            f"Lowest MSE: beta 0.1, 0.01000 on [-1, 1], 26.0 dB. {ORDER} Of those with more seeds: beta 0.25, 0.02050",
        ),
        (
            [((0.01,), (400,)), ((0.02, 0.0201), (300, 301))],
            "By the means, 1 of one seed and so no claim: beta 0.1 is best in both MSE and perplexity; the front is "
            f"one point, no trade-off.\nBy the spread of the others {SURE[:-1]}, but 1 of those on the front has one "
            "seed only.",
        ),
        (
            [LEADS, ((0.0100, 0.0104, 0.0102), (200, 203, 200)), FEW, ((0.9, 0.91, 0.92), (2, 2.1, 2.2))],
            "Not told apart from, which does not mean equal to: beta 0.25 (paired t tests, Holm's correction). Told "
            "apart from the other 2.\n",
        ),
        (
            [LEADS, ((0.0100, 0.0104, 0.0102), (200, 203, 200)), FEW, ((0.9, 0.91, 0.92), (2, 2.1, 2.2))],
            "The front is not settled. On it with a probability above 95 %: beta 0.5; beta 0.1. Perhaps, with a "
            "probability of: beta 0.25 (0.68). Below 5 %: the other one.",
        ),
    ],
)
def test_sentences(make_run, configurations, expected):
    run = make_run(trials=sum(len(mses) for mses, _ in configurations))
    for beta, values in zip((0.1, 0.25, 0.5, 1.0), configurations, strict=False):
        run.seeds(*values, commitment_weight=beta)
    said = "\n".join(sentences(load(run.done())))
    assert said == expected if expected[0].isdecimal() else expected in said


def screened(run, *more):
    """A search whose seed 0 took four configurations to the end, stopped one, failed at one, and chose for more."""
    for i in range(4):
        mses, perplexities = more[i] if i < len(more) else ((), ())
        run.seeds([0.02 + i / 1000, *mses], [300.0 - i, *perplexities], commitment_weight=0.1 + i)
    run.trial([(0.05, 9)], "stopped", "rung 1: rank 5 of 6, kept 1 in 3", commitment_weight=7.0)
    run.trial([], "failed", "out of memory", commitment_weight=8.0)
    return "\n".join(sentences(load(run.done())))


SAVED = (
    "Early stopping of 1 trial saved 3 of 20 epochs (15%). Had none been stopped, the {} at most, likely 0.0% "
    "(95 %, by forecasts from the 4 that were trained to the end)."
)
AREA, LOWEST = (
    SAVED.format("hypervolume of the front would be 0.0% larger"),
    SAVED.format("lowest MSE would be 0.0% better"),
)
LEFT_OUT = (
    "Not compared: beta 8, seed 0, failed after epoch 0: out of memory\n"
    "Not compared: 1 trial stopped early: rung 1 (1); the reasons are in tables/results.md"
)


def test_a_search_with_one_seed_is_an_order(make_run):
    assert screened(make_run(sampler="tpe")) == (
        "6 trials: 4 completed, 1 stopped early, 1 failed. Compared after epoch 4 on cifar10-mini, 1 seed a "
        "configuration (an order, not a claim).\n"
        f"Lowest MSE: beta 0.1, 0.02000 on [-1, 1], 23.0 dB. {ORDER}\n"
        f"Highest perplexity: beta 0.1, 300.0 of the whole test set. {ORDER}\n"
        "By one seed each, so an order and no claim: beta 0.1 is best in both MSE and perplexity; the front is one "
        f"point, no trade-off.\n{AREA}\n{LEFT_OUT}"
    )


def test_a_search_says_which_seed_chose_and_claims_nothing_from_it(make_run):
    assert screened(make_run(sampler="tpe"), LEADS, FEW) == (
        "12 trials: 10 completed, 1 stopped early, 1 failed. Seed 0 took 4 configurations to the end and chose 2 for 3 "
        "seeds more: the estimates are of those seeds alone, after epoch 4 on cifar10-mini.\n"
        "Lowest MSE: beta 0.1, 0.01010 ± 0.00010 on [-1, 1], 26.0 dB (95 % interval [0.00509, 0.01511], whichever of "
        "the 2 is picked, n = 3). Its lead over the other one with several seeds is more than the seeds' spread "
        "(paired t tests, Holm's correction). Not tested: 2, with too few seeds.\n"
        "Highest perplexity: beta 1.1, 290 ± 10 of the whole test set (95 % interval [254, 326], whichever of the 2 "
        "is picked, n = 3). Its lead over the other one with several seeds is more than the seeds' spread (paired t "
        "tests, Holm's correction). Not tested: 2, with too few seeds.\n"
        "By the means of the 2 with more seeds: 2 configurations are on the front, lowest MSE first: beta "
        f"0.1; beta 1.1.\nThe front of the 2 with more seeds is settled: {SURE}\n{AREA}\n{LEFT_OUT}"
    )


def test_a_search_for_one_objective_that_chose_one_configuration(make_run):
    assert screened(make_run(sampler="tpe", objectives="mse:min"), LEADS) == (
        "9 trials: 7 completed, 1 stopped early, 1 failed. Seed 0 took 4 configurations to the end and chose 1 for 3 "
        "seeds more: the estimates are of those seeds alone, after epoch 4 on cifar10-mini.\n"
        "MSE of the one configuration with more seeds: beta 0.1, 0.01010 ± 0.00010 on [-1, 1], 26.0 dB (95 % interval "
        "[0.00985, 0.01035], n = 3).\n"
        "Perplexity of the one configuration with more seeds, no aim of this search: beta 0.1, 201.0 ± 1.0 of the "
        "whole test set (95 % interval [198.5, 203.5], n = 3).\n"
        f"Only one configuration has seeds beside seed 0: there is no front to speak of.\n{LOWEST}\n{LEFT_OUT}"
    )


def test_many_failures_are_not_all_on_the_screen(make_run):
    run = make_run(trials=30)
    for i in range(30):
        run.trial([], "failed", "out of memory", commitment_weight=1.0 + i)
    run.trial([(0.1, 5)], "stopped", commitment_weight=0.5)
    findings = analyse(run.close())
    assert sum("out of memory" in line for line in findings.lines) == 5
    assert findings.lines[-2:] == (
        "Not compared: 25 more trials that did not complete; the reasons are in tables/results.md",
        "Not compared: 1 trial stopped early: no recorded reason (1); the reasons are in tables/results.md",
    )
    assert (run.folder / "tables" / "results.md").read_text().count("out of memory") == 30


def one_winner(run):
    """The largest codebook is best in both, and costs most bits."""
    for i, codes in enumerate((128, 256, 512)):
        run.seeds([0.03 - i / 100, 0.0301 - i / 100], [60 * 2**i, 61 * 2**i], codebook_size=codes)
    return load(run.done())


def test_a_clear_front_is_settled(make_run):
    results = one_winner(make_run(swept=("codebook_size",)))
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
    assert certainty_sentence(results) == (
        "The front is not settled. On it with a probability above 95 %: none. Perhaps, with a probability of: beta 0.1 "
        "(0.52); beta 0.25 (0.49). Below 5 %: the other one."
    )
    table = front_table(results)
    assert table is not None
    assert [row[0] for row in table.rows] == ["beta 0.1 *", "beta 0.25"]
    assert all(0.05 < float(row[2]) < 0.95 for row in table.rows)
    assert table.notes[-1].endswith("not listed: 1, each on it with less than 5 %")


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
