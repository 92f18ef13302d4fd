"""Where the faults strike: the driver of the moment, its Ray, the files, the MLflow server."""

import random
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.clock import Clock
from benchmarks.chaos.commands import Command, Place
from benchmarks.chaos.damage import Disk
from benchmarks.chaos.processes import Process, Started, send
from benchmarks.chaos.server import Server
from benchmarks.chaos.watch import Watch
from trainables.journal import JournalReader, RunRecord
from trainables.runs import JOURNAL

ROOT = Path(__file__).parents[2]
TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Life:
    """One process that drives the sweep, from its start to its end."""

    number: int
    driver: Started
    started: float
    """By the monotonic clock, as all seconds here."""
    codes: set[int] = field(default_factory=lambda: {0})
    """What it may end with, by the faults that struck it."""
    says: set[str] = field(default_factory=set)
    """What it must have said, by the faults that struck it."""


@dataclass
class Scene:
    """One sweep under way."""

    command: Command
    place: Place
    folder: Path
    """For the logs."""
    environment: dict[str, str]
    server: Server
    disk: Disk
    clock: Clock
    cache: Path
    chance: random.Random
    wrong: list[str] = field(default_factory=list)
    """What must not have happened."""
    lives: list[Life] = field(default_factory=list)
    idle: dict[str, int] = field(default_factory=dict)
    """Lives of the complete sweep in which a fault, by its name, could not strike."""
    _later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _at_end: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = self.command.folder(self.place)
        self.trials = self.command.trials_folder(self.place)
        self.watch = Watch(self.trials)
        self._read_anew()

    @property
    def life(self) -> Life:
        """The latest."""
        return self.lives[-1]

    @property
    def driver(self) -> Started:
        """The process of the latest life."""
        return self.life.driver

    def begin(self, words: list[str]) -> None:
        """Start a driver."""
        self._read_anew()
        driver = self.started(words, f"life-{len(self.lives):02}")
        self.lives.append(Life(len(self.lives), driver, time.monotonic()))

    def started(self, words: list[str], log: str) -> Started:
        """Start any command as the driver is started."""
        return Started(words, self.folder / f"{log}.log", self.environment, ROOT)

    def look(self) -> RunRecord:
        """The run as its journal has it now."""
        for event in self._reader.new():
            self._record.apply(event)
        return self._record

    @property
    def epochs(self) -> int:
        """Recorded by now."""
        return sum(len(trial.epochs) for trial in self.look().trials.values())

    def workers(self) -> list[Process]:
        """The processes that train at this moment, if Ray runs them."""
        return [process for process in self.driver.members() if process.is_trial] if self.driver.alive else []

    def checkpoints(self, budget: int) -> dict[str, list[Path]]:
        """Of the trials that have begun and not ended: their checkpoints, the newest last."""
        found = {}
        for key, trial in self.look().trials.items():
            if trial.status == "running" and trial.last_epoch < budget:
                found[key] = checkpoints(self.trials / key)
        return {key: files for key, files in found.items() if files}

    def cached(self) -> list[Path]:
        """The files of the prepared data set that hold pixels."""
        return sorted(self.cache.glob("data/*/*.npy"))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Do something then, and in any case before the scene is left."""
        self._later.append((time.monotonic() + seconds, what))

    def at_end(self, what: Callable[[], None]) -> None:
        """Do something once this life has ended."""
        self._at_end.append(what)

    def tick(self, everything: bool = False) -> None:
        """Do what is due; ``everything`` that was put off."""
        now = time.monotonic()
        due = [what for when, what in self._later if everything or when <= now]
        self._later = [] if everything else [(when, what) for when, what in self._later if when > now]
        for what in due:
            what()

    def ended(self) -> None:
        """The driver is no more: undo what was to last as long as it, judge how it ended."""
        while self._at_end:
            self._at_end.pop()()
        life, code, said = self.life, self.driver.code, self.driver.said()
        if code not in life.codes:
            wanted = ", ".join(map(str, sorted(life.codes)))
            self.wrong.append(f"life {life.number}: exit code {code}, not {wanted}: {_last(said)}")
        if TRACEBACK in said:
            self.wrong.append(f"life {life.number}: a traceback on the screen: {_last(said)}")
        if code == 1:
            self.wrong += [f"life {life.number}: does not say {words!r}" for words in life.says if words not in said]

    def close(self) -> None:
        """End every process of the sweep, by its id."""
        with suppress(Exception):
            self.tick(everything=True)
        for life in self.lives:
            life.driver.end()

    def left_behind(self) -> list[Process]:
        """What lives of drivers that have ended."""
        return [process for life in self.lives if not life.driver.alive for process in life.driver.members()]

    def pause(self, pid: int, number: int, back: int, seconds: float) -> None:
        """Send a process one signal now and another later."""
        if send(pid, number):
            self.later(seconds, lambda: void(send(pid, back)))

    def _read_anew(self) -> None:
        self._reader, self._record = JournalReader(self.run / JOURNAL), RunRecord()


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a trial, the newest last."""
    files = [file for file in folder.glob("epoch-*.safetensors") if epoch_of(file) is not None]
    return sorted(files, key=lambda file: (epoch_of(file) or 0, file.name))


def epoch_of(checkpoint: Path) -> int | None:
    """The epoch in a checkpoint's name; None if it is no checkpoint's."""
    match = re.fullmatch(r"epoch-(\d+)[-0-9a-f]*\.safetensors", checkpoint.name)
    return int(match[1]) if match else None


def void(_: object) -> None:
    """Forget a result."""


def _last(said: str) -> str:
    return " / ".join(said.strip().splitlines()[-4:])[-400:]
