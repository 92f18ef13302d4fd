"""What happened, in order: an append-only file of JSON lines, the one truth of a run.

MLflow, Parquet, report, searcher, scheduler and resume are views of it. Every line is handed to the operating system as
it is written, ends are forced to the disk, and each carries the CRC-32 of what it says: a line that a crash cut off, or
that a disk has changed, is passed over as if it had not been written, and what it said is taken from the checkpoints
again (``trainables.mend``).

Events, each with ``time`` (seconds since 1970, UTC; their order is that of the lines, whatever the clocks say):

    sweep   name, id, and what the sweep is, as sweep.toml has it; again at each resume
    start   trial (key), number, config (flat), and what the trial says of itself: device, precision, parameters, ...
    epoch   trial, epoch (1 = after the first pass), metrics (name -> finite number)
            the first of a trial, or its end if it has none, also has start: its number and config a second time, since
            what a search drew nobody can tell whose one line of it is lost
    rung    trial, epoch: it waits there to be promoted
    decided trials (key -> config) that will be run: more seeds of what may be on the front
    end     trial, status ("completed", "stopped", "diverged", "failed"), reason, epoch
    pause   the run was interrupted and can be resumed
    done    the sweep is complete
"""

import errno
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from trainables.runs import NAME

Event = dict[str, Any]

FINAL = frozenset({"completed", "stopped", "diverged"})
"""Statuses that a resume does not try again; a failed trial it does."""

_CRC = b',"crc":"%08x"}\n'
_CRC_BYTES = len(_CRC % 0)

_TEXT, _WHOLE, _NUMBER, _TABLE, _LIST = (str,), (int,), (int, float), (dict,), (list,)

_FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "sweep": {"name": _TEXT, "id": _TEXT, "time": _NUMBER},
    "start": {"trial": _TEXT, "number": _WHOLE, "config": _TABLE, "time": _NUMBER},
    "epoch": {"trial": _TEXT, "epoch": _WHOLE, "metrics": _TABLE, "time": _NUMBER},
    "rung": {"trial": _TEXT, "epoch": _WHOLE},
    "end": {"trial": _TEXT, "status": _TEXT, "time": _NUMBER},
    "decided": {"trials": _TABLE},
    "pause": {"time": _NUMBER},
    "done": {"time": _NUMBER},
}
"""What each kind of event must have; a line that has not is none."""

_MAY: dict[str, dict[str, tuple[type, ...]]] = {
    "sweep": {
        "sweep": _TEXT, "swept": _LIST, "trials": _WHOLE, "epochs": _WHOLE,
        "toml": _TABLE, "tags": _TABLE, "params": _TABLE,
    },
    "start": {"info": _TABLE},
    "end": {"reason": _TEXT, "epoch": _WHOLE},
}  # fmt: skip
"""What an event may have besides, if it is of these types."""

_INFO = {"device": _TEXT, "precision": _TEXT, "parameters": _NUMBER}
_SCALAR = (str, int, float, bool)
_LATEST = 1e11
"""Times are before that: seconds since 1970, which databases take in milliseconds."""


class Journal:
    """The writer. One process at a time writes a journal: the driver."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":
            self._append(b"\n")  # what a crash cut off stays a line of its own

    def write(self, event: str, **fields: Any) -> Event:
        """Append one event; ``end``, ``pause`` and ``done`` are on the disk before this returns.

        ``OSError`` if the disk is full or the file was removed; it then ends with the event before, whole.
        """
        record = {"event": event, "time": round(time.time(), 3), **fields}
        text = json.dumps(record, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
        body = text.encode(errors="replace")[:-1]  # of a file's name, say, that is no text
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
    """Reads a journal as far as it goes, and further each time it is asked: also while the sweep writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        """Lines that were passed over: cut off by a crash, or changed since."""
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
                event = _parsed(line)
                if event is not None:
                    yield event
                else:
                    self.damaged += 1


