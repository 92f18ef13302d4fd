"""The process that sends a journal to MLflow. ``trainables.tracking`` starts it, and says why there is one.

``python -m trainables.mlflow_sender RUN`` sends all there is to MLFLOW_TRACKING_URI, and with ``--follow`` what comes:
a line of its standard input says that the sweep is over, and the end of the input that the driver is gone. Each status
goes to standard output as a line of JSON; standard error is the run's log. Any error ends the process. ``--ui`` shows
the embedded database of a folder of runs.
"""

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout
from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag

from trainables import mlflow_view as view
from trainables.journal import JournalReader, RunRecord, TrialRecord
from trainables.mlflow_pictures import KEYS, new_pictures
from trainables.mlflow_store import connect, experiment
from trainables.models import MODEL
from trainables.runs import JOURNAL, MLFLOW_PAGES, PRIOR_RUN, SUMMARY
from trainables.storage import replace_file
from trainables.tracking import Status
from trainables.tracking_uri import DATABASES, default_uri, mask, sqlite_path

logger = logging.getLogger(__name__)

_TABLES = ("tables/*.md", "tables/*.tex", "tables/*.csv")
ARTIFACTS = ("sweep.toml", "results.parquet", "rates.json", "report.html", "figures/*.png", *_TABLES, "exports/*.toml")
"""The files of a run's folder that its parent run gets. Checkpoints stay where they are."""

REPORTS = ("report.html", "tables/results.md", "figures/pareto.png")
"""The artifact that a description links: the first that there is."""

IMAGES = "mlflow.loggedImages"
"""The tag by which MLflow's ``log_image`` marks a run that has some."""

UI = "http://127.0.0.1:5000"
"""Where ``make ui`` shows the embedded database unless it is told another port."""

PARENT = ""
"""The key of the parent run among the keys of the trials."""

_STATUS = {"completed": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}


