"""Where MLflow keeps what is sent: a connection that has had an answer, the embedded database, a sweep's experiment."""

import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trainables.tracking_uri import DATABASES, sqlite_path

logger = logging.getLogger(__name__)

_HALF_MADE = re.compile(r"already exists|duplicate column|no such (table|index|column)|malformed", re.IGNORECASE)


def connect(uri: str) -> MlflowClient:
    """MLflow's client, which has had an answer. The folder of a SQLite database becomes this process's."""
    if (path := sqlite_path(uri)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.chdir(path.parent)
        uri = re.sub(":///[^?]*/", ":///", uri)  # MLflow makes a stray folder of a path with percent signs
        with FileLock(f"{path}.lock"):
            _prepare(path, uri)
    elif uri.startswith(DATABASES):
        from sqlalchemy import create_engine, pool

        create_engine(uri, poolclass=pool.NullPool).connect().close()  # MLflow's client would ask for 100 seconds
    client = MlflowClient(uri)
    client.search_experiments(max_results=1)
    return client


def _prepare(path: Path, uri: str) -> None:
    """Make a database beside its place and move it there whole: a kill at any moment leaves all of it or none.

    One that was left half made, by MLflow's server or versions before, is renamed, and the journals fill the new one.
    """
    if path.exists() and path.stat().st_size:
        try:
            MlflowClient(uri).search_experiments(max_results=1)
            return
        except Exception as error:
            if not _HALF_MADE.search(str(error)):
                raise
        broken = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
        path.rename(broken)
        logger.warning("%s was left half made; renamed to %s, and the journal fills a new one", path, broken.name)
    for left_over in (beside := path.with_name(".mlflow.db.new"), path.with_name(".mlflow.db.new-journal")):
        left_over.unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{beside.name}").search_experiments(max_results=1)
    if not path.exists() or not path.stat().st_size:  # MLflow's own server may have made it meanwhile
        beside.replace(path)


def experiment(client: MlflowClient, sweep: str, folder: Path | None) -> str:
    """The id of the experiment ``vqsweep/<sweep>``, made if need be, with its artifacts below ``folder``. A server
    decides itself where they go."""
    name, place = f"vqsweep/{sweep}", (folder / "mlartifacts" / sweep).as_uri() if folder else None
    if client.get_experiment_by_name(name) is None:
        with suppress(MlflowException):  # another sweep may be first
            client.create_experiment(name, place)
    found = client.get_experiment_by_name(name)
    if found is None or found.name != name:
        raise ConnectionError(f"no experiment {name} could be made there: is it an MLflow server?")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)
