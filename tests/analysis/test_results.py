import json

import pyarrow.parquet as pq
import pytest

from analysis.parquet import write_parquet
from analysis.results import load, ranked
from vqcore.config import FIELDS, ConfigError


def test_what_did_not_complete_is_listed_with_its_reason(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.25)
    run.trial([(0.1, 5)] * 2, "diverged", "loss is not finite", commitment_weight=1.0)
    run.trial([], "failed", "out of memory", commitment_weight=2.0)
    run.trial([(0.1, 5)], "stopped", "collapsed", commitment_weight=0.5)
    run.trial([(0.1, 5)], None, commitment_weight=0.1)
    results = load(run.close())
    assert [group.label for group in results.groups] == ["beta 0.25"]
    assert [why for _, why in results.left_out] == [
        "diverged after epoch 2: loss is not finite",
        "failed after epoch 0: out of memory",
        "stopped after epoch 1: collapsed",
        "not finished: 1 epochs so far",
    ]


def test_compared_at_the_last_epoch_that_all_have(make_run):
    run = make_run()
    run.trial([(0.05, 50), (0.04, 60)], commitment_weight=0.1)
    run.trial([(0.06, 40), (0.03, 90), (0.01, 200)], commitment_weight=0.25)
    results = load(run.done())
    assert results.epoch == 2
    assert [group.mean("mse") for group in results.groups] == [0.04, 0.03]


def test_a_longer_budget_is_the_same_configuration(make_run):
    run = make_run()
    run.trial([(0.05, 50)], seed=0, epochs=4)
    run.trial([(0.06, 40)], seed=1, epochs=9)
    assert len(load(run.done()).groups) == 1


@pytest.mark.parametrize(
    ("swept", "field", "values", "labels"),
    [
        ("decay", "estimator", ("ste", "rotation"), ["rotation, decay 0.9", "ste, decay 0.9"]),
        ("commitment_weight", "decay", (0.9, 0.99), ["beta 0.25, decay 0.9", "beta 0.25, decay 0.99"]),
        ("commitment_weight", "commitment_weight", (0.123456, 0.123457), ["beta 0.123456", "beta 0.123457"]),
        ("commitment_weight", "commitment_weight", (1, 10.0, 2.0), ["beta 1", "beta 2", "beta 10"]),
    ],
    ids=["the estimator first", "a field that nobody named", "no rounding where it would merge", "by value"],
)
def test_groups_are_ordered_and_told_apart(make_run, swept, field, values, labels):
    run = make_run(swept=(swept, "estimator") if field == "estimator" else (swept,))
    for value in values:
        run.seeds([0.02], [200], **{"commitment_weight": 0.25, "decay": 0.9, field: value})
    assert [group.label for group in load(run.done()).groups] == labels


@pytest.mark.parametrize(("searched", "counted"), [(False, (0, 1, 2)), (True, (1, 2))], ids=["grid", "search"])
def test_the_seed_that_chose_is_in_no_estimate(make_run, searched, counted):
    run = make_run(**({"sampler": "grid"} if searched else {}))
    run.seeds([0.01, 0.02, 0.022], [100, 300, 302], commitment_weight=0.1)
    run.seeds([0.005], [500], commitment_weight=1.0)
    results = load(run.done())
    several, single = results.groups
    assert (several.seeds, single.seeds) == (counted, () if searched else (0,))
    assert several.mean("mse") == pytest.approx(sum((0.01, 0.02, 0.022)[seed] for seed in counted) / len(counted))
    assert results.front == ((several,) if searched else (single,))
    assert ranked(results.groups, results.objectives[0])[0] == results.front[0]
    assert results.estimate(several, "mse").interval() is not None
    assert results.estimate(single, "mse").interval() is None
    assert single.text("mse") == ("(0.005000)" if searched else "0.005000")


def test_no_run_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no run"):
        load(tmp_path)


def test_parquet_has_a_row_a_trial_and_epoch(ablation):
    table = pq.read_table(write_parquet(load(ablation)))
    assert table.num_rows == 9 * 4 + 1
    assert table.column_names[:2] == ["trial", "epoch"]
    assert set(FIELDS) < set(table.column_names)
    row = table.to_pylist()[-1]
    assert (row["status"], row["reason"], row["commitment_weight"]) == ("diverged", "loss is not finite", 2.0)
    assert row["mse"] == 0.05
    units = json.loads(table.schema.metadata[b"units"])
    assert units["mse"].startswith("mean squared error on [-1, 1]")


def test_parquet_types_do_not_depend_on_the_values(make_run):
    run = make_run()
    empty = pq.read_schema(write_parquet(load(run.folder)))
    run.trial([(1, 2)], commitment_weight=1)
    full = pq.read_schema(write_parquet(load(run.close())))
    assert empty.remove_metadata() == full.remove_metadata()
