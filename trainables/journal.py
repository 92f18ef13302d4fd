"""What happened, in order: an append-only file of JSON lines, the one truth of a run.

MLflow, Parquet, report and resume are views of it. Every line is flushed to the operating system as it is written, and
ends are forced to the disk; a line that a crash cut off has no line end and is ignored.

Events, each with ``time`` (seconds since 1970, UTC):

    sweep   name, id, and what the sweep is; again at each resume
    start   trial (key), number, config (flat), and what the trial says of itself: device, precision, parameters, ...
    epoch   trial, epoch (1 = after the first pass), metrics (name -> finite number)
    rung    trial, epoch: it waits there to be promoted
    end     trial, status ("completed", "stopped", "diverged", "failed"), reason, epoch
    pause   the run was interrupted and can be resumed
    done    the sweep is complete
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]

FINAL = frozenset({"completed", "stopped", "diverged"})
"""Statuses that a resume does not try again; a failed trial it does."""


class Journal:
    """The writer. One process at a time writes a journal: the driver."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("ab")
        if _ends_in_half_a_line(path):
            self._file.write(b"\n")

    def write(self, event: str, **fields: Any) -> Event:
        """Append one event and flush it; ``end``, ``pause`` and ``done`` reach the disk before this returns."""
        record = {"event": event, "time": round(time.time(), 3), **fields}
        self._file.write(json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n")
        self._file.flush()
        if event in ("end", "pause", "done"):
            os.fsync(self._file.fileno())
        return record

    def close(self) -> None:
        """Close the file; nothing was held back."""
        self._file.close()


def _ends_in_half_a_line(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class JournalReader:
    """Reads a journal as far as it goes, and further each time it is asked: also while the sweep writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new(self) -> Iterator[Event]:
        """The whole lines since the last call. A line that is not an event (cut by a crash) is passed over."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                event = _parsed(line)
                if event is not None:
                    yield event


def _parsed(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


@dataclass
class TrialRecord:
    """What the journal says of one trial."""

    key: str
    number: int
    config: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    """What the trial said of itself at its latest start."""
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    """Metrics by epoch; of an epoch told twice, the first."""
    times: dict[int, float] = field(default_factory=dict)
    """When each epoch was reported."""
    started: float = 0.0
    status: str = "running"
    reason: str = ""
    waits: bool = False
    """Whether it waits at a rung."""

    @property
    def last_epoch(self) -> int:
        """The last epoch reported; 0 before the first."""
        return max(self.epochs, default=0)

    def finished(self, epochs: int) -> bool:
        """Whether nothing is left to do for a budget of ``epochs``."""
        return self.status in FINAL and (self.status != "completed" or self.last_epoch >= epochs)


@dataclass
class RunRecord:
    """The state of a run: a fold over its events."""

    sweep: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    done: bool = False

    def last_epoch(self, key: str) -> int:
        """The last epoch recorded of a trial; 0 if none."""
        return self.trials[key].last_epoch if key in self.trials else 0

    def finished(self, key: str, epochs: int) -> bool:
        """Whether nothing is left to do for a trial and a budget of ``epochs``."""
        return key in self.trials and self.trials[key].finished(epochs)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event. Idempotent for epochs; events of unknown kinds and trials are ignored."""
        match event["event"]:
            case "sweep":
                self.sweep = dict(event)
                self.done = False
            case "start":
                trial = self.trials.setdefault(
                    event["trial"],
                    TrialRecord(event["trial"], event["number"], event["config"], started=event["time"]),
                )
                trial.info = {**trial.info, **event.get("info", {})}
                trial.status, trial.reason = "running", ""
            case "epoch" if event["trial"] in self.trials:
                trial = self.trials[event["trial"]]
                trial.epochs.setdefault(event["epoch"], event["metrics"])
                trial.times.setdefault(event["epoch"], event["time"])
                trial.waits = False
            case "rung" if event["trial"] in self.trials:
                self.trials[event["trial"]].waits = True
            case "end" if event["trial"] in self.trials:
                trial = self.trials[event["trial"]]
                trial.status, trial.reason, trial.waits = event["status"], event.get("reason", ""), False
            case "done":
                self.done = True


def read(path: Path) -> RunRecord:
    """The state of the run whose journal is ``path``; empty if there is none."""
    run = RunRecord()
    for event in JournalReader(path).new():
        run.apply(event)
    return run
