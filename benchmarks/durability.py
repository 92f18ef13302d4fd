"""python -m benchmarks.durability: the cost of losing nothing, in time of training and in time of a resume.

* cost: a sweep of one trial, and the share of its time in which it did not train: checkpoint, pictures, journal, all
  that lies between the end of an epoch and the start of the next one; and the CPU time of the process beside it that
  tells MLflow. By the trial's own clock, as its journal has it.
* resume: sweeps of thousands of trivial trials, run to their end and extended by ``--resume``: the time to the first
  new trial, the time from the last one's end to the report, the driver's peak memory.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from benchmarks.processes import Command, cpu_seconds
from benchmarks.record import circumstances, recorded, write
from benchmarks.slots import TINY, gaps, images
from trainables.commands import run_command
from trainables.journal import Event, JournalReader
from vqcore.config import ConfigError

Part = Literal["cost", "resume"]
Kind = Literal["grid", "search"]
MODULES = {"grid": "beta_ablation", "search": "pareto"}
NAME = "durability"
BETAS = [f"{0.1 * place:.1f}" for place in range(1, 21)]
COST_AT_MOST_PERCENT = 2.0
FIRST_TRIAL_AT_MOST_S = 10.0


@dataclass(frozen=True)
class DurabilityBenchmark:
    """Measure the cost of losing nothing."""

    parts: tuple[Part, ...] = ("cost", "resume")
    """What to measure; the other stays in the file as it is."""
    epochs: int = 20
    """Of the trial whose cost is measured; about five seconds each on one core."""
    preset: Literal["compact", "paper"] = "compact"
    """Its model."""
    kinds: tuple[Kind, ...] = ("grid", "search")
    """Sweeps that are resumed: sweeps.beta_ablation, and sweeps.pareto with TPE and Pareto-ASHA."""
    trials: int = 2_000
    """Of the sweeps that are resumed; a multiple of 20."""
    out: Path = Path("benchmarks/results/durability.json")
    """The JSON file to write."""


def check(benchmark: DurabilityBenchmark) -> None:
    """Raise ``ConfigError`` with every problem, before anything runs."""
    problems = [] if benchmark.parts else ["parts: none is given; there are cost and resume"]
    if benchmark.trials < 20 or benchmark.trials % 20:
        problems.append(f"trials = {benchmark.trials}: must be a multiple of 20; 2000 is usual")
    if benchmark.epochs < 3:
        problems.append(f"epochs = {benchmark.epochs}: must be at least 3; 20 is usual")
    if problems:
        raise ConfigError(problems)


class Sweep:
    """A sweep as its command, in a folder of its own."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.journal = JournalReader(folder / "runs" / MODULES[kind] / NAME / "journal.jsonl")

    def run(self, words: list[str], look: Callable[[Command, Event], None]) -> Command:
        """Run the command to its end; ``look`` sees each new event of the journal within a moment."""
        command = [sys.executable, "-m", f"sweeps.{MODULES[self.kind]}", *words, "--out", str(self.folder / "runs")]
        sweep = Command(command, self.folder / "log", {"VQSWEEP_CACHE": str(self.folder / "cache")})

        def new_events() -> None:
            for event in self.journal.new():
                look(sweep, event)

        sweep.watch(new_events)
        new_events()
        return sweep


def cost(folder: Path, benchmark: DurabilityBenchmark) -> dict[str, Any]:
    """Of one trial in the driver's own process, epoch by epoch."""
    events: list[Event] = []
    cpu: list[float] = []

    def look(sweep: Command, event: Event) -> None:
        events.append(event)
        if event["event"] == "epoch":
            cpu.append(sum(cpu_seconds(pid) for pid in sweep.members() if pid != sweep.pid))

    words = ["--name", NAME, "--preset", benchmark.preset, "--epochs", str(benchmark.epochs), "--address", "inline"]
    words += ["--betas", "0.25", "--seeds", "1", "--num-gpus", "0", "--num-cpus", "1"]
    Sweep("grid", folder).run(words, look)
    return cost_of(events, (cpu[-1] - cpu[1]) / max(1, len(cpu) - 2))


