"""The sweep on a real Ray of its own: packing, faults, who may reach it, which code runs there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from read_back import metrics

from sweeps.engine import ray_cluster
from sweeps.engine.driver import Driver
from sweeps.engine.queue import TrialQueue
from sweeps.engine.ray_runner import run_on_ray
from sweeps.engine.ray_settings import prepare_environment
from sweeps.engine.resources import Available, book
from trainables.data import prepare
from trainables.errors import FatalRunError
from trainables.job import Report, TrialJob
from trainables.journal import JournalReader, RunRecord, read
from trainables.recorder import JournalWriter
from trainables.tune_trial import VQTrial
from vqcore.config import TrialConfig

pytestmark = pytest.mark.service

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

ROOT = Path(__file__).parents[2]
SWEEP = (
    "--codebook-size 16 --batch-size 32 --betas 0.1 1 --seeds 2 --epochs 8 "
    "--set channels=32 hidden_channels=64 residual_channels=16"
)
Start = Callable[..., "subprocess.Popen[str]"]
Numbers = dict[str, dict[int, dict[str, float]]]


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def wait_for_epochs(run: Path, count: int, process: "subprocess.Popen[str]") -> None:
    wait_for(lambda: sum(map(len, metrics(run).values())) >= count, process)


def a_running_trial(run: Path) -> int:
    """The process of a trial that runs."""
    for _ in range(3000):
        for trial in read(run / "journal.jsonl").trials.values():
            if trial.status == "running" and "pid" in trial.info:
                return int(trial.info["pid"])
        time.sleep(0.02)
    raise AssertionError("no trial runs")


@pytest.fixture(scope="module")
def undisturbed(sweep: Callable[..., int], out: Path) -> Numbers:
    """The same sweep in one process: what every run on Ray must equal."""
    assert sweep("--name", "reference", *SWEEP.split()) == 0
    return metrics(out / "beta_ablation" / "reference")


@pytest.fixture
def odd_checkout(tmp_path: Path) -> Path:
    """Checkout and interpreter below a folder whose name a shell would take apart."""
    copy = tmp_path / "my code (1)"
    for package in ("vqcore", "trainables", "analysis", "sweeps"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "bin").mkdir()
    (copy / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (copy / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (copy / "lib").symlink_to(Path(sys.prefix) / "lib")
    return copy


def processes(run: Path) -> set[int]:
    """Those that have trained."""
    starts = [event for event in JournalReader(run / "journal.jsonl").new() if event["event"] == "start"]
    return {event["info"]["pid"] for event in starts if "pid" in event["info"]}


@pytest.mark.timeout(600)  # three starts of Ray, on a machine with much else to do
def test_whatever_ends_it_a_sweep_on_ray_ends_with_the_same_numbers(
    odd_checkout: Path, images: Path, out: Path, undisturbed: Numbers, started: Start
) -> None:
    """SIGTERM; then a killed worker, whose successor runs the code as it was before an edit, and Ctrl-C."""
    run = out / "beta_ablation" / "disturbed"
    with started("--name", run.name, "--data", images, *SWEEP.split(), checkout=odd_checkout) as first:
        wait_for_epochs(run, 3, first)
        first.send_signal(signal.SIGTERM)
        shown = first.communicate(timeout=120)[0]
    assert first.returncode == 75, shown
    before = processes(run)
    with started("--resume", run.name, "--num-cpus", "1", checkout=odd_checkout) as second:
        wait_for(lambda: processes(run) - before, second)
        with (odd_checkout / "vqcore/training.py").open("a") as file:
            file.write("raise RuntimeError('a later edit')\n")
        (killed,) = processes(run) - before  # not a trial of the first process, which is still to go on
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: processes(run) - before - {killed}, second)
        second.send_signal(signal.SIGINT)
        shown += second.communicate(timeout=120)[0]
    assert second.returncode == 130, shown
    assert f"sweeps.beta_ablation --resume {run}" in shown
    assert "broke off" in (run / "log.txt").read_text()
    assert {trial.status for trial in read(run / "journal.jsonl").trials.values()} <= {"running", "completed"}
    with started("--resume", run.name) as third:
        shown += third.communicate(timeout=240)[0]
    assert third.returncode == 0, shown
    assert metrics(run) == undisturbed
    for noise in ("ray.init", "Tune", "WARNING", "INFO", "(run", "Traceback"):
        assert noise not in shown, shown


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[None]:
    """A Ray of its own, of eight CPUs and two GPUs that it is told of: trials that only report need no real one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
            patch.delenv(name, raising=False)
        ray_cluster.start(num_cpus=8, num_gpus=2)
        yield
        ray_cluster.disconnect()