class Sender:
    """Sends one run's journal. After an error, a new one looks for what MLflow has, and sends the rest."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._folder, self._uri, self._client = folder, uri, connect(uri)
        self._record, self._reader = RunRecord(), JournalReader(folder / JOURNAL)
        self._experiment = ""
        self._dataset: DatasetInput | None = None
        self._found: dict[str, list[Run]] = {}
        """MLflow's runs of this sweep when the sender began, by trial."""
        self._runs: dict[str, Run] = {}
        """The run of each trial, with the parameters and tags that were sent since."""
        self._pages = 0
        """The number of runs whose addresses are written."""
        self._steps: dict[str, set[int]] = {}
        """The epochs that each of them has."""
        self._pictured: dict[str, set[tuple[str, int]]] = {}
        """The images that each of them has, by key and epoch."""

    def update(self, nobody_writes: bool = False) -> int:
        """Read on, and send what is new; the number of runs. With ``nobody_writes``, whatever still runs was killed."""
        record, changed = self._record, set[str]()
        for event in self._reader.new():
            record.apply(event)
            changed |= {event["trial"]} if "trial" in event else {PARENT, *record.trials}
        if nobody_writes and record.end_time is None:
            record.apply({"event": "pause", "time": record.last_time})
            changed |= {PARENT, *record.trials}
        if record.sweep and not self._experiment:
            self._begin()
        if self._experiment:
            for key in sorted(changed & record.trials.keys()):
                self._send_trial(record.trials[key])
            if PARENT in changed:  # it ends after its children
                self._send_parent()
            self._write_pages()
        return len(self._runs)

    def _write_pages(self) -> None:
        """Where a browser finds each trial: on the server, or on that of ``make ui`` for the embedded database."""
        parts = urlsplit(self._uri)
        if self._pages == len(self._runs) or not (parts.scheme.startswith("http") or sqlite_path(self._uri)):
            return
        self._pages = len(self._runs)
        server = UI if sqlite_path(self._uri) else f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        pages = {key: f"{server.rstrip('/')}/{view.place(self._experiment, run)}" for key, run in self._runs.items()}
        replace_file(self._folder / MLFLOW_PAGES, json.dumps(pages).encode(), durable=False)

    def _begin(self) -> None:
        """Find the experiment and the runs that MLflow has of this sweep; the parent is there before its children."""
        database, folder = (
            sqlite_path(self._uri),
            self._folder.parent.parent if self._uri.startswith(DATABASES) else None,
        )
        place = database.parent if database else folder  # else MLflow takes the folder that a command was started in
        self._experiment = experiment(self._client, self._record.sweep["sweep"], place)
        self._dataset = view.dataset(self._record.sweep.get("params", {}))
        query = f"tags.`vqsweep.sweep` = '{self._record.sweep['id']}'"
        for run in self._client.search_runs([self._experiment], query, max_results=50_000):
            key = run.data.tags.get("vqsweep.trial", PARENT)
            if key != PARENT or "mlflow.parentRunId" not in run.data.tags:
                self._found.setdefault(key, []).append(run)
        self._run(PARENT, self._record.sweep["name"], self._record.started, self._parent_tags())
        self._send_experiment()

    def _run(self, key: str, name: str, started: float, tags: dict[str, Any]) -> Run:
        """The run of the same start, or else of the same name; made if there is none.

        Others with our tags are a user's, or an answer of the server's that was lost: they stay as they are.
        """
        if key not in self._runs:
            start, name = round(started * 1000), name[:250]
            own = [run for run in self._found.get(key, []) if run.info.start_time == start or run.info.run_name == name]
            own = own or [self._client.create_run(self._experiment, start, _texts(tags, 8000), name)]
            run = min(own, key=lambda run: (run.info.start_time != start, run.info.start_time))
            first = view.shown_metrics(self._record.sweep["sweep"])[0]  # which every epoch has
            known = self._client.get_metric_history(run.info.run_id, first) if first in run.data.metrics else []
            if self._dataset is not None and not (run.inputs and run.inputs.dataset_inputs):
                self._client.log_inputs(run.info.run_id, [self._dataset])
            self._runs[key], self._steps[key] = run, {point.step for point in known}
        return self._runs[key]

    def _sweep_tags(self) -> dict[str, Any]:
        sweep = self._record.sweep
        ours = {"vqsweep.sweep": sweep["id"], "run": sweep["name"]}
        of = view.model_tags(sweep.get("params", {}))
        return {**sweep.get("tags", {}), **of, **ours, **view.source_tags(sweep)}

    def _parent_tags(self) -> dict[str, Any]:
        return {**self._sweep_tags(), "vqsweep.planned": self._record.sweep.get("trials", "unknown")}

    def _send_experiment(self) -> None:
        """The interface that it opens in, its description and its views; a user's own description stays."""
        id_, sweep = self._experiment, self._record.sweep["sweep"]
        known = self._client.get_experiment(id_).tags
        parents = self._client.search_runs([id_], "tags.`vqsweep.planned` LIKE '%'", max_results=view.LISTED)
        tags = {view.KIND: known.get(view.KIND, "custom_model_development")}
        tags |= view.described_as(view.experiment_note(id_, sweep, parents), known)
        for name in view.VIEWS:
            key = f"{view.VIEW}{name}"
            tags[key] = view.saved_view(name, sweep, view.swept(self._record), known.get(key))
        for key, value in tags.items():
            if known.get(key) != value and len(value) <= view.LONGEST:
                self._client.set_experiment_tag(id_, key, value)

    def _send_parent(self) -> None:
        run, record = self._runs[PARENT], self._record
        self._send_words(run, record.sweep.get("params", {}), self._parent_tags())
        self._send_state(run, "FINISHED" if record.done else "KILLED", record)
        if record.end_time is not None:
            found = _summary(self._folder)
            front = set(found.get("front", ()))
            self._send_findings(run, found)
            self._send_front(front)
            self._send_experiment()
            self._send_artifacts(run, view.table_of_trials(record, front))

    def _send_findings(self, run: Run, found: dict[str, Any]) -> None:
        """Metrics of the whole sweep, and its description. Of a final training the metrics are its only trial's."""
        record, report = self._record, next(filter(self._has, REPORTS), None)
        final, trials = record.sweep["sweep"] == "final", list(record.trials.values())
        note = view.run_note(self._experiment, run, found.get("findings", ()), report)
        if final:
            note = view.final_note(record.sweep)
        elif record.sweep["sweep"] == PRIOR_RUN:
            note = view.prior_note(record.sweep, note)
        tags = view.described_as(note, run.data.tags)
        tags[view.TABLES] = json.dumps([{"path": view.TABLE, "type": "table"}])
        self._send_words(run, {}, tags | ({"vqsweep.report": report} if report else {}))
        alone = trials[0].epochs.get(trials[0].last_epoch, {}) if final and trials else {}
        metrics = {**alone, **found.get("metrics", {}), **view.trial_counts(record)}
        new = {name: value for name, value in metrics.items() if run.data.metrics.get(name) != value}
        if new:  # a value that has changed since must be the later one
            when = time.time() if new.keys() & run.data.metrics.keys() else record.last_time
            points = [Metric(name, value, round(when * 1000), 0) for name, value in new.items()]
            self._client.log_batch(run.info.run_id, points)
            run.data.metrics.update(new)

    def _send_front(self, front: set[str]) -> None:
        """Which trials are on the front, and which were before a resume."""
        for key, child in self._runs.items():
            if key in front or child.data.tags.get("front") == "yes":
                self._send_words(child, {}, {"front": "yes" if key in front else "no"})

    def _has(self, name: str) -> bool:
        return (self._folder / name).is_file()

    def _send_model(self, run: Run) -> None:
        """The model that a final training left."""
        sweep, trials = self._record.sweep, list(self._record.trials.values())
        if self._record.done and sweep["sweep"] == "final" and trials and self._has(MODEL):
            from trainables.mlflow_model import register  # and torch, which a sweep's sender has no use for

            register(self._client, run.info.run_id, self._folder, sweep, trials[0])

    def _send_trial(self, trial: TrialRecord) -> None:
        """A child of the sweep's run: its end last, so that MLflow has all of a run that has ended there."""
        record, status, shown = self._record, _STATUS.get(trial.status, "KILLED"), view.became(trial)
        parent = {"mlflow.parentRunId": self._runs[PARENT].info.run_id, "vqsweep.trial": trial.key}
        label = view.configuration(record, trial)
        result = {"configuration": label, "status": shown, "reason": trial.reason or shown}
        tags = {**result, **trial.info, **parent, **self._sweep_tags()}
        run = self._run(trial.key, view.trial_name(record, trial), trial.started, tags)
        self._send_words(run, view.params_in_order(record, trial), tags)
        self._send_epochs(run, trial)
        if trial.end_time is not None and trial.epochs:
            self._send_pictures(run, trial)
        self._send_state(run, status, trial)

    def _send_words(self, run: Run, params: dict[str, Any], tags: dict[str, Any]) -> None:
        """Parameters, of which MLflow keeps the first, and tags, of which it keeps the last."""
        new = {name: value for name, value in _texts(params, 6000).items() if name not in run.data.params}
        other = {name: value for name, value in _texts(tags, 8000).items() if run.data.tags.get(name) != value}
        if new or other:
            entities = [Param(*item) for item in new.items()], [RunTag(*item) for item in other.items()]
            self._client.log_batch(run.info.run_id, [], *entities)
            run.data.params.update(new)
            run.data.tags.update(other)

    def _send_epochs(self, run: Run, trial: TrialRecord) -> None:
        """Epochs that MLflow lacks, by their step: one whose line was damaged comes again at another time."""
        steps = self._steps[trial.key]
        new = sorted(trial.epochs.keys() - steps)
        size = 1000 // max((len(trial.epochs[epoch]) for epoch in new), default=1) or 1  # MLflow's limit of a request
        for part in (new[first : first + size] for first in range(0, len(new), size)):
            points = [(name, value, epoch) for epoch in part for name, value in trial.epochs[epoch].items()]
            metrics = [Metric(name, value, round(trial.times[epoch] * 1000), epoch) for name, value, epoch in points]
            self._client.log_batch(run.info.run_id, metrics)
            steps.update(part)

    def _send_pictures(self, run: Run, trial: TrialRecord) -> None:
        """Reconstructions of the epochs that have some, or what a prior draws, once: MLflow names every image anew."""
        if self._moved(run) is not None:  # sending the parent's artifacts says so
            return
        known = self._pictured.get(trial.key)
        if known is None:
            images = self._client.list_artifacts(run.info.run_id, "images") if run.data.tags.get(IMAGES) else []
            names = [Path(image.path).name.split("+") for image in images if image.path.endswith(".webp")]
            known = self._pictured[trial.key] = {(n[0], int(n[2])) for n in names if n[0] in KEYS}
        for key, epoch, picture in new_pictures(self._folder, self._record, trial, known):
            when = round(trial.times.get(epoch, trial.started) * 1000)
            self._client.log_image(run.info.run_id, picture, key=key, step=epoch, timestamp=when)
            known.add((key, epoch))

    def _send_state(self, run: Run, status: str, record: RunRecord | TrialRecord) -> None:
        if record.end_time is None:
            self._client.update_run(run.info.run_id, "RUNNING")
        else:  # not before its start, though a clock may have been set back
            self._client.set_terminated(run.info.run_id, status, round(max(record.end_time, record.started) * 1000))

    def _moved(self, run: Run) -> Path | None:
        """Where MLflow would put the artifacts of a run, if its database has been moved away from there since."""
        path, old = (
            sqlite_path(self._uri),
            Path(unquote(urlsplit(run.info.artifact_uri).path).partition("/mlartifacts/")[0]),
        )
        return old if path is not None and old.resolve() != path.parent.resolve() else None

    def _send_artifacts(self, run: Run, table: dict[str, Any]) -> None:
        """Files, unless they would go to where the database was before its folder was moved."""
        path, files, old = sqlite_path(self._uri), artifacts(self._folder), self._moved(run)
        if path is not None and old is not None:
            if not files:
                return
            raise FileNotFoundError(
                f"artifacts: MLflow keeps their absolute path, {old}, and {path.name} is in {path.parent}; make the "
                f"old path a link to the new one, or rename {path} and send each run again with `python -m sweeps.sync`"
            )
        for file in files:
            place = file.parent.relative_to(self._folder).as_posix()
            self._client.log_artifact(run.info.run_id, str(file), None if place == "." else place)
        self._client.log_dict(run.info.run_id, table, view.TABLE)
        self._send_model(run)


