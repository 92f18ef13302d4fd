"""The journal's only writer, in the process that drives a run; lost lines are filled in from the checkpoints."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainables.job import Job, Report
from trainables.journal import Event, Journal, RunRecord, read
from trainables.runs import JOURNAL
from trainables.storage import Store, join

Listener = Callable[[Event], None]


class JournalWriter:
    """The only writer of a run's journal. Each epoch and end of a trial is recorded once, however often reported."""

    def __init__(self, run_folder: Path, listeners: list[Listener] | None = None) -> None:
        self._journal = Journal(run_folder / JOURNAL)  # first, since it may end a line, which then counts
        self.run: RunRecord = read(self._journal.path)
        """The fold of the journal, kept up to date."""
        self.listeners: list[Listener] = listeners or []
        """Called with each event, once it is in the journal and in ``run``."""

    def write(self, event: str, **fields: Any) -> None:
        """Record an event of the run itself: ``sweep``, ``pause``, ``done``."""
        record = self._journal.write(event, **fields)
        self.run.apply(record)
        for listener in self.listeners:
            listener(record)

    def started(self, job: Job, info: dict[str, Any] | None = None) -> None:
        """Record that a trial starts, or starts again; ``info`` says where and with what, once its process has it."""
        self.write("start", trial=job.key, **_identity(job), info=info or {})

    def report(self, job: Job, report: Report) -> None:
        """Record what a trial reported. An epoch that is recorded already, and a second end, are ignored."""
        record = self.run.trials.get(job.key)
        if record is None or (report.info and _process(record.info) != _process(report.info)):
            self.started(job, report.info)
        record = self.run.trials[job.key]
        # the configuration once more: what a search drew stands nowhere else, and must not hang on one line
        identity = {} if record.epochs else {"start": _identity(job)}
        if report.metrics and report.epoch not in record.epochs:
            epoch = {"epoch": report.epoch, "metrics": report.metrics, "time": report.time}
            self.write("epoch", trial=job.key, **epoch, **identity)
        if report.status != "running":
            self.ended(job, report.status, report.reason)

    def ended(self, job: Job, status: str, reason: str = "") -> None:
        """Record the end of a trial, unless it has one."""
        record = self.run.trials.get(job.key)
        if record is None or record.status == "running":
            identity = {} if record is not None and record.epochs else {"start": _identity(job)}
            epoch = self.run.last_epoch(job.key)
            self.write("end", trial=job.key, status=status, reason=reason, epoch=epoch, **identity)

    def waits(self, job: Job) -> None:
        """Record that a trial waits at a rung."""
        self.write("rung", trial=job.key, epoch=self.run.last_epoch(job.key))

    def decided(self, jobs: Sequence[Job]) -> None:
        """Record that these trials will be run, before any of them begins."""
        self.write("decided", trials={job.key: job.config.flat() for job in jobs})

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def _identity(job: Job) -> dict[str, Any]:
    return {"number": job.number, "config": job.config.flat()}


def _process(info: dict[str, Any]) -> tuple[object, ...]:
    """Which process a trial runs in. Process ids repeat from node to node and, in time, on one."""
    return tuple(info.get(name) for name in ("host", "pid", "process_started"))


def fill_gaps(writer: JournalWriter, trials: str) -> str:
    """Record again what damaged lines held and the checkpoints in the location ``trials`` still have.

    A trial that stays incomplete is opened again, and trained to the same numbers. Returns what was done, for the
    screen; empty if nothing was lost: half a line at the end, which a killed driver leaves, loses nothing.
    ``StorageError`` if the checkpoints cannot be read.
    """
    filled = reopened = 0
    for trial in [trial for trial in writer.run.trials.values() if not trial.whole]:
        from trainables.checkpoint import load_checkpoint  # and torch, which a driver needs for nothing else

        checkpoint = load_checkpoint(Store(join(trials, trial.key)), trial.key)
        for event in checkpoint.facts["history"] if checkpoint else ():
            if event["epoch"] not in trial.epochs:
                writer.write(**{**event, "trial": trial.key})
                filled += 1
        if not trial.whole and trial.status != "running":
            writer.write("start", trial=trial.key, number=trial.number, config=trial.config)
            reopened += 1
    done = f"{filled} epochs taken again from checkpoints, {reopened} trials opened again"
    return f"The journal had lost lines: {done}." if filled or reopened else ""
