"""python -m benchmarks.tracking: what telling MLflow costs a sweep, and how long MLflow takes to catch up.

The driver's side: the wall time of recording a report, and the CPU time of the driver's process, with a tracker beside
it and without, in turn. MLflow's side: a run's whole journal sent to a database, or through a server of one worker.
Beside it stands the peer: as many points sent to the same place by MLflow's client alone, in the fewest calls.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import mean, quantiles
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from sweeps.engine.provenance import provenance
from trainables.journal import Journal
from trainables.recorder import JournalWriter
from trainables.runs import JOURNAL
from trainables.tracking import Tracker, check, default_uri, sync
from vqcore.config import ConfigError

REPORT_AT_MOST_MS, CATCH_UP_AT_MOST_S = 1.0, 60.0
NAMES = ("mse", "perplexity", "usage", "bits", "loss", "codebook_loss", "commitment_loss")
METRICS = (*NAMES, *(f"train_{name}" for name in NAMES))
"""What a real trial reports."""
TAGS = dict.fromkeys(("commit", "data_hash", "torch", "ray", "mlflow", "hardware"), "as long as a version or a hash")
CONFIG = {f"field_{number}": number / 2 for number in range(28)}

Store = Literal["sqlite", "server"]


@dataclass(frozen=True)
class TrackingBenchmark:
    """Measure what telling MLflow costs, and catching up."""

    stores: tuple[Store, ...] = ("sqlite", "server")
    """Where what was missed is sent: straight to a SQLite file, or through a server of one worker over one."""
    uri: str | None = None
    """One more place, as `--tracking-uri` takes it, such as `postgresql://...`; not written down."""
    runs: int = 1000
    """Trials that MLflow missed."""
    epochs: int = 50
    """Epochs of each."""
    client_runs: int = 60
    """Trials that MLflow's client sends alone; their time is scaled to all."""
    trials: int = 1000
    """Trials whose reports the driver records; 32 at once."""
    reports: int = 100
    """Reports of each."""
    a_second: int = 2000
    """Reports that come in a second."""
    out: Path = Path("benchmarks/results/tracking.json")
    """The JSON file to write."""


def metrics(rng: random.Random) -> dict[str, float]:
    return {name: rng.random() for name in METRICS}


def begin(write: Any, name: str) -> None:
    write("sweep", sweep="benchmark", name=name, id=f"{name}-id", swept=["field_0"], tags=TAGS, params={"epochs": 50})


def journal(folder: Path, runs: int, epochs: int) -> None:
    """A finished sweep's, as its driver writes it."""
    rng, file = random.Random(0), Journal(folder / JOURNAL)
    begin(file.write, folder.name)
    for number in range(runs):
        key = f"trial{number:05}"
        file.write("start", trial=key, number=number, config={**CONFIG, "field_0": number}, info={"device": "cpu"})
        for epoch in range(1, epochs + 1):
            file.write("epoch", trial=key, epoch=epoch, metrics=metrics(rng))
        file.write("end", trial=key, status="completed", reason="", epoch=epochs)
    file.write("done")
    file.close()


def catch_up(uri: str, benchmark: TrackingBenchmark, out: Path) -> dict[str, float]:
    """Seconds until MLflow holds a sweep of which it knew nothing, and those of MLflow's client alone."""
    warm, whole = (out / "benchmark" / name for name in ("warm", "whole"))
    journal(warm, 1, 1)
    sync(warm, uri)  # the schema, the imports
    journal(whole, benchmark.runs, benchmark.epochs)
    started = time.perf_counter()
    assert sync(whole, uri) == benchmark.runs + 1
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "client_seconds": round(client_alone(uri, benchmark), 1)}


def client_alone(uri: str, benchmark: TrackingBenchmark) -> float:
    """Seconds of the fewest calls, one after the other, that MLflow's client and its own store need for as much."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param

    client, rng = MlflowClient(uri), random.Random(1)
    experiment = client.create_experiment(f"alone {time.time()}")
    started = time.perf_counter()
    for number in range(benchmark.client_runs):
        run_id = client.create_run(experiment, 1000, TAGS, f"run {number}").info.run_id
        points = [
            Metric(name, value, 1_700_000_000_000 + epoch, epoch)
            for epoch in range(1, benchmark.epochs + 1)
            for name, value in metrics(rng).items()
        ]
        params = [Param(name, str(value)) for name, value in CONFIG.items()]
        for first in range(0, len(points), 900):
            client.log_batch(run_id, points[first : first + 900], params if first == 0 else [])
        client.set_terminated(run_id, "FINISHED", 1_700_000_001_000)
    return (time.perf_counter() - started) / benchmark.client_runs * benchmark.runs


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """MLflow's server, as ``make ui`` starts it but for its options; its URI."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "art")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    null = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, stdout=null, stderr=null, start_new_session=True) as process:
        try:
            while check(uri := f"http://127.0.0.1:{port}", 1) is not None:
                assert process.poll() is None
                time.sleep(0.2)
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def drive(folder: Path, benchmark: TrackingBenchmark, uri: str | None) -> dict[str, float]:
    """Milliseconds of a report in the driver: to record it (mean, 99th percentile), and of its process's CPU in all."""
    recorder, rng = JournalWriter(folder), random.Random(2)
    tracker = None if uri is None else Tracker(folder, uri)
    each_ms: list[float] = []
    begin(recorder.write, folder.name)
    if tracker is not None:
        tracker.start()
    cpu, wall = time.process_time(), time.perf_counter()
    for group in range(0, benchmark.trials, 32):
        keys = [f"trial{number:05}" for number in range(group, min(group + 32, benchmark.trials))]
        for key in keys:
            recorder.write("start", trial=key, number=int(key[5:]), config=CONFIG, info={"device": "cpu"})
        for epoch in range(1, benchmark.reports + 1):
            for key in keys:
                told = metrics(rng)
                at = time.perf_counter()
                recorder.write("epoch", trial=key, epoch=epoch, metrics=told)
                each_ms.append((time.perf_counter() - at) * 1e3)
                time.sleep(max(0.0, wall + len(each_ms) / benchmark.a_second - time.perf_counter()))
        for key in keys:
            recorder.write("end", trial=key, status="completed", reason="", epoch=benchmark.reports)
    seconds, spent = time.perf_counter() - wall, time.process_time() - cpu
    recorder.write("pause")
    recorder.close()
    if tracker is not None:
        tracker.close(timeout=0)  # how far it came is not asked here
    found = {"recorded_ms": mean(each_ms), "recorded_p99_ms": quantiles(each_ms, n=100)[98]}
    found |= {"cpu_ms": spent / len(each_ms) * 1e3, "wall_ms": seconds / len(each_ms) * 1e3}
    return {name: round(value, 4) for name, value in found.items()}