def _summary(folder: Path) -> dict[str, Any]:
    """What the analysis found; empty before there was one."""
    try:
        found = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s is not sent to MLflow: %s", folder / SUMMARY, error)
        return {}
    return found if isinstance(found, dict) else {}


def artifacts(folder: Path) -> list[Path]:
    """The files of a run that are sent. Neither a link nor what lies behind one is: it may lead anywhere."""
    found = [file for pattern in ARTIFACTS for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and file.resolve() == folder.resolve() / file.relative_to(folder)]


def _texts(values: dict[str, Any], longest: int) -> dict[str, str]:
    """As MLflow and its databases take them."""
    return {name: str(value).replace("\0", "\ufffd")[:longest] for name, value in values.items()}


def noted(error: Exception, uri: str) -> str:
    """An error in one line of at most 300 characters, without secrets; its traceback is logged."""
    logger.warning("cannot send to MLflow\n%s", mask("".join(traceback.format_exception(error)), uri))
    root: BaseException = error
    while deeper := root.__cause__ or root.__context__:
        root = deeper
    said = root if isinstance(root, OSError) else error  # "Connection refused" is the last of four on the way
    return mask(" ".join(str(said).split()) or type(said).__name__, uri)[:300]


def show(out: Path, port: int) -> None:
    """Become MLflow's server on the embedded database of the runs under ``out``, for one user on this machine.

    One worker answers in 1 ms, where each of several takes 44; the processes of MLflow's jobs would take 226 MB each.
    """
    client, address = connect(default_uri(out)), f"http://127.0.0.1:{port}"
    print(f"{address}: choose Model training at its top left, or open")
    for one in client.search_experiments(filter_string="name LIKE 'vqsweep/%'"):
        print(f"  {one.name}: {view.training_link(address, one.experiment_id)}", flush=True)
    server = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server += ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "mlartifacts"]
    os.execve(sys.executable, server, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ})


