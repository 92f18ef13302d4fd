"""The sweep on a real Ray: packing, faults, clusters."""

import math
import os
import re
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

from sweeps.engine import runner
from sweeps.engine.cluster import connect, disconnect
from sweeps.engine.resources import Available, book
from sweeps.engine.slices import Slices
from trainables.data import prepare
from trainables.errors import FatalRunError
from trainables.journal import read
from trainables.recorder import Recorder
from trainables.trial import TrialJob
from vqcore.config import TrialConfig

pytestmark = pytest.mark.service

# the trial functions below travel to workers, which cannot import a test module
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

SMALL = "--codebook-size 16 --batch-size 32 --betas 0.1 1 --seeds 2 --tracking-uri http://127.0.0.1:9"


def wait_for_epochs(journal: Path, count: int, process: "subprocess.Popen[str]") -> None:
    while sum(len(trial.epochs) for trial in read(journal).trials.values()) < count:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def inline_run(sweep: Callable[..., int], out: Path) -> dict[str, dict[int, dict[str, float]]]:
    """The same sweep in one process: what every run on Ray must equal."""
    assert sweep("--epochs", "12", "--name", "reference", *SMALL.split()) == 0
    return metrics(out / "beta_ablation" / "reference")


def test_ctrl_c_and_a_killed_worker_change_no_number(
    images: Path,
    out: Path,
    inline_run: dict[str, dict[int, dict[str, float]]],
    started: Callable[..., "subprocess.Popen[str]"],
) -> None:
    words = ["--data", str(images), "--epochs", "12", *SMALL.split()]
    run = out / "beta_ablation" / "disturbed"
    with started("--name", "disturbed", *words) as first:
        wait_for_epochs(run / "journal.jsonl", 3, first)
        trial = next(t for t in read(run / "journal.jsonl").trials.values() if t.status == "running")
        os.kill(trial.info["pid"], signal.SIGKILL)
        wait_for_epochs(run / "journal.jsonl", 14, first)
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=120)[0]
    assert first.returncode == 130, said
    assert f"sweeps.beta_ablation --resume {run}" in said
    assert "Traceback" not in said
    assert len(read(run / "journal.jsonl").trials) < 4 or not all(
        t.status == "completed" for t in read(run / "journal.jsonl").trials.values()
    ), "interrupted too late to show anything"
    with started("--resume", "disturbed") as second:
        said = second.communicate(timeout=240)[0]
    assert second.returncode == 0, said
    assert metrics(run) == inline_run
    for noise in ("ray.init", "Tune", "WARNING", "INFO", "(run", "raylet", "Traceback"):
        assert noise not in said, said


def _meeting(job: TrialJob, until: int, known: int) -> Iterator[dict[str, Any]]:
    """A trial that trains nothing, ends when 32 have begun, and tells what it was given."""
    yield {"event": "start", "info": {}}
    folder = Path(job.folder)
    folder.mkdir()
    late = time.monotonic() + 400
    while len(list(folder.parent.glob("trial*"))) < 32 and time.monotonic() < late:
        time.sleep(0.2)
    yield {"event": "epoch", "epoch": 1, "metrics": {"gpu": int(os.environ["CUDA_VISIBLE_DEVICES"])}}
    yield {"event": "end", "status": "completed", "reason": ""}


def made_jobs(count: int, folder: Path) -> list[TrialJob]:
    configs = [TrialConfig().replace(seed=seed, epochs=1) for seed in range(count)]
    data = prepare("cifar10-mini")
    return [TrialJob(f"trial{i}", i, config, data, str(folder / f"trial{i}")) for i, config in enumerate(configs)]


def test_eight_declared_gpus_carry_exactly_four_quarter_trials_each(tmp_path: Path) -> None:
    # Ray books what it is told of; trials that only report need no real GPU
    booking = book(Available(64, 8), 8, 4, None)
    connect(None, num_cpus=64, num_gpus=8)
    recorder, slices = Recorder(tmp_path), Slices(booking.slots)
    slices.add((replace(job, gpus=booking.gpus), 0) for job in made_jobs(32, tmp_path))
    try:
        runner.run_on_ray(slices, recorder, booking, _meeting)
    finally:
        disconnect()
    seen = Counter(trial.epochs[1]["gpu"] for trial in recorder.run.trials.values())
    assert seen == dict.fromkeys(range(8), 4), "all 32 ran at once; each sees the GPU it shares"


def _waiting(job: TrialJob, until: int, known: int) -> Iterator[dict[str, Any]]:
    """A trial of one epoch that never ends."""
    yield {"event": "start", "info": {}}
    yield {"event": "epoch", "epoch": 1, "metrics": {"mse": 1.0}}
    time.sleep(200)


def test_a_trial_that_ray_ends_for_want_of_memory_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's monitor takes this machine for full from the start, and ends the trial when it looks for the first time."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "12000")
    monkeypatch.setattr(runner, "MOST_DEATHS", 0)
    connect(None, num_cpus=1, num_gpus=0)
    recorder, slices = Recorder(tmp_path), Slices(1)
    slices.add((job, 0) for job in made_jobs(1, tmp_path))
    try:
        runner.run_on_ray(slices, recorder, book(Available(1, 0), 0, 1, None), _waiting)
    finally:
        disconnect()
    assert slices.finished
    (trial,) = recorder.run.trials.values()
    # after epoch 0 where a slow machine had not begun it by then
    assert re.fullmatch("broke off 1 times after epoch [01], .*: its node was out of memory; .*", trial.reason)


