"""What was measured, in rows: our configurations, and the paper's table 3 beside ours with what sets them apart.

python -m analysis.tables RUN
"""

import math
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from tyro.conf import Positional

from analysis.command import command
from analysis.files import replacing
from analysis.groups import Group, described
from analysis.layout import Table
from analysis.results import Results, load
from trainables.runs import find_run
from vqcore.metrics import psnr

NO_TOTAL = "total = MSE + (1 + beta) codebook: it holds beta itself, so totals are not comparable across beta"

_PAPERS = ("reconstruction", "perplexity", "codebook", "total")
"""The paper's names of what the columns of table 3 hold."""


@cache
def paper() -> dict[str, Any]:
    """The numbers that the paper published, and their caveat (``paper_tables.toml``)."""
    return tomllib.loads(resources.files("analysis").joinpath("paper_tables.toml").read_text(encoding="utf-8"))


def groups_table(results: Results, groups: Sequence[Group] | None = None, title: str = "Configurations") -> Table:
    """The configurations (or those given), each with mean ± sd over its seeds; a star for the front of the means."""
    rows = []
    for group in results.groups if groups is None else groups:
        mse = group.estimate("mse")
        interval = mse.interval_text if mse else "–"
        row = (_text(group, "mse"), interval, f"{psnr(group.mean('mse')):.2f}", _text(group, "perplexity"))
        rows.append((group.label + (" *" if group in results.front else ""), str(len(group.seeds)), *row))
    columns = ("configuration", "n", "MSE", "95 % interval", "dB", "perplexity")
    notes = (
        f"{results.data}, after epoch {results.epoch}, whole test set; MSE on [-1, 1] and its PSNR in dB; "
        "mean ± sample sd over n seeds",
        "* on the front of the means: no other configuration has a lower MSE and a higher perplexity",
    )
    return Table(title, columns, tuple(rows), notes)


def rates_table(results: Results) -> Table:
    """How much each configuration says of an image, and its losses, which are no measure of quality."""
    rows = tuple(
        (group.label, _text(group, "usage"), _text(group, "bits"), _mean(group, "codebook_loss"), _mean(group, "total"))
        for group in results.groups
    )
    columns = ("configuration", "usage", "bits/image", "codebook loss", "total")
    return Table("Rate and losses, whole test set", columns, rows, (NO_TOTAL,))


def left_out_table(results: Results) -> Table | None:
    """The trials that are not compared, with the reason; none if all are."""
    rows = [(_trial(trial.config, results), trial.key, why) for trial, why in results.left_out]
    return Table("Not compared", ("trial", "key", "why"), tuple(rows), left=3) if rows else None


def paper_table(results: Results, prefix: str = "") -> Table:
    """The paper's table 3, ours under each of its rows: the test set, or with ``prefix="train_"`` the training set."""
    split, where = ("train", "training set") if prefix else ("test", "test set")
    published = {row["beta"]: row[split] for row in paper()["table3"]}
    rows: list[tuple[str, ...]] = []
    for beta in sorted({*published, *(_beta(group) for group in results.groups)}):
        ours = [_ours(group, results, prefix) for group in results.groups if math.isclose(_beta(group), beta)]
        theirs = [("paper", "1", *(_number(published[beta][name]) for name in _PAPERS))] if beta in published else []
        rows += [(f"{beta:g}", *row) for row in [*theirs, *(ours or [("ours", "0", *["–"] * len(_PAPERS))])]]
    notes = ("ours: mean ± sample sd over n seeds; what sets the two apart is listed below", NO_TOTAL)
    columns = ("beta", "whose", "n", "MSE", "perplexity", "codebook", "total")
    return Table(f"Table 3 of the paper beside ours, {where}", columns, tuple(rows), notes, left=2)


def _ours(group: Group, results: Results, prefix: str) -> tuple[str, ...]:
    rest = described(group.config, [name for name in results.swept if name != "commitment_weight"])
    numbers = (_text(group, f"{prefix}mse"), _text(group, f"{prefix}perplexity"))
    losses = (_mean(group, f"{prefix}codebook_loss"), _mean(group, f"{prefix}total"))
    return (f"ours: {rest}" if rest else "ours", str(len(group.seeds)), *numbers, *losses)


def _beta(group: Group) -> float:
    return float(group.config.get("commitment_weight", math.nan))


def caveat_table(results: Results) -> Table:
    """What sets the two apart, side by side."""
    source = paper()["paper"]
    configs = [group.config for group in results.groups]
    rows = (
        ("data", source["dataset"], results.data),
        ("epochs", "50", str(results.epoch)),
        ("codes K", str(source["codebook_size"]), _values(configs, "codebook_size")),
        ("code length D", str(source["code_dim"]), _values(configs, "dim")),
        ("hidden channels", "256", _values(configs, "hidden_channels")),
        ("decay", str(source["decay"]), _values(configs, "decay")),
        ("batch size", str(source["batch_size"]), _values(configs, "batch_size")),
        ("learning rate", f"{source['learning_rate']:g}", _values(configs, "learning_rate")),
        ("gradient", "plain straight-through, in the released code", _values(configs, "estimator")),
        ("runs a row", "one; one configuration run thrice: perplexity 281, 431, 297", results.seeds),
        ("perplexity", "of each batch of 128 images, averaged over batches", "of one histogram over the whole set"),
        ("MSE", "on [-1, 1]", "on [-1, 1], whole set"),
        (
            "bottleneck",
            "leaks: one continuous value a position passes it",
            "honest: the decoder sees codebook rows only",
        ),
        ("codebook while evaluating", "goes on moving (EMA)", "stands still"),
        ("total", "recon + (1 + beta) codebook", "the same formula, shown for comparison only"),
    )
    notes = (
        "so the two columns are not the same experiment, and a difference between them is not a ranking of methods",
    )
    return Table("What sets them apart", ("", "paper", "this run"), rows, notes, left=3)


def all_tables(results: Results) -> dict[str, list[Table]]:
    """The tables by the name of the Markdown file that holds them."""
    left_out = left_out_table(results)
    return {
        "results": [groups_table(results), rates_table(results), *([left_out] if left_out else [])],
        "paper_table3": [paper_table(results), paper_table(results, "train_"), caveat_table(results)],
    }


def write_tables(results: Results) -> list[Path]:
    """Write ``tables/results.md`` and ``tables/paper_table3.md`` into the run's folder."""
    written = []
    for name, tables in all_tables(results).items():
        path = results.folder / "tables" / f"{name}.md"
        with replacing(path) as half:
            half.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
        written.append(path)
    return written


def _text(group: Group, metric: str) -> str:
    estimate = group.estimate(metric)
    return estimate.text if estimate else "–"


def _mean(group: Group, metric: str) -> str:
    estimate = group.estimate(metric)
    return estimate.show(estimate.mean) if estimate else "–"


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 1 else f"{value:.1f}"


def _values(configs: Sequence[dict[str, Any]], name: str) -> str:
    values = dict.fromkeys(config[name] for config in configs if name in config)
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values) or "–"


def _trial(config: dict[str, Any], results: Results) -> str:
    return described(config, [*results.swept, "seed"]) or "the configuration"


def main(run: Positional[str] = "latest", out: Path = Path("runs")) -> None:
    """Print a run's tables, the paper's table 3 beside ours among them, and write them as Markdown.

    Args:
        run: A run's name, its folder, or latest.
        out: The folder that holds the runs.
    """
    results = load(find_run(run, out))
    paths = write_tables(results)
    console = Console()
    for tables in all_tables(results).values():
        for table in tables:
            console.print(table.rich(), "")
    for path in paths:
        console.print(path, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    command(main)