def driver_cost(benchmark: TrackingBenchmark, out: Path) -> dict[str, Any]:
    """A sweep's reports with and without a tracker, in turn, and what the tracker adds to a report."""
    rows: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    for turn, name in enumerate(("off", "on", "on", "off")):
        uri = default_uri(out) if name == "on" else None
        rows[name].append(drive(out / "benchmark" / f"driver{turn}", benchmark, uri))
    added = {
        name: round(mean(row[name] for row in rows["on"]) - mean(row[name] for row in rows["off"]), 4)
        for name in rows["on"][0]
    }
    return {"off": rows["off"], "on": rows["on"], "added_ms": added}


def checked(benchmark: TrackingBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    problems = [
        f"{name} = {value}: must be 1 or more"
        for name in ("runs", "epochs", "client_runs", "trials", "reports", "a_second")
        if (value := getattr(benchmark, name)) < 1
    ]
    if benchmark.uri is not None and (trouble := check(benchmark.uri)) is not None:
        problems.append(trouble)
    if problems:
        raise ConfigError(problems)


def main(benchmark: TrackingBenchmark) -> int:
    """Check, measure, say and write; the exit code: 2 for what was asked wrongly."""
    try:
        checked(benchmark)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    console, load = Console(highlight=False), [round(value, 2) for value in os.getloadavg()]
    caught: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        driver = driver_cost(benchmark, out / "driver")
        if "sqlite" in benchmark.stores:
            caught["sqlite"] = catch_up(default_uri(out / "straight"), benchmark, out / "straight")
        if "server" in benchmark.stores:
            (out / "server").mkdir()
            with server(out / "server") as uri:
                caught["server"] = catch_up(uri, benchmark, out / "server")
        if benchmark.uri is not None:
            caught[benchmark.uri.partition(":")[0]] = catch_up(benchmark.uri, benchmark, out / "other")
    show(console, benchmark, driver, caught)
    record = {
        "report_at_most_ms": REPORT_AT_MOST_MS,
        "catch_up_at_most_s": CATCH_UP_AT_MOST_S,
        "driver": driver,
        "catch_up": caught,
        "settings": {name: value for name, value in asdict(benchmark).items() if name not in ("out", "uri")},
        "metrics_a_report": len(METRICS),
        "measured": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "load_average_at_start": load,
        "provenance": {**provenance(), "mlflow": metadata.version("mlflow")},
    }
    benchmark.out.parent.mkdir(parents=True, exist_ok=True)
    benchmark.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def show(console: Console, benchmark: TrackingBenchmark, driver: dict[str, Any], caught: dict[str, Any]) -> None:
    """Two small tables."""
    shown = Table("", "record, ms", "its p99", "driver's CPU, ms", title="A report", title_justify="left")
    for name in ("off", "on"):
        row = driver[name][-1]
        shown.add_row(f"tracker {name}", *(f"{row[key]:.3f}" for key in ("recorded_ms", "recorded_p99_ms", "cpu_ms")))
    added = max(driver["added_ms"][name] for name in ("recorded_ms", "cpu_ms", "wall_ms"))
    met = "met" if added <= REPORT_AT_MOST_MS else "not met"
    shown.add_row(f"added: {added:.3f}, at most {REPORT_AT_MOST_MS:g}: {met}", "", "", "")
    console.print(shown)
    title = f"Catching up {benchmark.runs} runs of {benchmark.epochs} epochs, {len(METRICS)} metrics each"
    table = Table("to", "s", "MLflow's client alone, s", title=title, title_justify="left")
    for name, row in caught.items():
        met = "met" if row["seconds"] <= CATCH_UP_AT_MOST_S else "not met"
        table.add_row(
            name, f"{row['seconds']:.1f}, at most {CATCH_UP_AT_MOST_S:g}: {met}", f"{row['client_seconds']:.1f}"
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(TrackingBenchmark, prog="python -m benchmarks.tracking")))
