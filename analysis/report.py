"""All files that are made of a run's journal, in one call."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from analysis.export import write_exports
from analysis.findings import Findings, sentences
from analysis.layout import Table
from analysis.objectives import DEFAULT
from analysis.parquet import write_parquet
from analysis.results import Results, load
from analysis.tables import groups_table, write_tables

MOST_ROWS = 20
"""Configurations that a screen shows; the files have all."""


def analyse(run_folder: Path) -> Findings:
    """Write Parquet, tables, figures and exports of a run, finished or not, and return its findings.

    A file that cannot be written becomes a line of the findings and does not hide the rest. ``ConfigError`` if there is
    no run.
    """
    # Only here, at the end: a driver that sweeps has no use for matplotlib.
    from analysis.figures import write_figures

    results = load(run_folder)
    paths: list[Path] = []
    failures: list[str] = []

    def attempt(module: str, make: Callable[[], list[Path]]) -> None:
        try:
            paths.extend(make())
        except Exception as error:  # one picture that fails must not hide what else was found
            reason = f"{type(error).__name__}: {error}"
            again = f"python -m analysis.{module} {run_folder} tries again"
            failures.append(f"{module} could not be written: {reason}; {again}")

    attempt("parquet", lambda: [write_parquet(results)])
    attempt("tables", lambda: write_tables(results))
    attempt("pareto", lambda: write_figures(results))
    if results.groups:
        attempt("export", lambda: write_exports(results))
    return Findings(
        (*sentences(results), *results.pictures.problems, *failures), run_folder, tuple(paths), _screen_table(results)
    )


def _screen_table(results: Results) -> Table | None:
    if not results.groups:
        return None
    shown = results.featured(MOST_ROWS)
    rest = len(results.groups) - len(shown)
    # so that many fields fit a narrow terminal
    table = groups_table(results, shown, intervals=not rest and set(results.objectives) == set(DEFAULT))
    more = f"shown: the front and the {results.objectives[0].best}; {rest} more in tables/results.md"
    return replace(table, notes=(more, *table.notes)) if rest else table
