"""A Ray cluster of somebody else's: its token, its nodes that die and join, and data they lack."""

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from read_back import metrics
from test_ray import SWEEP, Numbers, Reporting, a_running_trial, parent, wait_for_epochs

from sweeps.engine import ray_cluster
from sweeps.engine.driver import Driver
from sweeps.engine.queue import TrialQueue
from sweeps.engine.ray_runner import run_on_ray
from sweeps.engine.resources import book, fitting
from trainables.data import prepare
from trainables.job import TrialJob
from trainables.journal import read
from trainables.recorder import JournalWriter
from vqcore.config import TrialConfig

pytestmark = pytest.mark.service

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def undisturbed(sweep: Callable[..., int], out: Path) -> Numbers:
    assert sweep("--name", "cluster-reference", *SWEEP.split()) == 0
    return metrics(out / "beta_ablation" / "cluster-reference")


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The address of a cluster that wants a token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray_command = Path(sys.executable).with_name("ray")
    words = [ray_command, "start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false", "--block"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as head:
        assert any("Ray runtime started" in line for line in head.stdout)  # its node has registered
        yield f"127.0.0.1:{port}"
        head.terminate()


def swept(*words: str | Path, **environment: str) -> tuple[int, str]:
    """``python -m sweeps.beta_ablation``: its exit code, and what it printed."""
    command = [sys.executable, "-m", "sweeps.beta_ablation", *map(str, words)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | environment
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=250)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("given", [{}, {"RAY_AUTH_TOKEN": TOKEN[::-1]}])
def test_without_its_token_no_cluster_is_joined(guarded: str, out: Path, tmp_path: Path, given: dict[str, str]) -> None:
    code, shown = swept("--plan", "--address", guarded, "--out", out, HOME=str(tmp_path), **given)
    assert code == 2
    refused, lacking = shown.strip().splitlines()
    assert "RAY_AUTH_TOKEN" in refused
    assert "add --storage with a shared folder" in lacking
    assert TOKEN not in shown
    assert TOKEN[::-1] not in shown


def test_a_token_is_found_where_ray_keeps_it_and_written_nowhere(
    guarded: str, images: Path, out: Path, tmp_path: Path
) -> None:
    """In the environment by a sweep; at home by a plan, which joins the cluster too."""
    run = out / "beta_ablation" / "token"
    words = [*SWEEP.replace("--seeds 2 --epochs 8", "--seeds 1 --epochs 1").split(), "--data", images, "--out", out]
    words += ["--name", run.name, "--storage", tmp_path / "storage", "--address", guarded]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    code, planned = swept(*words, "--plan", HOME=str(tmp_path))
    assert code == 0, planned
    assert TOKEN not in planned
    (tmp_path / ".ray" / "auth_token").unlink()
    code, shown = swept(*words, HOME=str(tmp_path), RAY_AUTH_TOKEN=TOKEN)
    assert code == 0, shown
    assert "listens on all interfaces" in shown
    written = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert TOKEN.encode() not in b"".join([shown.encode(), *written])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A head of one CPU, to which nodes can be added; none has a prepared data set."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with monkeypatch.context() as patch:
        patch.setenv("VQSWEEP_CACHE", str(tmp_path / "cache"))  # the nodes inherit it
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield nodes
    finally:
        nodes.shutdown()


@pytest.mark.timeout(600)  # on a machine with much else to do
def test_a_node_that_dies_costs_nothing(
    cluster: Any, images: Path, out: Path, tmp_path: Path, undisturbed: Numbers
) -> None:
    node, run = cluster.add_node(num_cpus=1), out / "beta_ablation" / "node"
    words = ["--data", images, "--out", out, "--name", "node", "--address", cluster.address, "--storage", tmp_path]
    command = [sys.executable, "-m", "sweeps.beta_ablation", *map(str, words), *SWEEP.split()]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        wait_for_epochs(run, 6, process)
        assert parent(a_running_trial(run))
        cluster.remove_node(node, allow_graceful=False)
        shown = process.communicate(timeout=500)[0]
    assert process.returncode == 0, shown
    assert metrics(run) == undisturbed
    assert "Traceback" not in shown


class Pair(Reporting):
    """Ends when another has begun beside it; reports the images that it finds."""

    def measured(self, job: TrialJob) -> dict[str, float]:
        Path(job.folder).mkdir()
        late = time.monotonic() + 200
        while len(list(Path(job.folder).parent.glob("t[01]"))) < 2 and time.monotonic() < late:
            time.sleep(0.2)
        pixels = hashlib.sha256(self.data_here().train().tobytes()).hexdigest()
        return {"alone": float(time.monotonic() > late), "images": float(int(pixels[:12], 16))}


def test_a_node_that_joins_gets_trials_and_the_data_that_it_lacks(cluster: Any, tmp_path: Path) -> None:
    booking = book(ray_cluster.join(cluster.address), 0, 1, None)
    assert booking.slots == 1
    real = prepare("cifar10-mini")
    lacking = replace(real, folder=str(tmp_path / "another machine's folder"))
    writer, queue = JournalWriter(tmp_path), TrialQueue(booking.slots)
    configs = [TrialConfig().replace(seed=seed, epochs=1) for seed in range(2)]
    queue.add((TrialJob(f"t{i}", i, config, lacking, str(tmp_path / f"t{i}")), 0) for i, config in enumerate(configs))
    nodes: list[Any] = []

    def capacity() -> int:
        if writer.run.trials and not nodes:  # one trial has begun, and waits for another
            nodes.append(cluster.add_node(num_cpus=1))
        return fitting(ray_cluster.available("here"), booking)

    try:
        run_on_ray(Driver(queue, writer, capacity=capacity), (real.train(), real.test()), Pair)
    finally:
        ray_cluster.disconnect()
    trials = read(tmp_path / "journal.jsonl").trials.values()
    assert [trial.status for trial in trials] == ["completed"] * 2, [trial.reason for trial in trials]
    pixels = float(int(hashlib.sha256(real.train().tobytes()).hexdigest()[:12], 16))
    assert [trial.epochs[1] for trial in trials] == [{"alone": 0.0, "images": pixels}] * 2
