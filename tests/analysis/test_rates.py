"""Bits an image by how much the code knows, and the front of MSE against those under a learned prior."""

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analysis.figures.front import rate
from analysis.page import write_page
from analysis.parquet import write_parquet
from analysis.report import analyse
from analysis.results import load
from analysis.tables import dimension_rates_table, losses_table, rates_table, write_tables

UNITS = 3 * 32**2


def rates(learned: float | None, entropy: float = 450.0) -> dict[str, dict[str, float]]:
    """Of every epoch, and of the last one: a learned rate is known there alone."""
    every = {"bits": entropy, "bits_uniform": 576.0, "bits_unigram": entropy + 5}
    return {"report": every, "last": {} if learned is None else {"bits_learned": learned}}


@pytest.fixture
def learned(make_run) -> Path:
    """Three configurations of two seeds: the second has the lowest learned rate, and the first the lowest MSE."""
    run = make_run()
    for beta, mse, bits in ((0.1, 0.02, 420.0), (0.25, 0.03, 380.0), (1.0, 0.04, 400.0)):
        for seed in (0, 1):
            curve = [(mse * w * (1 + 0.01 * seed), 200 / w) for w in (2.5, 1.6, 1.2, 1.0)]
            run.trial(curve, seed=seed, commitment_weight=beta, **rates(bits + seed))
    return run.done()


def test_rates_an_image_and_a_dimension_by_what_the_code_knows(learned):
    results = load(learned)
    image, dimension = rates_table(results), dimension_rates_table(results)
    assert image.columns == dimension.columns
    assert image.columns == ("configuration", "uniform", "entropy", "unigram code", "learned prior")
    assert image.rows[0] == ("beta 0.1", "576.0", "450.0 ± 0.0", "455.0 ± 0.0", "420.50 ± 0.71")
    assert dimension.rows[0][1:4] == (f"{576 / UNITS:.4f}", f"{450 / UNITS:.4f}", f"{455 / UNITS:.4f}")
    assert "of 3,072 an image" in dimension.title
    assert not any("rate" in column or "bits" in column for column in losses_table(results).columns)


def test_the_rates_are_printed_and_have_a_csv(learned):
    paths = {path.name: path.read_text() for path in write_tables(load(learned))}
    assert "## Rate: bits an image, whole test set" in paths["results.md"]
    assert paths["rates.tex"].count(r"\begin{table}") == 2
    first, *_ = csv.DictReader(io.StringIO(paths["rates.csv"]))
    assert (first["commitment_weight"], first["n"], first["bits_learned_mean"]) == ("0.1", "2", "420.5")
    assert float(first["bits_learned_per_dimension_mean"]) == 420.5 / UNITS


def test_learned_rates_have_a_front_of_their_own(learned):
    figure = rate(load(learned))
    assert ["learned prior" in axes.get_xlabel() for axes in figure.axes] == [False, False, True]
    named = {text.get_text(): text.xy for text in figure.axes[2].texts if text.get_text().isdigit()}
    assert [x for x, _ in named.values()] == [420.5, 380.5], "beta 1 is worse in both than beta 0.25"
    page = write_page(load(learned)).read_text()
    assert 'id="learned-rate"' in page
    assert "Numbers name this front, the lowest rate first." in page
    assert ">learned rate</th>" in page, "the table of every trial has it"


@pytest.mark.parametrize("some", [None, 400.0])
def test_without_learned_rates_of_two_configurations_there_is_no_such_front(make_run, some):
    run = make_run()
    for beta, bits in ((0.1, some), (1.0, None)):
        run.trial([(0.02 + beta / 100, 200)], commitment_weight=beta, **rates(bits))
    results = load(run.done())
    assert len(rate(results).axes) == 2
    assert 'id="learned-rate"' not in write_page(results).read_text()
    assert ("learned prior" in rates_table(results).columns) == (some is not None)


def test_an_older_run_shows_the_rate_that_it_has(ablation):
    results = load(ablation)
    assert rates_table(results).columns == ("configuration", "entropy")
    table = pq.read_table(write_parquet(results))
    assert set(table["bits_learned"].to_pylist()) == set(table["bits_unigram"].to_pylist()) == {None}


def test_without_the_images_size_there_are_no_bits_a_dimension(make_run):
    run = make_run(image_size=None)
    run.trial([(0.02, 200)], commitment_weight=0.1, **rates(400.0))
    results = load(run.done())
    assert dimension_rates_table(results) is None
    assert rates_table(results).rows[0][1:] == ("576.0", "450.0", "455.0", "400.0")


def test_only_the_test_set_has_such_rates(learned):
    units = json.loads(pq.read_schema(write_parquet(load(learned))).metadata[b"units"])
    assert {"bits_uniform", "bits_unigram", "bits_learned"} < units.keys()
    assert not {"train_bits_uniform", "train_bits_unigram", "train_bits_learned"} & units.keys()


@pytest.mark.parametrize("objectives", ["mse:min bits_learned:min", "bits_learned:min", "mse:min bits_unigram:min"])
def test_a_search_for_a_rate_is_analysed_whole(make_run, objectives):
    """Also where one trial was cut off before its end, and has no learned rate."""
    run = make_run(objectives=objectives, sampler="tpe", swept=("commitment_weight", "estimator"))
    for i in range(14):
        config = {"commitment_weight": 0.1 + i, "estimator": ("ste", "rotation")[i % 2]}
        curve = [((0.02 + i / 1000) * w, 200 / w) for w in (2.5, 1.6, 1.2, 1.0)]
        if i == 3:
            run.trial(curve[:2], "stopped", "the budget of 54 epochs is spent", **config, **rates(None))
        else:
            run.trial(curve, **config, **rates(420.0 - 3 * i, 450 - 2 * i))
    findings = analyse(run.done())
    assert not [line for line in findings.lines if "could not" in line]
    page = (findings.folder / "report.html").read_text()
    assert "could not be made" not in page
    assert ('id="curves-bits_learned"' in page, 'id="curves-bits_unigram"' in page) == (False, "unigram" in objectives)
    assert any(line.startswith(("Lowest learned rate: ", "Lowest unigram rate: ")) for line in findings.lines)
