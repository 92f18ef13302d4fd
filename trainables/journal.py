"""What happened, in order: an append-only file of JSON lines, the one truth of a run.

MLflow, Parquet, report, searcher, scheduler and resume are views of it. Every line is handed to the operating system as
it is written, ends are forced to the disk, and each carries the CRC-32 of its content: a line that a crash cut off, or
that a disk has changed, is skipped as if it had not been written, and what it held is taken from the checkpoints again
(``trainables.recorder.fill_gaps``).

Events, each with ``time`` (seconds since 1970, UTC; their order is that of the lines, whatever the clocks show):

    sweep   name, id, and the specification, as sweep.toml has it; again at each resume
    start   trial (key), number, config (flat), and info of its process: device, precision, host, ...
    epoch   trial, epoch (1 = after the first pass), metrics (name -> finite number)
            the first of a trial, or its end if it has none, repeats number and config as start: what a search drew
            stands nowhere else, and must not hang on one line
    rung    trial, epoch: it waits there to be promoted
    decided trials (key -> config) that will be run: more seeds of what may be on the front
    end     trial, status ("completed", "stopped", "diverged", "failed"), reason, epoch
    pause   the run was interrupted and can be resumed
    done    the sweep is complete
"""

import errno
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from trainables.runs import NAME
from trainables.storage import sync_folder

Event = dict[str, Any]

FINAL = frozenset({"completed", "stopped", "diverged"})
"""Statuses that a resume does not try again; a failed trial it does."""

_CRC = b',"crc":"%08x"}\n'
_CRC_BYTES = len(_CRC % 0)


class Journal:
    """The file, opened to append. One process at a time writes a journal: the driver."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._file).st_size
        if not size:
            sync_folder(path.parent)  # what is forced into the file later must have a name on the disk
        elif os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")  # what a crash cut off stays a line of its own

    def write(self, event: str, **fields: Any) -> Event:
        """Append one event; ``end``, ``pause`` and ``done`` are on the disk before this returns.

        ``OSError`` if the disk is full or the file was removed; it then ends with the event before, whole.
        """
        record = {"event": event, "time": round(time.time(), 3), **fields}
        text = json.dumps(record, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        body = text.encode(errors="replace")[:-1]  # an error's text may name a file whose name is no UTF-8
        self._append(body + _CRC % zlib.crc32(body))
        if event in ("end", "pause", "done"):
            os.fsync(self._file)
        return record

    def close(self) -> None:
        """Close the file; nothing was held back."""
        os.close(self._file)

    def _append(self, line: bytes) -> None:
        before = os.fstat(self._file)
        if before.st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "removed while the run goes on: nothing more can be kept", self.path)
        try:
            written = os.write(self._file, line)
            if written < len(line):  # the disk took what it had room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, before.st_size)
            raise OSError(error.errno, error.strerror, self.path) from error


class JournalReader:
    """Reads a journal as far as it goes, and further at each call: also while the sweep writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Lines that were skipped: cut off by a crash, or changed since."""
        self._offset = 0

    def new(self) -> Iterator[Event]:
        """The whole lines since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                if (event := _parsed(line)) is not None:
                    yield event
                else:
                    self.damaged += 1


def _parsed(line: bytes) -> Event | None:
    """The event of a line; None if it is not, to the last byte, what was written, or names what is no trial's key."""
    body = line[:-_CRC_BYTES]
    if line[-_CRC_BYTES:] != _CRC % zlib.crc32(body):
        return None
    event: Event = orjson.loads(line)
    del event["crc"]
    return event if NAME.fullmatch(event.get("trial", "none")) else None  # keys name folders


