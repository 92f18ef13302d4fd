"""Everything that can be made of a run's journal, in one call."""

from collections.abc import Callable
from pathlib import Path

from analysis.export import write_exports
from analysis.findings import Findings, words
from analysis.parquet import write_parquet
from analysis.results import load
from analysis.tables import groups_table, write_tables

MOST_ROWS = 12
"""Configurations that a screen shows; the files have all."""


def analyse(run_folder: Path) -> Findings:
    """Write Parquet, tables, figures and exports of a run, finished or not, and say what was found.

    What cannot be written is said in the findings and does not hide the rest. ``ConfigError`` if there is no run.
    """
    # Only here, at the end: a driver that sweeps has no use for matplotlib.
    from analysis.figures import write_figures

    results = load(run_folder)
    paths: list[Path] = []
    failures: list[str] = []

    def attempt(what: str, make: Callable[[], list[Path]]) -> None:
        try:
            paths.extend(make())
        except Exception as error:  # one picture that fails must not hide what else was found
            words = f"{type(error).__name__}: {error}"
            failures.append(f"{what} could not be written: {words}; python -m analysis.{what} {run_folder} tries again")

    attempt("parquet", lambda: [write_parquet(run_folder)])
    attempt("tables", lambda: write_tables(results))
    attempt("pareto", lambda: write_figures(results))
    if results.groups:
        attempt("export", lambda: write_exports(results))
    table = groups_table(results, results.featured(MOST_ROWS)) if results.groups else None
    return Findings((*words(results), *failures), run_folder, tuple(paths), table)
