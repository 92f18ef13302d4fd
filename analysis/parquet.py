"""The journal as one table: a row a (trial, epoch), for pandas, polars, DuckDB or anything else that reads Parquet."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.layout import write_file
from analysis.objectives import METRICS, reported
from analysis.results import Results
from vqcore.config import FIELDS, TrialConfig

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_parquet(results: Results) -> Path:
    """Write ``results.parquet``: trial, epoch, configuration, metrics, status and reason of the trial.

    The schema's metadata holds the sweep's name and the units, as JSON.
    """
    rows = [(trial, epoch) for trial in results.trials for epoch in sorted(trial.epochs)]
    columns: dict[str, pa.Array] = {
        "trial": pa.array([trial.key for trial, _ in rows], pa.string()),
        "epoch": pa.array([epoch for _, epoch in rows], pa.int64()),
    }
    for name in _names(FIELDS, (trial.config for trial in results.trials)):
        columns[name] = _column(name, [trial.config.get(name) for trial, _ in rows])
    reports = [trial.epochs[epoch] for trial, epoch in rows]
    for name in _names(reported(), reports):
        columns.setdefault(name, pa.array([report.get(name) for report in reports], pa.float64()))
    for name in ("status", "reason"):
        columns[name] = pa.array([getattr(trial, name) for trial, _ in rows], pa.string())
    metadata = {"units": json.dumps(_units()), "sweep": results.name}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), buffer)
    return write_file(results.folder / "results.parquet", buffer.getvalue())


def _names(first: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys([*first, *sorted({name for row in rows for name in row})]))


def _column(name: str, values: list[Any]) -> pa.Array:
    if name in FIELDS:
        # The field's own type, so that a beta written 1 is a float like its neighbours.
        return pa.array(values, _TYPES[type(TrialConfig().flat()[name])])
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _units() -> dict[str, str]:
    test = {name: f"{metric.unit}; whole test set" for name, metric in METRICS.items()}
    train = {f"train_{name}": f"{metric.unit}; training set, during the epoch" for name, metric in METRICS.items()}
    return {**test, **train, "seconds": "seconds of wall time of the epoch", "epoch": "1 = after the first pass"}
