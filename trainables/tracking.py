"""What MLflow is told: a view of the journal, sent by one thread that may be behind, or find nobody listening.

The journal file is the queue. The thread folds what was written since it last looked into what MLflow should show, and
sends the difference to what it has already told. Live tracking, catching up after an outage, and ``sync`` a week later
are the same few lines, and sending twice changes nothing: runs are found again by their tags, and a point with the same
step, time and value is stored once.

A sweep is a parent run in the experiment ``vqsweep/<sweep>``, a trial a child of it. mlflow is imported by the thread
alone (it takes seconds, for which nobody should wait), and never in a trial.
"""

import logging
import os
import re
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from trainables.journal import Event, JournalReader, RunRecord, TrialRecord
from trainables.machine import command_line
from trainables.runs import JOURNAL, SHORT
from vqcore.config import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

POLL, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two looks at the journal; the most between two attempts to reach a server that fails."""

ARTIFACTS = ("sweep.toml", "results.parquet", "figures/*.png", "tables/*.md", "exports/*.toml")
"""What of the run folder goes to the parent run. Checkpoints stay where they are."""

_PARENT = ""
"""The key of the parent run among the keys of its trials."""
_STATUS = {"completed": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}
_LONGEST_PARAM, _LONGEST_TAG = 6000, 8000
_DATABASES = ("postgresql", "mysql", "mssql")


class Tracker:
    """Follows the journal of a running sweep and tells MLflow. Never blocks its caller, never raises, never gives up.

    ``uri`` is what ``accept`` takes; ``ConfigError`` otherwise. Nothing is started or imported before ``start``.
    """

    def __init__(self, run_folder: Path, uri: str) -> None:
        self._uri = accept(uri)
        self._mirror = _Mirror(run_folder, self._uri)
        self._error: str | None = None
        self._closing, self._stop, self._caught_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def start(self) -> None:
        """Begin to follow the journal, in a thread; the journal need not exist yet."""
        self._thread.start()

    def close(self, timeout: float = 30.0) -> bool:
        """Send what is left, for ``timeout`` seconds at most; whether all of it was sent.

        After False the caller says: ``python -m sweeps.sync NAME --tracking-uri URI``.
        """
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._stop.set()
        self._mirror.release()
        return self._caught_up.is_set() and self._mirror.refused is None

    @property
    def problem(self) -> str | None:
        """Why MLflow is behind, in one line without secrets; None while it is not."""
        return self._error or self._mirror.refused

    def _follow(self) -> None:
        wait = POLL
        while not self._stop.is_set():
            last = self._closing.is_set()  # asked first: what was written before close() is then certainly read
            try:
                self._mirror.update()
                self._error, wait = None, POLL
                if last:
                    self._caught_up.set()
                    return
            except Exception as error:
                self._error = _one_line(error, self._uri)
                self._mirror.disconnect()
                wait = min(2 * wait, LONGEST_WAIT)
            (self._stop if last else self._closing).wait(min(wait, POLL) if last else wait)


def sync(run_folder: Path, uri: str) -> int:
    """Tell MLflow everything that the journal of ``run_folder`` holds; returns the number of runs, parent included.

    What is there already stays as it is. Nobody writes the journal now, so a run that was killed is closed as such.
    Raises ``ConfigError`` if the journal is empty, a sweep is sending it at this moment, or the server fails.
    """
    uri = accept(uri)
    mirror = _Mirror(run_folder, uri)
    if unreachable := check(uri):
        raise ConfigError([unreachable])
    try:
        mirror.update(nobody_writes=True)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError([f"--tracking-uri {_mask(uri, uri)}: {_one_line(error, uri)}; run the same again"]) from error
    finally:
        mirror.release()
    if mirror.refused:
        raise ConfigError([f"{run_folder.name}: all but this was sent: {mirror.refused}"])
    if not mirror.runs:
        raise ConfigError([f"{run_folder}: its {JOURNAL} is missing or empty: there is nothing to send"])
    return mirror.runs


def default_uri(out: Path) -> str:
    """The embedded database of all sweeps under ``out``: ``sqlite:///<out>/mlflow.db``, absolute."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def sync_command(run_folder: Path, uri: str) -> str:
    """The command that sends later what could not be sent to ``uri``; a password in it is left for its owner to add."""
    words = [] if uri == default_uri(run_folder.parent.parent) else ["--tracking-uri", without_password(uri)]
    return command_line("sweeps.sync", run_folder, *words)


