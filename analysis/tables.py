"""What was measured, in rows: our configurations, the front, the estimators, and the paper's tables beside ours."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from analysis.alarms import alarms
from analysis.estimators import estimator_tables
from analysis.findings import certainty_sentence
from analysis.fronts import DOUBT
from analysis.layout import Row, Table, write_file
from analysis.objectives import DEFAULT, METRICS
from analysis.results import Group, Results, described, estimator_first, ranked
from vqcore.psnr import psnr

SIMULTANEOUS = "all of them hold at once with 95 %, so that of whichever is picked does"
NO_TOTAL = "total = MSE + (1 + beta) codebook: it holds beta itself, so totals are not comparable across beta"

_ELSEWHERE = ("mse", "perplexity", "loss", "commitment_loss")
"""Metrics that the table of rates and losses leaves out: the first two have a table of their own, ``loss`` stands there
as the paper's total, and ``commitment_loss`` is the same number as ``codebook_loss``."""
_PAPER_COLUMNS = ("reconstruction", "perplexity", "codebook", "total")
"""The paper's names of the columns of its tables 2 and 3."""
_COLUMNS = ("mse", "perplexity", "codebook_loss", "total")
"""Ours of the same."""
_LISTED = 6
"""The most values of a field that are listed; of more, the ends."""
_OURS = "ours: mean ± sample sd over n seeds; what sets the two apart is listed below"


def groups_table(results: Results, groups: Sequence[Group] | None = None, intervals: bool = True) -> Table:
    """The configurations (or those given), each with mean ± sd over its seeds; a star for the front of the means."""
    first, second = results.objectives
    intervals = intervals and bool(results.several)
    others = [objective for objective in results.objectives if objective.column not in ("mse", "perplexity")]
    rows: list[Row] = []
    for group in results.groups if groups is None else groups:
        mse = results.estimate(group, "mse")
        interval = (mse.interval_text(),) if intervals else ()
        rest = [group.text(column) for column in ("perplexity", *(other.column for other in others))]
        decibel = f"{psnr(mse.mean):.2f}" if group.trials else "–"
        rows.append((_starred(group, results), str(len(group.seeds)), group.text("mse"), *interval, decibel, *rest))
    interval = ("95 % interval",) if intervals else ()
    columns = ("configuration", "n", "MSE", *interval, "dB", "perplexity", *(other.name for other in others))
    front = "front of the means" if results.several else "front, by one seed each: an order and no claim"
    notes = [
        f"{results.data}, after epoch {results.epoch}, whole test set; MSE on [-1, 1] and its PSNR in dB; "
        "mean ± sample sd over n seeds" + (f"; intervals: {SIMULTANEOUS}" if intervals else ""),
        f"* on the {front}: no other configuration is as good in {first.name} and {second.name} and better in one",
    ]
    return Table("Configurations", columns, tuple(rows), (*notes, *_screened(results)))


def _screened(results: Results) -> tuple[str, ...]:
    """What the parentheses mean, if there are any."""
    if results.screening is None or len(results.estimated) == len(results.groups):
        return ()
    return (f"in parentheses: by seed {results.screening}, which screened: an order, in no mean or star",)


def front_table(results: Results) -> Table | None:
    """How probably each configuration near the front is on it; none if no configuration has several seeds."""
    certainty = certainty_sentence(results)
    if certainty is None:
        return None
    first, second = results.objectives
    probable = zip(results.estimated, results.on_front, strict=True)
    near = {group.label: p for group, p in probable if group in results.front or p >= DOUBT}
    rows = []
    for group in ranked(results.groups, first):
        if group.label in near:
            means = map(group.text, results.columns)
            rows.append((_starred(group, results), str(len(group.seeds)), f"{near[group.label]:.2f}", *means))
    off = len(results.estimated) - len(near)
    others = f"; not listed: {off}, each on it with less than {100 * DOUBT:g} %" if off else ""
    notes = (
        certainty,
        "on the front: the share of 1,000 draws of what the true means may be, from the seeds' paired spread, in which "
        "no other configuration is better in both; a configuration with one seed has the spread of the others",
        f"* on the front of the means{others}",
    )
    columns = ("configuration", "n", "on the front", first.name, second.name)
    return Table(f"The front, {first.best} first", columns, tuple(rows), notes)


def rates_table(results: Results) -> Table:
    """Every other metric of each configuration; the mean alone of those that do not measure quality."""
    metrics = [metric for column, metric in METRICS.items() if column not in _ELSEWHERE]
    rows = []
    for group in results.groups:
        cells = [group.text(metric.column, spread=metric.direction is not None) for metric in metrics]
        rows.append((group.label, *cells, group.text("total", spread=False)))
    columns = ("configuration", *(metric.head or metric.name for metric in metrics), "total")
    return Table("Rate and losses, whole test set", columns, tuple(rows), (NO_TOTAL, *_screened(results)))