def run_trials(trainable: type[VQTrial], jobs: list[TrialJob], folder: Path, slots: int) -> RunRecord:
    """Train on Ray; what the journal then says."""
    writer, queue = JournalWriter(folder), TrialQueue(slots)
    queue.add((job, 0) for job in jobs)
    run_on_ray(Driver(queue, writer), trainable=trainable)
    writer.close()
    return read(folder / "journal.jsonl")


def made_jobs(folder: Path, *gpus: float) -> list[TrialJob]:
    """One for each share of a GPU."""
    configs = [TrialConfig().replace(seed=seed, epochs=1) for seed in range(len(gpus))]
    data = prepare("cifar10-mini")
    jobs = [TrialJob(f"trial{i}", i, config, data, str(folder / f"trial{i}")) for i, config in enumerate(configs)]
    return [replace(job, gpus=share) for job, share in zip(jobs, gpus, strict=True)]


class Reporting(VQTrial):
    """A trial that trains nothing and reports one epoch."""

    def measured(self, job: TrialJob) -> dict[str, float]:
        raise AssertionError("for a subclass")

    def step(self) -> dict[str, Any]:
        found = self.measured(self.config["job"])
        return {"done": True, "report": Report(1, found, time.time(), "completed", info={"pid": os.getpid()})}


class Meeting(Reporting):
    """Ends when eight have begun."""

    def measured(self, job: TrialJob) -> dict[str, float]:
        folder, late = Path(job.folder), time.monotonic() + 250
        folder.mkdir()
        while len(list(folder.parent.glob("trial*"))) < 8 and time.monotonic() < late:
            time.sleep(0.2)
        return {"gpu": float(os.environ["CUDA_VISIBLE_DEVICES"])}


