"""Brings MLflow to where the journal is: the difference between what it should show and what it has, sent.

Live tracking, catching up after an outage, and ``sync`` a week later are the same few lines, and sending twice changes
nothing. A request whose answer was lost may have been carried out, or may be yet, when a server that stood still goes
on: so whoever connects asks MLflow what it has, and before a sweep's end is told it is asked once more. Runs are known
by their tags, and one that is there twice is deleted once; epochs are known by their points, and those of one epoch are
always sent in one request: all or none.
"""

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from trainables import bulk_store
from trainables.journal import JournalReader
from trainables.mirror import PARENT, RUNNING, Mirror, View
from trainables.runs import JOURNAL
from trainables.tracking_uri import is_database, is_server, one_line, sqlite_path, trouble
from vqcore.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

ARTIFACTS = ("sweep.toml", "results.parquet", "figures/*.png", "tables/*.md", "exports/*.toml")
"""What of the run folder goes to the parent run. Checkpoints stay where they are."""

AT_ONCE = 4
"""Requests under way to a server: while it works on one, the next is made. A database gets one at a time."""

_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000
_METRICS, _PAGE = 900, 200
"""Points a request, at most (MLflow takes 1,000 of points, parameters and tags); runs an answer."""


class OutOfReachError(Exception):
    """MLflow cannot be told anything now."""


class GoneError(OutOfReachError):
    """The database's file was deleted or replaced: what is still open of it must be let go of by ending the process."""


@dataclass
class _Told:
    """What MLflow has of one run."""

    run_id: str
    status: str = RUNNING
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    epochs: set[int] = field(default_factory=set)
    ended: int | None = None


