"""Training with everything kept, beside the same training with nothing kept: epoch by epoch in turn, in one process.

"On" is what a slot and its driver do: ``run_trial``, its events through the recorder into a journal, MLflow told by the
process that a driver starts. "Off" is the trainer alone: the same model, data, order of the data and metrics.
"""

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

from benchmarks.durability.made import LOSSES
from trainables.checkpoint import checkpoint_bytes, save_checkpoint
from trainables.data import DataSet, prepare
from trainables.recorder import Recorder
from trainables.sources import Images as Pixels
from trainables.storage import Folder, Store
from trainables.tracking import Tracker, default_uri
from trainables.trial import RECONSTRUCTIONS, TrialJob, prepare_process, run_trial
from vqcore.config import PRESETS, TrainingConfig, TrialConfig
from vqcore.training import Images, Trainer

PROBE = 512
"""Images that say how long an epoch will take."""
PART_REPEATS = 15
SETTLES_WITHIN = 120.0
"""Seconds for the process that tells MLflow to have come up."""

Row = dict[str, float]


@dataclass(frozen=True)
class Sized(DataSet):
    """A data set of as many training images as an epoch wants: its own, over and over."""

    def train(self) -> Pixels:
        own = super().train()
        return own[np.arange(self.train_images) % len(own)]


class Nowhere(Store):
    """Takes all and keeps nothing."""

    def read(self, name: str) -> bytes:
        raise FileNotFoundError(name)

    def write(self, name: str, content: Iterable[bytes | memoryview], durable: bool = True) -> None:
        """Nothing."""

    def names(self) -> list[str]:
        return []

    def delete(self, name: str) -> None:
        """Nothing."""


def _config(preset: str, epochs: int) -> TrialConfig:
    return TrialConfig(PRESETS[preset], TrainingConfig(epochs=epochs))


def _job(folder: Path, preset: str, epochs: int, seconds: float) -> TrialJob:
    """A trial whose epochs take about so many seconds on one core of this machine, as busy as it is."""
    data, config = prepare(), _config(preset, epochs)
    trainer = Trainer(config, prepare_process(1, 0))
    test, few = Images(data.test(), trainer.device), Images(data.train()[:PROBE], trainer.device)
    trainer.train_epoch(few)
    image = _timed(lambda: trainer.train_epoch(few))["cpu"] / len(few)
    left = seconds - _timed(lambda: trainer.evaluate(test))["cpu"]
    count = max(config.training.batch_size, round(left / image))
    sized = Sized(data.source, data.hash, data.folder, data.image_size, count, data.test_images)
    key = config.key(data.hash)
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    return TrialJob(key, 0, config, sized, str(folder / "trials" / key))


def _timed(work: Callable[[], object]) -> Row:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _off(job: TrialJob) -> Iterator[float]:
    """An epoch at each step; the wall time of what is training in it, which here is all."""
    trainer = Trainer(job.config, prepare_process(1, 0))
    train, test = Images(job.data.train(), trainer.device), Images(job.data.test(), trainer.device)
    while True:
        started = time.perf_counter()
        trainer.train_epoch(train)
        trainer.evaluate(test)
        yield time.perf_counter() - started


def _on(job: TrialJob, recorder: Recorder) -> Iterator[float]:
    """As ``_off``; the trial itself tells how long it trained."""
    for event in run_trial(job):
        recorder.told(job, event)
        if event["event"] == "epoch":
            yield event["metrics"]["seconds"]


def _epoch(epochs: Iterator[float]) -> Row:
    trained: list[float] = []
    row = _timed(lambda: trained.append(next(epochs)))
    return {**row, "kept": row["wall"] - trained[0]}


