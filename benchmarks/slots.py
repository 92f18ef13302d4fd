"""python -m benchmarks.slots: what a trial and a report cost, through the whole engine, with MLflow on.

Sweeps of ``sweeps.beta_ablation``, each as its command and read from its journal alone, so that any commit's engine can
be measured beside this one's, in turn (``--before CHECKOUT --sides before now``):

* gap: trials of three epochs of tens of milliseconds; from the end of an actor's last epoch to the start of its next,
  where that is the next trial's and where it is the same trial's. ``files_ms`` is what the checkpoint and the files
  beside take of it, measured of the same trials in bare loops (``bare.py``) of as many processes, right after;
* empty, second, ten: trials of one tiny step, of about a second, of about ten, and the share of the slots' time that is
  neither training nor evaluation;
* many: ``--trials`` trials of one tiny epoch: reports a second, the driver's peak memory, what the screen and the
  journal grow to, the time per trial in the first and the last hundred, and the memory of the actors, which train half
  of the trials each.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from benchmarks.bare import Work, side_by_side
from benchmarks.processes import ROOT, Command
from benchmarks.record import circumstances, recorded, write
from benchmarks.sweep_parts import epochs_by_process
from trainables.commands import run_command
from trainables.journal import Event, JournalReader
from vqcore.config import ConfigError

SLOTS = 2
HUNDRED = 100
WARM = 50
"""Trials after which an actor has all that it keeps: allocated blocks, compiled kernels."""
BARE_EPOCHS = 60
TINY = {"channels": 8, "hidden_channels": 16, "batch_size": 32, "codebook_size": 16}
SIDE = 16
"""Of the images of tiny trials, in pixels."""

Part = Literal["gap", "empty", "second", "ten", "many"]
Side = Literal["before", "now"]


@dataclass(frozen=True)
class SlotsBenchmark:
    """Measure the time that a slot loses between two trials, and a sweep of thousands of trials."""

    parts: tuple[Part, ...] = ("gap", "empty", "second", "ten", "many")
    """Sweeps to run; the others stay in the file as they are."""
    before: Path | None = None
    """A checkout of an earlier commit."""
    sides: tuple[Side, ...] = ("now",)
    """Code to measure: this checkout's, the earlier one's, or both in turn."""
    trials: int = 2_000
    """Of the sweep of many trials; a multiple of 100."""
    repeats: int = 3
    """Runs of each sweep but ``many``, on each side."""
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
    """
    found: dict[str, list[float]] = {"between": [], "within": [], "span": []}
    for own in epochs_by_process(events).values():
        found["span"].append(own[-1][1] - own[0][0])
        for (_, ended, last), (began, _, trial) in pairwise(own):
            found["within" if trial == last else "between"].append(max(0.0, began - ended))
    return found


def seconds_per_trial(ends: list[float], began: float) -> tuple[float, float]:
    """Of the first hundred trials and of the last, from the times of their ends and of the first one's start."""
    ends = sorted(ends)
    return (ends[HUNDRED - 1] - began) / HUNDRED, (ends[-1] - ends[-1 - HUNDRED]) / HUNDRED


class ActorMemory:
    """The resident memory of the processes that train, by how many trials each has ended; to be looked at often."""

    def __init__(self, journal: Path) -> None:
        self._reader, self._pids, self._ended = JournalReader(journal), dict[str, int](), Counter[int]()
        self._looked = 0.0
        self.samples: dict[int, list[tuple[int, int]]] = {}
        """Of each process: trials ended, and bytes."""

    def look(self) -> None:
        """Read on in the journal and in ``/proc``, once a second at most."""
        if time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        for event in self._reader.new():
            if event["event"] == "start" and "pid" in event["info"]:
                self._pids[event["trial"]] = event["info"]["pid"]
            elif event["event"] == "end":
                self._ended[self._pids[event["trial"]]] += 1
        for pid, ended in self._ended.items():
            with suppress(OSError, IndexError):  # it has ended
                used = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2]
                self.samples.setdefault(pid, []).append((ended, int(used.split()[0]) * 1024))


def memory(samples: Iterable[list[tuple[int, int]]]) -> dict[str, float]:
    """Of the actors that ended ``WARM`` trials and more: resident MB after these and at the end, means of them all."""
    warm = [[sample for sample in own if sample[0] >= WARM] for own in samples]
    warm = [own for own in warm if own]
    if not warm:
        return {}
    return {
        "actor_trials": round(mean(own[-1][0] for own in warm)),
        f"actor_mb_after_{WARM}": round(mean(own[0][1] for own in warm) / 1e6, 1),
        "actor_mb_at_end": round(mean(own[-1][1] for own in warm) / 1e6, 1),
    }


