"""What was measured, in rows: our configurations, the front, the estimators, and the paper's tables beside ours."""

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from analysis.estimators import estimator_tables
from analysis.findings import certainty_sentence
from analysis.fronts import DOUBT
from analysis.layout import Row, Table, write_file
from analysis.objectives import METRICS
from analysis.results import Group, Results, described, estimator_first

NO_TOTAL = "total = MSE + (1 + beta) codebook: it holds beta itself, so totals are not comparable across beta"

_ELSEWHERE = ("mse", "perplexity", "loss", "commitment_loss")
"""Metrics that the table of rates and losses leaves out: the first two have a table of their own, ``loss`` stands there
as the paper's total, and ``commitment_loss`` is the same number as ``codebook_loss``."""
_PAPER_COLUMNS = ("reconstruction", "perplexity", "codebook", "total")
"""The paper's names of the columns of its tables 2 and 3."""
_SIZES = {"small": 256, "medium": 512, "large": 1024, "xlarge": 2048}
"""Codes of the paper's model variants."""
_LISTED = 6
"""The most values of a field that are listed; of more, the ends."""
_OURS = "ours: mean ± sample sd over n seeds; what sets the two apart is listed below"


def groups_table(
    results: Results,
    groups: Sequence[Group] | None = None,
    title: str = "Configurations",
    intervals: bool = True,
) -> Table:
    """The configurations (or those given), each with mean ± sd over its seeds; a star for the front of the means."""
    from vqcore.metrics import psnr  # --help need not wait for torch

    first, second = results.objectives
    others = [objective for objective in results.objectives if objective.column not in ("mse", "perplexity")]
    rows: list[Row] = []
    for group in results.groups if groups is None else groups:
        mse = group.estimate("mse")
        interval = (mse.interval_text if mse else "–",) if intervals else ()
        row = (group.text("mse"), *interval, f"{psnr(group.mean('mse')):.2f}", group.text("perplexity"))
        rest = [group.text(objective.column) for objective in others]
        rows.append((_starred(group, results), str(len(group.seeds)), *row, *rest))
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
    probable = zip(results.groups, results.on_front, strict=True)
    near = [(group, p) for group, p in probable if group in results.front or p >= DOUBT]
    near.sort(key=lambda pair: first.signed(pair[0].mean(first.column)))
    rows = [
        (_starred(group, results), str(len(group.seeds)), f"{p:.2f}", *map(group.text, results.columns))
        for group, p in near
    ]
    others = len(results.groups) - len(near)
    notes = (
        certainty_sentence(results) or "",
        "on the front: the share of 1,000 draws of what the true means may be, from the seeds' paired spread, in which "
        "no other configuration is better in both; a configuration with one seed has the spread of the others",
        f"* on the front of the means; others on it with less than {100 * DOUBT:g} %: {others}",
    )
    columns = ("configuration", "n", "on the front", first.name, second.name)
    return Table(f"The front, {first.best} first", columns, tuple(rows), notes)


def rates_table(results: Results) -> Table:
    """Every other metric of each configuration; the mean alone of those that do not measure quality."""
    metrics = [metric for column, metric in METRICS.items() if column not in _ELSEWHERE]
    rows = tuple(
        (
            group.label,
            *((group.text if metric.direction else group.mean_text)(metric.column) for metric in metrics),
            group.mean_text("total"),
        )
        for group in results.groups
    )
    columns = ("configuration", *(metric.head or metric.name for metric in metrics), "total")
    return Table("Rate and losses, whole test set", columns, rows, (NO_TOTAL,))


def left_out_table(results: Results) -> Table | None:
    """The trials that are not compared, with the reason; none if all are."""
    names = [*results.swept, "seed"]
    rows = [(described(t.config, names) or "the configuration", t.key, reason) for t, reason in results.left_out]
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
    """Write the tables into the run's folder: ``tables/results.md`` and the others that there are."""
    return [
        write_file(results.folder / "tables" / f"{name}.md", "\n".join(map(Table.markdown, tables)).encode())
        for name, tables in all_tables(results).items()
    ]


def _starred(group: Group, results: Results) -> str:
    return group.label + (" *" if group in results.front else "")


@cache
def paper() -> dict[str, Any]:
    """The numbers that the paper published, and their caveat (``paper_tables.toml``)."""
    return tomllib.loads(resources.files("analysis").joinpath("paper_tables.toml").read_text(encoding="utf-8"))