def test_without_memory_for_all_there_are_fewer_at_once_and_one_alone_is_held_to_blame(tmp_path: Path) -> None:
    recorder, slices = Recorder(tmp_path), Slices(3)
    slices.add((job, 0) for job in made_jobs(4, tmp_path))
    keeper = runner._Bookkeeper(slices, recorder, None, lambda: False, room=lambda: 3)
    for tune_id in "abc":
        assert isinstance(keeper.suggest(tune_id), dict)
    for tune_id in "cb":
        keeper.over(tune_id, "no memory", runner._NoMemoryError())
        assert keeper.suggest("d") is None, "what was ended waits"
    assert slices.slots == 1
    for attempt in range(1 + runner.MOST_DEATHS):
        assert recorder.run.trials == {}
        keeper.over("a" * (attempt + 1), "no memory", runner._NoMemoryError())
        assert isinstance(keeper.suggest("a" * (attempt + 2)), dict)
    keeper._measured = -math.inf  # a second later
    assert keeper.suggest("d") is None, "room for more on the nodes is none in their memory"
    (trial,) = recorder.run.trials.values()
    assert (trial.status, trial.reason) == ("failed", "broke off 4 times after epoch 0, the last time with: no memory")


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[None]:
    """A Ray of eight CPUs and a GPU that it is told of."""
    connect(None, num_cpus=8, num_gpus=1)
    yield
    disconnect()


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which needs a GPU."""


def _hungry(job: TrialJob, until: int, known: int) -> Iterator[dict[str, Any]]:
    """A trial that needs half a GPU."""
    yield {"event": "start", "info": {}}
    if job.gpus < 0.5:
        raise OutOfMemoryError("CUDA out of memory")
    yield {"event": "epoch", "epoch": 1, "metrics": {"gpus": job.gpus}}
    yield {"event": "end", "status": "completed", "reason": ""}


@pytest.mark.parametrize(("trials_per_gpu", "status"), [(4, "completed"), (8, "failed")])
def test_a_trial_out_of_memory_gets_twice_its_share_once(
    one_gpu: None, tmp_path: Path, trials_per_gpu: int, status: str
) -> None:
    booking = book(Available(8, 1), 1, trials_per_gpu, None)
    recorder, slices = Recorder(tmp_path), Slices(booking.slots)
    slices.add((replace(job, gpus=booking.gpus), 0) for job in made_jobs(3, tmp_path))
    runner.run_on_ray(slices, recorder, booking, _hungry)
    trials = recorder.run.trials.values()
    assert [trial.status for trial in trials] == [status] * 3
    if status == "failed":
        assert {trial.reason for trial in trials} == {
            "out of memory with 0.25 GPU; fewer --trials-per-gpu, or a smaller --batch-size"
        }


def test_a_storage_that_cannot_be_used_ends_the_run_and_no_trial(one_gpu: None, tmp_path: Path) -> None:
    (tmp_path / "trials").touch()
    recorder, slices = Recorder(tmp_path), Slices(1)
    slices.add((job, 0) for job in made_jobs(2, tmp_path / "trials"))
    with pytest.raises(FatalRunError, match="trials/trial0: Not a directory"):
        runner.run_on_ray(slices, recorder, book(Available(1, 0), 0, 1, None))
    assert [trial.status for trial in recorder.run.trials.values() if trial.status != "running"] == []


def test_an_estimator_of_ones_own_reaches_the_workers(one_gpu: None, images: Path, tmp_path: Path) -> None:
    from vqcore.estimators import ESTIMATORS, estimator

    @estimator("half")
    def half(g_ND: Any, z_ND: Any, q_ND: Any) -> Any:
        return 0.5 * g_ND

    config = TrialConfig().replace(estimator="half", epochs=1, batch_size=32, codebook_size=16)
    recorder, slices = Recorder(tmp_path), Slices(1)
    slices.add([(TrialJob("half", 0, config, prepare(str(images)), str(tmp_path / "half")), 0)])
    try:
        runner.run_on_ray(slices, recorder, book(Available(1, 0), 0, 1, None))
    finally:
        del ESTIMATORS["half"]
    assert recorder.run.trials["half"].status == "completed", recorder.run.trials["half"].reason


def test_a_booked_gpu_that_torch_does_not_see_is_an_error_in_words(one_gpu: None, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("torch sees a GPU here, so a booked one is no error")
    recorder, slices = Recorder(tmp_path), Slices(1)
    slices.add((replace(job, gpus=1.0), 0) for job in made_jobs(1, tmp_path))
    runner.run_on_ray(slices, recorder, book(Available(1, 1), 1, 1, None))
    (trial,) = recorder.run.trials.values()
    assert trial.status == "failed"
    assert "--num-gpus 0" in trial.reason
