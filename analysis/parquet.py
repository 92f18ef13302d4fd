"""The journal as one table: a row a (trial, epoch), for pandas, polars, DuckDB or anything else that reads Parquet."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.layout import write_file
from analysis.objectives import METRICS, reported
from analysis.results import Results
from vqcore.config import TrialConfig

_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_parquet(results: Results) -> Path:
    """Write ``results.parquet``: trial, epoch, configuration, metrics, status and reason of the trial.

    The schema's metadata holds the sweep's name and the units, as JSON.
    """
    fields = {name: type(usual) for name, usual in TrialConfig().flat().items()}
    rows = [
        {
            **metrics,
            **{name: value if name in fields else str(value) for name, value in trial.config.items()},
            **{"trial": trial.key, "epoch": epoch, "status": trial.status, "reason": trial.reason},
        }
        for trial in results.trials
        for epoch, metrics in sorted(trial.epochs.items())
    ]
    kinds = {"trial": str, "epoch": int, **fields, **dict.fromkeys(reported(), float)}
    others = {name: value for row in rows for name, value in row.items() if name not in kinds}
    kinds |= {name: str if isinstance(value, str) else float for name, value in others.items()}
    schema = pa.schema({name: _TYPES[kind] for name, kind in (kinds | {"status": str, "reason": str}).items()})
    schema = schema.with_metadata({"units": json.dumps(_units()), "sweep": results.name})
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer)
    return write_file(results.folder / "results.parquet", buffer.getvalue())


def _units() -> dict[str, str]:
    test = {name: f"{metric.unit}; whole test set" for name, metric in METRICS.items()}
    train = {
        f"train_{name}": f"{metric.unit}; training set, during the epoch"
        for name, metric in METRICS.items()
        if metric.trained
    }
    seconds = "seconds of wall time of the epoch, of the last with its learned prior"
    return {**test, **train, "seconds": seconds, "epoch": "1 = after the first pass"}
