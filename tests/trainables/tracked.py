"""Journals to be tracked, real MLflow servers, and what MLflow shows of a run beside what its journal says."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

from trainables.journal import Journal, read
from trainables.runs import JOURNAL

BETAS = {"aaa": 0.25, "bbb": 1.0, "ccc": 2.0}
ENDS = {"completed": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}


def open_sweep(folder):
    journal = Journal(folder / JOURNAL)
    journal.write(
        "sweep",
        sweep="beta_ablation",
        name=folder.name,
        id=f"{folder.name}-id",
        swept=["commitment_weight", "seed"],
        tags={"commit": "abc1234", "command": "python -m sweeps.beta_ablation --epochs 3", "data_hash": "d00d"},
        params={"data": "cifar10-mini", "data_hash": "d00d", "epochs": 3, "betas": [0.25, 1.0]},
    )
    return journal


def start(journal, *keys):
    for number, key in enumerate(keys):
        config = {"commitment_weight": BETAS.get(key, number), "seed": 1, "decay": 0.9}
        journal.write("start", trial=key, number=number, config=config, info={"device": "cpu", "precision": "fp32"})


def report(journal, key, *epochs):
    for epoch in epochs:
        journal.write("epoch", trial=key, epoch=epoch, metrics={"mse": 1 / epoch, "perplexity": 10.0 * epoch})


def finish(journal, *keys, status="completed", reason=""):
    for key in keys:
        journal.write("end", trial=key, status=status, reason=reason, epoch=3)


def whole_sweep(folder, *keys):
    journal = open_sweep(folder)
    start(journal, *keys)
    for key in keys:
        report(journal, key, 1, 2)
    finish(journal, *keys)
    journal.write("done")


def find(uri, folder):
    """The runs that MLflow has of a sweep, wherever they are."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("vqsweep/beta_ablation")
    return client, client.search_runs([experiment.experiment_id], f"tags.`vqsweep.sweep` = '{folder.name}-id'")


def seen(uri, folder):
    """What MLflow shows of a run: its parent, children by key, and each child's points."""
    client, runs = find(uri, folder)
    children = {run.data.tags["vqsweep.trial"]: run for run in runs if "vqsweep.trial" in run.data.tags}
    (parent,) = [run for run in runs if "vqsweep.trial" not in run.data.tags]
    assert len(runs) == 1 + len(children)
    points = {
        key: [(p.step, p.timestamp, p.value) for p in client.get_metric_history(run.info.run_id, "mse")]
        for key, run in children.items()
    }
    return parent, children, points


def assert_mlflow_holds_the_journal(uri, folder, state="FINISHED"):
    """Every run and every point once, with the journal's times; every status right. Returns the parent."""
    trials = read(folder / JOURNAL).trials
    client = find(uri, folder)[0]
    parent, children, _ = seen(uri, folder)
    assert parent.info.status == state
    assert {key: run.info.status for key, run in children.items()} == {
        key: ENDS.get(trial.status, "KILLED") for key, trial in trials.items()
    }
    for key, run in children.items():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.end_time >= run.info.start_time
        histories = [client.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
        told = sorted((p.step, p.timestamp, p.key, p.value) for points in histories for p in points)
        epochs, times = trials[key].epochs, trials[key].times
        assert told == sorted((e, round(times[e] * 1000), name, v) for e in epochs for name, v in epochs[e].items())
        assert run.data.metrics == epochs.get(trials[key].last_epoch, {})  # what the UI's table shows
    return parent


def artifacts(uri, run):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    tops = client.list_artifacts(run.info.run_id)
    return {f.path for top in tops for f in (client.list_artifacts(run.info.run_id, top.path) if top.is_dir else [top])}


def eventually(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (AttributeError, ValueError, KeyError, requests.RequestException):
            pass  # the experiment, the parent, the child: not there yet
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Server:
    """A real MLflow server on a port of its own, as often as it is started."""

    def __init__(self, folder: Path, store: str, *options: str, **environment: str):
        self.port, self.folder = free_port(), folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--workers", "1", "--backend-store-uri", store]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self._environment = {**os.environ, **quiet, **environment}
        self.options = options
        self._process = None

    def start(self):
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *self.options], env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

        def answers():
            assert self._process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            return requests.get(f"{self.uri}/health", timeout=2).ok

        eventually(answers, seconds=150)

    def signal(self, number):
        os.killpg(self._process.pid, number)

    def kill(self):
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            eventually(self._let_go)  # by its workers too, which die a moment later

    def _let_go(self):
        try:
            socket.create_server(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True
