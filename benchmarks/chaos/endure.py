"""A run from its start to its end: through all faults, resumed as often as its driver ends too early."""

import random
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence

from benchmarks.chaos.faults import KILLED, Planned, Scene
from benchmarks.chaos.outcome import Outcome, incomplete, outcome
from benchmarks.processes import Command, until

HANGS = 300.0
"""Seconds without a new epoch after which a driver counts as hanging; recovery takes a fraction of it."""
LEFT_BEHIND = 90.0
"""Seconds that processes may outlive a driver: two agents of Ray's look for their raylet once a minute."""


def endure(scene: Scene, planned: Sequence[Planned], say: Callable[[str], None]) -> None:
    """Run until all is done and every fault has struck, or can strike no more."""
    waiting, began = deque(planned), time.monotonic()
    while len(scene.drivers) < 2 * len(planned) + 3:
        scene.begin()
        _drive(scene, waiting, began, say)
        _judge(scene)
        say(f"{time.monotonic() - began:7.1f} s driver ended with {scene.driver.code}, {scene.epochs()} epochs")
        if scene.driver.code == 0 and scene.record().done:
            waiting = deque(one for one in waiting if not one.fault.at_work)
            if not waiting:
                break
        time.sleep(scene.chance.uniform(0, 1))
    else:
        scene.wrong.append("the run does not come to its end, however often it is resumed")
    scene.tick(everything=True)
    until(lambda: not any(driver.members() for driver in scene.drivers), LEFT_BEHIND)
    scene.wrong += [f"left behind: {words[:80]}" for driver in scene.drivers for words in driver.members().values()]


def strike_at_first(scene: Scene, seed: int, say: Callable[[str], None]) -> None:
    """Kill the first command within second ``seed`` of its life, and give the next one."""
    moment = seed % 10 + random.Random(f"first/{seed}").random()
    scene.begin()
    scene.driver.wait(moment)
    scene.driver.signal(signal.SIGKILL)
    scene.codes = {KILLED}
    _judge(scene)
    did = "resumed" if scene.run.started else "started again"
    scene.strikes = [{"name": "killed in the first seconds", "did": did, "second": round(moment, 2)}]
    scene.begin()
    scene.driver.wait(2 * HANGS)
    _judge(scene)
    say(f"seed {seed}: killed after {moment:.2f} s, {did}")


def finished(scene: Scene, tracking_uri: str) -> Outcome:
    """The outcome; what MLflow lacks is first sent by ``sweeps.sync``, which the driver must then have named."""
    result = outcome(scene.run.folder, tracking_uri)
    if missing := incomplete(result):
        if "sweeps.sync" not in scene.driver.output:
            scene.wrong.append(f"MLflow lacks something and the driver does not say so: {missing[:3]}")
        sync = Command(scene.run.sync(), scene.log / "sync.log")
        if sync.wait(HANGS) != 0:
            scene.wrong.append(f"sweeps.sync: {sync.output[-300:]}")
        sync.end()
        result = outcome(scene.run.folder, tracking_uri)
        scene.strikes.append({"name": "MLflow was behind", "did": "told by sweeps.sync"})
    scene.wrong += [f"MLflow: {line}" for line in incomplete(result)[:10]]
    return result


def _drive(scene: Scene, waiting: deque[Planned], began: float, say: Callable[[str], None]) -> None:
    """One driver, until it ends."""
    epochs, since, free = -1, time.monotonic(), time.monotonic()
    while scene.driver.code is None:
        scene.tick()
        now = time.monotonic()
        if (recorded := scene.epochs()) != epochs:
            epochs, since = recorded, now
        if waiting and epochs >= waiting[0].epochs and now - free >= waiting[0].delay:
            fault, did = waiting[0].fault, waiting[0].fault.strike(scene)
            if did is not None:
                waiting.popleft()
                free = since = time.monotonic()
                strike = {"name": fault.name, "did": did, "epochs": epochs, "second": round(now - began, 1)}
                scene.strikes.append({**strike, "driver": len(scene.drivers) - 1})
                say(f"{now - began:7.1f} s {len(scene.strikes)}. {fault.name}: {did}")
        if now - since > HANGS:
            scene.wrong.append(f"driver {len(scene.drivers) - 1}: nothing new for {HANGS:g} s; killed")
            scene.codes.add(KILLED)
            scene.driver.signal(signal.SIGKILL)
        time.sleep(0.1)


def _judge(scene: Scene) -> None:
    """Whether the driver ended as the faults that struck it allow, and in words."""
    code, output, number = scene.driver.wait(30), scene.driver.output, len(scene.drivers) - 1
    last = " / ".join(output.strip().splitlines()[-4:])[-400:]
    if code not in scene.codes:
        scene.wrong.append(f"driver {number}: exit code {code}, not {sorted(scene.codes)}: {last}")
    if "Traceback (most recent call last)" in output:
        scene.wrong.append(f"driver {number}: a traceback on the screen: {last}")
    if code == 1 and scene.run.sweep != "final" and "--resume" not in output:
        scene.wrong.append(f"driver {number}: names no --resume: {last}")
