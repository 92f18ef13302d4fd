"""The faults that happen to people, and when each strikes."""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.commands import Run, Sweep
from benchmarks.chaos.services import Disk, Server
from benchmarks.processes import Command, kill
from trainables.journal import RunRecord, read
from trainables.runs import JOURNAL

FAILED, REFUSED, PREEMPTED, INTERRUPTED, KILLED = 1, 2, 75, 130, -signal.SIGKILL
AT_ONCE = 5.0
"""Seconds within which a second Ctrl-C must be obeyed, on a machine as busy as chaos makes it."""
STARTS_WITHIN = 2.0
"""Seconds within which a driver must have set up what it does at a signal."""
STOPS_WITHIN = 90.0
"""Seconds within which a driver whose disk is full must have stopped."""


@dataclass
class Scene:
    """A run under way: all that can be struck, and what has happened to it."""

    run: Run
    log: Path
    """Folder for what the commands print."""
    chance: random.Random
    server: Server | None = None
    """MLflow's; the run keeps a database of its own without one."""
    disk: Disk | None = None
    """Where the run lies."""
    drivers: list[Command] = field(default_factory=list)
    """The commands that were given, one after the other."""
    codes: set[int] = field(default_factory=set)
    """Exit codes that the latest may end with, after the faults that struck it."""
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    """What ends a fault, and at which monotonic time."""
    strikes: list[dict[str, Any]] = field(default_factory=list)
    """Of each fault that struck: its name, what it did, epochs recorded before it, second, driver."""
    wrong: list[str] = field(default_factory=list)
    """What must not have happened, besides differences in the outcome."""

    @property
    def driver(self) -> Command:
        """The latest command."""
        return self.drivers[-1]

    def begin(self) -> None:
        """Start the run, or go on with it; the data's cache is the scene's own."""
        environment = {"VQSWEEP_CACHE": str(self.log / "cache"), "PYTHONUNBUFFERED": "1"}
        log = self.log / f"driver-{len(self.drivers):02}.log"
        self.drivers.append(Command(self.run.command(), log, environment))
        self.codes = {0}

    def may_end(self, code: int, as_python: int) -> None:
        """Allow an exit code after a signal; of a driver whose interpreter has hardly started, Python's own as well."""
        self.codes |= {code} if time.time() - self.driver.started > STARTS_WITHIN else {code, as_python}

    def record(self) -> RunRecord:
        """The run as its journal has it now."""
        return read(self.run.folder / JOURNAL)

    def epochs(self) -> int:
        """Epochs recorded by now."""
        return sum(len(trial.epochs) for trial in self.record().trials.values())

    def workers(self) -> list[int]:
        """Process ids that train, as the trials' starts have them; none where the driver itself trains."""
        running = [trial for trial in self.record().trials.values() if trial.status == "running"]
        return sorted(
            {int(trial.info.get("pid", 0)) for trial in running} & self.driver.members().keys() - {self.driver.pid}
        )

    def tick(self, everything: bool = False) -> None:
        """End the faults whose time is up, or ``everything``."""
        due = [one for one in self.later if everything or one[0] <= time.monotonic()]
        self.later = [one for one in self.later if one not in due]
        for _, end in due:
            end()

    def close(self) -> None:
        """End every process of the run."""
        for driver in self.drivers:
            driver.end()


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    strike: Callable[[Scene], str | None]
    """Strikes and tells what it did; None if it cannot strike now."""
    weight: float = 1.0
    """How often it is drawn, beside the others."""
    at_work: bool = False
    """Whether it can strike only while a trial is trained."""
    sweeps: tuple[Sweep, ...] = ("grid", "search", "final")


def kill_driver(scene: Scene) -> str | None:
    if not scene.driver.signal(signal.SIGKILL):
        return None
    scene.codes.add(KILLED)
    scene.driver.wait(30)
    return "at once"


def kill_worker(scene: Scene) -> str | None:
    workers = scene.workers()
    pid = scene.chance.choice(workers) if workers else 0
    return f"process {pid}" if pid and kill(pid) else None


