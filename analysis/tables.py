"""What was measured, in rows: our configurations, the front, the estimators, and the paper's tables beside ours.

python -m analysis.tables RUN
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from analysis.estimator_tables import estimator_tables
from analysis.files import replacing
from analysis.groups import Group, described
from analysis.layout import Table
from analysis.paper import NO_TOTAL, beta_table, caveat_table, size_table
from analysis.results import Results, load
from analysis.tradeoff import DOUBT, sure_words
from trainables.commands import Terminal, run_command
from trainables.runs import find_run
from vqcore.metrics import psnr


def groups_table(
    results: Results,
    groups: Sequence[Group] | None = None,
    title: str = "Configurations",
    intervals: bool = True,
) -> Table:
    """The configurations (or those given), each with mean ± sd over its seeds; a star for the front of the means."""
    first, second = results.objectives
    others = [objective for objective in results.objectives if objective.column not in ("mse", "perplexity")]
    rows = []
    for group in results.groups if groups is None else groups:
        mse = group.estimate("mse")
        interval = (mse.interval_text if mse else "–",) if intervals else ()
        row = (group.text("mse"), *interval, f"{psnr(group.mean('mse')):.2f}", group.text("perplexity"))
        asked = [group.text(objective.column) for objective in others]
        rows.append((group.label + (" *" if group in results.front else ""), str(len(group.seeds)), *row, *asked))
    interval = ("95 % interval",) if intervals else ()
    columns = ("configuration", "n", "MSE", *interval, "dB", "perplexity", *(other.name for other in others))
    notes = (
        f"{results.data}, after epoch {results.epoch}, whole test set; MSE on [-1, 1] and its PSNR in dB; "
        "mean ± sample sd over n seeds",
        f"* on the front of the means: no other configuration has a {first.better} and a {second.better}",
    )
    return Table(title, columns, tuple(rows), notes)


def front_table(results: Results) -> Table | None:
    """How probably each configuration near the front is on it; none if no configuration has several seeds."""
    if not results.repeated or len(results.groups) == 1:
        return None
    first, second = results.objectives
    known = zip(results.groups, results.on_front, strict=True)
    near = [(group, p) for group, p in known if group in results.front or p >= DOUBT]
    near.sort(key=lambda pair: first.signed(pair[0].mean(first.column)))
    rows = [
        (
            group.label + (" *" if group in results.front else ""),
            str(len(group.seeds)),
            f"{p:.2f}",
            *map(group.text, results.columns),
        )
        for group, p in near
    ]
    others = len(results.groups) - len(near)
    notes = (
        sure_words(results) or "",
        "on the front: the share of 1,000 draws of what the true means may be, from the seeds' paired spread, in which "
        "no other configuration is better in both; a configuration with one seed has the spread of the others",
        f"* on the front of the means; others on it with less than {100 * DOUBT:g} %: {others}",
    )
    columns = ("configuration", "n", "on the front", first.name, second.name)
    return Table(f"The front, {first.best} first", columns, tuple(rows), notes)


def rates_table(results: Results) -> Table:
    """How much each configuration says of an image, and its losses, which are no measure of quality."""
    rows = tuple(
        (
            group.label,
            group.text("usage"),
            group.text("bits"),
            group.mean_text("codebook_loss"),
            group.mean_text("total"),
        )
        for group in results.groups
    )
    columns = ("configuration", "usage", "bits/image", "codebook loss", "total")
    return Table("Rate and losses, whole test set", columns, rows, (NO_TOTAL,))


def left_out_table(results: Results) -> Table | None:
    """The trials that are not compared, with the reason; none if all are."""
    rows = [(_trial(trial.config, results), trial.key, why) for trial, why in results.left_out]
    return Table("Not compared", ("trial", "key", "why"), tuple(rows), left=3) if rows else None


def all_tables(results: Results) -> dict[str, list[Table]]:
    """The tables by the name of the Markdown file that holds them."""
    both = [left_out_table(results), front_table(results)]
    left_out, front = ([table] if table else [] for table in both)
    found = {
        "results": [groups_table(results), rates_table(results), *left_out],
        "front": front,
        "estimators": estimator_tables(results),
    }
    if "codebook_size" in results.swept:
        sizes = "256, 512, 1024, 2048"
        found["paper_table2"] = [size_table(results), size_table(results, "train_"), caveat_table(results, sizes)]
    if "commitment_weight" in results.swept:
        found["paper_table3"] = [beta_table(results), beta_table(results, "train_"), caveat_table(results)]
    return {name: tables for name, tables in found.items() if tables}


def write_tables(results: Results) -> list[Path]:
    """Write the tables, ``tables/results.md`` and what else there is to say, into the run's folder."""
    written = []
    for name, tables in all_tables(results).items():
        path = results.folder / "tables" / f"{name}.md"
        with replacing(path) as half:
            half.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
        written.append(path)
    return written


def _trial(config: dict[str, Any], results: Results) -> str:
    return described(config, [*results.swept, "seed"]) or "the configuration"


def main(run: Positional[str] = "latest", out: Path = Path("runs")) -> None:
    """Print a run's tables, the paper's beside ours among them, and write them as Markdown.

    Args:
        run: A run's name, its folder, or latest.
        out: The folder that holds the runs.
    """
    results = load(find_run(run, out))
    paths = write_tables(results)
    console = Terminal()
    for tables in all_tables(results).values():
        for table in tables:
            console.print(table.rich(), "")
    for path in paths:
        console.print(path, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    run_command(main)
