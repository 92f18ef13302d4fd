import json

import pyarrow.parquet as pq
import pytest

from analysis.parquet import write_parquet
from analysis.results import load
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


def test_front_keeps_ties_and_takes_equal_perplexities_by_mse(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.1)
    run.seeds([0.02], [200], commitment_weight=0.25)
    run.seeds([0.03], [200], commitment_weight=0.5)
    assert [group.label for group in load(run.done()).front] == ["beta 0.1", "beta 0.25"]


def test_estimators_come_first_in_order_and_label(make_run):
    run = make_run(swept=("commitment_weight", "estimator"))
    for beta in (1.0, 0.25):
        for estimator in ("ste", "rotation"):
            run.seeds([0.02], [200], commitment_weight=beta, estimator=estimator)
    labels = [group.label for group in load(run.done()).groups]
    assert labels == ["rotation, beta 0.25", "rotation, beta 1", "ste, beta 0.25", "ste, beta 1"]


def test_a_field_that_varies_unannounced_still_parts_groups(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.25, decay=0.9)
    run.seeds([0.03], [100], commitment_weight=0.25, decay=0.99)
    assert [group.label for group in load(run.done()).groups] == ["beta 0.25, decay 0.9", "beta 0.25, decay 0.99"]


def test_labels_stay_apart_where_rounding_would_merge_them(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.123456)
    run.seeds([0.03], [100], commitment_weight=0.123457)
    assert len({group.label for group in load(run.done()).groups}) == 2


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


def test_parquet_replaces_and_leaves_nothing_half_written(ablation):
    write_parquet(load(ablation))
    write_parquet(load(ablation))
    assert sorted(path.name for path in ablation.iterdir() if path.is_file()) == ["journal.jsonl", "results.parquet"]
