"""A resume of a sweep with thousands of finished trials: how long until it trains again, and until it has reported."""

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.durability.made import (
    KINDS,
    NAME,
    OPEN,
    TINY,
    Kind,
    command,
    long_run,
    tail,
    tiny_images,
    until_first_start,
)
from trainables.journal import JournalReader
from trainables.runs import JOURNAL

REPORTS_WITHIN = 1800.0
"""Seconds."""


def measure(folder: Path, trials: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    """By the kind of sweep; and as a floor the same of a sweep that only begins."""
    rows = {}
    with _cache(folder / "cache"):
        for place, name in enumerate(kinds):
            out = folder / f"resume{place}"
            out.mkdir(parents=True)
            run = long_run(KINDS[name], trials, out)
            lines = _lines(run / JOURNAL)
            found = _driven(command(KINDS[name], out, "--resume", NAME, *_more(KINDS[name], trials)), run, out)
            rows[name] = {"lines_before": lines, "trials": trials, **found}
        rows["a new one"] = {"lines_before": 0, "trials": 0, **_new(folder / "new")}
    return rows


def _more(kind: Kind, trials: int) -> list[str]:
    return ["--trials", str(trials + OPEN)] if kind.extended else []


def _new(out: Path) -> dict[str, Any]:
    out.mkdir(parents=True)
    kind = KINDS["grid"]
    words = ["--data", str(tiny_images(out / "images")), *TINY, *kind.words(OPEN), "--name", NAME]
    return _driven(command(kind, out, *words), out / kind.sweep / NAME, out)


def _driven(words: list[str], run: Path, out: Path) -> dict[str, Any]:
    """Drive a sweep to its end; seconds from the start of the process, by the journal's own times."""
    began = time.time()
    process, first, reader = until_first_start(words, run / JOURNAL, out / "resume.log")
    first_cpu = _cpu_seconds(process.pid)  # a moment later: at most what a look at the journal takes
    try:
        report = _report(process, reader, out / "resume.log")
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it waits for MLflow, which nobody asks for here
        process.wait()
    return {
        "first_trial_seconds": round(first["time"] - began, 2),
        "first_trial_cpu_seconds": round(first_cpu, 2),
        **report,
    }


def _report(process: "subprocess.Popen[bytes]", reader: JournalReader, log: Path) -> dict[str, Any]:
    """Wait for the sweep's last word; what it took from the last trial's end on."""
    deadline, trained, last_end, cpu_then = time.monotonic() + REPORTS_WITHIN, 0, math.nan, math.nan
    while time.monotonic() < deadline:
        over = process.poll() is not None
        for event in reader.new():
            if event["event"] == "end":
                trained += event["status"] == "completed"
                last_end, cpu_then = event["time"], _cpu_seconds(process.pid)
            elif event["event"] == "done":
                return {
                    "report_seconds": round(event["time"] - last_end, 2),
                    "report_cpu_seconds": round(_cpu_seconds(process.pid) - cpu_then, 2),
                    "peak_bytes": _peak_bytes(process.pid),
                    "trials_trained": trained,
                }
        if over:
            break
        time.sleep(0.02)
    raise RuntimeError(f"the sweep did not come to its end:\n{tail(log)}")


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Have data prepared there, by this process and those that it starts."""
    before = os.environ.get("VQSWEEP_CACHE")
    os.environ["VQSWEEP_CACHE"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("VQSWEEP_CACHE")
        if before is not None:
            os.environ["VQSWEEP_CACHE"] = before