class Sender:
    """Sends one run's journal. Raises whatever fails; after ``disconnect``, ``update`` goes on."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri = folder, uri
        self._reader, self._mirror = JournalReader(folder / JOURNAL), Mirror()
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._told: dict[str, _Told] = {}
        self._attempts: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self._database: tuple[int, int] | None = None
        self._artifacts_of: float | None = None
        self._lock = FileLock(folder / ".tracking.lock", thread_local=False)

    @property
    def runs(self) -> int:
        """Runs that were told, parent included."""
        return len(self._told)

    @property
    def refused(self) -> str | None:
        """What MLflow does not take, however often it is sent; None if there is nothing like that."""
        return next((f"{key or 'the sweep'}: {why}" for key, why in self._refused.items()), None)

    def update(self, nobody_writes: bool = False) -> None:
        """Read on, and send what is new. With ``nobody_writes``, what still runs was killed."""
        for event in self._reader.new():
            self._mirror.apply(event)
        mirror = self._mirror
        if not mirror.record.sweep:
            return
        if nobody_writes:
            mirror.abandon()
        self._still_there()
        if not mirror.changed:
            return
        self._claim()
        if self._client is None:
            self._connect()
        self._tell()
        self._still_there()

    def disconnect(self) -> None:
        """Forget the connection: the next update asks the server what it has."""
        self._client = None

    def release(self) -> None:
        """Let another process send this run."""
        self._lock.release()

    def _claim(self) -> None:
        """One sender a run: two at once would both create the runs that they do not find."""
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                name = self._folder.name
                raise ConfigError([f"{name}: a sweep or a sync is sending this run now; wait until it ends"]) from None

    def _tell(self) -> None:
        """The parent exists before its children, and is over after them."""
        mirror = self._mirror
        if PARENT not in self._told:
            self._create(PARENT, mirror.view(PARENT, None))
        self._tell_trials()
        if PARENT not in mirror.changed:
            return
        if mirror.state != RUNNING:
            self._ask()
            if PARENT not in self._told:
                self._create(PARENT, mirror.view(PARENT, None))
            self._tell_trials()
        self._try_to_send(PARENT)
        if mirror.state != RUNNING:
            self._send_artifacts()
        mirror.changed.discard(PARENT)

    def _tell_trials(self) -> None:
        """All of them that changed. One that fails holds up no other; two of them mean that nothing gets through."""
        keys = sorted(self._mirror.changed & self._mirror.record.trials.keys())
        self._mirror.changed &= {PARENT, *keys}
        failed: list[Exception] = []
        ending = threading.Event()

        def send(key: str) -> None:
            if ending.is_set() or len(failed) > 1:
                return
            try:
                self._try_to_send(key)
                self._mirror.changed.discard(key)
            except Exception as error:
                failed.append(error)

        if is_server(self._uri) and len(keys) > 1:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mlflow") as pool:
                try:
                    list(pool.map(send, keys))
                finally:
                    ending.set()
        else:
            for key in keys:
                send(key)
        if failed:
            raise failed[0]

    def _try_to_send(self, key: str) -> None:
        try:
            self._send(key)
            self._attempts.pop(key, None)
            self._refused.pop(key, None)
        except Exception as error:
            # Refused for what it says (also: its run was deleted, so look again once). Others must not wait for it.
            self._attempts[key] = self._attempts.get(key, 0) + 1
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE" or self._attempts[key] == 1:
                raise
            self._refused[key] = one_line(error, self._uri)

    def _send(self, key: str) -> None:
        """What a run lacks: usually one request, and another one at its end, which is told last."""
        from mlflow.entities import Metric, Param, RunTag

        assert self._client is not None
        parent = self._told[PARENT].run_id
        view = self._mirror.view(key, parent)
        told = self._told.get(key) or self._create(key, view)
        params = [Param(name, _text(v)[:_LONGEST_PARAM]) for name, v in view.params.items() if name not in told.params]
        tags = {name: value for name, value in _texts(view.tags).items() if told.tags.get(name) != value}
        epochs = sorted(view.epochs.keys() - told.epochs)
        for some in _parts(epochs, view.epochs) if epochs else [[]]:
            metrics = [
                Metric(name, value, round(view.times[epoch] * 1000), epoch)
                for epoch in some
                for name, value in view.epochs[epoch].items()
            ]
            if metrics:
                self._client.log_batch(told.run_id, metrics, params[:90])
                told.epochs.update(some)
                told.params |= {param.key for param in params[:90]}
                params = params[90:]
        if params or tags:
            self._client.log_batch(told.run_id, [], params, [RunTag(name, value) for name, value in tags.items()])
        told.params |= set(view.params)
        told.tags |= tags
        ended = None if view.ended is None else round(view.ended * 1000)
        if (view.status, ended) == (told.status, told.ended):
            return
        if ended is not None:
            self._client.set_terminated(told.run_id, view.status, ended)
        elif view.status != told.status:
            self._client.update_run(told.run_id, view.status)
        told.status, told.ended = view.status, ended

    def _create(self, key: str, view: View) -> _Told:
        assert self._client is not None
        tags, started = _texts(view.tags), round(view.started * 1000)
        run = self._client.create_run(self._experiment, started, tags, _text(view.name))
        if not run.info.run_id or run.info.experiment_id != self._experiment:
            raise OutOfReachError("what answers there is no MLflow server")
        self._told[key] = _Told(run.info.run_id, tags=tags)
        return self._told[key]

    def _send_artifacts(self) -> None:
        assert self._client is not None
        run_id, ended = self._told[PARENT].run_id, self._mirror.view(PARENT, None).ended
        if self._artifacts_of == ended:
            return
        for file in artifacts(self._folder):
            folder = file.parent.relative_to(self._folder).as_posix()
            self._client.log_artifact(run_id, str(file), None if folder == "." else folder)
        self._artifacts_of = ended

    def _connect(self) -> None:
        self._client = None
        client = _client(self._uri)
        self._experiment = _experiment(client, self._uri, self._mirror.record.sweep["sweep"])
        self._database = self._stamp()
        self._client = client
        try:
            self._ask()
        except BaseException:
            self._client = None
            raise

    def _still_there(self) -> None:
        if self._database is not None and self._database != self._stamp():
            raise GoneError(f"{sqlite_path(self._uri)} was deleted or replaced")

    def _stamp(self) -> tuple[int, int] | None:
        """Which file the database is; None for a server, and for no file."""
        path = sqlite_path(self._uri)
        if path is None or not path.exists():
            return None
        found = path.stat()
        return found.st_dev, found.st_ino

    def _ask(self) -> None:
        """What MLflow has of this sweep. All runs are compared with it then, and those that are there twice deleted."""
        client = self._client
        assert client is not None
        found: dict[str, Run] = {}
        keys = self._mirror.keys
        # all of them first, each once: a page is an offset, which moves as runs are deleted, or made by a slow server
        runs = {run.info.run_id: run for run in _search(client, self._experiment, self._mirror.record.sweep["id"])}
        for run in runs.values():
            key = run.data.tags.get("vqsweep.trial", PARENT)
            if key in found:  # asked for twice, since the first answer did not come in time
                found[key], double = sorted((found[key], run), key=lambda run: self._worth(key, run), reverse=True)
                client.delete_run(double.info.run_id)
            elif key in keys:
                found[key] = run
        self._told = {key: self._found(client, key, run) for key, run in found.items()}
        self._mirror.changed |= keys
        self._artifacts_of = None if PARENT not in found else self._artifacts_of

    def _worth(self, key: str, run: "Run") -> tuple[bool, bool]:
        """Which of two is kept: the one that was told of before, then the one that has points."""
        return key in self._told and self._told[key].run_id == run.info.run_id, bool(run.data.metrics)

    def _found(self, client: "MlflowClient", key: str, run: "Run") -> _Told:
        info, view = run.info, self._mirror.view(key, None)
        told = _Told(info.run_id, info.status, set(run.data.params), dict(run.data.tags), ended=info.end_time)
        if info.status == RUNNING:
            told.ended = None
        ended = view.ended is not None and (told.status, told.ended) == (view.status, round(view.ended * 1000))
        if ended and key not in self._mirror.mended:
            told.epochs = set(view.epochs)  # a run's end is told last: all before it has arrived
        elif run.data.metrics:
            # by the step alone: of an epoch that was told twice the first counts, whatever time the second one has;
            # one name is enough where the journal, which may have lost all of them, still has an epoch
            names = {next(iter(metrics)) for metrics in view.epochs.values() if metrics} or run.data.metrics.keys()
            told.epochs = {
                point.step
                for name in names & run.data.metrics.keys()
                for point in client.get_metric_history(info.run_id, name)
            }
        return told


def artifacts(folder: Path) -> list[Path]:
    """The files of a run that are sent. What is a link, or behind one, is none of them: it may lead anywhere."""
    found = [file for pattern in ARTIFACTS for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and file.resolve() == folder.resolve() / file.relative_to(folder)]


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


def _client(uri: str) -> "MlflowClient":
    """The schema of a new SQLite file is made by one process."""
    if "mlflow" not in sys.modules and (why := trouble(uri)):
        raise OutOfReachError(why)  # before seconds of importing what could not say more
    quiet()
    from mlflow import MlflowClient

    if not is_server(uri):
        bulk_store.install()
    if (path := sqlite_path(uri)) is None:
        if is_database(uri):
            _connect_once(uri)
        return MlflowClient(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        return MlflowClient(uri)


def _connect_once(uri: str) -> None:
    """Raise what a database says that is dead or lets nobody in; MLflow's client would ask it for 100 seconds."""
    from sqlalchemy import create_engine, pool

    create_engine(uri, poolclass=pool.NullPool).connect().close()


def _experiment(client: "MlflowClient", uri: str, sweep: str) -> str:
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


def _search(client: "MlflowClient", experiment: str, sweep_id: str) -> Iterator["Run"]:
    """The runs of a sweep, the first made first."""
    query, token = f"tags.`vqsweep.sweep` = '{sweep_id}'", None
    while token != "":
        runs = client.search_runs(
            [experiment], query, max_results=_PAGE, order_by=["attributes.start_time"], page_token=token
        )
        yield from runs
        token = runs.token or ""


def _parts(epochs: Iterable[int], metrics: Mapping[int, Mapping[str, float]]) -> Iterator[list[int]]:
    """Epochs, as many at a time as one request takes; those of one epoch are never parted."""
    part: list[int] = []
    points = 0
    for epoch in epochs:
        if part and points + len(metrics[epoch]) > _METRICS:
            yield part
            part, points = [], 0
        part.append(epoch)
        points += len(metrics[epoch])
    yield part


def _text(value: Any) -> str:
    """As databases take it: without NUL, and without halves of surrogate pairs."""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _texts(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value)[:_LONGEST_TAG] for name, value in tags.items()}