@dataclass
class TrialRecord:
    """One trial, by the journal."""

    key: str
    number: int
    config: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    """What its process reported at the latest start."""
    started: float = 0.0
    end_time: float | None = None
    """When it ended or its driver was gone, in seconds since 1970; None while it is under way."""
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    """Metrics by epoch; of an epoch that is recorded twice, the first."""
    times: dict[int, float] = field(default_factory=dict)
    """When each epoch ended, in seconds since 1970."""
    last_epoch: int = 0
    """0 before the first."""
    status: str = "running"
    reason: str = ""
    ended: int = 0
    """The epochs it had when it ended."""
    arrivals: dict[int, int] = field(default_factory=dict, compare=False)
    """The position of each epoch among all the run's events about epochs, in the order of the journal."""
    end_arrival: int = field(default=0, compare=False)
    """The position of its end among those."""
    rungs: dict[int, int] = field(default_factory=dict, compare=False)
    """The epochs at which it came to wait at a rung, each with its position among those."""

    @property
    def unbroken(self) -> int:
        """The last epoch before which none is missing."""
        return next(epoch for epoch in range(self.last_epoch + 1) if epoch + 1 not in self.epochs)

    @property
    def waits(self) -> bool:
        """Whether it waits at a rung."""
        return self.status == "running" and self.last_epoch in self.rungs

    @property
    def last_time(self) -> float:
        """When the last epoch ended, in seconds since 1970; 0 before the first."""
        return self.times.get(self.last_epoch, 0.0)

    @property
    def whole(self) -> bool:
        """Whether no epoch is missing of those that it had."""
        return self.unbroken == max(self.ended, self.last_epoch)

    def finished(self, epochs: int) -> bool:
        """Whether nothing is left to do for a budget of ``epochs``."""
        return self.status in FINAL and (self.status != "completed" or self.last_epoch >= epochs)

    def apply(self, event: Mapping[str, Any], arrival: int) -> None:
        """Take in an ``epoch``, ``rung`` or ``end`` of this trial."""
        if event["event"] == "rung":
            self.rungs.setdefault(event["epoch"], arrival)
        elif event["event"] == "end":
            self.status, self.reason = event["status"], event.get("reason", "")
            self.ended, self.end_arrival, self.end_time = event.get("epoch", 0), arrival, event["time"]
        elif (epoch := event["epoch"]) not in self.epochs:
            self.epochs[epoch] = {name: float(value) for name, value in event["metrics"].items()}
            self.times[epoch], self.arrivals[epoch] = event["time"], arrival
            self.last_epoch = max(self.last_epoch, epoch)


@dataclass
class RunRecord:
    """The state of a run: a fold over its events."""

    sweep: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Configurations that will be run, by their keys; some may have begun."""
    done: bool = False
    started: float = 0.0
    end_time: float | None = None
    """When the run was done or paused, in seconds since 1970; None while it is under way."""
    last_time: float = field(default=0.0, compare=False)
    sessions: list[float] = field(default_factory=list, compare=False)
    """When the run began, and when it was taken up again each time, in seconds since 1970."""
    damaged: int = field(default=0, compare=False)
    """Lines of the journal that could not be read."""
    _arrivals: int = field(default=0, compare=False)

    def last_epoch(self, key: str) -> int:
        """The last epoch recorded of a trial; 0 if none."""
        return self.trials[key].last_epoch if key in self.trials else 0

    def known(self, key: str) -> int:
        """The last epoch of a trial before which none is missing; 0 if none."""
        return self.trials[key].unbroken if key in self.trials else 0

    def finished(self, key: str, epochs: int) -> bool:
        """Whether nothing is left to do for a trial and a budget of ``epochs``."""
        return key in self.trials and self.trials[key].finished(epochs)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event. Idempotent for epochs; events of unknown kinds and trials are ignored."""
        kind = event["event"]
        if kind in ("epoch", "rung", "end"):
            self._arrivals += 1
            self._apply_to_trial(event, self._arrivals)
        elif kind == "start":
            self._start(event)
        elif kind == "sweep":
            self._interrupt(self.last_time)  # trials of a driver that was killed
            self.sweep, self.done, self.end_time = dict(event), False, None
            self.started = self.started or event["time"]
            self.sessions.append(event["time"])
        elif kind == "decided":
            self.decided |= event["trials"]
        elif kind in ("pause", "done"):
            self.done, self.end_time = kind == "done", event["time"]
            self._interrupt(event["time"])
        self.last_time = event.get("time", self.last_time)

    def _interrupt(self, when: float) -> None:
        """End what was under way, until it starts again."""
        for trial in self.trials.values():
            if trial.end_time is None:
                trial.end_time = when

    def _apply_to_trial(self, event: Mapping[str, Any], arrival: int) -> None:
        key = event["trial"]
        if key not in self.trials and "start" in event:
            self._start({**event["start"], "trial": key, "time": event["time"]})
        if key in self.trials:
            self.trials[key].apply(event, arrival)

    def _start(self, event: Mapping[str, Any]) -> None:
        key = event["trial"]
        if key not in self.trials:
            self.trials[key] = TrialRecord(key, event["number"], event["config"], started=event["time"])
        trial = self.trials[key]
        trial.info = {**trial.info, **event.get("info", {})}
        trial.status, trial.reason, trial.ended, trial.end_time = "running", "", 0, None


def read(path: Path) -> RunRecord:
    """The state of the run whose journal is ``path``; empty if there is none."""
    run, reader = RunRecord(), JournalReader(path)
    for event in reader.new():
        run.apply(event)
    run.damaged = reader.damaged
    return run