def test_two_declared_gpus_carry_exactly_four_quarter_trials_each(two_gpus: None, tmp_path: Path) -> None:
    booking = book(Available(8, 2), 2, 4, None)
    run = run_trials(Meeting, made_jobs(tmp_path, *[booking.gpus] * 8), tmp_path, booking.slots)
    seen = Counter(trial.epochs[1]["gpu"] for trial in run.trials.values())
    assert seen == {0.0: 4, 1.0: 4}, "all eight ran at once; each sees the GPU it shares"


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which needs a GPU."""


class Hungry(Reporting):
    """Needs half a GPU."""

    def measured(self, job: TrialJob) -> dict[str, float]:
        if job.gpus < 0.5:
            raise OutOfMemoryError("CUDA out of memory")
        return {"gpus": job.gpus}


def test_a_trial_out_of_memory_gets_twice_its_share_once(two_gpus: None, tmp_path: Path) -> None:
    enough, too_little = made_jobs(tmp_path, 0.25, 0.125)
    too_little = replace(too_little, config=too_little.config.replace(codebook_size=16))  # shares are kept by shape
    run = run_trials(Hungry, [enough, too_little], tmp_path, 2)
    assert {key: (trial.status, trial.reason) for key, trial in run.trials.items()} == {
        "trial0": ("completed", ""),
        "trial1": ("failed", "out of memory with 0.25 GPU; fewer --trials-per-gpu, or a smaller --batch-size"),
    }


def test_a_storage_that_cannot_be_used_ends_the_run_and_no_trial(two_gpus: None, tmp_path: Path) -> None:
    (tmp_path / "trials").touch()
    with pytest.raises(FatalRunError, match="trials/trial0: Not a directory"):
        run_trials(VQTrial, made_jobs(tmp_path / "trials", 0, 0), tmp_path, 1)
    assert {trial.status for trial in read(tmp_path / "journal.jsonl").trials.values()} == {"running"}


def test_an_estimator_of_ones_own_reaches_the_workers(two_gpus: None, images: Path, tmp_path: Path) -> None:
    from vqcore.estimators import ESTIMATORS, estimator

    @estimator("half")
    def half(g_ND: Any, z_ND: Any, q_ND: Any) -> Any:
        return 0.5 * g_ND

    config = TrialConfig().replace(estimator="half", epochs=1, batch_size=32, codebook_size=16)
    job = TrialJob("half", 0, config, prepare(str(images)), str(tmp_path / "half"))
    try:
        run = run_trials(VQTrial, [job], tmp_path, 1)
    finally:
        del ESTIMATORS["half"]
    assert run.trials["half"].status == "completed", run.trials["half"].reason


def test_an_error_of_a_trial_is_in_the_journal_in_one_line_and_its_traceback_is_logged(
    two_gpus: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here, so a booked one is no error")
    run = run_trials(VQTrial, made_jobs(tmp_path, 1), tmp_path, 1)
    (trial,) = run.trials.values()
    assert trial.status == "failed"
    assert "--num-gpus 0" in trial.reason
    assert "\n" not in trial.reason
    assert "in prepare_process" in caplog.text


def listening(pid: int) -> set[str]:
    """Addresses, as in /proc, on which a process and its descendants take connections."""
    of = {int(path.name): parent(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    family = {pid}
    while more := {child for child, above in of.items() if above in family} - family:
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


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_ray_of_our_own_listens_on_loopback_only_and_answers_nobody_without_its_token(tmp_path: Path) -> None:
    """In a process of its own, which has not imported ray: its settings are read at import."""
    program = (
        "import sys; from sweeps.engine.ray_settings import prepare_environment\n"
        "assert prepare_environment(None) == []\n"
        "from sweeps.engine import ray_cluster; ray_cluster.start(1, 0)\n"
        "import ray; ray.get(ray.remote(lambda: None).remote())\n"
        "print(ray.get_runtime_context().gcs_address, flush=True); sys.stdin.readline(); ray_cluster.disconnect()\n"
    )
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], env=own, **pipes) as driver:
        assert driver.stdout is not None
        address = driver.stdout.readline().strip()
        assert listening(driver.pid) == {"0100007F", "0000000000000000FFFF00000100007F"}
        stranger = [sys.executable, "-c", "import sys, ray; ray.init(address=sys.argv[1]); print('joined')", address]
        on_loopback = own | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        answer = subprocess.run(stranger, env=on_loopback, capture_output=True, text=True, check=False, timeout=120)
        assert answer.returncode != 0
        assert "Unauthenticated" in answer.stderr
        driver.communicate("\n", timeout=60)
    assert driver.returncode == 0
    assert list(tmp_path.iterdir()) == [], "no token is left at home"


def test_what_can_no_longer_be_set_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    (warning,) = prepare_environment(None)
    assert "ray was imported before" in warning


def test_a_ray_that_starts_no_process_is_an_end_in_words(images: Path, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
import ray
from sweeps.engine import ray_runner
from sweeps.engine.driver import Driver
from sweeps.engine.queue import TrialQueue
from trainables.data import prepare
from trainables.recorder import JournalWriter
from trainables.job import TrialJob
from vqcore.config import TrialConfig
ray_runner.WORKER_SECONDS = 3.0
env = {{"py_executable": "/no/such/python"}}
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env=env)
queue = TrialQueue(1)
queue.add([(TrialJob("t", 0, TrialConfig(), prepare({str(images)!r}), "t"), 0)])
ray_runner.run_on_ray(Driver(queue, JournalWriter(Path({str(tmp_path)!r}))))
"""
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)
    assert "ConnectionError: Ray started no process within 3 s" in ended.stderr