def without_password(uri: str) -> str:
    """The URI with ``***`` for its user and password, if it has them."""
    return re.sub(r"(?<=://)[^/]*@", "***@", uri)


def accept(uri: str) -> str:
    """A tracking URI, a SQLite path in it made absolute. ``ConfigError`` for what MLflow or we cannot use."""
    if "://***@" in uri:
        raise ConfigError([f"--tracking-uri {uri}: its password was not written down; give the whole URI again"])
    scheme, separator, rest = uri.partition("://")
    database = scheme.partition("+")[0]  # postgresql+psycopg2: the driver is SQLAlchemy's affair
    if database == "sqlite" and (path := rest.removeprefix("/")) not in ("", ":memory:"):
        return f"{scheme}:///{Path(path).absolute()}"
    if scheme in ("http", "https") and rest.strip("/"):
        return uri
    if uri == "databricks" or (separator and database in (*_DATABASES, "databricks")):
        return uri
    raise ConfigError(
        [
            f"--tracking-uri {_mask(uri, uri)!r}: not a database or server that MLflow still writes to (its file store"
            " has ended); give sqlite:///runs/mlflow.db or http://host:port"
        ]
    )


def check(uri: str, timeout: float = 5.0) -> str | None:
    """One line if nothing can be sent to ``uri`` now, else None; within ``timeout`` seconds, without mlflow.

    A warning for a sweep, which goes on, since its journal keeps everything. ``ConfigError`` as ``accept``.
    """
    uri = accept(uri)
    if (path := _sqlite_path(uri)) is not None:
        trouble = _database_trouble(path)
    elif uri.startswith("http"):
        trouble = _server_trouble(uri, timeout)
    else:
        trouble = None
    if trouble is None:
        return None
    where = f"--tracking-uri {_mask(uri, uri)}"
    return f"{where}: {trouble}; put it right, then send with `python -m sweeps.sync NAME {where}`"


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.partition(":///")[2]) if uri.startswith("sqlite") else None


def _database_trouble(path: Path) -> str | None:
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return f"{folder} is not a folder that can be written to"
    if not path.exists():
        return None
    try:
        with path.open("r+b") as file:
            start = file.read(16)
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return None if start in (b"", b"SQLite format 3\0") else "is not a SQLite database"


def _server_trouble(uri: str, timeout: float) -> str | None:
    parts = urlsplit(uri)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/") + "/health"
    found: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=timeout).close()
            found.append(None)
        except urllib.error.HTTPError as error:  # it answers: whether it lets us in is seen later
            found.append(f"answers HTTP {error.code}" if error.code >= 500 else None)
        except (OSError, ValueError) as error:
            found.append(f"no answer ({getattr(error, 'reason', error)})")

    # In a thread: looking up a name has no timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else f"no answer within {timeout:g} s"


@dataclass(frozen=True)
class _View:
    """What MLflow should show of one run. Times are seconds since 1970."""

    name: str
    status: str
    started: float
    ended: float | None
    params: Mapping[str, Any]
    tags: Mapping[str, Any]
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    times: Mapping[int, float] = field(default_factory=dict)