def preempt(scene: Scene) -> str | None:
    if not scene.driver.signal(signal.SIGTERM):
        return None
    scene.may_end(PREEMPTED, -signal.SIGTERM)
    return "exit code 75 expected"


def interrupt(scene: Scene) -> str | None:
    """Ctrl-C; half the time a second one follows, which must be obeyed at once."""
    if not scene.driver.signal(signal.SIGINT, group=True):
        return None
    scene.may_end(INTERRUPTED, -signal.SIGINT)
    time.sleep(scene.chance.uniform(0.2, 1.2))
    if scene.chance.random() < 0.5 or not scene.driver.signal(signal.SIGINT, group=True):
        return "exit code 130 expected"
    asked = time.monotonic()
    if scene.driver.wait(AT_ONCE) is None:
        scene.wrong.append(f"still there {AT_ONCE:g} s after the second Ctrl-C")
        scene.driver.wait(120)
    return f"twice; gone {time.monotonic() - asked:.1f} s after the second"


def kill_server(scene: Scene) -> str | None:
    if scene.server is None or not scene.server.kill():
        return None
    seconds = scene.chance.uniform(1, 10)
    scene.later.append((time.monotonic() + seconds, scene.server.start))
    return f"back after {seconds:.1f} s"


def damage_journal(scene: Scene) -> str | None:
    """Kill the driver, then cut the journal's last line off or flip a bit of it."""
    if not scene.run.started or kill_driver(scene) is None:
        return None
    journal = scene.run.folder / JOURNAL
    content = bytearray(journal.read_bytes())
    last = content[:-1].rfind(b"\n") + 1
    place = scene.chance.randrange(last, len(content))
    if scene.chance.random() < 0.5:
        content[place] ^= 1 << scene.chance.randrange(8)
        done = f"a bit of byte {place - last} of the last line"
    else:
        del content[place:]
        done = f"cut after byte {place - last} of the last line"
    journal.write_bytes(content)
    return done


def fill_disk(scene: Scene) -> str | None:
    if scene.disk is None or scene.driver.code is not None or scene.epochs() == 0:
        return None
    scene.disk.fill()
    scene.codes |= {FAILED, REFUSED}  # one that was only starting is refused: its disk has no room
    if scene.driver.wait(STOPS_WITHIN) is None:
        scene.wrong.append(f"still there {STOPS_WITHIN:g} s after its disk was full")
    scene.disk.free()
    return "no byte free until the driver ended"


FAULTS = (
    Fault("driver killed (SIGKILL)", kill_driver, 2),
    Fault("worker killed (SIGKILL, as for lack of memory)", kill_worker, 2, True, ("grid", "search")),
    Fault("driver preempted (SIGTERM)", preempt, 2),
    Fault("Ctrl-C", interrupt, 2),
    Fault("MLflow server killed, back after seconds", kill_server, 1.5),
    Fault("journal's last line damaged, driver killed", damage_journal),
    Fault("disk full until the driver ends", fill_disk, 1, True),
)


@dataclass(frozen=True)
class Planned:
    """A fault and its moment."""

    fault: Fault
    epochs: int
    """Epochs that have to be recorded first."""
    delay: float
    """Seconds after that, or after the fault before, whichever is later."""


def schedule(kinds: Sequence[Fault], count: int, epochs: int, seed: int) -> list[Planned]:
    """``count`` faults over a run of ``epochs`` epochs, drawn from a seed: each kind once, the rest by weight.

    One in five strikes as soon as the one before it is over, and so meets a driver that is only starting.
    """
    chance = random.Random(f"chaos/{seed}")
    drawn = chance.sample(list(kinds), min(count, len(kinds)))
    drawn += chance.choices(kinds, [kind.weight for kind in kinds], k=count - len(drawn))
    chance.shuffle(drawn)
    places = sorted(chance.randint(0, max(1, round(0.9 * epochs))) for _ in drawn)
    planned: list[Planned] = []
    for kind, place in zip(drawn, places, strict=True):
        at_once = planned and chance.random() < 0.2
        delay = chance.uniform(0, 8 if at_once else 3)
        planned.append(Planned(kind, planned[-1].epochs if at_once else place, round(delay, 2)))
    return planned
