"""The driver's side of a run: takes the trials' events, writes the journal first, then tells whoever watches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainables.journal import Event, Journal, RunRecord, read
from trainables.runs import JOURNAL
from trainables.trial import TrialJob

Listener = Callable[[Event], None]


class Recorder:
    """The only writer of a run's journal. Each epoch and end of a trial is recorded once, however often it is told."""

    def __init__(self, run_folder: Path, listeners: list[Listener] | None = None) -> None:
        self._journal = Journal(run_folder / JOURNAL)  # first, since it may end a line, which then counts
        self.run: RunRecord = read(self._journal.path)
        """What the journal says, kept up to date."""
        self._started: set[str] = set()
        self.listeners: list[Listener] = listeners or []

    def write(self, event: str, **fields: Any) -> None:
        """Record an event of the run itself: ``sweep``, ``pause``, ``done``."""
        record = self._journal.write(event, **fields)
        self.run.apply(record)
        for listener in self.listeners:
            listener(record)

    def told(self, job: TrialJob, event: Event) -> None:
        """Record what a trial yielded, unless it is known already."""
        fields = {name: value for name, value in event.items() if name != "event"}
        known = self.run.trials.get(job.key)
        first = known is None or not known.epochs
        identity = {"start": _identity(job)} if first else {}
        match event["event"]:
            case "start":
                again = known is not None and known.info.get("pid") != event["info"].get("pid")
                if job.key not in self._started or again:  # another process has it now
                    self._started.add(job.key)
                    self.write("start", trial=job.key, **_identity(job), **fields)
            case "epoch":
                if known is None or event["epoch"] not in known.epochs:
                    self.write("epoch", trial=job.key, **fields, **identity)
            case "end":
                if known is None or known.status == "running":
                    self.write("end", trial=job.key, epoch=known.last_epoch if known else 0, **fields, **identity)

    def failed(self, job: TrialJob, reason: str) -> None:
        """Record that a trial ended by an error, with the error's own words."""
        if job.key not in self._started:
            self.told(job, {"event": "start", "info": {}})
        self.told(job, {"event": "end", "status": "failed", "reason": reason})

    def slice_over(self, job: TrialJob, until: int, error: str | None = None) -> None:
        """A slice of a trial has ended. One that neither ended the trial nor reached ``until`` has failed too."""
        trial = self.run.trials.get(job.key)
        told = (
            trial is not None and job.key in self._started and (trial.status != "running" or trial.last_epoch >= until)
        )
        if error is None and not told:
            error = f"it stopped after epoch {self.run.last_epoch(job.key)} without saying why"
        if error is not None:
            self.failed(job, error)

    def waits(self, job: TrialJob) -> None:
        """Record that a trial waits at a rung."""
        self.write("rung", trial=job.key, epoch=self.run.last_epoch(job.key))

    def decided(self, jobs: list[TrialJob]) -> None:
        """Record that these trials will be run, before any of them begins."""
        self.write("decided", trials={job.key: job.config.flat() for job in jobs})

    def stopped(self, job: TrialJob, reason: str) -> None:
        """Record that a trial goes no further."""
        self.told(job, {"event": "end", "status": "stopped", "reason": reason})

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def _identity(job: TrialJob) -> dict[str, Any]:
    return {"number": job.number, "config": job.config.flat()}