def measure(folder: Path, preset: str, pairs: int, seconds: float) -> dict[str, Any]:
    """``pairs`` epochs of each, after one of each that is not counted."""
    job = _job(folder / "benchmark" / "cost", preset, pairs + 1, seconds)
    run = folder / "benchmark" / "cost"
    recorder, tracker = Recorder(run), Tracker(run, default_uri(folder))
    names = {"sweep": "benchmark", "name": "cost", "id": "cost", "swept": ["commitment_weight"]}
    recorder.write("sweep", **names, tags={}, params={"epochs": pairs + 1})
    tracker.start()
    off, on = _off(job), _on(job, recorder)
    next(off), next(on)
    begun = _settled()
    rows: dict[str, list[Row]] = {"off": [], "on": []}
    for pair in range(pairs):
        turn: list[tuple[str, Iterator[float]]] = [("off", off), ("on", on)]
        for name, epochs in turn[:: 1 if pair % 2 else -1]:
            rows[name].append(_epoch(epochs))
    next(on, None)
    recorder.write("done")
    recorder.close()
    sent = tracker.close(timeout=SETTLES_WITHIN)
    follower = _reaped_cpu() - begun
    told, parts = _summary(rows, follower / pairs), _parts(folder / "parts", job)
    kept = [row for name, row in parts.items() if name != "write"]  # which is in "write and fsync"
    share = {clock: sum(row[clock] for row in kept) / 10 / told[clock]["epoch_seconds"] for clock in ("cpu", "wall")}
    share["cpu"] += 100 * follower / pairs / told["cpu"]["epoch_seconds"]
    return {
        **told,
        "parts_ms": parts,
        "parts_percent": {clock: round(value, 2) for clock, value in share.items()},
        "checkpoint_bytes": checkpoint_bytes(job.config),
        "train_images": job.data.train_images,
        "mlflow_sent_all": sent,
        "mlflow_begins_cpu_seconds": round(begun, 2),
        "each": {name: [{k: round(v, 4) for k, v in row.items()} for row in own] for name, own in rows.items()},
    }


def _summary(rows: dict[str, list[Row]], follower: float) -> dict[str, Any]:
    """What "on" adds to an epoch, by the median of pairs; in seconds, and as a share of an epoch with "off"."""
    kept = sorted(row["kept"] for row in rows["on"])
    told: dict[str, Any] = {
        "mlflow_cpu_seconds_an_epoch": round(follower, 4),
        "beside_training_seconds": round(median(kept), 4),
        "beside_training_seconds_most": round(kept[-1], 4),
        "beside_training_percent": round(100 * median(kept) / median(row["wall"] for row in rows["off"]), 2),
    }
    for clock in ("cpu", "wall"):
        alone = median(row[clock] for row in rows["off"])
        added = [on[clock] - off[clock] for on, off in zip(rows["on"], rows["off"], strict=True)]
        low, _, high = quantiles(added, n=4) if len(added) > 1 else (added[0],) * 3
        other = follower if clock == "cpu" else 0.0  # it is nice, and beside: what it takes is in the wall time
        told[clock] = {
            "epoch_seconds": round(alone, 3),
            "added_seconds": round(median(added), 4),
            "added_percent": round(100 * median(added) / alone, 2),
            "quartiles_percent": [round(100 * end / alone, 2) for end in (low, high)],
            "with_mlflow_percent": round(100 * (median(added) + other) / alone, 2),
        }
    return told


def _parts(folder: Path, job: TrialJob) -> dict[str, Row]:
    """Milliseconds of each thing that an epoch's keeping is made of, alone; medians."""
    trainer = Trainer(job.config, prepare_process(1, 0))
    test = Images(job.data.test(), trainer.device)
    trainer.train_epoch(Images(job.data.train()[:PROBE], trainer.device))
    event = {"event": "epoch", "epoch": 1, "metrics": _metrics(), "time": round(time.time(), 3)}
    facts = {"trial": job.key, "number": 0, "config": job.config.flat(), "precision": "fp32", "history": [event]}
    state = trainer.state()
    content = b"".join(tensor.numpy().tobytes() for tensor in state.values())
    store, recorder, numbers = Folder(str(folder / "trial")), Recorder(folder), iter(range(2, 10**6))
    recorder.told(job, {"event": "start", "info": {}})
    works: dict[str, Callable[[], object]] = {
        "pictures": lambda: trainer.reconstruct(test, RECONSTRUCTIONS),
        "state": trainer.state,
        "serialise and hash": lambda: save_checkpoint(Nowhere(""), 1, state, facts),
        "write": lambda: store.write("written", [content], durable=False),
        "write and fsync": lambda: store.write("forced", [content]),
        "journal": lambda: recorder.told(job, {**event, "epoch": next(numbers)}),
    }
    found = {}
    for name, work in works.items():
        work()
        each = [_timed(work) for _ in range(PART_REPEATS)]
        found[name] = {clock: round(1e3 * median(row[clock] for row in each), 3) for clock in ("cpu", "wall")}
    recorder.close()
    return found


def _metrics() -> Row:
    return {f"{split}{name}": 1 / 3 for split in ("", "train_") for name in LOSSES} | {"seconds": 5.123}


def _settled() -> float:
    """CPU seconds of the process that tells MLflow, once it has come up and waits for something to tell."""
    deadline, before = time.monotonic() + SETTLES_WITHIN, -1.0
    while time.monotonic() < deadline and (now := _children_cpu()) != before:
        before = now
        time.sleep(3)
    return before


def _children_cpu() -> float:
    """CPU seconds so far of the processes that this one has started and that run."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended just now
            continue
        if int(fields[1]) == os.getpid():
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def _reaped_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
