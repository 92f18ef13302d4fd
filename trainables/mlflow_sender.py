"""The process that sends a journal to MLflow. ``trainables.tracking`` starts it, and says why there is one.

``python -m trainables.mlflow_sender RUN --follow`` goes on while the sweep runs, ``--once`` sends all there is,
``--check`` only connects. The tracking URI comes as JSON in the first line of its standard input; with ``--follow`` a
second line says that the sweep is over, and the end of the input without one that the driver has died. Each status
goes to standard output as a line of JSON, warnings and tracebacks to the run's log. ``--ui`` shows the embedded
database of a folder of runs in MLflow's server.
"""

import argparse
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from trainables.errors import run_log
from trainables.journal import JournalReader, RunRecord, TrialRecord
from trainables.runs import JOURNAL, SHORT
from trainables.tracking import LONGEST_WAIT, RESTART, Status, unreachable
from trainables.tracking_uri import default_uri, is_database, mask, sqlite_path, sqlite_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

ARTIFACTS = ("sweep.toml", "results.parquet", "report.html", "figures/*.png", "tables/*.md", "exports/*.toml")
"""The files of a run's folder that its parent run gets. Checkpoints stay where they are."""

PARENT = ""
"""The key of the parent run among the keys of the trials."""

_STATUS = {"completed": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}
_LONGEST_NAME, _LONGEST_PARAM, _LONGEST_TAG = 250, 6000, 8000
_METRICS, _PARAMS = 800, 100
"""Entries a request: MLflow takes 1,000 in all, of these 100 parameters and 100 tags."""
_HALF_MADE = re.compile(r"already exists|duplicate column|no such (table|index|column)|malformed", re.IGNORECASE)
_OUTDATED = re.compile(r"out-of-date database schema|Can't locate revision", re.IGNORECASE)


class UnreachableError(Exception):
    """Nothing can be sent to MLflow now."""


class ReplacedError(UnreachableError):
    """The database's file was deleted or replaced: only a new process lets go of the old one."""


@dataclass(frozen=True)
class Content:
    """What MLflow should show of one run. Times are milliseconds since 1970."""

    name: str
    status: str
    started: int
    ended: int | None
    """None while it runs; never before ``started``, though a clock may have been set back."""
    params: dict[str, str]
    tags: dict[str, str]
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)


def parent_content(run: RunRecord) -> Content:
    """The sweep."""
    status = "RUNNING" if run.end_time is None else "FINISHED" if run.done else "KILLED"
    started, ended = _span(run.started, run.end_time)
    params = _texts(run.sweep.get("params", {}), _LONGEST_PARAM)
    return Content(_text(run.sweep["name"])[:_LONGEST_NAME], status, started, ended, params, _sweep_tags(run))


def trial_content(run: RunRecord, trial: TrialRecord, parent_id: str) -> Content:
    """One trial: a child of the run ``parent_id``."""
    status = _STATUS.get(trial.status, "RUNNING" if trial.end_time is None else "KILLED")
    shown = "interrupted" if status == "KILLED" else trial.status
    started, ended = _span(trial.started, trial.end_time)
    tags: dict[str, Any] = {**trial.info, "mlflow.parentRunId": parent_id, "vqsweep.trial": trial.key}
    tags |= {"vqsweep.status": shown, "vqsweep.reason": trial.reason or shown}
    tags |= {} if ended is None else {"vqsweep.epochs": len(trial.epochs)}
    values = {n: trial.config[n] for n in (*run.sweep.get("swept", ()), "seed") if n in trial.config}
    name = " ".join(f"{SHORT.get(n, n)}={value}" for n, value in values.items()) or f"trial {trial.number}"
    tags = _sweep_tags(run) | _texts(tags, _LONGEST_TAG)
    params = _texts(trial.config, _LONGEST_PARAM)
    return Content(_text(name)[:_LONGEST_NAME], status, started, ended, params, tags, trial.epochs, trial.times)


def _sweep_tags(run: RunRecord) -> dict[str, str]:
    tags = {**run.sweep.get("tags", {}), "vqsweep.sweep": run.sweep["id"]}
    tags |= {"mlflow.source.git.commit": tags["commit"]} if "commit" in tags else {}
    return _texts(tags, _LONGEST_TAG)


def _span(started: float, ended: float | None) -> tuple[int, int | None]:
    return round(started * 1000), None if ended is None else round(max(ended, started) * 1000)


def _texts(values: dict[str, Any], longest: int) -> dict[str, str]:
    return {name: _text(value)[:longest] for name, value in values.items()}


