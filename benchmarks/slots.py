"""python -m benchmarks.slots: how long a slot stands empty between two trials, and a sweep of thousands of them.

Three sweeps of ``sweeps.beta_ablation``, each as its command and read from its journal alone, so that any commit's
engine can be measured beside this one's, in turn (``--before CHECKOUT --sides before now``):

* gap: trials of tens of milliseconds; the time from the end of an actor's last epoch to the start of its next one, the
  checkpoint in between included, where that is the next trial's and where it is the same trial's;
* long: trials of about ten seconds, and the share of the slots' time that passes between two of them;
* many: 2,000 trials of one epoch; the driver's peak memory, and the time per trial in the first and the last hundred.
"""

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from benchmarks.processes import ROOT, Command
from benchmarks.record import circumstances, recorded, write
from trainables.commands import run_command
from trainables.journal import Event, JournalReader
from vqcore.config import ConfigError

SLOTS = 2
HUNDRED = 100
TINY = ("--set", "channels=8", "hidden_channels=16", "--image-size", "16", "--batch-size", "32")

Part = Literal["gap", "long", "many"]
Side = Literal["before", "now"]


@dataclass(frozen=True)
class SlotsBenchmark:
    """Measure the time that a slot loses between two trials, and a sweep of thousands of trials."""

    parts: tuple[Part, ...] = ("gap", "long", "many")
    """Sweeps to run; the others stay in the file as they are."""
    before: Path | None = None
    """A checkout of an earlier commit."""
    sides: tuple[Side, ...] = ("now",)
    """Code to measure: this checkout's, the earlier one's, or both in turn."""
    trials: int = 2_000
    """Of the sweep of many trials; a multiple of 100."""
    repeats: int = 3
    """Runs of the two shorter sweeps, on each side."""
    out: Path = Path("benchmarks/results/slots.json")
    """The JSON file to write."""


def check(benchmark: SlotsBenchmark) -> None:
    """Raise ``ConfigError`` with every problem, before anything runs."""
    problems = []
    if benchmark.trials < 2 * HUNDRED or benchmark.trials % HUNDRED:
        problems.append(f"trials = {benchmark.trials}: must be a multiple of 100, at least 200; 2000 is usual")
    if benchmark.repeats < 1:
        problems.append(f"repeats = {benchmark.repeats}: must be at least 1; 3 is usual")
    if "before" in benchmark.sides and not (benchmark.before and (benchmark.before / "sweeps").is_dir()):
        problems.append(f"before = {benchmark.before}: is no checkout; make one with `git worktree add PATH COMMIT`")
    if problems:
        raise ConfigError(problems)


def gaps(events: Iterable[Event]) -> dict[str, list[float]]:
    """Seconds from the end of an epoch to the start of the next in the same process.

    ``between`` two trials and ``within`` one; ``span`` holds each process's time from its first epoch to its last.
    An epoch ended at its event's time and began ``metrics["seconds"]`` before, to a millisecond.
    """
    process: dict[str, int] = {}
    epochs: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
    for event in events:
        if event["event"] == "start":  # again with the process, once the trial has told it
            process |= {event["trial"]: event["info"]["pid"]} if "pid" in event["info"] else {}
        elif event["event"] == "epoch":
            began = event["time"] - event["metrics"]["seconds"]
            epochs[process[event["trial"]]].append((began, event["time"], event["trial"]))
    found: dict[str, list[float]] = {"between": [], "within": [], "span": []}
    for own in epochs.values():
        own.sort()
        found["span"].append(own[-1][1] - own[0][0])
        for (_, ended, last), (began, _, trial) in pairwise(own):
            found["within" if trial == last else "between"].append(max(0.0, began - ended))
    return found


def seconds_per_trial(ends: list[float], began: float) -> tuple[float, float]:
    """Of the first hundred trials and of the last, from the times of their ends and of the first one's start."""
    ends = sorted(ends)
    return (ends[HUNDRED - 1] - began) / HUNDRED, (ends[-1] - ends[-1 - HUNDRED]) / HUNDRED


