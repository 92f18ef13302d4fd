"""A team's server: MLflow over PostgreSQL with its own artifact store, two sweeps at once, users and passwords."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from tracked import (
    Server,
    artifacts,
    assert_mlflow_holds_the_journal,
    eventually,
    find,
    finish,
    free_port,
    open_sweep,
    report,
    start,
)

from sweeps.sync import main as sync_command
from trainables import bulk_server
from trainables.bulk_store import NewRun, NotMadeError
from trainables.journal import read
from trainables.runs import JOURNAL
from trainables.tracking import Tracker, check, sync
from trainables.tracking import sync_command as command_to_sync

pytestmark = pytest.mark.service

PASSWORD = "s3cret-p4ssw0rd"


def programs():
    """Where PostgreSQL's programs are; Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.fixture(scope="module")
def postgres():
    """PostgreSQL on a loopback port, with a password: its URI."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed (it comes with .[dev])")
    # it refuses to be run by root, and pytest's folders can be entered by their owner alone
    folder = Path(tempfile.mkdtemp(prefix="vqsweep-postgres-"))
    (folder / "password").write_text(PASSWORD)
    as_user = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]
        subprocess.run(["chown", "-R", "postgres:postgres", folder], check=True)
    data, port = folder / "data", free_port()
    made = [programs() / "initdb", "-D", data, "-U", "vq", "-A", "scram-sha-256", "--no-sync"]
    made += [f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C"]
    subprocess.run([*as_user, *made], check=True, capture_output=True, cwd="/")
    run = [programs() / "postgres", "-D", data, "-k", folder, "-p", str(port)]
    run += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log, subprocess.Popen([*as_user, *run], stdout=log, stderr=log, cwd="/") as own:
        ready = [programs() / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        eventually(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        yield f"postgresql+psycopg://vq:{PASSWORD}@127.0.0.1:{port}/postgres"
        own.send_signal(signal.SIGINT)  # at once, also with clients connected
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def server(postgres, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"), postgres, "--app-name", "vqsweep")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that asks for a user and a password; its administrator is ann."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth needs Flask-WTF (it comes with .[dev])")
    folder = tmp_path_factory.mktemp("guarded")
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/auth.db\nadmin_username = ann\nadmin_password = {PASSWORD}\n"
    )
    server = Server(
        folder,
        f"sqlite:///{folder}/server.db",
        "--app-name",
        "vqsweep-auth",
        MLFLOW_AUTH_CONFIG_PATH=str(settings),
        MLFLOW_FLASK_SERVER_SECRET_KEY="for this test alone",
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture
def images(tmp_path, pictures):
    """A folder of small pictures, as ``--data`` takes it."""
    from PIL import Image

    for split, count in (("train", 64), ("test", 16)):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number, image in enumerate(pictures(count, 0)):
            Image.fromarray(image).save(tmp_path / "images" / split / f"{number:03}.png")
    return tmp_path / "images"


def sweep(name, out, images, uri, **environment):
    """A real sweep, in a process of its own."""
    words = f"--address inline --out {out} --name {name} --data {images} --betas 0.1 1 --seeds 1 --epochs 2"
    words += f" --codebook-size 16 --batch-size 32 --tracking-uri {uri}"
    return subprocess.Popen(
        [sys.executable, "-m", "sweeps.beta_ablation", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "300", **environment},
    )


def test_two_sweeps_at_once_on_postgresql(server, tmp_path, images):
    out = tmp_path / "runs"
    running = [sweep(name, out, images, server.uri) for name in ("one", "two")]
    said = [process.communicate(timeout=200)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert "MLflow is behind" not in "".join(said)
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("vqsweep/beta_ablation")
    assert experiment.artifact_location.startswith("mlflow-artifacts:")  # through the server, to its own store
    for name in ("one", "two"):
        folder = out / "beta_ablation" / name
        record = read(folder / JOURNAL)
        runs = client.search_runs([experiment.experiment_id], f"tags.`vqsweep.sweep` = '{record.sweep['id']}'")
        (parent,) = [run for run in runs if "vqsweep.trial" not in run.data.tags]
        assert (parent.info.run_name, parent.info.status) == (name, "FINISHED")
        children = {run.data.tags["vqsweep.trial"]: run for run in runs if run is not parent}
        assert children.keys() == record.trials.keys()
        for key, run in children.items():
            trial = record.trials[key]
            assert run.info.status == "FINISHED"
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.data.params["commitment_weight"] == str(trial.config["commitment_weight"])
            for metric in ("mse", "perplexity", "train_mse"):
                told = {point.step: point.value for point in client.get_metric_history(run.info.run_id, metric)}
                assert told == {epoch: metrics[metric] for epoch, metrics in trial.epochs.items()}
        assert {"sweep.toml", "results.parquet", "figures/pareto.png", "tables/results.md"} <= artifacts(
            server.uri, parent
        )
        assert list((server.folder / "artifacts").rglob(f"{parent.info.run_id}/artifacts/sweep.toml"))


def test_postgresql_itself_is_taken_and_its_password_shown_nowhere(postgres, server, tmp_path, capsys):
    folder = tmp_path / "beta_ablation" / "direct"
    journal = open_sweep(folder)
    tracker = Tracker(folder, postgres)
    tracker.start()
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 2, 3)
    report(journal, "bbb", 1)
    finish(journal, "aaa")
    finish(journal, "bbb", status="failed", reason="\0 it broke")
    journal.write("done")
    assert tracker.close(timeout=60), tracker.problem
    assert_mlflow_holds_the_journal(postgres, folder)
    assert sync_command("direct", tmp_path, postgres.replace(PASSWORD, "wr0ng-p4ss")) == 2
    said = capsys.readouterr().err
    assert "password authentication failed" in said
    assert len(said.splitlines()) == 1
    assert "wr0ng" not in said


def test_names_longer_than_a_column_arrive_and_hold_up_no_other(postgres, tmp_path):
    folder = tmp_path / "beta_ablation" / "long"
    journal = open_sweep(folder)
    start(journal, "aaa", "ccc")
    journal.write("start", trial="bbb", number=2, config={"commitment_weight": "1" * 400, "seed": 1}, info={})
    report(journal, "aaa", 1)
    finish(journal, "aaa", "bbb", "ccc")
    journal.write("done")
    assert sync(folder, postgres) == 4
    assert_mlflow_holds_the_journal(postgres, folder)


def test_a_wrong_password_is_one_line_and_the_sweep_goes_on(guarded, tmp_path, images):
    out = tmp_path / "runs"
    uri = guarded.uri.replace("//", "//ann:wr0ng-p4ss@")
    process = sweep("shut-out", out, images, uri)
    said = process.communicate(timeout=200)[0]
    assert process.returncode == 0, said
    assert "wrong user or password" in said
    assert "The sweep goes on" in said
    assert "Traceback" not in said
    folder = out / "beta_ablation" / "shut-out"
    kept = "".join(path.read_text() for path in (folder / "sweep.toml", folder / JOURNAL))
    assert "wr0ng" not in said + kept + command_to_sync(folder, uri)
    assert sync(folder, guarded.uri.replace("//", f"//ann:{PASSWORD}@")) == 3


@pytest.mark.parametrize("where", ["environment", "uri"])
def test_the_right_password_lets_in_and_is_kept_nowhere(guarded, tmp_path, where, monkeypatch):
    folder = tmp_path / "beta_ablation" / f"let-in-{where}"
    if where == "environment":
        uri = guarded.uri
        assert "set MLFLOW_TRACKING_USERNAME" in check(uri)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    else:
        uri = guarded.uri.replace("//", f"//ann:{PASSWORD}@")
    assert check(uri) is None
    journal = open_sweep(folder)
    (folder / "sweep.toml").write_text("[sweep]\n")
    tracker = Tracker(folder, uri)
    tracker.start()
    start(journal, "aaa")
    report(journal, "aaa", 1, 2, 3)
    finish(journal, "aaa")
    journal.write("done")
    eventually(lambda: tracker._process is not None)
    command = Path(f"/proc/{tracker._process.pid}/cmdline").read_bytes()
    assert tracker.close(timeout=60), tracker.problem
    parent = assert_mlflow_holds_the_journal(uri, folder)
    assert artifacts(uri, parent) == {"sweep.toml"}
    shown = str([run.to_dictionary() for run in find(uri, folder)[1]])
    assert PASSWORD not in shown + command.decode() + (folder / JOURNAL).read_text()


def test_whole_runs_need_the_permission_to_make_runs(guarded):
    from mlflow import MlflowClient
    from mlflow.utils.rest_utils import http_request_safe

    ann = guarded.uri.replace("//", f"//ann:{PASSWORD}@")
    bob = {"username": "bob", "password": PASSWORD}
    http_request_safe(bulk_server._credentials(ann), "/api/2.0/mlflow/users/create", "POST", json=bob)

    def run():
        return NewRun(uuid4().hex, "a run", "FINISHED", 1, 2, {}, {}, [])

    bobs = guarded.uri.replace("//", f"//bob:{PASSWORD}@")
    write = bulk_server.writer(bobs)
    anns = MlflowClient(ann).create_experiment("her own")
    own = MlflowClient(bobs).create_experiment("his own")
    write(own, [run()])
    assert len(MlflowClient(bobs).search_runs([own])) == 1
    for shut_out in (write, partial(bulk_server._post, guarded.uri)):  # he may read; nobody
        with pytest.raises(NotMadeError, match=r"40[13]"):
            shut_out(anns, [run()])
    body = json.dumps({"experiment_id": anns, "runs": [vars(run())]})
    for uri in (ann, bobs, guarded.uri):  # what nobody guards does nothing
        told = bulk_server._asked(uri, "HEAD", data=body, extra_headers={"Content-Type": "application/json"})
        assert told.status_code in (200, 401, 403)
    assert not MlflowClient(ann).search_runs([anns])
    bulk_server.writer(ann)(anns, [run()])
    assert len(MlflowClient(ann).search_runs([anns])) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"experiment_id": "1"}',
        b'{"experiment_id": "1", "runs": [{"name": "x"}]}',
        b'{"experiment_id": "1", "runs": [{"id": "", "name": "x", "status": "OVER", "started": 1, "ended": 2,'
        b' "tags": {}, "params": {}, "points": []}]}',
        b'{"experiment_id": "1", "runs": [{"id": "", "name": "x", "status": "KILLED", "started": 1, "ended": 2,'
        b' "tags": {}, "params": {}, "points": [[1, 1, {"mse": "<script>"}]]}]}',
    ],
)
def test_a_request_for_runs_that_makes_no_sense_is_the_askers_fault(server, body):
    import requests

    url = server.uri + bulk_server.PATH
    answer = requests.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=20)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_runs_are_asked_for_in_json_which_a_page_elsewhere_cannot_send(server):
    import requests
    from mlflow import MlflowClient

    experiment = MlflowClient(server.uri).create_experiment("asked by a page")
    run = NewRun(uuid4().hex, "x", "KILLED", 1, 2, {}, {}, [])
    body, url = json.dumps({"experiment_id": experiment, "runs": [vars(run)]}), server.uri + bulk_server.PATH
    assert requests.post(url, data=body, headers={"Content-Type": "text/plain"}, timeout=20).status_code == 400
    answer = requests.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=20)
    assert (answer.status_code, len(MlflowClient(server.uri).search_runs([experiment]))) == (200, 1)
