"""Brings MLflow to where the journal is: the difference between what it should show and what it has, sent.

Live tracking, catching up after an outage, and ``sync`` a week later are the same few lines, and sending twice changes
nothing. A request whose answer was lost may have been carried out, or may be yet, when a server that stood still goes
on: so whoever connects asks MLflow what it has, and before a sweep's end is told it is asked once more. Runs are known
by their tags, and one that is there twice is deleted once; epochs are known by their points, and those of one epoch are
always sent in one request: all or none.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from trainables import bulk_server, mlflow_client
from trainables.artifacts import artifacts
from trainables.bulk_store import NewRun, NotMadeError, Point
from trainables.journal import JournalReader
from trainables.mirror import PARENT, RUNNING, Mirror
from trainables.mlflow_client import OutOfReachError, is_refusal
from trainables.runs import JOURNAL
from trainables.tracking_uri import is_server, one_line, sqlite_path
from vqcore.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

AT_ONCE = 4
"""Requests under way to a server: while it works on one, the next is made. A database gets one at a time."""

_LONGEST_NAME, _LONGEST_PARAM, _LONGEST_TAG = 250, 6000, 8000
_METRICS = 900
"""Points a request, at most (MLflow takes 1,000 of points, parameters and tags)."""
_BULK, _ROWS, _ROW = 10_000, 50, 40
"""Rows a request of whole runs, at most: half the megabyte that reverse proxies let pass. A run's own; bytes of one."""


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
        self._write: bulk_server.Writer | None = None
        self._experiment = ""
        self._told: dict[str, _Told] = {}
        self._ids: dict[str, str] = {}
        """Of runs that were asked for, and may be made yet."""
        self._alone: set[str] = set()
        """Runs that could not be made together with others."""
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
        try:
            self._update(nobody_writes)
        except Exception as error:
            if not is_refusal(error):
                raise
            self.disconnect()  # a run that was deleted takes nothing; what is refused again is left out
            self._update(nobody_writes)

    def _update(self, nobody_writes: bool) -> None:
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
            self._create(PARENT, self._run(PARENT))
        self._tell_trials()
        if PARENT not in mirror.changed:
            return
        if mirror.state != RUNNING:
            self._ask()
            if PARENT not in self._told:
                self._create(PARENT, self._run(PARENT))
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
        refused: list[Exception] = []
        ending = threading.Event()

        def send(key: str) -> None:
            if ending.is_set() or len(failed) > 1:
                return
            try:
                self._try_to_send(key)
                self._mirror.changed.discard(key)
            except Exception as error:
                (refused if is_refusal(error) else failed).append(error)

        def send_all(some: list[str]) -> None:
            if ending.is_set() or len(failed) > 1:
                return
            try:
                if self._make(some):
                    self._mirror.changed.difference_update(some)
                    return
            except Exception as error:
                failed.append(error)
                return
            for key in some:
                send(key)

        together = list(self._together(keys))
        if is_server(self._uri) and len(together) > 1:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mlflow") as pool:
                try:
                    list(pool.map(send_all, together))
                finally:
                    ending.set()
        else:
            for some in together:
                send_all(some)
        if failed or refused:
            raise (failed or refused)[0]

    def _together(self, keys: Iterable[str]) -> Iterator[list[str]]:
        """Those that can be made at once, as many at a time as one request takes; each other one alone."""
        some: list[str] = []
        size = 0
        for key in keys:
            if not self._can_be_made(key):
                yield [key]
                continue
            if some and size + self._size(key) > _BULK:
                yield some
                some, size = [], 0
            some.append(key)
            size += self._size(key)
        if some:
            yield some

    def _can_be_made(self, key: str) -> bool:
        """Whether MLflow does not know it yet, and takes it whole."""
        new = key not in self._told and key not in self._alone
        return self._write is not None and new and self._size(key) <= _BULK

    def _size(self, key: str) -> int:
        """Rows of a trial in MLflow's database, about."""
        trial = self._mirror.record.trials[key]
        return _ROWS + len(trial.reason) // _ROW + len(trial.epochs) * len(trial.epochs.get(trial.last_epoch, ()))

    def _make(self, keys: list[str]) -> bool:
        """Make whole runs, if it can be done; those that cannot be made together are to be sent one by one."""
        if self._write is None or not self._can_be_made(keys[0]):
            return False
        runs = [self._run(key) for key in keys]
        try:
            self._write(self._experiment, runs)
        except NotMadeError:
            self._alone.update(keys)
            return False
        except Exception as error:
            if getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS":  # made after all: who asks will find it
                self._forget_ids(keys)
            raise
        for key, run in zip(keys, runs, strict=True):
            epochs = {epoch for epoch, _, _ in run.points}
            self._told[key] = _Told(run.id, run.status, set(run.params), run.tags, epochs, run.ended)
            self._taken(key)
        self._forget_ids(keys)
        return True

    def _forget_ids(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._ids.pop(key, None)

    def _try_to_send(self, key: str) -> None:
        try:
            self._send(key)
            self._taken(key)
        except Exception as error:
            # Refused for what it says (also: its run was deleted, so look again once). Others must not wait for it.
            self._attempts[key] = self._attempts.get(key, 0) + 1
            if not is_refusal(error) or self._attempts[key] == 1:
                raise
            self._refused[key] = one_line(error, self._uri)

    def _taken(self, key: str) -> None:
        self._attempts.pop(key, None)
        self._refused.pop(key, None)

    def _send(self, key: str) -> None:
        """What a run lacks: usually one request, and another one at its end, which is told last."""
        from mlflow.entities import Metric, Param, RunTag

        assert self._client is not None
        run = self._run(key)
        told = self._told.get(key) or self._create(key, run)
        params = [Param(name, value) for name, value in run.params.items() if name not in told.params]
        tags = {name: value for name, value in run.tags.items() if told.tags.get(name) != value}
        for some in _parts([point for point in run.points if point[0] not in told.epochs]):
            metrics = [Metric(name, value, when, step) for step, when, each in some for name, value in each.items()]
            if metrics:
                self._client.log_batch(told.run_id, metrics, params[:90])
                told.epochs |= {step for step, _, _ in some}
                told.params |= {param.key for param in params[:90]}
                params = params[90:]
        if params or tags:
            self._client.log_batch(told.run_id, [], params, [RunTag(name, value) for name, value in tags.items()])
        told.params |= set(run.params)
        told.tags |= tags
        if (run.status, run.ended) == (told.status, told.ended):
            return
        if run.ended is not None:
            self._client.set_terminated(told.run_id, run.status, run.ended)
        elif run.status != told.status:
            self._client.update_run(told.run_id, run.status)
        told.status, told.ended = run.status, run.ended

    def _create(self, key: str, run: NewRun) -> _Told:
        assert self._client is not None
        made = self._client.create_run(self._experiment, run.started, run.tags, run.name)
        if not made.info.run_id or made.info.experiment_id != self._experiment:
            raise OutOfReachError("what answers there is no MLflow server")
        self._told[key] = _Told(made.info.run_id, tags=dict(run.tags))
        return self._told[key]

    def _run(self, key: str) -> NewRun:
        """As MLflow should have it now."""
        view = self._mirror.view(key, None if key == PARENT else self._told[PARENT].run_id)
        ended = None if view.ended is None else _milliseconds(view.ended)
        points = [(epoch, _milliseconds(view.times[epoch]), view.epochs[epoch]) for epoch in sorted(view.epochs)]
        params = {name: _text(value)[:_LONGEST_PARAM] for name, value in view.params.items()}
        tags = {name: _text(value)[:_LONGEST_TAG] for name, value in view.tags.items()}
        name, run_id = _text(view.name)[:_LONGEST_NAME], self._ids.setdefault(key, uuid4().hex)
        return NewRun(run_id, name, view.status, _milliseconds(view.started), ended, tags, params, points)

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
        client = mlflow_client.connect(self._uri)
        self._experiment = mlflow_client.experiment(client, self._uri, self._mirror.record.sweep["sweep"])
        self._database = self._stamp()
        self._write = mlflow_client.writer(client, self._uri)
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
        runs = {
            run.info.run_id: run
            for run in mlflow_client.search(client, self._experiment, self._mirror.record.sweep["id"])
        }
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
        ended = view.ended is not None and (told.status, told.ended) == (view.status, _milliseconds(view.ended))
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


def _parts(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Epochs, as many at a time as one request takes; those of one epoch are never parted."""
    part: list[Point] = []
    size = 0
    for point in points:
        if part and size + len(point[2]) > _METRICS:
            yield part
            part, size = [], 0
        part.append(point)
        size += len(point[2])
    yield part


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _text(value: Any) -> str:
    """As databases take it: without NUL, and without halves of surrogate pairs."""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
