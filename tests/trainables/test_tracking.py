import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tracked import (
    artifacts,
    assert_mlflow_holds_the_journal,
    eventually,
    finish,
    free_port,
    open_sweep,
    report,
    seen,
    start,
)

from sweeps.sync import main as sync_command
from trainables.runs import JOURNAL, find_run
from trainables.tracking import Tracker, accept, check, default_uri, sync
from vqcore.config import ConfigError


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One database for all: its schema takes seconds to make. Making it here keeps the readers below from racing it."""
    out = tmp_path_factory.mktemp("runs")
    open_sweep(out / "beta_ablation" / "first").close()
    assert sync(out / "beta_ablation" / "first", default_uri(out)) == 1
    return out


@pytest.fixture
def folder(out, request):
    """A run folder of its own, with what an analysis leaves in it."""
    folder = out / "beta_ablation" / re.sub(r"\W", "_", request.node.name)
    for name in ("sweep.toml", "figures/pareto.png", "tables/table3.md", "exports/knee.toml", "trials/aaa/last.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.slow
def test_a_sweep_is_followed_while_it_runs_and_replayed_without_doubling(out, folder):
    uri, journal = default_uri(out), open_sweep(folder)
    tracker = Tracker(folder, uri)
    tracker.start()
    start(journal, "aaa", "bbb", "ccc")
    report(journal, "aaa", 1)
    eventually(lambda: len(seen(uri, folder)[2]["aaa"]) == 1)
    assert seen(uri, folder)[1]["aaa"].info.status == "RUNNING"
    report(journal, "aaa", 2, 3)
    report(journal, "bbb", 1, 2)
    report(journal, "aaa", 2)  # told again by a trial that resumed from an older checkpoint: the first counts
    finish(journal, "aaa")
    finish(journal, "bbb", status="diverged", reason="loss is nan in epoch 3")
    finish(journal, "ccc", status="stopped", reason="dominated")
    journal.write("done")
    assert tracker.close()
    parent = assert_mlflow_holds_the_journal(uri, folder)
    assert parent.info.run_name == folder.name
    assert {"epochs": "3", "betas": "[0.25, 1.0]"}.items() <= parent.data.params.items()
    files = {"sweep.toml", "figures/pareto.png", "tables/table3.md", "exports/knee.toml"}
    assert artifacts(uri, parent) == files | {"trials.json"}
    before = seen(uri, folder)
    a, b = before[1]["aaa"], before[1]["bbb"]
    assert a.info.run_name == "beta 0.25, seed 1"
    assert a.data.params == {"commitment_weight": "0.25", "seed": "1", "decay": "0.9"}
    assert {"commit": "abc1234", "data_hash": "d00d", "precision": "fp32"}.items() <= a.data.tags.items()
    assert b.data.tags["reason"] == "loss is nan in epoch 3"
    assert sync(folder, uri) == 4
    again = seen(uri, folder)
    assert again[2] == before[2]
    for key, run in before[1].items():
        assert again[1][key].to_dictionary() == run.to_dictionary()


@pytest.mark.slow
def test_a_pause_closes_the_runs_and_a_resume_goes_on_in_them(out, folder):
    uri, journal = default_uri(out), open_sweep(folder)
    first = Tracker(folder, uri)
    first.start()
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1)
    journal.write("pause")
    assert first.close()
    parent, children, _ = seen(uri, folder)
    assert {parent.info.status, *(run.info.status for run in children.values())} == {"KILLED"}
    assert children["aaa"].data.tags["reason"] == "interrupted"
    journal.close()

    journal = open_sweep(folder)
    second = Tracker(folder, uri)
    second.start()
    start(journal, "aaa")
    eventually(lambda: seen(uri, folder)[1]["aaa"].info.status == "RUNNING")
    report(journal, "aaa", 2)
    finish(journal, "aaa")
    journal.write("done")
    assert second.close()
    parent_now, children_now, points = seen(uri, folder)
    assert (parent_now.info.run_id, parent_now.info.status) == (parent.info.run_id, "FINISHED")
    assert children_now["aaa"].info.run_id == children["aaa"].info.run_id
    assert {key: run.info.status for key, run in children_now.items()} == {"aaa": "FINISHED", "bbb": "KILLED"}
    assert [step for step, _, _ in points["aaa"]] == [1, 2]


@pytest.mark.slow
def test_sync_closes_what_a_killed_driver_left_open_but_not_what_a_live_one_sends(out, folder, capsys):
    uri, journal = default_uri(out), open_sweep(folder)
    tracker = Tracker(folder, uri)
    tracker.start()
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 2)
    finish(journal, "bbb")
    eventually(lambda: seen(uri, folder)[1]["bbb"].info.status == "FINISHED")
    with pytest.raises(ConfigError, match="is sending this run now"):
        sync(folder, uri)
    assert tracker.close()  # the journal has no end: as after kill -9
    assert seen(uri, folder)[0].info.status == "RUNNING"
    sync_command(folder.name, out)
    assert "trials: 2" in capsys.readouterr().out
    parent, children, points = seen(uri, folder)
    assert parent.info.status == "KILLED"
    assert [step for step, _, _ in points["aaa"]] == [1, 2]  # sent twice, stored once
    assert {key: run.info.status for key, run in children.items()} == {"aaa": "KILLED", "bbb": "FINISHED"}


@pytest.mark.slow
def test_an_epoch_mended_after_the_end_was_told_arrives(out, folder):
    uri, journal = default_uri(out), open_sweep(folder)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 3)  # the line of epoch 2 is lost
    report(journal, "bbb", 1)
    finish(journal, "aaa", "bbb")
    journal.write("done")
    assert sync(folder, uri) == 3
    report(journal, "aaa", 2)  # a resume takes it from the checkpoint, and the trial stays as it ended
    assert sync(folder, uri) == 3
    assert_mlflow_holds_the_journal(uri, folder)
    assert sync(folder, uri) == 3
    assert_mlflow_holds_the_journal(uri, folder)


def test_sync_of_an_unreachable_server_or_an_empty_run_is_a_clear_error(tmp_path):
    (tmp_path / "s" / "one").mkdir(parents=True)
    (tmp_path / "s" / "one" / JOURNAL).touch()
    with pytest.raises(ConfigError, match="nothing to send"):
        sync_command("one", tmp_path)
    open_sweep(tmp_path / "s" / "one")
    with pytest.raises(ConfigError, match="refused; put it right, and run the same again"):
        sync_command("one", tmp_path, f"http://127.0.0.1:{free_port()}")


def test_find_run(tmp_path):
    with pytest.raises(ConfigError, match="there are none yet"):
        find_run("latest", tmp_path)
    for age, name in enumerate(["s/old", "s/same", "t/same", "t/new", "final/model", "prior/over"]):
        open_sweep(tmp_path / name).close()
        os.utime(tmp_path / name / JOURNAL, (1e9 + age, 1e9 + age))
    assert find_run("old", tmp_path) == tmp_path / "s" / "old"
    assert find_run("s/same", tmp_path) == tmp_path / "s" / "same"
    assert find_run("latest", tmp_path) == tmp_path / "t" / "new"
    assert find_run(str(tmp_path / "t" / "same"), tmp_path / "elsewhere") == tmp_path / "t" / "same"
    with pytest.raises(ConfigError, match="several runs"):
        find_run("same", tmp_path)
    with pytest.raises(ConfigError, match=r"'nope': no such run .* latest are over, model, new, same"):
        find_run("nope", tmp_path)
    with pytest.raises(ConfigError, match="no such run"):
        find_run("", tmp_path)


@pytest.mark.slow
def test_a_run_that_somebody_deleted_meanwhile_is_made_again_with_all_its_points(out, folder, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setattr("trainables.tracking.RETRY_SECONDS", 0.1)
    uri, journal = default_uri(out), open_sweep(folder)
    tracker = Tracker(folder, uri)
    tracker.start()
    start(journal, "aaa")
    report(journal, "aaa", 1)
    eventually(lambda: len(seen(uri, folder)[2]["aaa"]) == 1)
    deleted = seen(uri, folder)[1]["aaa"].info.run_id
    MlflowClient(uri).delete_run(deleted)
    report(journal, "aaa", 2)
    eventually(lambda: seen(uri, folder)[1]["aaa"].info.run_id != deleted)
    finish(journal, "aaa")
    journal.write("done")
    assert tracker.close()
    assert_mlflow_holds_the_journal(uri, folder)


@pytest.mark.slow
def test_a_dead_server_costs_the_driver_nothing_and_is_tried_once_more_at_the_end(tmp_path):
    start(open_sweep(tmp_path), "aaa")
    uri = f"http://ann:s3cret@127.0.0.1:{free_port()}/mlflow"
    assert "refused" in check(uri)
    tracker = Tracker(tmp_path, uri)
    began = time.perf_counter()
    tracker.start()
    assert time.perf_counter() - began < 0.1
    eventually(lambda: tracker.problem)
    began = time.perf_counter()
    assert tracker.close(timeout=60) is False
    assert time.perf_counter() - began < 30
    for said in (tracker.problem, check(uri), (tmp_path / "log.txt").read_text()):
        assert "refused" in said
        assert "s3cret" not in said


def test_a_silent_address_is_not_waited_for(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "no answer within 1 s; put it right, then send with `python -m sweeps.sync" in check(uri, timeout=1)
        tracker = Tracker(tmp_path, uri)
        tracker.start()
        began = time.perf_counter()
        assert tracker.close(timeout=1) is False
        assert time.perf_counter() - began < 2


@pytest.mark.parametrize("uri", ["runs/mlruns", "file:///tmp/mlruns", "sqlite://", "sqlite:///:memory:", "htp://h"])
def test_what_mlflow_cannot_keep_is_refused(uri, tmp_path):
    open_sweep(tmp_path)
    for refuse in (accept, check, lambda uri: Tracker(tmp_path, uri), lambda uri: sync(tmp_path, uri)):
        with pytest.raises(ConfigError, match=r"give sqlite:///runs/mlflow\.db"):
            refuse(uri)


def test_relative_database_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert accept("sqlite:///runs/mlflow.db") == default_uri(Path("runs")) == f"sqlite:///{tmp_path}/runs/mlflow.db"


def test_mlflow_is_not_imported_before_it_is_needed():
    code = "import sys, trainables.tracking, sweeps.sync; sys.exit('mlflow' in sys.modules or 'ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