class _Fold:
    """The journal so far, as the runs that MLflow should show; ``changed`` holds the keys of those not yet told."""

    def __init__(self) -> None:
        self.record = RunRecord()
        self.changed: set[str] = set()
        self.state = "RUNNING"
        self._began = self._last = 0.0
        self._live: set[str] = set()
        self._ended: dict[str, float] = {}

    def apply(self, event: Event) -> None:
        """Take in one event."""
        self.record.apply(event)
        kind, key = event["event"], event.get("trial", _PARENT)
        self.changed.add(key)
        match kind:
            case "sweep":
                self._interrupt(self._last)  # those of a driver that was killed, until they start again
                self._began, self.state = self._began or event["time"], "RUNNING"
            case "start":
                self._live.add(key)
            case "end":
                self._live.discard(key)
                self._ended[key] = event["time"]
            case "pause" | "done":
                self.close("FINISHED" if kind == "done" else "KILLED", event["time"])
        self._last = event["time"]

    def abandon(self) -> None:
        """Nobody will write the journal's end any more."""
        if self.record.sweep and self.state == "RUNNING":
            self.close("KILLED", self._last)

    def close(self, state: str, when: float) -> None:
        """The sweep ended, and so did whatever still ran."""
        self._interrupt(when)
        self.state, self._ended[_PARENT] = state, when
        self.changed.add(_PARENT)

    def _interrupt(self, when: float) -> None:
        self.changed |= self._live
        self._ended |= dict.fromkeys(self._live, when)
        self._live.clear()

    def view(self, key: str, parent_id: str | None) -> _View:
        """The run ``key``; trials name the run that is their parent."""
        sweep = self.record.sweep
        tags = {**sweep.get("tags", {}), "vqsweep.sweep": sweep["id"]}
        if "commit" in tags:
            tags["mlflow.source.git.commit"] = tags["commit"]
        if key == _PARENT:
            ended = None if self.state == "RUNNING" else self._ended[_PARENT]
            return _View(sweep["name"], self.state, self._began, ended, sweep.get("params", {}), tags)
        trial = self.record.trials[key]
        status = _STATUS.get(trial.status, "RUNNING" if key in self._live else "KILLED")
        said = "interrupted" if status == "KILLED" else trial.status
        tags |= {**trial.info, "mlflow.parentRunId": parent_id, "vqsweep.trial": key}
        tags |= {"vqsweep.status": said, "vqsweep.reason": trial.reason or said}
        name, ended = _trial_name(trial, sweep.get("swept", ())), self._ended.get(key, trial.started)
        end = None if status == "RUNNING" else ended
        return _View(name, status, trial.started, end, trial.config, tags, trial.epochs, trial.times)


def _trial_name(trial: TrialRecord, swept: Iterable[str]) -> str:
    values = {name: trial.config[name] for name in (*swept, "seed") if name in trial.config}
    return " ".join(f"{SHORT.get(name, name)}={value}" for name, value in values.items()) or f"trial {trial.number}"


@dataclass
class _Told:
    """What MLflow has been told of one run."""

    run_id: str
    status: str = "RUNNING"
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    epochs: set[int] = field(default_factory=set)


