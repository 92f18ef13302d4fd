"""Whole runs written to MLflow's database, each table by one statement.

MLflow's store makes an object of each point, and takes a run in three requests; of 700 points those objects are most of
the work. Here the same rows come to the same tables of any database that MLflow knows. Only for runs that are new:
nothing is there that they could contradict.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mlflow.entities import Experiment
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

Point = tuple[int, int, dict[str, float]]
"""Step, milliseconds since 1970, metrics."""

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_LONG = 2**63
_ID = re.compile("[0-9a-f]{32}")
_Row = dict[str, Any]


@dataclass(frozen=True)
class NewRun:
    """A run as MLflow is to have it. Times are milliseconds since 1970."""

    id: str
    """32 hexadecimal digits, chosen by who makes it: whatever is asked for twice is made once."""
    name: str
    status: Status
    started: int
    ended: int | None
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point]
    """Of each step once."""


class NotMadeError(Exception):
    """Of these runs none was made, and together they would not be at another time either."""


def write(store: "SqlAlchemyStore", experiment_id: str, runs: Sequence[NewRun]) -> None:
    """Make runs in an experiment, all or none.

    ``MlflowException``: RESOURCE_ALREADY_EXISTS if one of them is there, else as MLflow's own for what it would refuse.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
    from sqlalchemy import insert

    experiment = _active(store, experiment_id)
    rows: dict[Any, list[_Row]] = {table: [] for table in (SqlRun, SqlTag, SqlParam, SqlMetric, SqlLatestMetric)}
    for run in runs:
        rows[SqlRun].append(_run(experiment, run))
        rows[SqlTag] += _named(run.id, {**run.tags, "mlflow.runName": run.name}, _valid_tags)
        rows[SqlParam] += _named(run.id, run.params, _valid_params)
        points = _points(run)
        rows[SqlMetric] += points
        rows[SqlLatestMetric] += _latest(points)
    try:
        with store.ManagedSessionMaker(read_only=False) as session:
            for table, some in rows.items():
                if some:
                    session.execute(insert(table.__table__), some)
    except MlflowException:
        _check_new(store, runs)
        raise


def make(store: "SqlAlchemyStore", experiment_id: str, runs: Sequence[NewRun]) -> None:
    """As ``write``; ``NotMadeError`` for what the database does not take, however often it is asked."""
    from mlflow.exceptions import MlflowException

    try:
        write(store, experiment_id, runs)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_ALREADY_EXISTS", "TEMPORARILY_UNAVAILABLE"):
            raise
        raise NotMadeError(str(error)) from error


def _check_new(store: "SqlAlchemyStore", runs: Sequence[NewRun]) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
    from mlflow.store.tracking.dbmodels.models import SqlRun

    with store.ManagedSessionMaker() as session:
        if session.query(SqlRun.run_uuid).filter(SqlRun.run_uuid.in_([run.id for run in runs])).first():
            raise MlflowException("of these runs some are there", RESOURCE_ALREADY_EXISTS)


def _active(store: "SqlAlchemyStore", experiment_id: str) -> "Experiment":
    experiment = store.get_experiment(experiment_id)  # type: ignore[no-untyped-call]
    if experiment.lifecycle_stage != "active":
        raise refusal(f"The experiment {experiment_id} must be in the 'active' state")
    return experiment  # type: ignore[no-any-return]


def _run(experiment: "Experiment", run: NewRun) -> _Row:
    """As ``SqlAlchemyStore.create_run`` makes it, and ``update_run_info`` ends it."""
    from mlflow.utils.uri import append_to_uri_path

    if not _ID.fullmatch(run.id):
        raise refusal(f"{run.id!r}: an id has 32 hexadecimal digits")
    _check_long(run.started, run.ended or 0)
    artifacts = append_to_uri_path(experiment.artifact_location, run.id, "artifacts")  # type: ignore[no-untyped-call]
    return {
        "run_uuid": run.id,
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


def _points(run: NewRun) -> list[_Row]:
    """Each metric of each step. MLflow has no NaN, and of the infinities the greatest numbers that there are."""
    from mlflow.utils.validation import _validate_metric

    for name in {name for _, _, metrics in run.points for name in metrics}:
        _validate_metric(name, 0.0, 0, 0)  # type: ignore[no-untyped-call]
    rows = []
    for step, when, metrics in run.points:
        _check_long(when, abs(step))
        for name, value in metrics.items():
            row = {"key": name, "value": value, "timestamp": when, "step": step, "is_nan": False, "run_uuid": run.id}
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
