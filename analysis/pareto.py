"""The front of the objectives, MSE against perplexity unless the run had others: drawn, and printed with what it means.

python -m analysis.pareto RUN
"""

from pathlib import Path

from tyro.conf import Positional

from analysis.figures import write_figures
from analysis.findings import sentences
from analysis.results import load
from analysis.tables import groups_table
from trainables.commands import Terminal, run_command
from trainables.runs import find_run


def main(run: Positional[str] = "latest", out: Path = Path("runs")) -> None:
    """Draw a run's figures, and print the configurations on the front of its objectives.

    Args:
        run: A run's name, its folder, or latest.
        out: The folder that holds the runs.
    """
    results = load(find_run(run, out))
    console = Terminal(markup=False)
    figures = write_figures(results)
    if results.front:
        title = f"Front of the means, {results.objectives[0].best} first"
        console.print(groups_table(results, results.front, title).rich(), "")
    for line in (*sentences(results), *map(str, figures)):
        console.print(line, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