def left_out_table(results: Results) -> Table:
    """The trials that are not compared, with the reason."""
    names = [*results.swept, "seed"]
    rows = [(described(t.config, names) or "the configuration", t.key, reason) for t, reason in results.left_out]
    return Table("Not compared", ("trial", "key", "why"), tuple(rows), left=3)


def alarms_table(results: Results) -> Table | None:
    """What looks wrong in the run, with the evidence and what to do; none if nothing does."""
    rows = tuple((alarm.title, alarm.evidence, alarm.advice) for alarm in alarms(results))
    return Table("Alarms", ("look at this", "evidence", "what to do"), rows, left=3) if rows else None


def all_tables(results: Results) -> dict[str, list[Table]]:
    """The tables by the name of the Markdown file that holds them."""
    found = {
        "results": [groups_table(results), rates_table(results)],
        "front": [table] if (table := front_table(results)) else [],
        "estimators": estimator_tables(results),
    }
    if table := alarms_table(results):
        found["results"].append(table)
    if results.left_out:
        found["results"].append(left_out_table(results))
    for number, published in paper()["tables"].items():
        if published["field"] in results.swept:
            both = [paper_table(results, int(number), split) for split in ("test", "train")]
            found[f"paper_table{number}"] = [*both, caveat_table(results, int(number))]
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
    """The numbers that the paper published, and what sets it apart (``paper_tables.toml``)."""
    return tomllib.loads(resources.files("analysis").joinpath("paper_tables.toml").read_text(encoding="utf-8"))


def paper_table(results: Results, number: int, split: str = "test") -> Table:
    """The paper's table 2 or 3 of the ``test`` or the ``train`` set, ours under each of its rows.

    Of those of ours that are alike in the table's field and in estimator, the best stands for all.
    """
    published = paper()["tables"][str(number)]
    field = published["field"]
    labels = {row["value"]: row.get("label", f"{row['value']:g}") for row in published["rows"]}
    best = {(group.config[field], group.estimator): group for group in reversed(ranked(results.groups, DEFAULT[0]))}
    ours = [group for group in results.groups if group in best.values()]
    rows: list[Row] = []
    for value in sorted({*labels, *(group.config[field] for group in ours)}):
        label = labels.get(value, f"{value:g}")
        of_paper = [row for row in published["rows"] if row["value"] == value and split in row]
        rows += [(label, row.get("whose", "paper"), "1", *_numbers(row[split])) for row in of_paper]
        chosen = [(label, *_ours(group, results, field, split)) for group in ours if group.config[field] == value]
        rows += chosen or [(label, "ours", "0", *["–"] * len(_PAPER_COLUMNS))]
    more = len(results.groups) - len(ours)
    note = f"of those alike in {field} and estimator the lowest mean MSE; {more} more are in results.md"
    notes = (*(published["caveats"] if split == "test" else ()), _OURS, NO_TOTAL)
    notes = (*notes, *_screened(results), *((note,) if more else ()))
    columns = (published["head"], "whose", "n", "MSE", "perplexity", "codebook", "total")
    title = f"Table {number} of the paper beside ours, {'test' if split == 'test' else 'training'} set"
    return Table(title, columns, tuple(rows), notes, left=2)


def _ours(group: Group, results: Results, field: str, split: str) -> Row:
    prefix = "train_" if split == "train" else ""
    rest = described(group.config, [name for name in estimator_first(results.swept) if name != field])
    numbers = (group.text(f"{prefix}{column}", spread=column in ("mse", "perplexity")) for column in _COLUMNS)
    return (f"ours: {rest}" if rest else "ours", str(len(group.seeds)), *numbers)


def _numbers(row: Mapping[str, float]) -> Row:
    return tuple(f"{row[name]:.4f}" if row[name] < 1 else f"{row[name]:.1f}" for name in _PAPER_COLUMNS)


def caveat_table(results: Results, number: int) -> Table:
    """The differences between the experiments of the paper's table 2 or 3 and ours, side by side."""
    codes = paper()["tables"][str(number)]["codes"]
    configs = [group.config for group in results.groups]
    of_run = {"data": results.data, "epochs": str(results.epoch), "runs a row": results.seeds}
    rows = []
    for row in paper()["differences"]:
        ours = row.get("ours") or of_run.get(row["what"]) or _values(configs, row["field"])
        rows.append((row["what"], row.get("paper", codes), ours))
    note = "so the two columns are not the same experiment, and a difference between them is not a ranking of methods"
    return Table("What sets them apart", ("", "paper", "this run"), tuple(rows), (note,), left=3)


def _values(configs: Sequence[dict[str, Any]], name: str) -> str:
    values = sorted({config[name] for config in configs if name in config})
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if len(shown) > _LISTED and not isinstance(values[0], str):
        return f"{shown[0]} to {shown[-1]} ({len(shown)} values)"
    return ", ".join(shown) or "–"