def beta_table(results: Results, prefix: str = "") -> Table:
    """The paper's table 3, ours under each of its rows: the test set, or with ``prefix="train_"`` the training set."""
    split, where = ("train", "training set") if prefix else ("test", "test set")
    published = {row["beta"]: [("paper", "1", *_numbers(row[split]))] for row in paper()["table3"]}
    rows, notes = _beside(results, "commitment_weight", published, prefix, lambda beta: f"{beta:g}")
    columns = ("beta", "whose", "n", "MSE", "perplexity", "codebook", "total")
    return Table(f"Table 3 of the paper beside ours, {where}", columns, rows, (_OURS, NO_TOTAL, *notes), left=2)


def size_table(results: Results, prefix: str = "") -> Table:
    """The paper's table 2, ours under each of its rows, with the released logs of the test set; as ``beta_table``."""
    where = "training set" if prefix else "test set"
    rows_of = {row["variant"]: ("paper", "1", *_numbers(row)) for row in paper()["table2"]}
    published: dict[float, list[Row]] = {size: [rows_of[variant]] for variant, size in _SIZES.items()}
    for log in () if prefix else paper()["logs"]:
        whose = f"paper's log, {log['epochs']} epochs"
        published[log["codebook_size"]].append((whose, "1", *_numbers(log)))
    named = {size: f"{variant.replace('xl', 'x-l')} ({size})" for variant, size in _SIZES.items()}
    rows, notes = _beside(results, "codebook_size", published, prefix, lambda size: named.get(int(size), f"{size:g}"))
    columns = ("size (codes)", "whose", "n", "MSE", "perplexity", "codebook", "total")
    caveats = (
        "the paper's small, large and x-large are one row, number for number: most likely the size never reached the "
        "model. No released log has it, and a perplexity of 317.6 is impossible with 256 codes",
        'its medium (as its "initial", not shown: epoch 1) is on the training set, and the log that has these numbers '
        "is of 1,024 codes; three runs of that configuration gave perplexity 281, 431, 297. One seed a row: no ranking "
        "of sizes can be read from it",
    )
    notes = (*(() if prefix else caveats), _OURS, NO_TOTAL, *notes)
    return Table(f"Table 2 of the paper beside ours, {where}", columns, rows, notes, left=2)


def _beside(
    results: Results,
    field: str,
    published: Mapping[float, Sequence[Row]],
    prefix: str,
    shown: Callable[[float], str],
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The paper's rows by the values of ``field``, ours after them; and a note if not all of ours are there."""
    rows: list[Row] = []
    left_out = 0
    by_value: dict[float, list[Group]] = {}
    for group in results.groups:
        by_value.setdefault(_value(group, field), []).append(group)
    for value in sorted({*published, *by_value}):
        at_value = [group for other, some in by_value.items() if math.isclose(other, value) for group in some]
        chosen = _best_of_each_estimator(at_value)
        left_out += len(at_value) - len(chosen)
        ours = [_ours(group, results, field, prefix) for group in chosen]
        nothing = ("ours", "0", *["–"] * len(_PAPER_COLUMNS))
        rows += [(shown(value), *row) for row in [*published.get(value, ()), *(ours or [nothing])]]
    note = f"of those alike in {field} and estimator the lowest mean MSE; {left_out} more are in results.md"
    return tuple(rows), ((note,) if left_out else ())


def _best_of_each_estimator(groups: Sequence[Group]) -> list[Group]:
    names = dict.fromkeys(group.estimator for group in groups)
    return [min((g for g in groups if g.estimator == name), key=lambda group: group.mean("mse")) for name in names]


def _ours(group: Group, results: Results, field: str, prefix: str) -> Row:
    rest = described(group.config, [name for name in estimator_first(results.swept) if name != field])
    numbers = (group.text(f"{prefix}mse"), group.text(f"{prefix}perplexity"))
    losses = (group.mean_text(f"{prefix}codebook_loss"), group.mean_text(f"{prefix}total"))
    return (f"ours: {rest}" if rest else "ours", str(len(group.seeds)), *numbers, *losses)


def _value(group: Group, field: str) -> float:
    return float(group.config.get(field, math.nan))


def _numbers(row: Mapping[str, float]) -> Row:
    return tuple(f"{row[name]:.4f}" if row[name] < 1 else f"{row[name]:.1f}" for name in _PAPER_COLUMNS)


def caveat_table(results: Results, codes: str = "1024") -> Table:
    """The differences between the paper's experiments and ours, side by side; ``codes`` are the paper's numbers."""
    source = paper()["paper"]
    configs = [group.config for group in results.groups]
    rows = (
        ("data", source["dataset"], results.data),
        ("epochs", "50", str(results.epoch)),
        ("codes K", codes, _values(configs, "codebook_size")),
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


def _values(configs: Sequence[dict[str, Any]], name: str) -> str:
    values = sorted({config[name] for config in configs if name in config})
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if len(shown) > _LISTED and not isinstance(values[0], str):
        return f"{shown[0]} to {shown[-1]} ({len(shown)} values)"
    return ", ".join(shown) or "–"
