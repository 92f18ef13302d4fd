"""Ray of our own and of others: who may reach it, which code runs there, and what its dying nodes cost."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from read_back import metrics

from sweeps.engine import runner
from sweeps.engine.cluster import _snapshot, available_now, connect, disconnect
from sweeps.engine.provenance import fingerprint
from sweeps.engine.resources import book, fitting
from sweeps.engine.slices import Slices
from trainables.data import prepare
from trainables.journal import JournalReader, read
from trainables.recorder import Recorder
from trainables.trial import TrialJob
from vqcore.config import TrialConfig

ROOT = Path(__file__).parents[2]
SMALL = "--codebook-size 16 --batch-size 32 --betas 0.1 1 --seeds 2 --epochs 16 --tracking-uri http://127.0.0.1:9"
TINY = SMALL.replace("--seeds 2 --epochs 16", "--seeds 1 --epochs 1")
TOKEN = "0123456789abcdef" * 4

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

service = pytest.mark.service
Numbers = dict[str, dict[int, dict[str, float]]]


def start(cwd: Path, *words: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """``python -m sweeps.beta_ablation`` with these words."""
    command = [sys.executable, "-m", "sweeps.beta_ablation", *map(str, words)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=own | environment, **pipes)


def wait_for_epochs(run: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while sum(len(trial.epochs) for trial in read(run / "journal.jsonl").trials.values()) < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def a_running_trial(run: Path, parents: set[int] | None = None) -> int:
    """The process of a trial that runs; of one of these raylets, if given."""
    late = time.monotonic() + 60
    while time.monotonic() < late:
        for trial in read(run / "journal.jsonl").trials.values():
            pid = trial.info.get("pid", 0)
            if trial.status == "running" and pid and (parents is None or parent(pid) in parents):
                return int(pid)
        time.sleep(0.02)
    raise AssertionError("no trial runs there")


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.fixture(scope="module")
def undisturbed(images: Path, out: Path) -> Numbers:
    """The same sweep in one process."""
    words = ["--data", images, "--out", out, "--name", "alone", "--address", "inline", *SMALL.split()]
    with start(ROOT, *words) as process:
        said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    return metrics(out / "beta_ablation" / "alone")


def copy_of_the_code(folder: Path) -> Path:
    for package in ("vqcore", "trainables", "analysis", "sweeps"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_the_fingerprint_is_of_the_code_that_trains_and_of_nothing_else(tmp_path: Path) -> None:
    copy = copy_of_the_code(tmp_path)
    assert fingerprint(copy) == fingerprint()
    with (copy / "analysis/report.py").open("a") as file:
        file.write("# more\n")
    assert fingerprint(copy) == fingerprint()
    with (copy / "vqcore/training.py").open("a") as file:
        file.write("# more\n")
    assert fingerprint(copy) != fingerprint()


@service
def test_a_process_started_later_runs_the_code_as_it_was(
    images: Path, out: Path, tmp_path: Path, undisturbed: Numbers
) -> None:
    copy, run = copy_of_the_code(tmp_path), out / "beta_ablation" / "edited"
    words = ["--data", images, "--out", out.absolute(), "--name", "edited", "--num-cpus", "1", *SMALL.split()]
    with start(copy, *words) as process:
        wait_for_epochs(run, 2, process)
        with (copy / "vqcore/training.py").open("a") as file:
            file.write("raise RuntimeError('a later edit')\n")
        killed = a_running_trial(run)
        os.kill(killed, signal.SIGKILL)
        said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert metrics(run) == undisturbed
    starts = [event for event in JournalReader(run / "journal.jsonl").new() if event["event"] == "start"]
    later = {event["info"]["pid"] for event in starts} - {killed}
    assert later, "a process that was started later trained too"


def test_the_code_that_a_killed_driver_left_is_removed_and_a_living_one_s_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copying = (
        "import time; from sweeps.engine.cluster import _snapshot\nwith _snapshot(): print(flush=True); time.sleep(60)"
    )
    own = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", copying], env=own, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        (copy,) = tmp_path.glob("vqsweep-code-*/")
        with _snapshot() as mine:
            assert {*tmp_path.glob("vqsweep-code-*/")} == {copy, mine}
        driver.kill()
    with _snapshot() as mine:
        assert [*tmp_path.glob("vqsweep-code-*/")] == [mine]
    assert [*tmp_path.iterdir()] == []


def listening(pid: int) -> set[str]:
    """Addresses, as in /proc, on which a process and its descendants take connections."""
    family = {pid}
    everyone = {int(path.name): parent(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    while more := {child for child, of in everyone.items() if of in family} - family:
        family |= more
    sockets = set()
    for member in family:
        for fd in Path(f"/proc/{member}/fd").glob("*"):
            try:
                sockets.add(str(fd.readlink()))
            except OSError:
                continue
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}


@service
def test_ray_of_our_own_listens_on_loopback_only_and_answers_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    taken, own = [], signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, handler: (taken.append(number), own(number, handler))[1])
    connect(None, num_cpus=1, num_gpus=0)
    try:
        assert signal.SIGTERM not in taken, "a driver preempted while Ray starts says 'resume me', not what Ray would"
        assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()  # a worker listens too
        for raylet in ray._private.worker._global_node.all_processes["raylet"]:
            told = Path(f"/proc/{raylet.process.pid}/environ").read_bytes()
            assert b"reconnect_timeout" not in told, "its agents would outlive a killed driver by ten minutes"
        assert listening(os.getpid()) == {"0100007F", "0000000000000000FFFF00000100007F"}
        stranger = (
            "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).get_all_node_info(timeout=5)"
        )
        without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
        head = ray.get_runtime_context().gcs_address
        asked = subprocess.run(
            [sys.executable, "-c", stranger, head], env=without, capture_output=True, text=True, check=False
        )
        assert "AuthenticationError" in asked.stderr, asked.stderr
    finally:
        disconnect()
    assert list(tmp_path.iterdir()) == [], "no token is left at home"
    assert not [name for name in os.environ if name.startswith("RAY_AUTH")]


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The address of a cluster that wants a token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray_command = Path(sys.executable).with_name("ray")
    words = [ray_command, "start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false", "--block"]
    words += ["--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"]
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(words, env=environment, **quiet) as head:
        late = time.monotonic() + 120
        while time.monotonic() < late:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        time.sleep(3)  # the node registers with its head
        yield f"127.0.0.1:{port}"
        head.terminate()


@service
@pytest.mark.parametrize("given", [{}, {"RAY_AUTH_TOKEN": TOKEN[::-1]}, {"RAY_AUTH_TOKEN_PATH": "/no/such/file"}])
def test_without_its_token_no_cluster_is_joined(guarded: str, out: Path, tmp_path: Path, given: dict[str, str]) -> None:
    began = time.monotonic()
    with start(ROOT, "--plan", "--address", guarded, "--out", out, HOME=str(tmp_path), **given) as process:
        said = process.communicate(timeout=100)[0]
    assert process.returncode == 2
    assert len(said.strip().splitlines()) == 1, said
    assert "RAY_AUTH_TOKEN" in said
    assert TOKEN not in said
    assert TOKEN[::-1] not in said
    assert time.monotonic() - began < 60


def kept(folder: Path, where: str) -> dict[str, str]:
    """Where Ray may keep a token; the environment that leads to it."""
    (folder / ".ray").mkdir()
    file = folder / ".ray" / ("auth_token" if where == "home" else "elsewhere")
    file.write_text(TOKEN)
    return {"file": {"RAY_AUTH_TOKEN_PATH": str(file)}, "environment": {"RAY_AUTH_TOKEN": TOKEN}}.get(where, {})


@service
@pytest.mark.parametrize("where", ["environment", "file", "home"])
def test_a_token_is_found_where_ray_keeps_it(guarded: str, tmp_path: Path, where: str) -> None:
    joining = "import sys; from sweeps.engine.cluster import connect; print(connect(sys.argv[1], 0, 0).cpus)"
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    own |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)} | kept(tmp_path, where)
    joined = subprocess.run(
        [sys.executable, "-c", joining, guarded], env=own, capture_output=True, text=True, check=False
    )
    assert joined.stdout.strip() == "1", joined.stderr


@service
@pytest.mark.parametrize("where", ["environment", "file", "home"])
def test_a_token_is_written_nowhere(guarded: str, images: Path, out: Path, tmp_path: Path, where: str) -> None:
    run = out / "beta_ablation" / f"token-{where}"
    words = [*TINY.split(), "--data", images, "--out", out, "--name", run.name]
    words += ["--storage", str(tmp_path / "storage")]
    with start(ROOT, *words, "--address", guarded, HOME=str(tmp_path), **kept(tmp_path, where)) as process:
        said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert "listens on all interfaces" in said
    written = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert TOKEN.encode() not in b"".join([said.encode(), *written])


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and two more nodes, of one CPU each."""
    from ray.cluster_utils import Cluster

    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    three = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield three
    finally:
        three.shutdown()


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


