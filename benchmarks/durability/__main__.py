"""python -m benchmarks.durability: what losing nothing costs, and how soon a long run goes on."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.durability import cost, journal
from sweeps.engine.provenance import provenance


@dataclass(frozen=True)
class Durability:
    """Measure a journal of a million lines, and what an epoch pays for being kept."""

    lines: int = 1_000_000
    """Of the journal."""
    epochs: int = 4
    """Of each turn of the cost."""
    repeats: int = 3
    """Turns, with and without."""
    presets: tuple[str, ...] = ("compact", "paper")
    """Models whose cost is measured."""
    out: Path = Path("benchmarks/results/durability.json")
    """The JSON file to write."""


def run(benchmark: Durability, console: Console) -> dict[str, Any]:
    """All parts, told as they come."""
    found: dict[str, Any] = {"journal": journal.measured(benchmark.lines)}
    console.print(_table("journal", found["journal"]))
    found["cost"] = [cost.measured(preset, benchmark.epochs, benchmark.repeats) for preset in benchmark.presets]
    for one in found["cost"]:
        console.print(_table(f"cost of an epoch, {one['preset']}", one))
    return found


def _table(title: str, values: dict[str, Any]) -> Table:
    table = Table("what", "measured", title=title, title_justify="left")
    for name, value in values.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def main(benchmark: Durability) -> int:
    """The command."""
    found = run(benchmark, Console())
    asked = {name: value for name, value in asdict(benchmark).items() if name != "out"}
    benchmark.out.parent.mkdir(parents=True, exist_ok=True)
    benchmark.out.write_text(json.dumps({"provenance": provenance(), "asked": asked, **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Durability, prog="python -m benchmarks.durability")))
