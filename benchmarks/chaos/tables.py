"""What chaos found, for the terminal."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.chaos.compare import Differences


def tables(seeds: Sequence[dict[str, Any]], wall: float) -> list[Table]:
    """By kind of fault: how often it struck and was recovered from. By seed: what is different, and what it cost."""
    return [_kinds(seeds), _seeds(seeds, wall)]


def _kinds(seeds: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"Faults that struck, {len(seeds)} seeds", title_justify="left")
    for name in ("fault", "struck", "recovered", "median s", "longest s"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    strikes = [strike for seed in seeds for strike in seed["strikes"]]
    for name in sorted({strike["name"] for strike in strikes}):
        own = [strike for strike in strikes if strike["name"] == name]
        seconds = [strike["recovered"] for strike in own if strike["recovered"] is not None]
        took = [f"{median(seconds):.1f}", f"{max(seconds):.1f}"] if seconds else ["", ""]
        table.add_row(name, str(len(own)), str(len(seconds)), *took)
    return table


def _seeds(seeds: Sequence[dict[str, Any]], wall: float) -> Table:
    table = Table(title=f"Beside the undisturbed sweep, {wall:.0f} s", title_justify="left")
    table.add_column("seed")
    for one in seeds:
        table.add_column(str(one["seed"]), justify="right", style="" if one["same"] else "red")
    for name, cells in measures(seeds).items():
        table.add_row(name, *cells)
    return table


def measures(seeds: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """What is said of each seed."""
    found = {"faults that struck": [f"{one['struck']} of {one['faults']}" for one in seeds]}
    for name in Differences().counts:
        words = name.replace("mlflow", "MLflow:").replace("_", " ")
        found[words] = [str(one["differences"][name]) for one in seeds]
    found["otherwise wrong"] = [str(len(one["wrong"])) for one in seeds]
    found["drivers"] = [str(len(one["exit_codes"])) for one in seeds]
    found["epochs trained again"] = [f"{one['epochs_trained_twice']} of {one['epochs_trained']}" for one in seeds]
    found["seconds"] = [f"{one['wall']:.0f}" for one in seeds]
    return found