def summary(part: Part, events: list[Event], peak: int, wall: float) -> dict[str, float]:
    """The figures of one sweep, from its journal, its driver's peak memory in bytes and its wall time in seconds."""
    ends = [event["time"] for event in events if event["event"] == "end"]
    began = min(event["time"] for event in events if event["event"] == "start")
    if part == "many":
        first, last = seconds_per_trial(ends, began)
        return {
            "trials": len(ends),
            "first_hundred_ms": round(1e3 * first, 1),
            "last_hundred_ms": round(1e3 * last, 1),
            "growth": round(last / first, 2),
            "driver_peak_mb": round(peak / 1e6),
            "wall_seconds": round(wall, 1),
        }
    found = gaps(events)
    trained = sum(event["metrics"]["seconds"] for event in events if event["event"] == "epoch")
    between = found["between"]
    return {
        "trials": len(ends),
        "processes": len(found["span"]),
        "trial_seconds": round(trained / len(ends), 3),
        "between_ms": round(1e3 * median(between), 1),
        "between_p90_ms": round(1e3 * quantiles(between, n=10)[-1], 1),
        "within_ms": round(1e3 * median(found["within"]), 1),
        "lost_percent": round(100 * sum(between) / sum(found["span"]), 2),
    }


def images(folder: Path, train: int, test: int) -> Path:
    """A data set of small random images, as a folder."""
    chance = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            pixels = chance.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number:04}.png")
    return folder


def words(part: Part, trials: int, folder: Path) -> list[str]:
    """The flags of a part's sweep."""
    if part == "long":  # two passes over the embedded images: about ten seconds of a core
        return ["--epochs", "2", "--seeds", "6", "--betas", "0.25", "1"]
    data = images(folder / "images", *((128, 32) if part == "gap" else (64, 32)))
    count, epochs = (60, 3) if part == "gap" else (trials, 1)
    betas = [f"{0.1 * place:.1f}" for place in range(1, 21)]
    sizes = ["--codebook-size", "16", "--epochs", str(epochs), "--seeds", str(count // 20), "--betas", *betas]
    return ["--data", str(data), *TINY, *sizes]


def run(part: Part, checkout: Path, trials: int) -> dict[str, float]:
    """One sweep, as the command of a checkout."""
    with tempfile.TemporaryDirectory(prefix="vqsweep-slots-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        command = [sys.executable, "-m", "sweeps.beta_ablation", *words(part, trials, folder), "--name", "slots"]
        command += ["--out", str(folder / "runs"), "--num-gpus", "0", "--num-cpus", str(SLOTS)]
        sweep = Command(command, folder / "log", {"VQSWEEP_CACHE": str(folder / "cache")}, checkout)
        wall = sweep.watch()
        journal = folder / "runs" / "beta_ablation" / "slots" / "journal.jsonl"
        return summary(part, list(JournalReader(journal).new()), sweep.peak_bytes, wall)


def measure(benchmark: SlotsBenchmark, console: Console) -> dict[str, dict[str, Any]]:
    """Every run of every side, by side and part; the sides in turn, the other first each time."""
    found: dict[str, dict[str, Any]] = {}
    checkouts: dict[str, Path] = {"now": ROOT, **({"before": benchmark.before.absolute()} if benchmark.before else {})}
    for part in benchmark.parts:
        for repeat in range(1 if part == "many" else benchmark.repeats):
            for side in benchmark.sides[:: 1 if repeat % 2 == 0 else -1]:
                load = round(os.getloadavg()[0], 1)
                row = {**run(part, checkouts[side], benchmark.trials), "load_at_start": load}
                console.print(f"{part} {side}: {row}")
                own = found.setdefault(side, {"commit": _commit(checkouts[side])})
                own.setdefault(part, []).append(row)
    return found


def _commit(checkout: Path) -> str:
    words = ["git", "describe", "--always", "--dirty=+changes", "--exclude=*", "--abbrev=12"]
    return subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()


def table(found: dict[str, dict[str, Any]]) -> Table:
    """For the terminal: medians of the runs, a column for each side."""
    shown = Table("", *(f"{side} ({own['commit']})" for side, own in found.items()))
    for part in ("gap", "long", "many"):
        runs = [own.get(part, []) for own in found.values()]
        for name in next((own[0] for own in runs if own), {}):
            cells = [f"{median(row[name] for row in own):g}" if own else "" for own in runs]
            shown.add_row(f"{part}: {name.replace('_', ' ')}", *cells)
    return shown


def main(benchmark: OmitArgPrefixes[SlotsBenchmark]) -> None:
    """Measure the time that a slot loses between two trials, and a sweep of thousands of trials."""
    check(benchmark)
    console = Console(highlight=False)
    facts = circumstances({**asdict(benchmark), "slots": SLOTS})
    found = measure(benchmark, console)
    kept = recorded(benchmark.out)
    record = {**kept, **{side: {**kept.get(side, {}), **own, **facts} for side, own in found.items()}}
    console.print(table(record))
    write(benchmark.out, record)


if __name__ == "__main__":
    run_command(main)
