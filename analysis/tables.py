"""What was measured, in rows: our configurations, the front, the estimators, and the paper's tables beside ours.

python -m analysis.tables RUN
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from analysis.alarms import alarms
from analysis.estimators import estimator_tables
from analysis.findings import certainty_sentence
from analysis.fronts import DOUBT
from analysis.layout import Record, Row, Table, write_file
from analysis.notes import LEARNED_NOTE, NO_TOTAL, RATES_NOTE, SIMULTANEOUS, screened_note
from analysis.objectives import METRICS, RATES
from analysis.paper import paper, paper_tables
from analysis.rates import dimensions, recorded_rates
from analysis.results import Group, Results, estimator_first, load_models, ranked
from analysis.stats import Estimate
from trainables.commands import Terminal, run_command
from trainables.runs import described, find_run
from vqcore.psnr import psnr

_ELSEWHERE = ("mse", "perplexity", *RATES, "loss", "commitment_loss")
"""Metrics that the table of usage and losses leaves out: the first have tables of their own, ``loss`` stands there as
the paper's total, and ``commitment_loss`` is the same number as ``codebook_loss``."""


def groups_table(results: Results, groups: Sequence[Group] | None = None, intervals: bool = True) -> Table:
    """The configurations (or those given), each with mean ± sd over its seeds; a star for the front of the means."""
    first, second = results.objectives
    intervals = intervals and bool(results.several)
    others = [objective for objective in results.objectives if objective.column not in ("mse", "perplexity")]
    chosen = results.groups if groups is None else groups
    rows: list[Row] = []
    for group in chosen:
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
    records = tuple(_record(group, results) for group in chosen)
    return Table("Configurations", columns, tuple(rows), (*notes, *screened_note(results)), records=records)


def _record(group: Group, results: Results) -> Record:
    """A configuration for the CSV: the fields that vary, and every metric with its spread and interval."""
    fields = {name: group.config.get(name) for name in estimator_first(results.swept)}
    state = {"n": len(group.seeds), "epoch": group.epoch, "on_front": group in results.front}
    numbers: dict[str, float | None] = {}
    for column in (*METRICS, "total"):
        numbers |= results.estimate(group, column).record(column)
    if results.screening is not None:  # of the seed that chose: in no mean
        numbers |= {f"{c}_screening": group.screening.mean(c) if group.screening else None for c in results.columns}
    return {"configuration": group.label, **fields, **state, **numbers}


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


def rates_table(results: Results) -> Table | None:
    """Bits an image of each configuration, by how much the code knows; none if no rate was recorded."""
    columns, rows = recorded_rates(results), list[Row]()
    for group in results.groups:
        cells = [group.text(column, spread=column != "bits_uniform") for column in columns]
        rows.append((group.label, *cells))
    records = tuple(_rate_record(group, results) for group in results.groups)
    return _of_rates(results, "Rate: bits an image, whole test set", "bits/image", rows, records)


def dimension_rates_table(results: Results) -> Table | None:
    """The same a dimension, of the three that a pixel has; none where the images' size is not recorded."""
    size, rows = dimensions(results), list[Row]()
    if size is None:
        return None
    for group in results.groups:
        shown = group if group.trials else group.screening or group
        values = [[bits / size for bits in shown.by_seed(column).values()] for column in recorded_rates(results)]
        texts = [Estimate.of(one).mean_text for one in values]
        rows.append((group.label, *(texts if group.trials else [f"({text})" for text in texts])))
    return _of_rates(results, f"Rate: bits a dimension, of {size:,} an image, whole test set", "bits/dim", rows)


def _of_rates(
    results: Results, title: str, unit: str, rows: Sequence[Row], records: tuple[Record, ...] = ()
) -> Table | None:
    columns = recorded_rates(results)
    if not columns:
        return None
    notes = (RATES_NOTE, *([LEARNED_NOTE] if "bits_learned" in columns else []), *screened_note(results))
    heads = (f"{METRICS[column].head},\n{unit}" for column in columns)  # in two lines, where a terminal is narrow
    return Table(title, ("configuration", *heads), tuple(rows), notes, records=records)


def _rate_record(group: Group, results: Results) -> Record:
    """A configuration for the CSV: the fields that vary, its MSE, and every rate an image and a dimension."""
    fields = {name: group.config.get(name) for name in estimator_first(results.swept)}
    numbers: dict[str, float | None] = {}
    for column in ("mse", *recorded_rates(results)):
        numbers |= results.estimate(group, column).record(column)
        if column != "mse" and (size := dimensions(results)):
            numbers[f"{column}_per_dimension_mean"] = group.mean(column) / size
    return {"configuration": group.label, **fields, "n": len(group.seeds), "epoch": group.epoch, **numbers}


def losses_table(results: Results) -> Table:
    """Every other metric of each configuration; the mean alone of those that do not measure quality."""
    metrics = [metric for column, metric in METRICS.items() if column not in _ELSEWHERE]
    rows = []
    for group in results.groups:
        cells = [group.text(metric.column, spread=metric.direction is not None) for metric in metrics]
        rows.append((group.label, *cells, group.text("total", spread=False)))
    columns = ("configuration", *(metric.head or metric.name for metric in metrics), "total")
    return Table("Usage and losses, whole test set", columns, tuple(rows), (NO_TOTAL, *screened_note(results)))


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
    rates = [table for table in (rates_table(results), dimension_rates_table(results)) if table]
    found = {
        "results": [groups_table(results), *rates, losses_table(results)],
        "front": [table] if (table := front_table(results)) else [],
        "estimators": estimator_tables(results),
    }
    if table := alarms_table(results):
        found["results"].append(table)
    if results.left_out:
        found["results"].append(left_out_table(results))
    for number, published in paper()["tables"].items():
        if published["field"] in results.swept:
            found[f"paper_table{number}"] = paper_tables(results, int(number))
    return {name: tables for name, tables in found.items() if tables}


def write_tables(results: Results) -> list[Path]:
    """Write the tables into the run's folder: ``tables/results.md`` and the others that there are.

    Those that a paper prints, also as LaTeX and as CSV: ``configurations``, ``rates`` and the paper's own.
    """
    tables = all_tables(results)
    pages = {f"{name}.md": "\n".join(map(Table.markdown, page)) for name, page in tables.items()}
    printed = {name: page for name, page in tables.items() if name.startswith("paper_")}
    if results.groups:
        printed["configurations"] = tables["results"][:1]
    if table := rates_table(results):
        printed["rates"] = [table, *filter(None, [dimension_rates_table(results)])]
    for name, page in printed.items():
        labels = (f"tab:{name}", *(f"tab:{name}-{number}" for number in range(2, len(page) + 1)))
        pages[f"{name}.tex"] = "\n".join(table.latex(label) for table, label in zip(page, labels, strict=True))
        records = tuple(record for table in page for record in table.records)
        pages[f"{name}.csv"] = replace(page[0], records=records).csv()
    return [write_file(results.folder / "tables" / name, text.encode()) for name, text in pages.items()]


def _starred(group: Group, results: Results) -> str:
    return group.label + (" *" if group in results.front else "")


def main(run: Positional[str] = "latest", out: Path = Path("runs")) -> None:
    """Print a run's tables, finished or not. ``tables/`` in its folder has them as Markdown, LaTeX and CSV.

    Args:
        run: A run's name, its folder, or latest.
        out: The folder that holds the runs.
    """
    terminal = Terminal()
    for tables in all_tables(load_models(find_run(run, out))).values():
        for table in tables:
            terminal.print(table.rich(), "")


if __name__ == "__main__":
    run_command(main)