def cost_of(events: list[Event], mlflow_cpu: float) -> dict[str, Any]:
    """From a trial's events, and the CPU seconds an epoch that MLflow's process used once it had come up."""
    seconds = [event["metrics"]["seconds"] for event in events if event["event"] == "epoch"]
    between = gaps(events)["within"]
    epoch = median(seconds)
    return {
        "epochs": len(seconds),
        "epoch_seconds": round(epoch, 3),
        "not_training_ms": round(1e3 * median(between), 1),
        "not_training_most_ms": round(1e3 * max(between), 1),
        "not_training_percent": round(100 * median(between) / epoch, 2),
        "mlflow_cpu_ms": round(1e3 * mlflow_cpu, 1),
        "mlflow_cpu_percent": round(100 * mlflow_cpu / epoch, 2),
        "sum_percent": round(100 * (median(between) + mlflow_cpu) / epoch, 2),
    }


def resume(folder: Path, benchmark: DurabilityBenchmark) -> dict[str, Any]:
    """By kind of sweep; a new one's time to its first trial is the floor."""
    return {kind: _resumed(kind, folder / kind, benchmark.trials) for kind in benchmark.kinds}


def _resumed(kind: Kind, folder: Path, trials: int) -> dict[str, Any]:
    """A sweep of ``trials`` trials, then the same with twenty more."""
    sweep, events = Sweep(kind, folder), list[Event]()
    words = ["--name", NAME, "--data", str(images(folder / "images", 64, 32)), *TINY, "--num-gpus", "0"]
    if kind == "grid":
        words += ["--codebook-size", "16", "--epochs", "1", "--betas", *BETAS, "--seeds", str(trials // 20)]
        more = ["--seeds", str(trials // 20 + 1)]
    else:
        words += ["--epochs", "3", "--codebook-sizes", "16", "32", "--trials", str(trials)]
        more = ["--trials", str(trials + 20)]
    new = sweep.run(words, lambda _, event: events.append(event))
    first, _ = times(new.started, events)
    events.clear()
    again = sweep.run(["--resume", NAME, *more], lambda _, event: events.append(event))
    return {
        "trials": trials,
        "new_first_trial_seconds": first,
        **dict(zip(("first_trial_seconds", "report_seconds"), times(again.started, events), strict=True)),
        "peak_mb": round(again.peak_bytes / 1e6),
    }


def times(started: float, events: list[Event]) -> tuple[float, float]:
    """Seconds from the start of a command to its first trial, and from its last trial's end to the sweep's."""
    first = min(event["time"] for event in events if event["event"] == "start")
    last = max(event["time"] for event in events if event["event"] == "end")
    done = max(event["time"] for event in events if event["event"] == "done")
    return round(first - started, 2), round(done - last, 2)


def table(part: Part, found: dict[str, Any]) -> Table:
    """For the terminal."""
    rows = {"": found} if part == "cost" else found
    shown = Table(part, *rows)
    for name in next(iter(rows.values())):
        shown.add_row(name.replace("_", " "), *(f"{row[name]:g}" for row in rows.values()))
    if part == "cost":
        met = "met" if found["sum_percent"] <= COST_AT_MOST_PERCENT else "not met"
        shown.caption = f"sum of at most {COST_AT_MOST_PERCENT:g} %: {met}"
    else:
        late = [kind for kind, row in found.items() if row["first_trial_seconds"] > FIRST_TRIAL_AT_MOST_S]
        shown.caption = f"first trial after at most {FIRST_TRIAL_AT_MOST_S:g} s: {'not met' if late else 'met'}"
    return shown


def main(benchmark: OmitArgPrefixes[DurabilityBenchmark]) -> None:
    """Measure the cost of losing nothing."""
    check(benchmark)
    record = recorded(benchmark.out)
    for part in benchmark.parts:
        facts = circumstances(asdict(benchmark))
        with tempfile.TemporaryDirectory(prefix="vqsweep-durability-", ignore_cleanup_errors=True) as name:
            found = (cost if part == "cost" else resume)(Path(name), benchmark)
        Console(highlight=False).print(table(part, found))
        record[part] = {"found": found, **facts}
        write(benchmark.out, record)


if __name__ == "__main__":
    run_command(main)
