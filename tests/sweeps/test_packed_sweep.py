"""Sweeps whose trials train in packs: without Ray, and on Ray while their process is killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from read_back import SMALL, Numbers, Sweep, metrics

from sweeps.engine.driver import Driver
from sweeps.engine.packs import Packs, roomiest
from sweeps.engine.queue import TrialQueue
from trainables.data import DataSet
from trainables.job import Report, TrialJob
from trainables.journal import JournalReader, read
from trainables.recorder import JournalWriter
from vqcore.config import TrialConfig

Start = Callable[..., "subprocess.Popen[str]"]
LONG = ("--epochs", "6", "--precision", "fp32", "--estimators", "rotation", "ste")


@pytest.fixture(scope="module")
def alone(sweep: Sweep, out: Path) -> Numbers:
    """The sweep that trains its trials one after another."""
    assert sweep("--name", "pack-alone", *LONG) == 0
    return metrics(out / "beta_ablation" / "pack-alone")


def near(alone: Numbers, packed: Numbers) -> None:
    """Every epoch of every trial, within what the rounding of another order of sums makes of 18 steps."""
    assert packed.keys() == alone.keys()
    for key, epochs in packed.items():
        for epoch, found in epochs.items():
            assert found == pytest.approx(alone[key][epoch], rel=1e-3), (key, epoch)


def test_models_go_where_their_shape_is_and_else_where_room_is() -> None:
    small, large = ("small",), ("large",)
    assert roomiest([], range(2), 2, small) == 0
    assert roomiest([(0, small)], range(2), 2, large) == 1
    assert roomiest([(0, small), (1, large)], range(2), 2, large) == 1
    assert roomiest([(0, small), (1, large), (1, large)], range(2), 2, large) == 0
    assert roomiest([(0, small), (0, small), (1, small)], range(2), 4, small) == 1


class Host:
    """In place of a process on Ray."""

    def __init__(self) -> None:
        self.leave = self

    def remote(self, *words: object) -> None:
        """Take the word that a trial leaves."""


class UnstartedPacks(Packs):
    """Packs whose processes do not start."""

    def _start(self, job: TrialJob) -> Host:
        return Host()


def test_packs_follow_the_nodes_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda host: None)
    packs, data = UnstartedPacks(2), DataSet("", "", "", 16, 1, 1)
    jobs = [TrialJob(str(number), number, TrialConfig(), data, "") for number in range(6)]
    places = [packs.place(job, 4)["pack"] for job in jobs[:4]]
    assert [places.count(host) for host in places] == [2, 2, 2, 2]
    assert packs.place(jobs[4], 6)["pack"] not in places, "a node has joined"
    for key in ("0", "1", "2", "3"):
        if places[int(key)] is places[0]:
            packs.died(key)
    alive = {id(packs.place(job, 4)["pack"]) for job in (jobs[5],)}
    assert alive.isdisjoint({id(places[0])}), "a trial was sent to a process that is gone"


def test_a_trial_of_a_pack_gets_no_larger_share_and_what_its_process_said_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = DataSet("", "", "", 16, 1, 1)
    job = TrialJob("trial", 0, TrialConfig(), data, str(tmp_path), gpus=0.5)
    queue = TrialQueue(2)
    queue.add([(job, 0)])
    driver = Driver(queue, JournalWriter(tmp_path), packed=True)
    driver.begin("trial")
    driver.record("trial", Report(0, warnings=("vqcore.pack: they take turns",)))
    driver.broke_off("trial", torch.OutOfMemoryError("CUDA out of memory"))
    assert "they take turns" in caplog.text
    trial = driver.writer.run.trials["trial"]
    reason = "out of memory with 0.5 GPU; fewer --trials-per-gpu, or a smaller --batch-size or --pack"
    assert (trial.status, trial.reason) == ("failed", reason)


@pytest.mark.slow
def test_a_packed_sweep_without_ray_ends_as_trials_alone(sweep: Sweep, out: Path, alone: Numbers) -> None:
    assert sweep("--name", "pack-inline", "--pack", "8", *LONG) == 0
    near(alone, metrics(out / "beta_ablation" / "pack-inline"))


@pytest.mark.service
def test_a_pack_whose_process_is_killed_goes_on_from_checkpoints(
    started: Start, images: Path, out: Path, alone: Numbers
) -> None:
    run = out / "beta_ablation" / "pack-killed"
    words = ("--name", run.name, "--data", images, *SMALL, "--betas", "0.1", "1", *LONG, "--pack", "4")
    with started(*words, "--num-gpus", "0") as sweep:
        (killed, *_) = wait_for_processes(run, sweep)
        os.kill(killed, signal.SIGKILL)
        shown = sweep.communicate(timeout=240)[0]
    assert sweep.returncode == 0, shown
    trials = read(run / "journal.jsonl").trials
    assert {trial.status for trial in trials.values()} == {"completed"}, shown
    assert "the process of its pack died" in (run / "log.txt").read_text()
    assert len(processes(run)) == 3, "two packs, and the one that followed the killed one"
    near(alone, metrics(run))


def processes(run: Path) -> set[int]:
    """Those that have trained."""
    starts = [event for event in JournalReader(run / "journal.jsonl").new() if event["event"] == "start"]
    return {event["info"]["pid"] for event in starts if "pid" in event["info"]}


def wait_for_processes(run: Path, sweep: "subprocess.Popen[str]") -> list[int]:
    """The first ones of a sweep."""
    while not ((run / "journal.jsonl").exists() and (found := processes(run))):
        assert sweep.poll() is None, sweep.communicate()[0]
        time.sleep(0.02)
    return sorted(found)
