"""What durability costs an epoch: journal, checkpoint, pictures and MLflow on, beside the bare training off."""

import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.durability.journal import METRICS
from trainables.data import prepare
from trainables.follower import POLL
from trainables.recorder import Recorder
from trainables.tracking import Tracker, default_uri
from trainables.trial import TrialJob, run_trial
from vqcore.config import PRESETS, TrainingConfig, TrialConfig
from vqcore.training import Images, Trainer

TOLD = 20
"""Epochs for which MLflow's share is measured."""
EPOCH_SECONDS = 5.0
"""Of the epochs that the cost is a share of."""


def measured(preset: str, epochs: int, repeats: int) -> dict[str, Any]:
    """Seconds an epoch, on and off by turns, each ``repeats`` times ``epochs``; and what each part takes."""
    torch.set_num_threads(1)
    data = prepare("cifar10-mini")
    config = TrialConfig(PRESETS[preset], TrainingConfig()).replace(epochs=epochs)
    on: list[float] = []
    off: list[float] = []
    parts: dict[str, list[float]] = {"checkpoint and pictures": [], "journal": []}
    for turn in range(repeats):
        off += _off(config, Images(data.train(), torch.device("cpu")), Images(data.test(), torch.device("cpu")), epochs)
        with tempfile.TemporaryDirectory() as folder:
            job = TrialJob(config.key(data.hash), 0, config.replace(seed=turn), data, str(Path(folder) / "trial"))
            on += _on(job, Path(folder), parts)
    told = _told()
    cost = median(parts["checkpoint and pictures"]) + median(parts["journal"])
    return {
        "preset": preset,
        "epochs": len(on),
        "seconds_an_epoch_on": round(median(on), 3),
        "seconds_an_epoch_off": round(median(off), 3),
        "off_from_to": [round(min(off), 3), round(max(off), 3)],
        "milliseconds": {name: round(1e3 * median(taken), 2) for name, taken in parts.items()},
        "milliseconds_most": {name: round(1e3 * max(taken), 2) for name, taken in parts.items()},
        "mlflow_cpu_milliseconds": round(1e3 * told, 1),
        "share_of_5_s_percent": round(100 * cost / EPOCH_SECONDS, 3),
        "share_with_mlflows_cpu_percent": round(100 * (cost + told) / EPOCH_SECONDS, 3),
    }


def _off(config: TrialConfig, train: Images, test: Images, epochs: int) -> list[float]:
    trainer, taken = Trainer(config, torch.device("cpu")), []
    for _ in range(epochs):
        started = time.perf_counter()
        trainer.train_epoch(train)
        trainer.evaluate(test)
        taken.append(time.perf_counter() - started)
    return taken


def _told() -> float:
    """CPU seconds an epoch of the process that tells MLflow, while epochs come one by one; without what it imports."""
    spent = []
    for epochs in (0, TOLD):
        with tempfile.TemporaryDirectory() as folder:
            recorder, tracker, before = (
                Recorder(Path(folder)),
                Tracker(Path(folder), default_uri(Path(folder))),
                _children(),
            )
            recorder.write("sweep", sweep="cost", name="cost", id="0", swept=[], trials=1, tags={}, params={})
            recorder.write("start", trial="a", number=0, config={})
            tracker.start()
            for epoch in range(TOLD):
                time.sleep(1.5 * POLL)
                if epoch < epochs:
                    recorder.write("epoch", trial="a", epoch=epoch + 1, metrics=dict.fromkeys(METRICS, 0.5))
            recorder.close()
            tracker.close(timeout=60)
            spent.append(_children() - before)
    return (spent[1] - spent[0]) / TOLD


def _on(job: TrialJob, folder: Path, parts: dict[str, list[float]]) -> list[float]:
    """As a sweep runs it. What a trial keeps is what its epoch took beyond the training that it tells of."""
    recorder, tracker, taken = Recorder(folder), Tracker(folder, default_uri(folder)), []
    recorder.write("sweep", sweep="cost", name="cost", id="0", swept=[], trials=1, tags={}, params={})
    tracker.start()
    started = time.perf_counter()
    for event in run_trial(job):
        trained = time.perf_counter()
        with _timed(parts["journal"] if event["event"] == "epoch" else []):
            recorder.told(job, event)
        if event["event"] == "epoch":
            parts["checkpoint and pictures"].append(trained - started - event["metrics"]["seconds"])
            taken.append(time.perf_counter() - started)
        started = time.perf_counter()
    recorder.write("done")
    recorder.close()
    tracker.close(timeout=60)
    return taken


@contextmanager
def _timed(kept: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    kept.append(time.perf_counter() - started)


def _children() -> float:
    """CPU seconds of the processes that have ended: those that told MLflow."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
