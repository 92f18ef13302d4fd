"""MLflow's store on a database, with a run's points and parameters written by a statement, not as an ORM object each.

Of a request of 700 points MLflow spends most on those objects. Here the same rows come to the same tables on SQLite and
PostgreSQL; other databases are left to MLflow. The process that tells MLflow uses it where it writes to a database
itself, and a server does that is started with ``mlflow server --app-name vqsweep``, or ``vqsweep-auth`` in the place of
``basic-auth``.
"""

from functools import wraps
from inspect import unwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities import Metric, Param
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

_POINT = ("key", "value", "timestamp", "step", "is_nan", "run_uuid")


def install() -> None:
    """Let every database store of this process write in bulk."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Store

    own_metrics, own_params = unwrap(Store._log_metrics_once), unwrap(Store._log_params)

    @wraps(own_metrics)
    def log_metrics(self: "SqlAlchemyStore", run_id: str, metrics: "Sequence[Metric]") -> None:
        if self.db_type in ("sqlite", "postgresql"):
            _write(self, run_id, metrics)
        else:
            own_metrics(self, run_id, metrics)

    @wraps(own_params)
    def log_params(self: "SqlAlchemyStore", run_id: str, params: "Sequence[Param]") -> None:
        if not (params and _write_new(self, run_id, params)):
            own_params(self, run_id, params)

    Store._log_metrics_once = log_metrics  # type: ignore[method-assign]
    Store._log_params = log_params  # type: ignore[method-assign]


def app() -> Any:
    """What ``mlflow server --app-name vqsweep`` serves: MLflow's own application."""
    install()
    from mlflow.server.fastapi_app import app

    return app


def auth_app() -> Any:
    """What ``mlflow server --app-name vqsweep-auth`` serves: MLflow's own, with ``basic-auth``."""
    install()
    from mlflow.server.auth import create_app

    return create_app()


def _write(store: Any, run_id: str, metrics: "Sequence[Metric]") -> None:
    """The points of a run that are not there yet, and of each metric the latest, by step, time and value."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from mlflow.utils.validation import _validate_metric

    if len(metrics) == 1:  # several have been checked, by ``log_batch``
        one = metrics[0]
        _validate_metric(one.key, one.value, one.timestamp, one.step)  # type: ignore[no-untyped-call]
    rows = [_row(store, run_id, metric) for metric in metrics]
    latest: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = latest.setdefault(row["key"], row)
        if _age(row) > _age(known):
            latest[row["key"]] = row
    with store.ManagedSessionMaker(read_only=False) as session:
        store._check_run_is_active(store._get_run(run_uuid=run_id, session=session))
        if rows:
            insert = _insert(store.db_type)
            session.execute(insert(SqlMetric.__table__).on_conflict_do_nothing(), rows)
            # in one order: who locks the same rows in another one waits for us, and we for them
            session.execute(_latest(insert), [latest[key] for key in sorted(latest)])


def _write_new(store: Any, run_id: str, params: "Sequence[Param]") -> bool:
    """The parameters of a run that has none of them yet; whether that was so. ``log_batch`` has looked at the run."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.dbmodels.models import SqlParam
    from sqlalchemy import insert

    try:
        with store.ManagedSessionMaker(read_only=False) as session:
            rows = [{"run_uuid": run_id, "key": param.key, "value": param.value} for param in params]
            session.execute(insert(SqlParam.__table__), rows)
    except MlflowException:  # it has one: that may be none other, which MLflow judges
        return False
    return True


def _row(store: Any, run_id: str, metric: "Metric") -> dict[str, Any]:
    """One point as MLflow stores it."""
    is_nan, value = store.sanitize_metric_value(metric.value)
    return dict(zip(_POINT, (metric.key, value, metric.timestamp, metric.step, is_nan, run_id), strict=True))


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    return row["step"], row["timestamp"], row["value"]


def _insert(db_type: str) -> Any:
    from sqlalchemy.dialects import postgresql, sqlite

    return sqlite.insert if db_type == "sqlite" else postgresql.insert


def _latest(insert: Any) -> Any:
    """The statement that keeps the later one of the point that is there and the new one."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric
    from sqlalchemy import tuple_

    table = SqlLatestMetric.__table__
    statement = insert(table)
    new, old = statement.excluded, table.c
    return statement.on_conflict_do_update(
        index_elements=[old.key, old.run_uuid],
        set_={name: new[name] for name in ("value", "timestamp", "step", "is_nan")},
        where=tuple_(new.step, new.timestamp, new.value) > tuple_(old.step, old.timestamp, old.value),
    )
