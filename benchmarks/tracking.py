"""python -m benchmarks.tracking: what tracking by MLflow costs a sweep, and how long MLflow takes to catch up.

The driver's side: the CPU time of its process for a report that is recorded, with a tracker beside it and without, in
turn. MLflow's side: a finished run's journal and its trials' reconstructions sent to a SQLite database and through a
server of one worker, beside as many points alone sent to the same place by MLflow's client used by hand, in the fewest
calls.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from benchmarks.record import circumstances, write
from trainables.journal import Journal, read
from trainables.runs import JOURNAL, PICTURES
from trainables.tracking import Tracker, check, default_uri, sync

NAMES = ("mse", "perplexity", "usage", "bits", "loss", "codebook_loss", "commitment_loss")
METRICS = (*NAMES, *(f"train_{name}" for name in NAMES))
"""The metrics of a real trial."""
CONFIG = {f"field_{number}": number / 2 for number in range(28)}


@dataclass(frozen=True)
class TrackingBenchmark:
    """Measure what tracking costs the driver, and how long MLflow takes to catch up."""

    runs: int = 100
    """Trials of the run that is sent."""
    epochs: int = 50
    """Epochs of each."""
    by_hand: int = 20
    """Trials that are sent by hand; their time is scaled to all."""
    reports: int = 20_000
    """Reports that the driver records, 2,000 a second."""
    out: Path = Path("benchmarks/results/tracking.json")
    """The JSON file to write."""


def write_journal(folder: Path, runs: int, epochs: int, pause: Callable[[], None] = lambda: None) -> Journal:
    """A finished sweep's, as its driver writes it; ``pause`` is called before each report."""
    rng, journal = random.Random(0), Journal(folder / JOURNAL)
    facts = {"swept": ["field_0"], "params": {"data": "cifar10-mini"}}
    journal.write("sweep", sweep="benchmark", name=folder.name, id=f"{folder.name}-id", **facts)
    for number in range(runs):
        key = f"trial{number:05}"
        journal.write("start", trial=key, number=number, config={**CONFIG, "field_0": number}, info={"device": "cpu"})
        for epoch in range(1, epochs + 1):
            pause()
            journal.write("epoch", trial=key, epoch=epoch, metrics={name: rng.random() for name in METRICS})
        journal.write("end", trial=key, status="completed", reason="", epoch=epochs)
    journal.write("done")
    return journal


def write_pictures(folder: Path) -> None:
    """The reconstructions that each trial of a run keeps, of 32 x 32 pixels."""
    pictures = np.random.default_rng(0).integers(0, 255, (2, 8, 32, 32, 3), np.uint8)
    for key in read(folder / JOURNAL).trials:
        (folder / "trials" / key).mkdir(parents=True)
        np.save(folder / "trials" / key / PICTURES, pictures)


def driver_ms(folder: Path, reports: int, uri: str | None) -> float:
    """Milliseconds of the driver's CPU time for a report."""
    tracker = None if uri is None else Tracker(folder, uri)
    folder.mkdir(parents=True)
    if tracker is not None:
        tracker.start()
    cpu = time.process_time()
    write_journal(folder, reports // 100, 100, lambda: time.sleep(1 / 2000)).close()
    spent = time.process_time() - cpu
    if tracker is not None:
        tracker.close(timeout=0)  # how far it came does not matter here
    return spent / reports * 1e3


def by_hand(uri: str, runs: int, epochs: int) -> float:
    """Seconds of the fewest calls by which MLflow's client sends as much, one after the other."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client, rng = MlflowClient(uri), random.Random(1)
    experiment = client.create_experiment(f"by hand {time.time()}")
    started = time.perf_counter()
    for number in range(runs):
        run_id = client.create_run(experiment, 1000, {}, f"run {number}").info.run_id
        points = [Metric(name, rng.random(), epoch, epoch) for epoch in range(1, epochs + 1) for name in METRICS]
        params = [Param(name, str(value)) for name, value in CONFIG.items()]
        for first in range(0, len(points), 900):
            client.log_batch(run_id, points[first : first + 900], params if first == 0 else [])
        client.set_terminated(run_id, "FINISHED", 1_700_000_001_000)
    return time.perf_counter() - started


def catch_up(uri: str, benchmark: TrackingBenchmark, out: Path) -> dict[str, float]:
    """Seconds until MLflow has a run of which it had nothing, and of as much sent by hand."""
    write_journal(out / "benchmark" / "warm", 1, 1)
    sync(out / "benchmark" / "warm", uri)  # makes the schema
    write_journal(out / "benchmark" / "whole", benchmark.runs, benchmark.epochs)
    write_pictures(out / "benchmark" / "whole")
    started = time.perf_counter()
    assert sync(out / "benchmark" / "whole", uri) == benchmark.runs + 1
    seconds = time.perf_counter() - started
    scale = benchmark.runs / benchmark.by_hand
    return {"seconds": seconds, "by_hand_seconds": by_hand(uri, benchmark.by_hand, benchmark.epochs) * scale}


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's server, as ``make ui`` starts it; its URI."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder.mkdir()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "trainables.mlflow_sender", str(folder), "--ui", "--port", str(port)]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=null, stderr=null, start_new_session=True) as process:
        try:
            while not _listens(port):
                assert process.poll() is None
                time.sleep(0.2)
            assert check(uri) is None
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(benchmark: TrackingBenchmark) -> None:
    """Measure, print and write."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # before mlflow is imported
    facts, console = circumstances(asdict(benchmark)), Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        turns: dict[str, list[float]] = {"off": [], "on": []}
        for turn, tracker in enumerate(("off", "on", "on", "off")):
            uri = default_uri(out / "driver") if tracker == "on" else None
            turns[tracker].append(driver_ms(out / "driver" / "benchmark" / f"turn{turn}", benchmark.reports, uri))
        caught = {"sqlite": catch_up(default_uri(out / "straight"), benchmark, out / "straight")}
        with server(out / "server") as uri:
            caught["server"] = catch_up(uri, benchmark, out / "through")
    added = mean(turns["on"]) - mean(turns["off"])
    console.print(f"A report: {mean(turns['off']):.3f} ms of the driver's CPU, and {added:.3f} ms more with a tracker")
    points = benchmark.runs * benchmark.epochs * len(METRICS)
    for store, row in caught.items():
        console.print(
            f"{points:,} points of {benchmark.runs} trials to {store}: {row['seconds']:.1f} s; by hand with "
            f"MLflow's client {row['by_hand_seconds']:.1f} s"
        )
    record: dict[str, Any] = {
        "driver_ms": turns,
        "added_ms": added,
        "catch_up": caught,
        "metrics_a_report": len(METRICS),
        **facts,
    }
    write(benchmark.out, record)


if __name__ == "__main__":
    main(tyro.cli(TrackingBenchmark, prog="python -m benchmarks.tracking"))
