import math

import numpy as np
import pytest

from analysis.figures import front, rate
from analysis.findings import certainty_sentence, front_sentence, rate_sentence
from analysis.results import load
from analysis.tables import all_tables, front_table


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
    table = front_table(results)
    assert table is not None
    assert [row[:3] for row in table.rows] == [("K 512 *", "2", "1.00")]
    assert table.notes[0] == certainty_sentence(results)


def test_a_front_within_the_spread_is_not_settled_and_says_by_whom(make_run):
    run = make_run()
    run.seeds([0.020, 0.024, 0.022], [300, 280, 290], commitment_weight=0.1)
    run.seeds([0.023, 0.021, 0.0225], [295, 285, 289], commitment_weight=0.25)
    run.seeds([0.9, 0.91, 0.92], [2, 2.1, 2.2], commitment_weight=1.0)
    results = load(run.done())
    said = certainty_sentence(results)
    assert said is not None
    assert said.startswith("The front is not settled: 2 configurations may be on it, with probability: beta 0.1 (0.")
    table = front_table(results)
    assert table is not None
    assert [row[0] for row in table.rows] == ["beta 0.1 *", "beta 0.25"]
    assert all(0.05 < float(row[2]) < 0.95 for row in table.rows)
    assert table.notes[-1].endswith("others on it with less than 5 %: 1")


def test_a_front_of_single_seeds_is_not_called_settled(make_run):
    run = make_run()
    run.trial([(0.01, 400)] * 4, commitment_weight=0.1)
    run.seeds([0.02, 0.0201], [300, 301], commitment_weight=0.25)
    said = certainty_sentence(load(run.done()))
    assert said is not None
    assert said.startswith("By the spread of the others each configuration is on it or off it")
    assert said.endswith("but of those on the front 1 have one seed only.")


@pytest.mark.parametrize("configurations", [1, 3])
def test_one_seed_or_one_configuration_says_nothing_of_certainty(make_run, configurations):
    run = make_run()
    for i in range(configurations):
        run.trial([(0.02 + i / 100, 300)], commitment_weight=0.1 + i)
    results = load(run.done())
    assert (certainty_sentence(results), front_table(results)) == (None, None)
    assert "front" not in all_tables(results)


def test_no_trade_off_shows_the_rate_beside_it(make_run):
    results = one_winner(make_run(swept=("codebook_size",)))
    assert front_sentence(results).endswith(
        "best in both MSE and perplexity is K 512; the front is one point, no trade-off here."
    )
    said = rate_sentence(results)
    assert said is not None
    assert "with codes of fixed length 3 configurations on the front, from 0.0301 at 448 bits to 0.0100 at 576" in said
    assert "with an ideal entropy coder 3 configurations on the front, from 0.0301 at 379 bits" in said


def test_a_trade_off_needs_no_second_look(ablation):
    assert rate_sentence(load(ablation)) is None


def test_where_the_rate_decides_nothing_either_that_is_said(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.1)
    run.seeds([0.03], [150], commitment_weight=1.0)
    said = rate_sentence(load(run.done()))
    assert said is not None
    assert said.endswith("with codes of fixed length no trade-off either: the best is 0.0200 at 576 bits.")


def test_rates_of_an_image(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.1, codebook_size=256)
    results = load(run.done())
    (group,) = results.groups
    assert results.entropy_coded(group) == {0: (pytest.approx(64 * math.log2(200)), 0.02)}
    assert results.fixed_length(group) == {0: (64 * 8, 0.02)}


def test_a_collapsed_codebook_has_a_fixed_rate_by_the_images_size(make_run):
    run = make_run()
    run.trial([(0.2, 1.0)], codebook_size=256)
    results = load(run.done())
    assert results.fixed_length(results.groups[0]) == {0: (64 * 8, 0.2)}


def test_a_rate_that_is_not_known_is_left_out(make_run):
    run = make_run(image_size=None)
    run.trial([(0.2, 1.0)], commitment_weight=0.1)
    run.trial([(0.3, 1.0)], commitment_weight=1.0)
    results = load(run.done())
    assert results.fixed_length(results.groups[0]) == {}
    assert rate(results) is not None
    assert rate_sentence(results) is not None


def test_rate_has_a_front_for_both_codes(make_run):
    figure = rate(one_winner(make_run(swept=("codebook_size",))))
    left, right = figure.axes
    assert "entropy coder" in left.get_xlabel()
    assert "fixed length" in right.get_xlabel()
    assert left.get_title(loc="left") == "MSE against rate: cifar10-mini, after epoch 4, 2 seeds"
    steps = [line.get_xydata() for line in right.lines if line.get_linestyle() == "--" and line.get_color() == "0.35"]
    assert {448.0, 512.0, 576.0} <= set(np.concatenate(steps)[:, 0])


def test_a_single_configuration_has_no_rate_plot(make_run):
    run = make_run()
    run.seeds([0.02], [200])
    assert rate(load(run.done())) is None


def test_the_pareto_plot_has_a_band_where_there_are_seeds(ablation):
    labels = [text.get_text() for text in front(load(ablation)).axes[0].get_legend().get_texts()]
    assert "95 % band of the front" in labels


def test_one_seed_has_no_band(make_run):
    run = make_run()
    for i in range(3):
        run.trial([(0.02 + i / 100, 300 + i)], commitment_weight=0.1 + i)
    labels = [text.get_text() for text in front(load(run.done())).axes[0].get_legend().get_texts()]
    assert labels == ["front of the means"]
