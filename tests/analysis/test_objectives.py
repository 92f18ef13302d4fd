import tomllib

import pytest

from analysis.export import write_exports
from analysis.figures import front
from analysis.findings import sentences
from analysis.objectives import Objective, recorded
from analysis.report import analyse
from analysis.results import load
from analysis.tables import groups_table
from vqcore.config import TrialConfig


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (None, ("mse", "perplexity")),
        ("", ("mse", "perplexity")),
        ("mse:min perplexity:max", ("mse", "perplexity")),
        ("bits:min mse:min", ("bits", "mse")),
        ("mse:min", ("mse", "perplexity")),
        ("perplexity:max", ("perplexity", "mse")),
        ("usage", ("usage", "mse")),
        ("what:ever", ("mse", "perplexity")),
        (3, ("mse", "perplexity")),
    ],
)
def test_what_a_run_recorded(text, columns):
    assert tuple(objective.column for objective in recorded(text)) == columns


@pytest.fixture
def rates(make_run):
    """MSE and rate, both down: three on the front, one dominated."""
    run = make_run(objectives="mse:min bits:min")
    for beta, mse, perplexity in ((0.1, 0.02, 300), (0.25, 0.025, 200), (0.5, 0.03, 100), (1.0, 0.031, 250)):
        run.seeds([mse, mse * 1.01], [perplexity, perplexity + 1], commitment_weight=beta)
    return run.done()


def test_the_front_and_the_sentences_follow_the_objectives(rates):
    results = load(rates)
    assert [group.label for group in results.front] == ["beta 0.1", "beta 0.25", "beta 0.5"]
    lines = sentences(results)
    assert any(line.startswith("Lowest rate: beta 0.5, 425.67 ± ") and "bits an image" in line for line in lines)
    assert any("3 configurations are on the front, lowest MSE first: beta 0.1" in line for line in lines)
    assert not any(line.startswith("Highest perplexity") for line in lines)


def test_tables_have_a_column_for_each_objective(rates):
    table = groups_table(load(rates))
    assert table.columns == ("configuration", "n", "MSE", "95 % interval", "dB", "perplexity", "rate")
    assert table.notes[-1].endswith("no other configuration is as good in MSE and rate and better in one")


def test_the_plot_says_what_it_shows(rates):
    (axes,) = front(load(rates)).axes
    assert axes.get_title(loc="left").startswith("MSE against rate: ")
    assert axes.get_xlabel() == "rate, bits an image under an ideal entropy coder, whole test set (less is better)"
    assert axes.get_ylabel() == "MSE on [-1, 1], whole test set (less is better)"


def test_exports_follow_the_objectives(rates):
    paths = {path.stem: path for path in write_exports(load(rates))}
    assert set(paths) == {"best_mse", "best_bits", "knee"}
    text = paths["best_bits"].read_text()
    assert TrialConfig.from_toml(tomllib.loads(text)).model.quantizer.commitment_weight == 0.5
    assert text.startswith("# beta 0.5: lowest rate by the means, of 4 configurations")
    assert "# rate: 425.67 ± " in text


def test_an_export_says_what_is_of_one_seed(make_run):
    run = make_run()
    run.trial([(0.02, 300)], commitment_weight=0.1)
    run.seeds([0.03, 0.031], [200, 201], commitment_weight=1.0)
    text = write_exports(load(run.done()))[0].read_text()
    assert "# MSE on [-1, 1]: 0.02000, one seed: an order, so no interval and no claim, n = 1" in text


@pytest.mark.parametrize(
    "objectives", ["usage:max codebook_loss:min", "perplexity:max train_mse:min", "mse:max bits:max"]
)
def test_any_columns_and_directions_are_drawn(make_run, objectives):
    run = make_run(objectives=objectives, swept=("commitment_weight", "estimator"))
    for i in range(6):
        run.seeds(
            [0.02 + i / 1000, 0.021 + i / 1000],
            [300 - i, 290 - i],
            commitment_weight=0.1 + i,
            estimator=("ste", "rotation")[i % 2],
        )
    findings = analyse(run.done())
    assert not any("could not be written" in line for line in findings.lines)
    assert "pareto.png" in {path.name for path in findings.paths}


def test_an_objective_nobody_reported_leaves_nothing_to_compare(make_run):
    run = make_run(objectives="mse:min flops:min")
    run.trial([(0.02, 300)], commitment_weight=0.1)
    results = load(run.done())
    assert results.groups == ()
    assert sentences(results)[0].endswith("Nothing to compare: no completed trial reports mse and flops.")


def test_words_of_an_objective():
    objective = Objective("train_mse", "min")
    assert objective.best == "lowest training MSE"
    assert objective.metric.label == "training MSE on [-1, 1], training set"
    assert str(objective) == "train_mse:min"
