"""Write ``report.html`` and the exports that it names: ``python -m analysis.page RUN``."""

import os
from pathlib import Path

from tyro.conf import Positional

from analysis.export import write_exports
from analysis.page.build import write_page
from analysis.results import load
from trainables.commands import run_command
from trainables.runs import find_run


def main(run: Positional[str] = "latest", out: Path = Path("runs"), refresh: int = 0) -> None:
    """Write a run's report.html anew, while it runs or later.

    Args:
        run: A run's name, its folder, or latest.
        out: The folder that holds the runs.
        refresh: Seconds after which a page that is open loads itself anew; 0 for never.
    """
    if refresh:
        os.nice(19)  # trials first: Ray runs them at 15
    results = load(find_run(run, out))
    write_exports(results)
    print(write_page(results, refresh))


if __name__ == "__main__":
    run_command(main)
