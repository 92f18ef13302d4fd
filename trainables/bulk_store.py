"""Whole runs written to MLflow's database, each table by one statement.

MLflow's store makes an object of each point, and takes a run in three requests; of 700 points those objects are most of
the work. Here the same rows come to the same tables of any database that MLflow knows. Only for runs that are new:
nothing is there that they could contradict.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

Point = tuple[int, int, dict[str, float]]
"""Step, milliseconds since 1970, metrics."""

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_LONG = 2**63
_Row = dict[str, Any]


@dataclass(frozen=True)
class NewRun:
    """A run as MLflow is to have it. Times are milliseconds since 1970."""

    name: str
    status: Status
    started: int
    ended: int | None
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point]
    """Of each step once."""


def write(store: "SqlAlchemyStore", experiment_id: str, runs: Sequence[NewRun]) -> list[str]:
    """Make runs in an experiment, all or none; their ids. ``MlflowException`` for what MLflow would refuse."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import insert

    experiment = _active(store, experiment_id)
    ids = [uuid4().hex for _ in runs]
    rows: dict[Any, list[_Row]] = {table: [] for table in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric)}
    for run_id, run in zip(ids, runs, strict=True):
        rows[SqlRun].append(_run(experiment, run_id, run))
        rows[SqlTag] += _named(run_id, {**run.tags, "mlflow.runName": run.name}, _valid_tags)
        rows[SqlParam] += _named(run_id, run.params, _valid_params)
        points = _points(run_id, run)
        rows[SqlMetric] += points
        rows[SqlLatestMetric] += _latest(points)
    with store.ManagedSessionMaker(read_only=False) as session:
        for table, some in rows.items():
            if some:
                session.execute(insert(table.__table__), some)
    return ids


def _active(store: "SqlAlchemyStore", experiment_id: str) -> "Experiment":
    experiment = store.get_experiment(experiment_id)  # type: ignore[no-untyped-call]
    if experiment.lifecycle_stage != "active":
        raise refusal(f"The experiment {experiment_id} must be in the 'active' state")
    return experiment  # type: ignore[no-any-return]


def _run(experiment: "Experiment", run_id: str, run: NewRun) -> _Row:
    """As ``SqlAlchemyStore.create_run`` makes it, and ``update_run_info`` ends it."""
    from mlflow.utils.uri import append_to_uri_path

    _check_long(run.started, run.ended or 0)
    artifacts = append_to_uri_path(experiment.artifact_location, run_id, "artifacts")  # type: ignore[no-untyped-call]
    return {
        "run_uuid": run_id,
        "name": run.name,
        "source_type": "UNKNOWN",
        "source_name": "",
        "entry_point_name": "",
        "user_id": run.tags.get("mlflow.user", "unknown"),
        "status": run.status,
        "start_time": run.started,
        "end_time": run.ended,
        "deleted_time": None,
        "source_version": "",
        "lifecycle_stage": "active",
        "artifact_uri": artifacts,
        "experiment_id": int(experiment.experiment_id),
    }


def _named(run_id: str, values: Mapping[str, str], valid: Any) -> list[_Row]:
    return [{"key": one.key, "value": one.value, "run_uuid": run_id} for one in valid(values)]


def _valid_tags(values: Mapping[str, str]) -> list[Any]:
    from mlflow.utils.validation import _validate_tag

    return [_validate_tag(name, value) for name, value in values.items()]  # type: ignore[no-untyped-call]


def _valid_params(values: Mapping[str, str]) -> list[Any]:
    from mlflow.utils.validation import _validate_param

    return [_validate_param(name, value) for name, value in values.items()]  # type: ignore[no-untyped-call]


def _points(run_id: str, run: NewRun) -> list[_Row]:
    """Each metric of each step. MLflow has no NaN, and of the infinities the greatest numbers that there are."""
    from mlflow.utils.validation import _validate_metric

    for name in {name for _, _, metrics in run.points for name in metrics}:
        _validate_metric(name, 0.0, 0, 0)  # type: ignore[no-untyped-call]
    rows = []
    for step, when, metrics in run.points:
        _check_long(when, abs(step))
        for name, value in metrics.items():
            row = {"key": name, "value": value, "timestamp": when, "step": step, "is_nan": False, "run_uuid": run_id}
            if not math.isfinite(value):
                row["is_nan"] = math.isnan(value)
                row["value"] = 0.0 if row["is_nan"] else math.copysign(1.7976931348623157e308, value)
            rows.append(row)
    return rows


def _latest(points: Sequence[_Row]) -> list[_Row]:
    """Of each metric the point that MLflow's table of runs shows."""
    latest: dict[str, _Row] = {}
    for row in points:
        known = latest.setdefault(row["key"], row)
        if row["step"] > known["step"]:
            latest[row["key"]] = row
    return list(latest.values())


def _check_long(*values: int) -> None:
    if not all(0 <= value < _LONG for value in values):
        raise refusal(f"{values}: times are from 0 on, and all whole numbers of 64 bits")


def refusal(why: str) -> Exception:
    """What MLflow raises, and its server answers, for what it does not take."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    return MlflowException(why, INVALID_PARAMETER_VALUE)
