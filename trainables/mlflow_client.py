"""How MLflow is reached: its client, the experiment of a sweep, and whether whole runs can be made at once."""

import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from filelock import FileLock

from trainables import bulk_server, bulk_store
from trainables.tracking_uri import is_database, is_server, sqlite_path, trouble

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_PAGE = 200
"""Runs an answer."""


class OutOfReachError(Exception):
    """MLflow cannot be told anything now."""


def quiet() -> None:
    """How MLflow's client is to behave: it says nothing, and fails soon rather than waits. Before it is imported."""
    for name, value in (
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),  # tried again it is here, after a look at what was carried out
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # its retries would write over the screen
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback for a database that is locked


def connect(uri: str) -> "MlflowClient":
    """MLflow's client. The schema of a new SQLite file is made by one process."""
    if "mlflow" not in sys.modules and (why := trouble(uri)):
        raise OutOfReachError(why)  # before seconds of importing what could not say more
    quiet()
    from mlflow import MlflowClient

    if (path := sqlite_path(uri)) is None:
        if is_database(uri):
            _connect_once(uri)
        return MlflowClient(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        return MlflowClient(uri)


def experiment(client: "MlflowClient", uri: str, sweep: str) -> str:
    """The id of ``vqsweep/<sweep>``, made if need be. A server decides itself where artifacts go."""
    from mlflow.exceptions import MlflowException

    name, path = f"vqsweep/{sweep}", sqlite_path(uri)
    artifacts = None if path is None else (path.parent / "mlartifacts" / sweep).as_uri()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifacts)
        except MlflowException as error:  # another sweep was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    if found is None or found.name != name or not found.experiment_id:
        raise OutOfReachError("what answers there is no MLflow server")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def search(client: "MlflowClient", experiment: str, sweep_id: str) -> Iterator["Run"]:
    """The runs of a sweep, the first made first."""
    query, token = f"tags.`vqsweep.sweep` = '{sweep_id}'", None
    while token != "":
        runs = client.search_runs(
            [experiment], query, max_results=_PAGE, order_by=["attributes.start_time"], page_token=token
        )
        yield from runs
        token = runs.token or ""


def writer(client: "MlflowClient", uri: str) -> bulk_server.Writer | None:
    """How to make whole runs at once; None where MLflow is told run by run."""
    if is_server(uri):
        return bulk_server.writer(uri)
    if sqlite_path(uri) is not None or is_database(uri):
        return partial(bulk_store.make, client._tracking_client.store)
    return None


def is_refusal(error: Exception) -> bool:
    """Whether MLflow, or its database, does not take it, however often it is sent."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def _connect_once(uri: str) -> None:
    """Raise what a database says that is dead or lets nobody in; MLflow's client would ask it for 100 seconds."""
    from sqlalchemy import create_engine, pool

    create_engine(uri, poolclass=pool.NullPool).connect().close()