def _parsed(line: bytes) -> Event | None:
    """The event of a line; None if it is not, to the last byte, what was written."""
    body = line[:-_CRC_BYTES]
    if line[-_CRC_BYTES:] != _CRC % zlib.crc32(body):
        return None
    try:
        event: Event = orjson.loads(line)
        kind = event["event"]
        wanted = _FIELDS.get(kind, {})
        if not all(type(event[name]) in types for name, types in wanted.items()):
            return None
        if not 0 <= event.get("time", 0) < _LATEST or (kind in _MAY and not _sound(event, kind)):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    del event["crc"]
    return event


def _sound(event: Event, kind: str) -> bool:
    """Whether what an event says, of right checksum though it is, can be worked with by all who read it."""
    if not _of_types(event, _MAY[kind]):
        return False
    if kind == "sweep":
        return all(isinstance(name, str) for name in event.get("swept", ()))
    if kind == "start":
        config = all(type(value) in _SCALAR for value in event["config"].values())
        keyed = NAME.fullmatch(event["trial"]) is not None  # keys name folders
        return keyed and config and _of_types(event.get("info", {}), _INFO)
    return True


def _of_types(table: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> bool:
    return all(type(table[name]) in kinds for name, kinds in types.items() if name in table)


class Epochs(Mapping[int, dict[str, float]]):
    """Metrics by epoch, in a tenth of the memory that dictionaries take: sweeps have a million epochs."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._others: dict[int, tuple[str, ...]] = {}
        """Names of the epochs whose metrics are not those of the first."""
        self._rows: dict[int, bytes] = {}
        self.last = 0
        """The last epoch; 0 before the first."""

    def add(self, epoch: int, metrics: Mapping[str, float], when: float, arrival: int) -> None:
        """Take in an epoch; of one told twice, the first stays. One whose metrics are no numbers is none."""
        if epoch in self._rows or epoch < 1:
            return
        names, first = tuple(metrics), not self._rows
        try:
            self._rows[epoch] = struct.pack(f"{len(names) + 2}d", when, arrival, *metrics.values())
        except struct.error:  # nobody here wrote that
            return
        if first:
            self._names = _NAMES.setdefault(names, names)
        if names != self._names:
            self._others[epoch] = names
        self.last = max(self.last, epoch)

    def when(self, epoch: int) -> float:
        """When the epoch ended, in seconds since 1970."""
        return float(struct.unpack_from("d", self._rows[epoch])[0])

    def arrival(self, epoch: int) -> int:
        """Which of all the run's epochs it was, in the order of the journal."""
        return int(struct.unpack_from("d", self._rows[epoch], 8)[0])

    @property
    def unbroken(self) -> int:
        """The last epoch before which none is missing."""
        if len(self._rows) == self.last:
            return self.last
        return next(epoch for epoch in range(self.last + 1) if epoch + 1 not in self._rows)

    def __getitem__(self, epoch: int) -> dict[str, float]:
        row, names = self._rows[epoch], self._others.get(epoch, self._names)
        return dict(zip(names, struct.unpack_from(f"{len(names)}d", row, 16), strict=True))

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {}
"""The names of metrics, kept once."""


@dataclass
class TrialRecord:
    """What the journal says of one trial."""

    key: str
    number: int
    config: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    """What the trial said of itself at its latest start."""
    epochs: Epochs = field(default_factory=Epochs)
    """Metrics by epoch; of an epoch told twice, the first."""
    started: float = 0.0
    status: str = "running"
    reason: str = ""
    ended: int = 0
    """The epochs it had when it ended."""
    end_arrival: int = field(default=0, compare=False)
    """Which of all the run's events about epochs it was, in the order of the journal."""
    rungs: dict[int, int] = field(default_factory=dict, compare=False)
    """The epochs at which it came to wait at a rung, each with which of those events that was."""

    @property
    def times(self) -> dict[int, float]:
        """When each epoch was reported."""
        return {epoch: self.epochs.when(epoch) for epoch in self.epochs}

    @property
    def last_epoch(self) -> int:
        """The last epoch reported; 0 before the first."""
        return self.epochs.last

    @property
    def waits(self) -> bool:
        """Whether it waits at a rung."""
        return self.status == "running" and self.last_epoch in self.rungs

    @property
    def last_time(self) -> float:
        """When that was, in seconds since 1970; 0 before the first."""
        return self.epochs.when(self.epochs.last) if self.epochs else 0.0

    @property
    def whole(self) -> bool:
        """Whether no epoch is missing of those that it had."""
        return self.epochs.unbroken == max(self.ended, self.last_epoch)

    def finished(self, epochs: int) -> bool:
        """Whether nothing is left to do for a budget of ``epochs``."""
        return self.status in FINAL and (self.status != "completed" or self.last_epoch >= epochs)


@dataclass
class RunRecord:
    """The state of a run: a fold over its events."""

    sweep: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, TrialRecord] = field(default_factory=dict)
    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Configurations that will be run, by their keys; some may have begun."""
    done: bool = False
    damaged: int = field(default=0, compare=False)
    """Lines of the journal that could not be read."""
    orphans: dict[str, list[tuple[Mapping[str, Any], int]]] = field(default_factory=dict, compare=False)
    """What is told of trials without a start, whose line is among the damaged: events, each with its arrival."""
    _arrivals: int = field(default=0, compare=False)

    def last_epoch(self, key: str) -> int:
        """The last epoch recorded of a trial; 0 if none."""
        return self.trials[key].last_epoch if key in self.trials else 0

    def known(self, key: str) -> int:
        """The last epoch of a trial before which none is missing; 0 if none."""
        return self.trials[key].epochs.unbroken if key in self.trials else 0

    def finished(self, key: str, epochs: int) -> bool:
        """Whether nothing is left to do for a trial and a budget of ``epochs``."""
        return key in self.trials and self.trials[key].finished(epochs)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Take in one event. Idempotent for epochs; events of unknown kinds and trials are ignored."""
        kind = event["event"]
        if kind in ("epoch", "rung", "end"):
            self._arrivals += 1
            self._of_a_trial(event, self._arrivals)
        elif kind == "start":
            self._start(event)
        elif kind == "sweep":
            self.sweep = dict(event)
            self.done = False
        elif kind == "decided":
            self.decided |= event["trials"]
        elif kind == "done":
            self.done = True

    def _of_a_trial(self, event: Mapping[str, Any], arrival: int) -> None:
        if event["trial"] not in self.trials and (start := _start_told_again(event)):
            self._start(start)
        trial, kind = self.trials.get(event["trial"]), event["event"]
        if trial is None:
            if NAME.fullmatch(event["trial"]):
                self.orphans.setdefault(event["trial"], []).append((event, arrival))
        elif kind == "epoch":
            trial.epochs.add(event["epoch"], event["metrics"], event["time"], arrival)
        elif kind == "rung":
            trial.rungs.setdefault(event["epoch"], arrival)
        else:
            trial.status, trial.reason = event["status"], event.get("reason", "")
            trial.ended, trial.end_arrival = event.get("epoch", 0), arrival

    def _start(self, event: Mapping[str, Any]) -> None:
        key = event["trial"]
        if key not in self.trials:
            self.trials[key] = TrialRecord(key, event["number"], event["config"], started=event["time"])
        trial = self.trials[key]
        trial.info = {**trial.info, **event.get("info", {})}
        trial.status, trial.reason, trial.ended = "running", "", 0
        for told, arrival in self.orphans.pop(key, ()):
            self._of_a_trial(told, arrival)


def _start_told_again(event: Mapping[str, Any]) -> Event | None:
    """The start of a trial as its first epoch has it; None if this event has none."""
    told = event.get("start")
    if type(told) is not dict:
        return None
    start = {**told, "event": "start", "trial": event["trial"], "time": event.get("time")}
    whole = all(type(start.get(name)) in types for name, types in _FIELDS["start"].items())
    return start if whole and _sound(start, "start") else None


def read(path: Path) -> RunRecord:
    """The state of the run whose journal is ``path``; empty if there is none."""
    run, reader = RunRecord(), JournalReader(path)
    for event in reader.new():
        run.apply(event)
    run.damaged = reader.damaged
    return run


def latest_sweep(path: Path) -> Event:
    """The last ``sweep`` event of a journal, without the work of reading the others; empty if there is none."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        lines = [line for line in file if line.startswith(b'{"event":"sweep"')]
    return next((event for line in reversed(lines) if (event := _parsed(line)) is not None), {})
