"""What MLflow should show: the journal, folded into runs as MLflow has them. Nothing here talks to anybody.

A sweep is a parent run in the experiment ``vqsweep/<sweep>``, a trial a child of it; each is found again by its tags.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trainables.bulk_store import Status
from trainables.journal import Event, RunRecord, TrialRecord
from trainables.runs import SHORT

PARENT = ""
"""The key of the parent run among the keys of its trials."""

RUNNING: Status = "RUNNING"
_STATUS: dict[str, Status] = {"completed": "FINISHED", "stopped": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}


@dataclass(frozen=True)
class View:
    """What MLflow should show of one run. Times are seconds since 1970."""

    name: str
    status: Status
    started: float
    ended: float | None
    """None while it runs; never before ``started``, though a clock may have been set back."""
    params: Mapping[str, Any]
    tags: Mapping[str, Any]
    epochs: Mapping[int, dict[str, float]] = field(default_factory=dict)
    times: Mapping[int, float] = field(default_factory=dict)


class Mirror:
    """The journal so far, as the runs that MLflow should show; ``changed`` holds the keys of those not yet told."""

    def __init__(self) -> None:
        self.record = RunRecord()
        self.changed: set[str] = set()
        self.state: Status = RUNNING
        """The parent's status."""
        self.mended: set[str] = set()
        """Trials with an epoch that came after their end, as a resume writes what the journal had lost."""
        self._began = self._last = 0.0
        self._live: set[str] = set()
        self._ended: dict[str, float] = {}

    @property
    def keys(self) -> set[str]:
        """Of all runs there should be; empty before the sweep began."""
        return {PARENT, *self.record.trials} if self.record.sweep else set()

    def apply(self, event: Event) -> None:
        """Take in one event."""
        self.record.apply(event)
        kind, key = event["event"], event.get("trial", PARENT)
        self.changed.add(key)
        when = event.get("time", self._last)
        match kind:
            case "sweep":
                self._interrupt(self._last)  # those of a driver that was killed, until they start again
                self._began, self.state = self._began or when, RUNNING
            case "start" if self.record.trials[key].status == "running":  # else only its start had been lost
                self._live.add(key)
            case "epoch" if key in self._ended and key not in self._live:
                self.mended.add(key)
            case "end":
                self._live.discard(key)
                self.mended.discard(key)
                self._ended[key] = when
            case "pause" | "done":
                self._close("FINISHED" if kind == "done" else "KILLED", when)
        self._last = when

    def abandon(self) -> None:
        """Nobody will write the journal's end any more."""
        if self.record.sweep and self.state == RUNNING:
            self._close("KILLED", self._last)

    def _close(self, state: Status, when: float) -> None:
        """The sweep ended, and so did whatever still ran."""
        self._interrupt(when)
        self.state, self._ended[PARENT] = state, when
        self.changed.add(PARENT)

    def _interrupt(self, when: float) -> None:
        self.changed |= self._live
        self._ended |= dict.fromkeys(self._live, when)
        self._live.clear()

    def view(self, key: str, parent_id: str | None) -> View:
        """The run ``key``; trials name the run that is their parent."""
        sweep = self.record.sweep
        tags = {**sweep.get("tags", {}), "vqsweep.sweep": sweep["id"]}
        if "commit" in tags:
            tags["mlflow.source.git.commit"] = tags["commit"]
        if key == PARENT:
            ended = None if self.state == RUNNING else max(self._ended[PARENT], self._began)
            return View(sweep["name"], self.state, self._began, ended, sweep.get("params", {}), tags)
        trial = self.record.trials[key]
        status = _STATUS.get(trial.status, RUNNING if key in self._live else "KILLED")
        said = "interrupted" if status == "KILLED" else trial.status
        tags |= {**trial.info, "mlflow.parentRunId": parent_id, "vqsweep.trial": key}
        tags |= {"vqsweep.status": said, "vqsweep.reason": trial.reason or said}
        name = _trial_name(trial, sweep.get("swept", ()))
        end = None if status == RUNNING else max(self._ended.get(key, trial.started), trial.started)
        return View(name, status, trial.started, end, trial.config, tags, trial.epochs, trial.times)


def _trial_name(trial: TrialRecord, swept: Iterable[str]) -> str:
    values = {name: trial.config[name] for name in (*swept, "seed") if name in trial.config}
    return " ".join(f"{SHORT.get(name, name)}={value}" for name, value in values.items()) or f"trial {trial.number}"
