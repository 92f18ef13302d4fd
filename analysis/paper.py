"""The tables of the paper beside ours: its sizes (2), its betas (3), and what sets its experiments and ours apart."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from analysis.layout import Record, Row, Table
from analysis.notes import NO_TOTAL, SIMULTANEOUS, screened_note
from analysis.objectives import DEFAULT
from analysis.results import Group, Results, estimator_first, ranked
from analysis.stats import Estimate
from trainables.runs import described

_THEIRS = ("reconstruction", "perplexity", "codebook", "total")
"""The paper's names of the columns of its tables 2 and 3."""
_OURS = ("mse", "perplexity", "codebook_loss", "total")
"""Ours of the same."""
_SPREAD = ("mse", "perplexity")
"""Those of ours whose spread is shown; the CSV has it of all."""
_LISTED = 6
"""The most values of a field that are listed; of more, the ends."""
_NOTE = "ours: mean ± sample sd over n seeds; what sets the two apart is listed below"


@cache
def paper() -> dict[str, Any]:
    """The numbers that the paper published, and what sets it apart (``paper_tables.toml``)."""
    return tomllib.loads(resources.files("analysis").joinpath("paper_tables.toml").read_text(encoding="utf-8"))


def paper_tables(results: Results, number: int) -> list[Table]:
    """The paper's table 2 or 3 beside ours, of the test and of the training set, and what sets the two apart."""
    return [*(paper_table(results, number, split) for split in ("test", "train")), caveat_table(results, number)]


def paper_table(results: Results, number: int, split: str = "test") -> Table:
    """The paper's table 2 or 3 of the ``test`` or the ``train`` set, ours under each of its rows.

    Of those of ours that are alike in the table's field and in estimator, the best stands for all. The paper has one
    run a row, so only ours have intervals.
    """
    published = paper()["tables"][str(number)]
    field, head = published["field"], published["head"]
    labels = {row["value"]: row.get("label", f"{row['value']:g}") for row in published["rows"]}
    best = {(group.config[field], group.estimator): group for group in reversed(ranked(results.groups, DEFAULT[0]))}
    ours = [group for group in results.groups if group in best.values()]
    rows: list[Row] = []
    records: list[Record] = []
    for value in sorted({*labels, *(group.config[field] for group in ours)}):
        label = labels.get(value, f"{value:g}")
        for row in published["rows"]:
            if row["value"] == value and split in row:
                whose, numbers = row.get("whose", "paper"), row[split]
                rows.append((label, whose, "1", *map(_text, (numbers[name] for name in _THEIRS))))
                records.append({"split": split, field: value, "whose": whose, **_published_record(numbers)})
        chosen = [group for group in ours if group.config[field] == value]
        rows += [] if chosen else [(label, "ours", "0", *["–"] * len(_OURS))]
        for group in chosen:
            rows += _rows(label, group, results, field, split)
            records.append({"split": split, field: value, "whose": "ours", **_record(group, results, split)})
    more = len(results.groups) - len(ours)
    note = f"of those alike in {field} and estimator the lowest mean MSE; {more} more are in results.md"
    notes = (*(published["caveats"] if split == "test" else ()), _NOTE)
    notes += (f"95 % intervals over seeds: {SIMULTANEOUS}",) if any(group in ours for group in results.several) else ()
    notes += (NO_TOTAL, *screened_note(results), *((note,) if more else ()))
    columns = (head, "whose", "n", "MSE", "perplexity", "codebook", "total")
    title = f"Table {number} of the paper beside ours, {'test' if split == 'test' else 'training'} set"
    return Table(title, columns, tuple(rows), notes, left=2, records=tuple(records))


def _rows(label: str, group: Group, results: Results, field: str, split: str) -> list[Row]:
    """Mean ± sd of one configuration, and below it, of several seeds, the intervals."""
    rest = described(group.config, [name for name in estimator_first(results.swept) if name != field])
    whose = f"ours: {rest}" if rest else "ours"
    columns = _columns(split)
    texts = (group.text(column, spread=name in _SPREAD) for name, column in columns.items())
    rows: list[Row] = [(label, whose, str(len(group.seeds)), *texts)]
    if group in results.several:
        estimates = {name: results.estimate(group, column) for name, column in columns.items()}
        ends = (estimate.interval_text() if name in _SPREAD else "" for name, estimate in estimates.items())
        rows.append(("", "95 % interval", "", *ends))
    return rows


def _published_record(numbers: Mapping[str, float]) -> Record:
    found: dict[str, float | None] = {}
    for name, theirs in zip(_OURS, _THEIRS, strict=True):
        found |= Estimate(numbers[theirs], None, 1).record(name)
    return {"configuration": None, "n": 1, **found}


def _record(group: Group, results: Results, split: str) -> Record:
    numbers: dict[str, float | None] = {}
    for name, column in _columns(split).items():
        numbers |= results.estimate(group, column).record(name)
    return {"configuration": group.label, "n": len(group.seeds), **numbers}


def _columns(split: str) -> dict[str, str]:
    """Our columns of that set of images, by their names without it."""
    return {name: f"train_{name}" if split == "train" else name for name in _OURS}


def _text(published: float) -> str:
    return f"{published:.4f}" if published < 1 else f"{published:.1f}"


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