def summary(part: Part, events: list[Event], peak: int, wall: float) -> dict[str, float]:
    """The figures of one sweep, from its journal, its driver's peak memory in bytes and its wall time in seconds."""
    ends = [event["time"] for event in events if event["event"] == "end"]
    began = min(event["time"] for event in events if event["event"] == "start")
    reports = [event for event in events if event["event"] == "epoch"]
    if part == "many":
        first, last = seconds_per_trial(ends, began)
        return {
            "trials": len(ends),
            "reports_per_second": round(len(reports) / (max(ends) - began), 1),
            "first_hundred_ms": round(1e3 * first, 1),
            "last_hundred_ms": round(1e3 * last, 1),
            "growth": round(last / first, 2),
            "driver_peak_mb": round(peak / 1e6),
            "wall_seconds": round(wall, 1),
        }
    found = gaps(events)
    trained, span, between = sum(event["metrics"]["seconds"] for event in reports), sum(found["span"]), found["between"]
    return {
        "trials": len(ends),
        "processes": len(found["span"]),
        "trial_seconds": round(trained / len(ends), 3),
        "between_ms": round(1e3 * median(between), 1),
        "between_p90_ms": round(1e3 * quantiles(between, n=10)[-1], 1),
        **({"within_ms": round(1e3 * median(found["within"]), 1)} if found["within"] else {}),
        "between_percent": round(100 * sum(between) / span, 2),
        "lost_percent": round(100 * (span - trained) / span, 2),
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


def images_of(part: Part) -> tuple[int, int]:
    """How many a part trains on and evaluates; of ``ten`` the embedded ones."""
    return {"gap": (128, 32), "empty": (32, 32), "second": (1024, 128), "ten": (0, 0), "many": (64, 32)}[part]


def words(part: Part, trials: int, folder: Path) -> list[str]:
    """The flags of a part's sweep."""
    if part == "ten":  # two passes over the embedded images: about ten seconds of a core
        return ["--epochs", "2", "--seeds", "6", "--betas", "0.25", "1"]
    data = images(folder / "images", *images_of(part))
    count, epochs = {"gap": (60, 3), "empty": (200, 1), "second": (40, 3), "many": (trials, 1)}[part]
    betas = [f"{0.1 * place:.1f}" for place in range(1, 21)]
    sizes = ["--epochs", str(epochs), "--seeds", str(count // 20), "--betas", *betas]
    flags = {"--image-size": SIDE, "--batch-size": TINY["batch_size"], "--codebook-size": TINY["codebook_size"]}
    fields = [f"{name}={TINY[name]}" for name in ("channels", "hidden_channels")]
    return ["--data", str(data), *(str(word) for pair in flags.items() for word in pair), "--set", *fields, *sizes]


def files_ms(folder: Path, environment: Mapping[str, str]) -> float:
    """What the files of an epoch of ``gap`` take in bare loops beside each other."""
    work = Work("trial", {**TINY, "epochs": BARE_EPOCHS}, str(folder / "images"), SIDE)
    return round(1e3 * side_by_side(work, SLOTS, folder, environment).files, 1)


def run(part: Part, checkout: Path, trials: int) -> dict[str, float]:
    """One sweep, as the command of a checkout."""
    with tempfile.TemporaryDirectory(prefix="vqsweep-slots-", ignore_cleanup_errors=True) as name:
        folder, environment = Path(name), {"VQSWEEP_CACHE": str(Path(name) / "cache")}
        command = [sys.executable, "-m", "sweeps.beta_ablation", *words(part, trials, folder), "--name", "slots"]
        command += ["--out", str(folder / "runs"), "--num-gpus", "0", "--num-cpus", str(SLOTS)]
        journal = folder / "runs" / "beta_ablation" / "slots" / "journal.jsonl"
        sweep, actors = Command(command, folder / "log", environment, checkout), ActorMemory(journal)
        wall = sweep.watch(actors.look if part == "many" else lambda: None)
        found = summary(part, list(JournalReader(journal).new()), sweep.peak_bytes, wall)
        if part == "many":
            sizes = {"journal_mb": journal.stat().st_size, "screen_mb": sweep.log.stat().st_size}
            found |= {name: round(size / 1e6, 3) for name, size in sizes.items()} | memory(actors.samples.values())
        if part == "gap":
            found["files_ms"] = files_ms(folder, environment)
            found["between_without_files_ms"] = round(found["between_ms"] - found["files_ms"], 1)
        return found


def measure(benchmark: SlotsBenchmark, console: Console) -> dict[str, dict[str, Any]]:
    """Every run of every side, by side and part; the sides in turn, the other first each time."""
    checkouts: dict[str, Path] = {"now": ROOT, **({"before": benchmark.before.absolute()} if benchmark.before else {})}
    found: dict[str, dict[str, Any]] = {side: {"commit": _commit(checkouts[side])} for side in benchmark.sides}
    for part in benchmark.parts:
        for repeat in range(1 if part == "many" else benchmark.repeats):
            for side in benchmark.sides[:: 1 if repeat % 2 == 0 else -1]:
                load = round(os.getloadavg()[0], 1)
                row = {**run(part, checkouts[side], benchmark.trials), "load_at_start": load}
                console.print(f"{part} {side}: {row}")
                found[side].setdefault(part, []).append(row)
    return found


def _commit(checkout: Path) -> str:
    words = ["git", "describe", "--always", "--dirty=+changes", "--exclude=*", "--abbrev=12"]
    return subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()


def table(found: dict[str, dict[str, Any]]) -> Table:
    """For the terminal: medians of the runs, a column for each side."""
    shown = Table("", *(f"{side} ({own['commit']})" for side, own in found.items()))
    for part in get_args(Part):
        runs = [own.get(part, []) for own in found.values()]
        for name in dict.fromkeys(name for own in runs for row in own for name in row):
            measured = [[row[name] for row in own if name in row] for own in runs]  # an earlier benchmark had fewer
            cells = [f"{median(own):g}" if own else "" for own in measured]
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