def send(folder: Path, uri: str, closing: threading.Event, follow: bool) -> Iterator[Status]:
    """Send what the journal holds until the sweep is over, which ``closing`` says."""
    try:
        with FileLock(folder / ".tracking.lock", timeout=0):  # two senders would both make the runs they do not find
            sender, last = Sender(folder, uri), False
            while not last:
                last = closing.wait(1.0)  # before the journal is read: it then holds all
                yield Status(None, sender.update(nobody_writes=not follow), last)
    except Timeout:
        yield Status("a sweep or a sync is sending this run now; wait until it ends")
    except Exception as error:
        yield Status(noted(error, uri))


def _listen(closing: threading.Event) -> None:
    """End at once with the driver, which says before whether the sweep is over."""
    while sys.stdin.readline():
        closing.set()
    os._exit(0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainables.mlflow_sender")
    parser.add_argument("folder", type=Path, help="a run's folder; with --ui, the folder of all runs")
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--ui", action="store_true")
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    if arguments.ui:
        show(arguments.folder, arguments.port)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the driver, which closes this process
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no status
    closing = threading.Event()
    if arguments.follow:
        os.nice(19)  # trials first: Ray runs them at 15
        threading.Thread(target=_listen, args=[closing], daemon=True).start()
    else:
        closing.set()
    for status in send(arguments.folder, os.environ["MLFLOW_TRACKING_URI"], closing, arguments.follow):
        print(json.dumps(asdict(status)), file=output, flush=True)
    os._exit(0)  # all is sent and flushed; unloading mlflow module by module would take another second


if __name__ == "__main__":
    main()