def _text(value: Any) -> str:
    """As databases take it: without NUL, and without halves of surrogate pairs."""
    return str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def artifacts(folder: Path) -> list[Path]:
    """The files of a run that are sent. Neither a link nor what lies behind one is: it may lead anywhere."""
    found = [file for pattern in ARTIFACTS for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and file.resolve() == folder.resolve() / file.relative_to(folder)]


@dataclass
class _Sent:
    """What MLflow has of one run."""

    run_id: str
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    epochs: set[int] = field(default_factory=set)
    state: tuple[str, int | None] = ("RUNNING", None)


class Sender:
    """Sends one run's journal. ``update`` raises whatever fails, and sends again at the next call."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self.run, self._reader = RunRecord(), JournalReader(folder / JOURNAL)
        self.refused: dict[str, str] = {}
        """By trial, the error of a value that MLflow does not take."""
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._file: tuple[int, int] | None = None
        self._sent: dict[str, _Sent] = {}
        self._changed: set[str] = set()
        self._artifacts_of: int | None = None
        self._lock = FileLock(folder / ".tracking.lock", thread_local=False)

    @property
    def runs(self) -> int:
        """Runs that MLflow has, the parent included."""
        return len(self._sent)

    def update(self, nobody_writes: bool = False) -> None:
        """Read on, and send what is new. With ``nobody_writes``, whatever still runs was killed."""
        for event in self._reader.new():
            self.run.apply(event)
            if "trial" in event:
                self._changed.add(event["trial"])
            else:
                self._changed |= {PARENT, *self.run.trials}
        if not self.run.sweep:
            return
        if nobody_writes and self.run.end_time is None:
            self.run.apply({"event": "pause", "time": self.run.last_time})
            self._changed |= {PARENT, *self.run.trials}
        if self._client is not None and self._file != _identity(self.uri):
            raise ReplacedError(f"{sqlite_path(self.uri)} was deleted or replaced")
        if self._changed or self._client is None:
            self._claim()
            try:
                self._send_changes()
            except Exception as error:
                self._client = None  # the next call compares with what MLflow has then
                if not is_refusal(error):
                    raise
                self._send_changes()  # a run that somebody deleted takes nothing, and is made again

    def _claim(self) -> None:
        """One sender a run: two at once would both create the runs that they do not find."""
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                message = f"{self.folder.name}: a sweep or a sync is sending this run now; wait until it ends"
                raise UnreachableError(message) from None

    def _send_changes(self) -> None:
        """The parent exists before its children, and ends after them, once all of them are found in MLflow."""
        if self._client is None:
            self._client = connect(self.uri)
            self._experiment = _experiment(self._client, self.uri, self.run.sweep["sweep"])
            self._file = _identity(self.uri)
            self._find()
        self._send_trials()
        if self.run.end_time is not None and PARENT in self._changed:
            self._find()
            self._send_trials()
            self._send_artifacts()
        if PARENT in self._changed:
            self._send(PARENT, parent_content(self.run))
            self._changed.discard(PARENT)

    def _send_trials(self) -> None:
        parent = self._sent.get(PARENT) or self._create(PARENT, parent_content(self.run))
        for key in sorted(self._changed & self.run.trials.keys()):
            content = trial_content(self.run, self.run.trials[key], parent.run_id)
            try:
                self._send(key, content)
                self.refused.pop(key, None)
            except Exception as error:
                if not is_refusal(error):
                    raise
                if key in self._sent and self._is_gone(self._sent[key].run_id):
                    raise
                logger.warning("MLflow refuses a value of %s\n%s", key, mask(traceback.format_exc(), self.uri))
                self.refused[key] = one_line(error, self.uri)  # the others do not wait for it
            self._changed.discard(key)
        self._changed &= {PARENT, *self.run.trials}

    def _is_gone(self, run_id: str) -> bool:
        """Whether somebody deleted a run meanwhile."""
        assert self._client is not None
        return bool(self._client.get_run(run_id).info.lifecycle_stage != "active")

    def _send(self, key: str, content: Content) -> None:
        """What a run lacks, its end last: MLflow has all of a run that has ended there."""
        from mlflow.entities import Metric, Param, RunTag

        assert self._client is not None
        sent = self._sent.get(key) or self._create(key, content)
        new = [epoch for epoch in sorted(content.epochs) if epoch not in sent.epochs]
        times = {epoch: round(content.times[epoch] * 1000) for epoch in new}
        metrics = [
            [
                Metric(name, value, times[epoch], epoch)
                for epoch in part
                for name, value in content.epochs[epoch].items()
            ]
            for part in _epoch_parts(new, content)
        ]
        params = [Param(name, value) for name, value in content.params.items() if name not in sent.params]
        tags = [RunTag(name, value) for name, value in content.tags.items() if sent.tags.get(name) != value]
        chunks = (metrics, _parts(params, _PARAMS), _parts(tags, _PARAMS))
        parts: list[tuple[Any, ...]] = list(zip_longest(*chunks, fillvalue=[]))
        for some_metrics, some_params, some_tags in reversed(parts):  # most tags are in the first part, sent last
            self._client.log_batch(sent.run_id, some_metrics, some_params, some_tags)
        sent.epochs, sent.params = sent.epochs | set(new), sent.params | content.params.keys()
        sent.tags |= content.tags
        state = (content.status, content.ended)
        if state != sent.state:
            if content.ended is None:
                self._client.update_run(sent.run_id, content.status)
            else:
                self._client.set_terminated(sent.run_id, content.status, content.ended)
        sent.state = state

    def _create(self, key: str, content: Content) -> _Sent:
        assert self._client is not None
        made = self._client.create_run(self._experiment, content.started, content.tags, content.name)
        if not made.info.run_id or made.info.experiment_id != self._experiment:
            raise UnreachableError("what answers there is no MLflow server")
        self._sent[key] = _Sent(made.info.run_id, tags=dict(content.tags))
        return self._sent[key]

    def _find(self) -> None:
        """What MLflow has of this sweep; every run is then compared with it."""
        found: dict[str, list[Run]] = {}
        for run in self._search():
            key = run.data.tags.get("vqsweep.trial", PARENT)
            if key != PARENT or "mlflow.parentRunId" not in run.data.tags:
                found.setdefault(key, []).append(run)
        self._sent = {}
        self._changed = {PARENT, *self.run.trials}
        self._take(PARENT, parent_content(self.run), found.get(PARENT, []))
        if PARENT in self._sent:
            parent_id = self._sent[PARENT].run_id
            for key, trial in self.run.trials.items():
                self._take(key, trial_content(self.run, trial, parent_id), found.get(key, []))

    def _take(self, key: str, content: Content, runs: "list[Run]") -> None:
        """Go on in the run of this name and parent, of several the one that began with ours, then the oldest.

        Others with our tags are a user's, or an answer of the server's that was lost: they stay as they are.
        """
        tag = "mlflow.parentRunId"
        own = [r for r in runs if r.info.run_name == content.name and r.data.tags.get(tag) == content.tags.get(tag)]
        if not own:
            return
        run = min(own, key=lambda r: (r.info.start_time != content.started, r.info.start_time, r.info.run_id))
        state = (run.info.status, None if run.info.status == "RUNNING" else run.info.end_time)
        tags = dict(run.data.tags)
        complete = state == (content.status, content.ended) and content.ended is not None
        complete = complete and tags.get("vqsweep.epochs") == content.tags.get("vqsweep.epochs")
        epochs = set(content.epochs) if complete else self._epochs_of(run, content)
        self._sent[key] = _Sent(run.info.run_id, set(run.data.params), tags, epochs, state)

    def _epochs_of(self, run: "Run", content: Content) -> set[int]:
        """The epochs that MLflow has of a run that is not over, by their step alone.

        An epoch whose line was damaged is written to the journal again, at another time: as a second point to MLflow.
        """
        assert self._client is not None
        names = {next(iter(metrics)) for metrics in content.epochs.values() if metrics} or run.data.metrics.keys()
        histories = (self._client.get_metric_history(run.info.run_id, n) for n in names & run.data.metrics.keys())
        return {point.step for history in histories for point in history}

    def _search(self) -> "Iterator[Run]":
        assert self._client is not None
        query, token = f"tags.`vqsweep.sweep` = '{self.run.sweep['id']}'", None
        while token != "":
            runs = self._client.search_runs(
                [self._experiment], query, max_results=500, order_by=["attributes.start_time"], page_token=token
            )
            yield from runs
            token = runs.token or ""

    def _send_artifacts(self) -> None:
        assert self._client is not None
        files, ended = artifacts(self.folder), parent_content(self.run).ended
        if not files or self._artifacts_of == ended:
            return
        run = self._client.get_run(self._sent[PARENT].run_id)
        if moved := _moved(str(run.info.artifact_uri), self.uri):
            self.refused[PARENT] = moved
            return
        for file in files:
            place = file.parent.relative_to(self.folder).as_posix()
            self._client.log_artifact(run.info.run_id, str(file), None if place == "." else place)
        self._artifacts_of = ended


def _parts(entries: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [entries[first : first + most] for first in range(0, len(entries), most)]


def _epoch_parts(epochs: Sequence[int], content: Content) -> list[list[int]]:
    """Epochs, as many at a time as one request takes; the metrics of one epoch arrive together or not at all."""
    parts: list[list[int]] = [[]] if epochs else []
    size = 0
    for epoch in epochs:
        size += len(content.epochs[epoch])
        if parts[-1] and size > _METRICS:
            parts.append([])
            size = len(content.epochs[epoch])
        parts[-1].append(epoch)
    return parts


def _moved(artifact_uri: str, uri: str) -> str | None:
    """Words for artifacts that would go to where the database was before its folder was moved; None if it was not."""
    path, parts = sqlite_path(uri), urlsplit(artifact_uri)
    if path is None or parts.scheme != "file":
        return None
    old, here = Path(unquote(parts.path)), path.parent / "mlartifacts"
    root = next((parent for parent in old.parents if parent.name == "mlartifacts"), here)
    if root.resolve() == here.resolve():
        return None
    return (
        f"artifacts: MLflow keeps their absolute path, {root.parent}, and {path.name} has moved to {path.parent}; make "
        f"the old path a link to the new one, or rename {path} and send each run again with `python -m sweeps.sync`"
    )


def connect(uri: str) -> "MlflowClient":
    """MLflow's client. A new SQLite database is complete from its first moment on."""
    if problem := unreachable(uri):
        raise UnreachableError(problem)
    from mlflow import MlflowClient

    if (path := sqlite_path(uri)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        uri = _from_its_folder(path, uri)
        with FileLock(f"{path}.lock"):
            _repair(path, uri)
            if not path.exists() or not path.stat().st_size:
                _make(path)
    elif is_database(uri):
        from sqlalchemy import create_engine, pool

        create_engine(uri, poolclass=pool.NullPool).connect().close()  # MLflow's client would ask for 100 seconds
    return MlflowClient(uri)


def _from_its_folder(path: Path, uri: str) -> str:
    """The URI relative to the database's folder, which becomes this process's, if the absolute one has percent signs.

    MLflow would make an empty folder of the encoded name beside.
    """
    if "%" not in uri or "?" in uri:
        return uri
    os.chdir(path.parent)
    return f"sqlite:///{uri.rpartition('/')[2]}"


def _repair(path: Path, uri: str) -> None:
    """Rename a database whose schema was left half made. ``UnreachableError`` for one of another version of MLflow."""
    from mlflow import MlflowClient

    if not path.exists() or not path.stat().st_size:
        return
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:
        if _OUTDATED.search(str(error)):
            way = f"copy {path}, then run `mlflow db upgrade {uri}`; or rename it, and the journals fill a new one"
            raise UnreachableError(f"made by another version of MLflow: {way}") from error
        if not _HALF_MADE.search(str(error)):
            raise
        broken = path.with_name(f"{path.name}.broken-{time.strftime('%Y%m%d-%H%M%S')}")
        path.rename(broken)
        logger.warning("%s was left half made; renamed to %s, and the journal fills a new one", path, broken.name)
        raise ReplacedError(f"{path} was left half made: renamed to {broken.name}") from error


def _make(path: Path) -> None:
    """Make a database beside its place, and move it there whole: a kill at any moment leaves all of it or none."""
    from mlflow import MlflowClient

    beside = path.with_name(f".{path.name}.new")
    for left_over in (beside, beside.with_name(f"{beside.name}-journal")):
        left_over.unlink(missing_ok=True)
    MlflowClient(_from_its_folder(beside, sqlite_uri(beside))).search_experiments(max_results=1)
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    if path.exists() and path.stat().st_size:  # a server of MLflow's has made it meanwhile
        beside.unlink()
    else:
        beside.replace(path)


def _experiment(client: "MlflowClient", uri: str, sweep: str) -> str:
    """The id of the experiment ``vqsweep/<sweep>``, made if need be. A server decides itself where artifacts go."""
    from mlflow.exceptions import MlflowException

    name, path = f"vqsweep/{sweep}", sqlite_path(uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, None if path is None else (path.parent / "mlartifacts" / sweep).as_uri())
        except MlflowException as error:  # another sweep was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)
    if found is None or found.name != name or not found.experiment_id:
        raise UnreachableError("what answers there is no MLflow server")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _identity(uri: str) -> tuple[int, int] | None:
    """Which file a SQLite database is; None for a server, and for no file."""
    path = sqlite_path(uri)
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_dev, found.st_ino


def is_refusal(error: Exception) -> bool:
    """Whether MLflow, or its database, does not take a value, however often it is sent."""
    return getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def one_line(error: Exception, uri: str) -> str:
    """The message of an error, in one line of at most 300 characters, without secrets."""
    return mask(" ".join(str(error).split()) or type(error).__name__, uri)[:300]


class Follower:
    """Follows the journal of a running sweep, or sends it once, and reports each change of its status."""

    def __init__(self, folder: Path, uri: str, output: TextIO) -> None:
        self._sender, self._uri, self._output = Sender(folder, uri), uri, output
        self._status: Status | None = None
        self.closing = threading.Event()
        """Set when the journal will not grow any more."""

    def follow(self) -> None:
        """Send what comes until all is sent after the sweep's end. ``ReplacedError`` if a fresh process must go on."""
        wait = 1.0
        while True:
            last = self.closing.is_set()  # before the journal is read: it then holds all
            problem = self._attempt(last)
            if last and problem is None:
                return
            wait = 1.0 if last or problem is None else min(2 * wait, LONGEST_WAIT)
            threading.Event().wait(wait) if last else self.closing.wait(wait)

    def once(self) -> None:
        """Send all there is; whatever still runs in the journal was killed."""
        self._attempt(True, nobody_writes=True)

    def _attempt(self, last: bool, nobody_writes: bool = False) -> str | None:
        problem = None
        try:
            self._sender.update(nobody_writes)
        except ReplacedError:
            raise
        except Exception as error:
            problem = one_line(error, self._uri)
            if self._status is None or self._status.problem != problem:
                logger.warning("cannot send to MLflow: %s\n%s", problem, mask(traceback.format_exc(), self._uri))
        refused = next((f"{key or 'the sweep'}: {why}" for key, why in self._sender.refused.items()), None)
        self._report(Status(problem, refused, self._sender.runs, last, last and problem is None))
        return problem

    def _report(self, status: Status) -> None:
        if status != self._status:
            self._status = status
            print(json.dumps(asdict(status)), file=self._output, flush=True)


def show(out: Path, port: int) -> None:
    """Become MLflow's server on the embedded database of the runs under ``out``, for one user on this machine.

    One worker answers in 1 ms, where each of several takes 44; the processes of MLflow's jobs would take 226 MB each.
    """
    uri = default_uri(out)
    connect(uri)
    uri = _from_its_folder(out.absolute() / "mlflow.db", uri)
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server += ["--backend-store-uri", uri, "--artifacts-destination", (out.absolute() / "mlartifacts").as_uri()]
    os.execve(sys.executable, server, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ})


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainables.mlflow_sender")
    parser.add_argument("folder", type=Path, help="a run's folder; with --ui, the folder of all runs")
    modes = parser.add_mutually_exclusive_group(required=True)
    for mode in ("follow", "once", "check", "ui"):
        modes.add_argument(f"--{mode}", action="store_const", dest="mode", const=mode)
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    if arguments.mode == "ui":
        show(arguments.folder, arguments.port)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the driver, which closes this process
        signal.signal(number, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no status
    uri = json.loads(sys.stdin.readline())
    if arguments.mode == "check":
        status = Status()
        try:
            connect(uri).search_experiments(max_results=1)
        except Exception as error:
            status = Status(one_line(error, uri))
        print(json.dumps(asdict(status)), file=output, flush=True)
        return 0
    os.nice(10)  # trials first
    follower = Follower(arguments.folder, uri, output)
    with run_log(arguments.folder) if arguments.folder.is_dir() else nullcontext():
        try:
            if arguments.mode == "once":
                follower.once()
                return 0
            threading.Thread(target=_listen, args=[follower.closing], daemon=True).start()
            follower.follow()
        except ReplacedError as error:
            logger.warning("%s; a new process goes on", error)
            return RESTART
    return 0


def _listen(closing: threading.Event) -> None:
    """End at once with the driver, which says before whether the sweep is over."""
    if sys.stdin.readline():
        closing.set()
        while sys.stdin.readline():
            pass
    os._exit(0)


if __name__ == "__main__":
    os._exit(main())  # all is sent and flushed; unloading mlflow module by module would take another second
