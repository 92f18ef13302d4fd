"""All files that are made of a run's journal, in one call.

python -m analysis.report RUN
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tyro.conf import Positional

from analysis.alarms import alarms
from analysis.export import write_exports
from analysis.findings import Findings, sentences
from analysis.layout import Table
from analysis.objectives import DEFAULT
from analysis.page import write_page
from analysis.parquet import write_parquet
from analysis.priors import priors_of
from analysis.priors import sentences as sentences_of_priors
from analysis.results import Results, load
from analysis.summary import write_summary
from analysis.tables import groups_table, write_tables
from trainables.commands import Terminal, run_command
from trainables.errors import one_line, run_log
from trainables.runs import PRIOR_RUN, find_run

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")


def analyse(run_folder: Path) -> Findings:
    """Write report, Parquet, tables, figures and exports of a run, finished or not, and return its findings.

    What cannot be made becomes a line of the findings and does not hide the rest. ``ConfigError`` if there is
    no run.
    """
    # Only here, at the end: a driver that sweeps has no use for matplotlib.
    from analysis.figures import write_figures

    results = load(run_folder)
    if results.kind == PRIOR_RUN:  # which has written its own summary
        found = priors_of(results)
        return Findings((*sentences_of_priors(found), *found.problems), run_folder, (write_page(results),))
    problems = [*results.pictures.problems, *results.shown.problems]

    def made(what: str, make: Callable[[Results], Iterable[_Made]]) -> tuple[_Made, ...]:
        try:
            return tuple(make(results))
        except Exception as error:  # one picture that fails must not hide what else was found
            logger.exception("%s of %s", what, run_folder)
            again = f"python -m analysis.report {run_folder} tries again"
            problems.append(f"{what} could not be written: {one_line(error)}; {again}")
            return ()

    paths = (
        *made("report.html", lambda results: [write_page(results)]),
        *made("results.parquet", lambda results: [write_parquet(results)]),
        *made("tables", write_tables),
        *made("figures", write_figures),
        *made("exports", write_exports),
    )
    lines, odd = made("findings", sentences), made("alarms", alarms)
    paths += made("summary.json", lambda results: [write_summary(results, lines)])
    return Findings((*lines, *problems), run_folder, paths, _screen_table(results), odd)


def _screen_table(results: Results) -> Table | None:
    if not results.groups:
        return None
    shown = results.featured()
    rest = len(results.groups) - len(shown)
    # so that many fields fit a narrow terminal
    table = groups_table(results, shown, intervals=not rest and set(results.objectives) == set(DEFAULT))
    more = f"shown: the front and the {results.objectives[0].best}; {rest} more in tables/results.md"
    return replace(table, notes=(more, *table.notes)) if rest else table


def main(run: Positional[str] = "latest", out: Path = Path("runs")) -> None:
    """Write a run's report.html, tables, figures, exports and Parquet anew, and print its findings.

    Args:
        run: A run's name, its folder, or latest.
        out: The folder that holds the runs.
    """
    folder = find_run(run, out)
    with run_log(folder):
        Terminal().print(analyse(folder).renderable())


if __name__ == "__main__":
    run_command(main)
