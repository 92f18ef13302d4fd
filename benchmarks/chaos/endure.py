"""A sweep from its start to its end, through all faults, resumed as often as its driver ends too early."""

import signal
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.chaos.processes import until
from benchmarks.chaos.scene import Scene
from benchmarks.chaos.schedule import Planned

POLL = 0.05
HANG = 300.0
"""Seconds without a new epoch after which a driver hangs. Recovery from any fault here takes a fraction of it."""
GONE = 90.0
"""Seconds that processes may outlive a driver. Workers die within three; two agents of Ray's look for their raylet once
a minute."""


@dataclass
class Struck:
    """A fault that struck."""

    name: str
    what: str
    epochs: int
    """Recorded before it."""
    second: float
    """Of the sweep's wall time."""
    life: int
    recovered: float | None = None
    """Seconds until an epoch was recorded after it, or the sweep was complete."""


@dataclass
class Endured:
    """What became of the sweep."""

    struck: list[Struck] = field(default_factory=list)
    codes: list[int | None] = field(default_factory=list)
    """Exit codes of the drivers, in order."""
    wall: float = 0.0
    """Seconds from the first start to the last end."""
    trained: int = 0
    """Epochs trained, each as often as it was."""
    twice: int = 0
    """Of these, trained again."""
    synced: bool = False
    """Whether MLflow had to be told by ``sweeps.sync`` in the end."""
    wrong: list[str] = field(default_factory=list)
    """What must not have happened, besides differences in the outcome."""


Say = Callable[[str], None]


def endure(scene: Scene, planned: list[Planned], say: Say) -> Endured:
    """Run the sweep under the faults until it is complete. What it left is then in its folder and in MLflow."""
    found, waiting = Endured(), deque(planned)
    began = time.monotonic()
    with ExitStack() as closing:
        closing.callback(scene.close)
        closing.enter_context(scene.watch)
        scene.begin(scene.command.start(scene.place))
        while True:
            _live(scene, found, waiting, began, say)
            scene.ended()
            code = scene.driver.code
            found.codes.append(code)
            say(f"{_at(began)} life {scene.life.number} ended with {code}, {scene.epochs} epochs")
            if complete(scene) and not waiting:
                break
            if len(scene.lives) > 2 * len(planned) + 3:
                scene.wrong.append("the sweep does not come to its end, however often it is resumed")
                break
            if complete(scene):
                _give_up_on_late(waiting, found, scene)
            time.sleep(scene.chance.uniform(0, 1))
            scene.begin(scene.command.resume(scene.place))
        found.wall = round(time.monotonic() - began, 1)
        _recovered(found, began)
        scene.tick(everything=True)
        _sync(scene, found)
        if not until(lambda: not scene.left_behind(), GONE):
            scene.wrong += [f"left behind: {process.pid} {process.words[:80]}" for process in scene.left_behind()]
    found.trained, found.twice, found.wrong = scene.watch.trained, scene.watch.twice, scene.wrong
    return found


def complete(scene: Scene) -> bool:
    """Whether the driver said that the work is done, and no trial has to be tried again."""
    run = scene.look()
    failed = [trial for trial in run.trials.values() if trial.status in ("failed", "running")]
    return scene.driver.code == 0 and run.done and not failed


def _live(scene: Scene, found: Endured, waiting: deque[Planned], began: float, say: Say) -> None:
    """One driver, until it ends."""
    epochs, since, may_strike = scene.epochs, time.monotonic(), time.monotonic()
    while scene.driver.alive:
        scene.tick()
        now = time.monotonic()
        if (recorded := scene.epochs) != epochs:
            epochs, since = recorded, now
            _recovered(found, began)
        if waiting and epochs >= waiting[0].epochs and now - may_strike >= waiting[0].delay:
            what = waiting[0].fault.strike(scene)
            if what is not None:
                name = waiting.popleft().fault.name
                found.struck.append(Struck(name, what, epochs, round(now - began, 1), scene.life.number))
                may_strike = since = time.monotonic()
                say(f"{_at(began)} {len(found.struck)}. {name}: {what}")
        if now - since > HANG:
            scene.wrong.append(f"life {scene.life.number}: nothing new for {HANG:g} s; killed")
            scene.life.codes.add(-signal.SIGKILL)
            scene.driver.signal(signal.SIGKILL)
        time.sleep(POLL)


def _recovered(found: Endured, began: float) -> None:
    for struck in found.struck:
        if struck.recovered is None:
            struck.recovered = round(time.monotonic() - began - struck.second, 1)


def _give_up_on_late(waiting: deque[Planned], found: Endured, scene: Scene) -> None:
    """The sweep is complete: a fault that needs one at work, and met none in two lives, will not strike any more."""
    late = waiting[0]
    waiting.rotate(-1)
    scene.idle[late.fault.name] = scene.idle.get(late.fault.name, 0) + 1
    if scene.idle[late.fault.name] > 1:
        waiting.remove(late)


def _sync(scene: Scene, found: Endured) -> None:
    """MLflow was slow or down when the sweep ended: send what is missing, as it then says."""
    if "MLflow is behind" not in scene.driver.said():
        return
    found.synced = until(scene.server.answers, 60)
    process = scene.started(scene.command.sync(scene.place), "sync")
    if process.wait(120) != 0:
        scene.wrong.append(f"sweeps.sync: {process.said()[-300:]}")
        process.end()


def _at(began: float) -> str:
    return f"{time.monotonic() - began:7.1f} s"
