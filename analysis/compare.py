"""Runs beside each other: what differs between them, their fronts on one plot, and which differences are real.

python -m analysis.compare RUN RUN ...
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

from rich.text import Text
from tyro.conf import Positional

from analysis.layout import counted, write_file
from analysis.results import Results, load_models
from analysis.run_findings import LETTERS, Comparison, compare
from trainables.commands import Terminal, run_command
from trainables.runs import JOURNAL, find_run
from vqcore.errors import ConfigError, Problems


def main(runs: Positional[tuple[str, ...]] = (), out: Path = Path("runs"), to: Path | None = None) -> None:
    """Compare two to five runs, finished or not; the first is the reference of the others.

    Args:
        runs: Names of runs, their folders, or latest.
        out: The folder that holds the runs.
        to: The folder for compare.md and the plot; <out>/compare/<names> unless given.
    """
    found = named(runs, out)
    comparison, folder, terminal = compare(found), to or _folder(found, out), Terminal()
    paths = write_comparison(comparison, folder)
    terminal.print(comparison.page(terminal))
    names = ", ".join(path.name for path in paths)
    terminal.print(Text(f"Written to {folder}: {names}", style="dim", overflow="fold"))


def named(names: Sequence[str], out: Path) -> list[Results]:
    """The runs of these names. ``ConfigError`` with every problem: too few, too many, one twice, nothing completed."""
    if not 2 <= len(names) <= len(LETTERS):
        journals = sorted(out.glob(f"*/*/{JOURNAL}"), key=lambda journal: journal.stat().st_mtime, reverse=True)
        latest = ", ".join(f"{path.parent.parent.name}/{path.parent.name}" for path in journals[:5])
        rule = f"a comparison takes 2 to {len(LETTERS)}, the first of them the reference"
        there_are = f"the latest in {out} are {latest}" if latest else f"there are none yet in {out}"
        raise ConfigError([f"{counted(len(names), 'run')} named: {rule}; {there_are}"])
    problems = Problems()
    folders: dict[Path, str] = {}
    for name in names:
        folder = problems.of(partial(find_run, name, out))
        if folder and folder.resolve() in folders:
            problems.add(f"{name}: is the same run as {folders[folder.resolve()]}; name each once")
        elif folder:
            folders[folder.resolve()] = name
    runs = [results for folder in folders if (results := problems.of(partial(load_models, folder)))]
    for results in runs:
        name = folders[results.folder.resolve()]
        if not results.groups:
            state = f"none of its {counted(len(results.trials), 'trial')} has completed"
            problems.add(f"{name}: {state}, and only completed ones are compared; --resume it, or name another run")
    problems.raise_any()
    return runs


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``compare.md`` and the fronts as ``front.png`` and ``front.svg``."""
    from matplotlib import rc_context  # late: it takes a while, and errors need not wait for it

    from analysis.figures.runs import fronts_of_runs

    figure, png, svg = fronts_of_runs(comparison.runs), BytesIO(), BytesIO()
    with rc_context({"svg.hashsalt": "front"}):  # the same file for the same runs
        figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=160)
    contents = {"compare.md": comparison.markdown().encode(), "front.png": png.getvalue(), "front.svg": svg.getvalue()}
    return [write_file(folder / name, content) for name, content in contents.items()]


def _folder(runs: Sequence[Results], out: Path) -> Path:
    names = "+".join(results.folder.name for results in runs)
    digest = hashlib.sha256(names.encode()).hexdigest()[:8]  # five names may be longer than a folder's
    return out / "compare" / (names if len(names) <= 100 else f"{names[:90]}-{digest}")


if __name__ == "__main__":
    run_command(main)
