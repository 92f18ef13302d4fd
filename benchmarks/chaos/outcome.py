"""What a sweep came to, wherever it is shown: journal, Parquet, exports, tables, MLflow. Numbers as hex: all bits."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainables.journal import FINAL, JournalReader, read
from trainables.runs import JOURNAL

TIMES = frozenset({"seconds"})
"""Metrics that no two runs share."""

Point = tuple[str, str, int]
"""Trial, metric, step."""


@dataclass
class Outcome:
    """All that is compared."""

    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By key: status, reason, number, config, and metrics by epoch (as text)."""
    repeated: dict[str, int] = field(default_factory=dict)
    """What the journal records more often than once, and how often too much."""
    rows: list[list[Any]] = field(default_factory=list)
    """Of ``results.parquet``, without times; the first is the columns."""
    files: dict[str, str] = field(default_factory=dict)
    """Exports and tables, without the lines that say when and from where."""
    runs: dict[str, list[str]] = field(default_factory=dict)
    """MLflow's runs: the statuses of those of a trial (the parent's key is "")."""
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of MLflow's runs."""
    points: dict[str, list[str]] = field(default_factory=dict)
    """MLflow's: values by trial, metric and step; of a time only that it is there."""

    @property
    def epochs(self) -> int:
        """Of all trials."""
        return sum(len(trial["epochs"]) for trial in self.trials.values())

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Outcome":
        """As ``save`` wrote it."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def outcome(run: Path, database: Path) -> Outcome:
    """What lies in a run's folder and in the MLflow database that holds this run alone."""
    found = Outcome(repeated=repeated(run / JOURNAL), files=dict(_files(run)))
    for key, trial in read(run / JOURNAL).trials.items():
        epochs = {str(epoch): _bits(metrics) for epoch, metrics in sorted(trial.epochs.items())}
        found.trials[key] = {
            "status": trial.status,
            "reason": trial.reason,
            "number": trial.number,
            "config": {name: repr(value) for name, value in trial.config.items()},
            "epochs": epochs,
        }
    if (run / "results.parquet").exists():
        found.rows = _rows(run / "results.parquet")
    _read_mlflow(database, found)
    return found


def repeated(journal: Path) -> dict[str, int]:
    """Epochs and ends that were recorded before. A trial that failed may come to another end later."""
    seen: Counter[str] = Counter()
    for event in JournalReader(journal).new():
        if event["event"] == "epoch":
            seen[f"epoch {event['epoch']} of {event['trial']}"] += 1
        elif event["event"] == "end" and event["status"] in FINAL:
            seen[f"end of {event['trial']}"] += 1
    return {what: count - 1 for what, count in seen.items() if count > 1}


def _bits(metrics: Any) -> dict[str, str]:
    return {name: float(value).hex() for name, value in sorted(metrics.items()) if name not in TIMES}


def _rows(parquet: Path) -> list[list[Any]]:
    table = pq.read_table(parquet)
    columns = [name for name in table.column_names if name not in TIMES]
    values = [table.column(name).to_pylist() for name in columns]
    rows = [[v.hex() if isinstance(v, float) else v for v in row] for row in zip(*values, strict=True)]
    return [columns, *sorted(rows, key=lambda row: (row[columns.index("trial")], row[columns.index("epoch")]))]


def _files(run: Path) -> Iterator[tuple[str, str]]:
    for pattern in ("exports/*.toml", "tables/*.md"):
        for path in sorted(run.glob(pattern)):
            lines = path.read_text(encoding="utf-8").splitlines()
            yield str(path.relative_to(run)), "\n".join(line for line in lines if "commit" not in line)


def _read_mlflow(database: Path, found: Outcome) -> None:
    """All that the database holds, deleted runs aside: it has this one sweep, so two of a trial are one too many."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        tags = connection.execute("SELECT run_uuid, value FROM tags WHERE key = 'vqsweep.trial'").fetchall()
        trial_of = dict(tags)
        runs = connection.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        for run, status in runs:
            found.runs.setdefault(trial_of.get(run, ""), []).append(status)
        for run, name, value in connection.execute("SELECT run_uuid, key, value FROM params"):
            found.params.setdefault(trial_of.get(run, ""), {})[name] = value
        points = connection.execute("SELECT run_uuid, key, step, value, is_nan FROM metrics").fetchall()
    for run, name, step, value, is_nan in points:
        shown = "time" if name in TIMES else "nan" if is_nan else float(value).hex()
        found.points.setdefault(f"{trial_of.get(run, '')} {name} {step}", []).append(shown)
