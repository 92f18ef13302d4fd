"""All figures of a run: ``python -m analysis.figures NAME --style paper``."""

from pathlib import Path
from typing import Literal

from rich.text import Text
from tyro.conf import Positional

from analysis.figures import FIGURES, FITTED, write_figures
from analysis.results import load_models
from trainables.commands import Terminal, run_command
from trainables.errors import run_log
from trainables.runs import find_run


def main(
    run: Positional[str] = "latest", style: Literal["screen", "paper"] = "screen", out: Path = Path("runs")
) -> None:
    """Draw a run's figures, of a sweep or a final training, also those that fit a t-SNE, which takes minutes.

    Args:
        run: A run's name, its folder, or latest.
        style: screen is PNG with titles; paper is SVG and PDF at a column's width, 3.25 inches, and their captions.
        out: The folder that holds the runs.
    """
    folder, terminal = find_run(run, out), Terminal()
    with run_log(folder):
        results = load_models(folder)
        paths = write_figures(results, fitted=True, paper=style == "paper")
    lines = [*map(str, paths), *results.pictures.problems, *results.shown.problems]
    if absent := [name for name in (*FIGURES, *FITTED) if name not in {path.stem for path in paths}]:
        lines.append(f"Nothing to show in {', '.join(absent)}; docs/figures.md says what each needs.")
    if results.shown.trial is None and not results.shown.lost:
        lines.append("No trial has snapshots: sweeps keep them with --snapshots 0 25 50 75 99.")
    for line in lines:
        terminal.print(Text(line), soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