class _Mirror:
    """Brings MLflow to where the journal is. Raises whatever fails; after ``disconnect``, ``update`` goes on."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.refused: str | None = None
        """What the server will not take, however often it is sent."""
        self._folder, self._uri = folder, uri
        self._reader, self._fold = JournalReader(folder / JOURNAL), _Fold()
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._told: dict[str, _Told] = {}
        self._attempts: Counter[str] = Counter()
        self._artifacts_of: float | None = None
        self._lock = FileLock(folder / ".tracking.lock", thread_local=False)

    @property
    def runs(self) -> int:
        """Runs that were told, parent included."""
        return len(self._told)

    def update(self, nobody_writes: bool = False) -> None:
        """Read on, and send what is new."""
        for event in self._reader.new():
            self._fold.apply(event)
        if not self._fold.record.sweep or not self._fold.changed:
            return
        self._claim()
        if nobody_writes:
            self._fold.abandon()
        if self._client is None:
            self._client = self._connect()
        # The parent exists before its children, and is over after them.
        parent = self._told.get(_PARENT) or self._create(_PARENT, self._fold.view(_PARENT, None))
        for key in sorted(self._fold.changed, key=lambda key: key == _PARENT):
            if key == _PARENT or key in self._fold.record.trials:
                self._try_to_send(key, parent.run_id)
            self._fold.changed.discard(key)

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

    def _try_to_send(self, key: str, parent_id: str) -> None:
        try:
            self._send(key, parent_id)
            if key == _PARENT and self._fold.state != "RUNNING":
                self._send_artifacts(parent_id)
        except Exception as error:
            # Refused for what it says (also: its run was deleted, so look again once). Others must not wait for it.
            self._attempts[key] += 1
            if getattr(error, "error_code", "") != "INVALID_PARAMETER_VALUE" or self._attempts[key] == 1:
                raise
            self.refused = f"{key or 'the sweep'}: {_one_line(error, self._uri)}"

    def _send(self, key: str, parent_id: str) -> None:
        from mlflow.entities import Metric, Param, RunTag

        assert self._client is not None
        view = self._fold.view(key, parent_id)
        told = self._told.get(key) or self._create(key, view)
        epochs = sorted(view.epochs.keys() - told.epochs)
        metrics = [
            Metric(name, value, round(view.times[epoch] * 1000), epoch)
            for epoch in epochs
            for name, value in view.epochs[epoch].items()
        ]
        params = [Param(name, str(v)[:_LONGEST_PARAM]) for name, v in view.params.items() if name not in told.params]
        tags = {name: value for name, value in _texts(view.tags).items() if told.tags.get(name) != value}
        if metrics or params or tags:  # the client cuts this into batches of 1,000
            self._client.log_batch(told.run_id, metrics, params, [RunTag(name, value) for name, value in tags.items()])
        if view.status != told.status and view.ended is not None:
            self._client.set_terminated(told.run_id, view.status, round(view.ended * 1000))
        elif view.status != told.status:
            self._client.update_run(told.run_id, view.status)
        told.epochs |= set(epochs)
        told.params |= set(view.params)
        told.tags |= tags
        told.status = view.status

    def _create(self, key: str, view: _View) -> _Told:
        assert self._client is not None
        tags, started = _texts(view.tags), round(view.started * 1000)
        run = self._client.create_run(self._experiment, started, tags, view.name)
        self._told[key] = _Told(run.info.run_id, tags=tags)
        return self._told[key]

    def _send_artifacts(self, run_id: str) -> None:
        assert self._client is not None
        ended = self._fold.view(_PARENT, None).ended
        if self._artifacts_of == ended:
            return
        for pattern in ARTIFACTS:
            for file in sorted(self._folder.glob(pattern)):
                folder = file.parent.relative_to(self._folder).as_posix()
                self._client.log_artifact(run_id, str(file), None if folder == "." else folder)
        self._artifacts_of = ended

    def _connect(self) -> "MlflowClient":
        client = _client(self._uri)
        self._experiment = _experiment(client, self._uri, self._fold.record.sweep["sweep"])
        found: dict[str, _Told] = {}
        page: str | None = None
        query = f"tags.`vqsweep.sweep` = '{self._fold.record.sweep['id']}'"
        while page is None or page:
            runs = client.search_runs(
                [self._experiment], query, max_results=1000, order_by=["attributes.start_time"], page_token=page
            )
            for run in runs:
                key = run.data.tags.get("vqsweep.trial", _PARENT)
                if key not in found and (key == _PARENT or key in self._fold.record.trials):
                    found[key] = self._found(key, run)
            page = runs.token or ""
        self._told = found
        return client

    def _found(self, key: str, run: "Run") -> _Told:
        info, before, view = run.info, self._told.get(key), self._fold.view(key, None)
        told = _Told(info.run_id, info.status, set(run.data.params), dict(run.data.tags))
        if before and before.run_id == info.run_id:
            told.epochs = before.epochs
        elif view.ended is not None and (info.status, info.end_time) == (view.status, round(view.ended * 1000)):
            told.epochs = set(view.epochs)  # a run's end is told last: all before it has arrived
        return told


def _client(uri: str) -> "MlflowClient":
    """A quiet client that fails soon rather than waits; the schema of a new SQLite file is made by one process."""
    for name, value in (
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ("MLFLOW_LOGGING_LEVEL", "WARNING"),
    ):
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # its retries would write over the screen
    from mlflow import MlflowClient

    if (path := _sqlite_path(uri)) is None:
        return MlflowClient(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        return MlflowClient(uri)


def _experiment(client: "MlflowClient", uri: str, sweep: str) -> str:
    """The id of ``vqsweep/<sweep>``, made if need be. A server decides itself where artifacts go."""
    from mlflow.exceptions import MlflowException

    name, path = f"vqsweep/{sweep}", _sqlite_path(uri)
    artifacts = None if path is None else (path.parent / "mlartifacts" / sweep).as_uri()
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifacts))
        except MlflowException:  # another sweep was first
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _texts(tags: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value)[:_LONGEST_TAG] for name, value in tags.items()}


def _one_line(error: Exception, uri: str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return _mask(text, uri)[:300]


def _mask(text: str, uri: str) -> str:
    """``text`` without the user and password of a URI, wherever a library repeats them."""
    secret = uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for known in {secret, unquote(secret)} - {""}:
        text = text.replace(known, "***")
    return re.sub(r"(?<=://)[^\s/'\"]*@", "***@", text)
