"""python -m benchmarks.durability: what it costs that nothing is lost.

Reading a journal of a million lines; resuming a sweep of ten thousand finished trials, until it trains and until it has
reported; and the time that journal, checkpoints and MLflow take from a training.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.durability import cost, journal, resume
from benchmarks.durability.made import OPEN
from sweeps.engine.provenance import provenance
from trainables.storage import size
from vqcore.config import PRESETS, ConfigError

Part = Literal["journal", "resume", "cost"]

READ_AT_MOST_S, READ_AT_MOST_BYTES = 10.0, 1e9
FIRST_TRIAL_AT_MOST_S = 10.0
COST_AT_MOST_PERCENT = 2.0


@dataclass(frozen=True)
class DurabilityBenchmark:
    """Measure what it costs that nothing is lost."""

    parts: tuple[Part, ...] = ("journal", "resume", "cost")
    """What to measure; the others stay in the file as they are."""
    lines: int = 1_000_000
    """Of the journal that is read."""
    repeats: int = 3
    """Times that it is read; the fastest counts."""
    trials: int = 10_000
    """Finished trials of the sweeps that are resumed."""
    kinds: tuple[Literal["grid", "search-killed", "search-extended"], ...] = (
        "grid",
        "search-killed",
        "search-extended",
    )
    """Sweeps that are resumed."""
    preset: Literal["compact", "paper"] = "compact"
    """The model whose training is measured."""
    epoch_seconds: float = 5.0
    """Of an epoch alone on one core, about."""
    pairs: int = 24
    """Epochs with everything kept, and as many with nothing kept."""
    out: Path = Path("benchmarks/results/durability.json")
    """The JSON file to write."""


def checked(benchmark: DurabilityBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    problems = [] if benchmark.parts else ["parts: none is given"]
    least = {"lines": 10, "repeats": 1, "trials": OPEN, "pairs": 1}
    problems += [
        f"{name} = {value}: must be {low} or more"
        for name, low in least.items()
        if (value := getattr(benchmark, name)) < low
    ]
    if not 0 < benchmark.epoch_seconds < 1000:
        problems.append(f"epoch_seconds = {benchmark.epoch_seconds:g}: must be above 0 and under 1000; 5 is usual")
    if benchmark.preset not in PRESETS:
        problems.append(f"preset = {benchmark.preset}: there are {', '.join(PRESETS)}")
    if problems:
        raise ConfigError(problems)


def main(benchmark: DurabilityBenchmark) -> int:
    """Check, measure, say and write; the exit code: 2 for what was asked wrongly."""
    try:
        checked(benchmark)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    console = Console(highlight=False)
    settings = {name: value for name, value in asdict(benchmark).items() if name not in ("out", "parts")}
    record = _kept(benchmark.out)
    for part in benchmark.parts:
        load, began = [round(value, 2) for value in os.getloadavg()], time.time()
        with tempfile.TemporaryDirectory(prefix="vqsweep-benchmark-", ignore_cleanup_errors=True) as name:
            found = _measured(part, benchmark, Path(name))
        console.print(_TABLES[part](found))
        record[part] = {
            **found,
            "settings": settings,
            "measured": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(began)),
            "load_average_at_start": load,
            "provenance": provenance(),
        }
        benchmark.out.parent.mkdir(parents=True, exist_ok=True)
        benchmark.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def _kept(out: Path) -> dict[str, Any]:
    """What earlier measurements of other parts found."""
    return dict(json.loads(out.read_text(encoding="utf-8"))) if out.exists() else {}


def _measured(part: Part, benchmark: DurabilityBenchmark, folder: Path) -> dict[str, Any]:
    if part == "journal":
        return journal.measure(folder, benchmark.lines, benchmark.repeats)
    if part == "resume":
        return {"sweeps": resume.measure(folder, benchmark.trials, benchmark.kinds)}
    return cost.measure(folder, benchmark.preset, benchmark.pairs, benchmark.epoch_seconds)


def _aim(value: float, most: float) -> str:
    return f"at most {most:g}: {'met' if value <= most else 'not met'}"


def _journal_table(found: dict[str, Any]) -> Table:
    table = Table("", "", "", title=f"A journal of {found['lines']:,} lines, {size(found['bytes'])}", show_header=False)
    table.title_justify = "left"
    table.add_row("read, s", f"{found['seconds']:.2f}", _aim(found["seconds"], READ_AT_MOST_S))
    table.add_row("CPU, s", f"{found['cpu_seconds']:.2f}", f"{found['times_floor']:.1f} times a bare reader's")
    peak = found["peak_bytes"]
    table.add_row("memory", size(peak), f"at most 1 GB: {'met' if peak <= READ_AT_MOST_BYTES else 'not met'}")
    table.add_row("above imports", size(found["peak_bytes_above_imports"]), "")
    table.add_row("written, CPU a line", f"{found['write_cpu_us_a_line']:.1f} µs", "")
    return table


def _resume_table(found: dict[str, Any]) -> Table:
    columns = (
        "sweep",
        "trials",
        "lines",
        "first, s",
        f"at most {FIRST_TRIAL_AT_MOST_S:g}",
        "CPU, s",
        "report, s",
        "CPU, s",
        "memory",
    )
    table = Table(
        *columns,
        title="Resumed: until its first trial, and from the last one's end to the report",
        title_justify="left",
    )
    for name, row in found["sweeps"].items():
        first = row["first_trial_seconds"]
        met = ("met" if first <= FIRST_TRIAL_AT_MOST_S else "not met") if row["trials"] else ""
        numbers = [f"{row[key]:.1f}" for key in ("first_trial_cpu_seconds", "report_seconds", "report_cpu_seconds")]
        counts = (f"{row['trials']:,}", f"{row['lines_before']:,}")
        table.add_row(name, *counts, f"{first:.1f}", met, *numbers, size(row["peak_bytes"]))
    return table


def _cost_table(found: dict[str, Any]) -> Table:
    table = Table("", "CPU", "wall", title="Keeping everything, an epoch", title_justify="left")
    both = [found[clock] for clock in ("cpu", "wall")]
    table.add_row("alone, s", *(f"{own['epoch_seconds']:.2f}" for own in both))
    table.add_row("added, ms", *(f"{1e3 * own['added_seconds']:.1f}" for own in both))
    table.add_row("added, %", *(f"{own['added_percent']:.2f}" for own in both))
    table.add_row("quartiles of pairs, %", *("{} to {}".format(*own["quartiles_percent"]) for own in both))
    table.add_row("with MLflow's process, %", f"{both[0]['with_mlflow_percent']:.2f}", "in it")
    most = 1e3 * found["beside_training_seconds_most"]
    beside = f"{1e3 * found['beside_training_seconds']:.1f} (most {most:.1f}): {found['beside_training_percent']:.2f} %"
    table.add_row("not training by the trial's own clock, ms", "", beside)
    for name, row in found["parts_ms"].items():
        table.add_row(f"  {name}, ms", f"{row['cpu']:.2f}", f"{row['wall']:.2f}")
    mlflow = f"{1e3 * found['mlflow_cpu_seconds_an_epoch']:.1f}"
    table.add_row("  MLflow's process, ms", mlflow, "beside")
    parts = found["parts_percent"]
    table.add_row("sum of the parts, %", f"{parts['cpu']:.2f}, {_aim(parts['cpu'], COST_AT_MOST_PERCENT)}",
                  f"{parts['wall']:.2f}")  # fmt: skip
    return table


_TABLES = {"journal": _journal_table, "resume": _resume_table, "cost": _cost_table}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(DurabilityBenchmark, prog="python -m benchmarks.durability")))
