"""What can happen to a sweep. Each fault strikes the scene as it is, or says that it cannot now (None)."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.chaos.commands import Sweep
from benchmarks.chaos.damage import cut, damage, flip
from benchmarks.chaos.processes import send, until
from benchmarks.chaos.scene import Life, Scene
from trainables.runs import JOURNAL

PREEMPTED, INTERRUPTED, REFUSED, FAILED = 75, 130, 2, 1
KILLED = -signal.SIGKILL
RESUME = "--resume"
"""What a driver that ends before its work is done must name."""

Strike: TypeAlias = Callable[[Scene], str | None]


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    strike: Strike
    """What it did, in words; None if it could not strike now."""
    weight: float
    """How often it is drawn, beside the others."""
    sweeps: frozenset[Sweep]
    """Where it makes sense."""
    at_work: bool
    """Whether it can strike only while something is trained."""


FAULTS: dict[str, Fault] = {}


def fault(name: str, weight: float = 1.0, on_ray: bool = False, at_work: bool = False) -> Callable[[Strike], Strike]:
    """Register a kind of fault. ``on_ray``: it needs Ray, which the final training does without, and trials at work."""

    def register(strike: Strike) -> Strike:
        sweeps: frozenset[Sweep] = frozenset({"grid", "search"} if on_ray else {"grid", "search", "final"})
        FAULTS[name] = Fault(name, strike, weight, sweeps, on_ray or at_work)
        return strike

    return register


@fault("worker killed (SIGKILL, as for lack of memory)", weight=3, on_ray=True)
def kill_worker(scene: Scene) -> str | None:
    workers = scene.workers()
    if not workers:
        return None
    pid = scene.chance.choice(workers).pid
    return f"process {pid}" if send(pid, signal.SIGKILL) else None


@fault("worker stopped for seconds", weight=1.5, on_ray=True)
def stop_worker(scene: Scene) -> str | None:
    workers = scene.workers()
    if not workers:
        return None
    pid, seconds = scene.chance.choice(workers).pid, scene.chance.uniform(1, 6)
    scene.pause(pid, signal.SIGSTOP, signal.SIGCONT, seconds)
    return f"process {pid}, {seconds:.1f} s"


@fault("all stopped for seconds (a closed laptop)")
def suspend(scene: Scene) -> str | None:
    members, seconds = scene.driver.members(), scene.chance.uniform(1, 6)
    if not scene.driver.alive or not members:
        return None
    for process in members:
        scene.pause(process.pid, signal.SIGSTOP, signal.SIGCONT, seconds)
    return f"{len(members)} processes, {seconds:.1f} s"


@fault("driver killed (SIGKILL)", weight=2)
def kill_driver(scene: Scene) -> str | None:
    if not scene.driver.signal(signal.SIGKILL):
        return None
    scene.life.codes.add(KILLED)
    scene.driver.wait(30)
    return "at once"


@fault("driver preempted (SIGTERM)", weight=2)
def preempt(scene: Scene) -> str | None:
    if not scene.driver.signal(signal.SIGTERM):
        return None
    _may_end(scene, PREEMPTED)
    return "exit code 75 expected"


@fault("all preempted (SIGTERM to each process, as Slurm does)", on_ray=True)
def preempt_all(scene: Scene) -> str | None:
    members = scene.driver.members()
    if not scene.driver.signal(signal.SIGTERM):
        return None
    _may_end(scene, PREEMPTED)
    told = sum(send(process.pid, signal.SIGTERM) for process in members if process.pid != scene.driver.pid)
    return f"{told} processes beside the driver"


@fault("Ctrl-C", weight=1.5)
def interrupt(scene: Scene) -> str | None:
    if not scene.driver.signal_group(signal.SIGINT):
        return None
    _may_end(scene, INTERRUPTED)
    return "exit code 130 expected"


@fault("Ctrl-C twice")
def interrupt_twice(scene: Scene) -> str | None:
    if not scene.driver.signal_group(signal.SIGINT):
        return None
    _may_end(scene, INTERRUPTED)
    time.sleep(scene.chance.uniform(0.2, 1.2))
    if not scene.driver.signal_group(signal.SIGINT):
        return "gone before the second"
    asked = time.monotonic()
    if scene.driver.wait(AT_ONCE) is None:
        scene.wrong.append(f"life {scene.life.number}: still there {AT_ONCE:g} s after the second Ctrl-C")
        scene.driver.wait(120)
    return f"gone {time.monotonic() - asked:.1f} s after the second"


AT_ONCE = 5.0
"""Seconds after which a second Ctrl-C was not obeyed at once, on a machine as busy as chaos makes it."""


@fault("raylet killed (SIGKILL)", on_ray=True)
def kill_raylet(scene: Scene) -> str | None:
    raylets = [process for process in scene.driver.members() if process.is_raylet] if scene.driver.alive else []
    if not raylets or not send(raylets[0].pid, signal.SIGKILL):
        return None
    _may_end(scene, FAILED)
    scene.life.says.add(RESUME)
    return f"process {raylets[0].pid}"


@fault("MLflow server killed, back after seconds", weight=1.5)
def kill_server(scene: Scene) -> str | None:
    return _mended_later(scene, 10, scene.server.start) if scene.server.kill() else None


@fault("MLflow server stopped for seconds")
def stop_server(scene: Scene) -> str | None:
    return _mended_later(scene, 15, scene.server.go_on) if scene.server.stop() else None


@fault("MLflow's database locked for seconds")
def lock_database(scene: Scene) -> str | None:
    lock = scene.server.lock()
    return _mended_later(scene, 15, lock.close) if lock is not None else None


def _mended_later(scene: Scene, most: float, mend: Callable[[], None]) -> str:
    """Have a fault mended after 1 to ``most`` seconds; how many in words."""
    seconds = scene.chance.uniform(1, most)
    scene.later(seconds, mend)
    return f"{seconds:.1f} s"


@fault("newest checkpoint damaged, driver killed", weight=1.5, at_work=True)
def damage_checkpoint(scene: Scene) -> str | None:
    if not scene.checkpoints(scene.command.epochs) or kill_driver(scene) is None:
        return None
    _alone(scene)
    open_trials = scene.checkpoints(scene.command.epochs)
    if not open_trials:
        return None
    newest = scene.chance.choice(sorted(open_trials.items()))[1][-1]
    with scene.watch.blind():
        return f"{newest.parent.name}: {damage(newest, scene.chance)}"


@fault("newest checkpoints damaged, workers killed", weight=1.5, on_ray=True)
def damage_checkpoints(scene: Scene) -> str | None:
    workers, started = scene.workers(), scene.checkpoints(scene.command.epochs)
    if not workers or not started:
        return None
    for worker in workers:  # held, so that none writes another before it dies
        send(worker.pid, signal.SIGSTOP)
    with scene.watch.blind():
        done = [damage(files[-1], scene.chance) for files in scene.checkpoints(scene.command.epochs).values()]
    for worker in workers:
        send(worker.pid, signal.SIGKILL)
    return f"{len(done)} checkpoints" if done else None


@fault("journal's last line cut off, driver killed")
def cut_journal(scene: Scene) -> str | None:
    if kill_driver(scene) is None:
        return None
    journal = scene.run / JOURNAL
    content = journal.read_bytes()
    last = content[: len(content) - 1].rfind(b"\n") + 1
    kept = scene.chance.randrange(last, len(content)) if last < len(content) else last
    with journal.open("r+b") as file:
        file.truncate(kept)
    return f"{len(content) - kept} bytes of {_event(content[last:])}"


@fault("journal: a bit flipped, driver killed", weight=1.5)
def flip_journal(scene: Scene) -> str | None:
    if kill_driver(scene) is None:
        return None
    journal = scene.run / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    hit = scene.chance.randrange(len(lines))
    start = sum(map(len, lines[:hit]))
    flip(journal, scene.chance, start, start + len(lines[hit]))
    return f"line {hit + 1} of {len(lines)}, {_event(lines[hit])}"


@fault("a second driver on the run")
def second_driver(scene: Scene) -> str | None:
    if not scene.driver.alive or not (scene.run / JOURNAL).exists():
        return None
    second = scene.started(scene.command.resume(scene.place), f"second-{len(scene.lives):02}-{scene.epochs}")
    try:
        code = second.wait(120)
    finally:
        second.end()
    if not scene.driver.alive:
        return None  # it may well have gone on with the run
    said = second.said()
    if code != REFUSED or "Traceback" in said:
        scene.wrong.append(f"a second driver: exit code {code}, not {REFUSED}: {said[-300:]}")
    return "refused" if code == REFUSED else f"exit code {code}"


@fault("data cache damaged, driver killed")
def damage_cache(scene: Scene) -> str | None:
    if not scene.cached() or kill_driver(scene) is None:
        return None
    _alone(scene)
    return damage(scene.chance.choice(scene.cached()), scene.chance)


@fault("data cache cut off under the workers", weight=0.7, at_work=True)
def cut_cache(scene: Scene) -> str | None:
    busy = scene.workers() if scene.command.sweep != "final" else scene.driver.alive
    files = [file for file in scene.cached() if file.name == "train.npy"]
    if not busy or not files:
        return None
    # whoever touches what is gone dies by SIGBUS: the workers, or the final training itself
    scene.life.codes |= {FAILED} if scene.command.sweep != "final" else {-signal.SIGBUS}
    return cut(files[0], scene.chance)


@fault("storage full until the driver ends", at_work=True)
def fill_disk(scene: Scene) -> str | None:
    training = scene.workers() if scene.command.sweep != "final" else scene.driver.alive and scene.epochs > 0
    if not scene.disk.mounted or not training:
        return None
    scene.disk.fill()
    scene.at_end(scene.disk.free)
    life = scene.life
    scene.later(FULL_SECONDS, lambda: _still_there(scene, life))
    _may_end(scene, FAILED)
    if scene.command.sweep != "final":  # there the same words go on
        scene.life.says.add(RESUME)
    else:  # nobody can tell whether it was still starting: it is then told what is missing
        _may_end(scene, REFUSED)
    return "no byte free"


FULL_SECONDS = 90.0
"""By when a driver whose storage is full must have stopped."""


@fault("clock stepped", weight=1.5)
def step_clock(scene: Scene) -> str | None:
    if scene.clock.missing or not scene.driver.alive:
        return None
    seconds = scene.chance.choice((-86400, -3600, -30, 0, 30, 3600, 86400)) + scene.chance.uniform(-5, 5)
    scene.clock.set(seconds)
    return f"now {seconds:+.1f} s off"


def missing(scene: Scene) -> dict[str, str]:
    """Kinds that cannot strike on this machine, and why."""
    found = {"clock stepped": scene.clock.missing, "storage full until the driver ends": scene.disk.missing}
    return {name: why for name, why in found.items() if why}


def _may_end(scene: Scene, code: int) -> None:
    """The driver should now end with ``code``; if its work was just done, with 0 or what was expected before."""
    scene.life.codes.add(code)


def _alone(scene: Scene) -> None:
    """Wait until no worker of a dead driver writes any more: what is damaged next must be what is read."""
    until(lambda: not any(process.is_trial for process in scene.driver.members()), 60)


def _still_there(scene: Scene, life: Life) -> None:
    if life.driver.alive:
        scene.wrong.append(f"life {life.number}: still there {FULL_SECONDS:g} s after its storage was full")
        scene.disk.free()


def _event(line: bytes) -> str:
    start = line.find(b'"event":"')
    return line[start + 9 : line.find(b'"', start + 9)].decode(errors="replace") if start >= 0 else "a line"