@service
def test_a_node_that_dies_costs_nothing(
    cluster: Any, images: Path, out: Path, tmp_path: Path, undisturbed: Numbers
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    run = out / "beta_ablation" / "node"
    words = ["--data", images, "--out", out, "--name", "node", "--address", cluster.address, "--storage", tmp_path]
    with start(ROOT, *words, *SMALL.split()) as process:
        wait_for_epochs(run, 6, process)
        pid = a_running_trial(run, {raylet(node) for node in nodes})
        cluster.remove_node(next(node for node in nodes if raylet(node) == parent(pid)), allow_graceful=False)
        assert not all(trial.status == "completed" for trial in read(run / "journal.jsonl").trials.values())
        said = process.communicate(timeout=280)[0]
    assert process.returncode == 0, said
    assert metrics(run) == undisturbed
    assert {trial.status for trial in read(run / "journal.jsonl").trials.values()} == {"completed"}
    assert "Traceback" not in said


def _pairs(job: TrialJob, until: int, known: int) -> Iterator[dict[str, Any]]:
    """A trial that ends when another has begun beside it."""
    yield {"event": "start", "info": {}}
    Path(job.folder).mkdir()
    late = time.monotonic() + 200
    while len(list(Path(job.folder).parent.glob("trial*"))) < 2 and time.monotonic() < late:
        time.sleep(0.2)
    yield {"event": "epoch", "epoch": 1, "metrics": {"alone": float(time.monotonic() > late)}}
    yield {"event": "end", "status": "completed", "reason": ""}


@service
def test_a_node_that_joins_gets_trials(cluster: Any, tmp_path: Path) -> None:
    booking = book(connect(cluster.address, 0, 0), 0, 1, None)
    assert booking.slots == 1
    recorder, slices = Recorder(tmp_path), Slices(booking.slots)
    data = prepare("cifar10-mini")
    configs = [TrialConfig().replace(seed=seed, epochs=1) for seed in range(2)]
    folders = [str(tmp_path / f"trial{number}") for number in range(2)]
    slices.add((TrialJob(f"t{i}", i, config, data, folders[i], 1.0), 0) for i, config in enumerate(configs))
    nodes: list[Any] = []

    def room() -> int:
        if recorder.run.trials and not nodes:  # one trial has begun, and waits for another
            nodes.append(cluster.add_node(num_cpus=1))
        return fitting(available_now("here"), booking)

    try:
        runner.run_on_ray(slices, recorder, booking, _pairs, room=room)
    finally:
        disconnect()
    assert [trial.epochs[1]["alone"] for trial in recorder.run.trials.values()] == [0.0, 0.0]


@service
def test_a_head_that_dies_is_said_and_the_run_goes_on_elsewhere(
    cluster: Any, images: Path, out: Path, tmp_path: Path, undisturbed: Numbers
) -> None:
    cluster.add_node(num_cpus=1)
    run = out / "beta_ablation" / "head"
    words = ["--data", images, "--out", out, "--name", "head", "--address", cluster.address, "--storage", tmp_path]
    with start(ROOT, *words, *SMALL.split()) as process:
        wait_for_epochs(run, 4, process)
        os.kill(a_running_trial(run), signal.SIGSTOP)  # in an epoch that takes longer than a head may be silent
        cluster.head_node.all_processes["gcs_server"][0].process.kill()
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 1, said
    assert f"--resume {run}" in said
    assert "has not answered" in said
    with start(ROOT, "--resume", "head", "--out", out, "--address", "inline") as process:
        said = process.communicate(timeout=240)[0]
    assert process.returncode == 0, said
    assert metrics(run) == undisturbed


def _digest(job: TrialJob, until: int, known: int) -> Iterator[dict[str, Any]]:
    images = hashlib.sha256(job.data.train().tobytes()).hexdigest()
    yield {"event": "start", "info": {"folder": job.data.folder, "images": images}}
    yield {"event": "epoch", "epoch": 1, "metrics": {"mse": 0.0}}
    yield {"event": "end", "status": "completed", "reason": ""}


@service
def test_a_node_without_the_prepared_data_receives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    real = prepare("cifar10-mini")
    cache = tmp_path / "cache"
    monkeypatch.setenv("VQSWEEP_CACHE", str(cache))  # the nodes are started below, and inherit it
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        available = connect(cluster.address, 0, 0)
        assert available.cpus == 2
        # to this driver the set lies where no worker finds it
        monkeypatch.setattr(runner, "_share_data", lambda job: ray.put((real.train(), real.test())))
        lacking = replace(real, folder=str(tmp_path / "another machine's folder"))
        recorder, slices = Recorder(tmp_path / "run"), Slices(2)
        slices.add(
            (TrialJob(f"t{i}", i, TrialConfig().replace(seed=i), lacking, str(tmp_path / f"t{i}"), 1.0), 0)
            for i in range(3)
        )
        runner.run_on_ray(slices, recorder, book(available, 0, 1, None), _digest)
    finally:
        disconnect()
        cluster.shutdown()
    trials = recorder.run.trials.values()
    assert [trial.status for trial in trials] == ["completed"] * 3, [trial.reason for trial in trials]
    assert {trial.info["images"] for trial in trials} == {hashlib.sha256(real.train().tobytes()).hexdigest()}
    assert {Path(trial.info["folder"]).is_relative_to(cache) for trial in trials} == {True}
