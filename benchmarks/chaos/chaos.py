"""The undisturbed sweep, the disturbed ones, and what sets them apart."""

import hashlib
import json
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from benchmarks.chaos.clock import Clock
from benchmarks.chaos.commands import Command, Place, Sweep
from benchmarks.chaos.compare import Differences, compare
from benchmarks.chaos.damage import Disk
from benchmarks.chaos.endure import Endured, endure
from benchmarks.chaos.faults import FAULTS, Fault, missing
from benchmarks.chaos.outcome import Outcome, outcome
from benchmarks.chaos.scene import Scene
from benchmarks.chaos.schedule import schedule
from benchmarks.chaos.server import Server
from benchmarks.chaos.tables import tables
from sweeps.engine.provenance import provenance
from vqcore.config import ConfigError

DISK = 256
"""Megabytes that the checkpoints have."""


@dataclass(frozen=True)
class Chaos:
    """Run a sweep under randomly timed faults, and compare with the undisturbed one."""

    faults: int = 30
    """That strike a sweep."""
    seed: int = 0
    """Of which faults strike, and when."""
    seeds: int = 1
    """Disturbed sweeps, with seeds from ``seed`` on."""
    sweep: Sweep = "grid"
    """grid: sweeps.beta_ablation; search: sweeps.pareto, on one slot; final: trainables.final."""
    trials: int = 20
    """Of the sweep; a search draws so many configurations."""
    epochs: int = 8
    """Of a trial."""
    slots: int | None = None
    """Trials at once, a CPU each; of a grid 2 unless given, else 1."""
    only: tuple[str, ...] = ()
    """Kinds of faults to draw from, by words in their names; all unless given."""
    out: Path = Path("runs/chaos")
    """Folder for all that is left behind: logs, runs, databases."""
    results: Path | None = None
    """The JSON file to write; benchmarks/results/chaos_<sweep>.json unless given."""


def run(chaos: Chaos, console: Console) -> int:
    """Measure, say and write; the exit code. ``ConfigError`` for what makes no sense."""
    command, kinds = check(chaos)
    results = chaos.results or Path(f"benchmarks/results/chaos_{chaos.sweep}.json")
    measured = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    found: list[dict[str, Any]] = []
    with _terminated_as_interrupted():
        wanted, wall = undisturbed(chaos, command, console)
        for seed in range(chaos.seed, chaos.seed + chaos.seeds):
            found.append(disturbed(chaos, command, kinds, seed, wanted, console))
            settings = {name: value for name, value in asdict(chaos).items() if name not in ("out", "results")}
            record = {
                "settings": settings,
                "measured": measured,
                "undisturbed": {"trials": len(wanted.trials), "epochs": wanted.epochs, "wall": wall},
                "provenance": provenance(),
                "seeds": found,
            }
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            console.print(*tables(found, wall), sep="\n")
    return 0 if all(one["same"] for one in found) else 1


def check(chaos: Chaos) -> tuple[Command, list[Fault]]:
    """The sweep and the faults that are asked for. ``ConfigError`` with all that is wrong."""
    slots = chaos.slots or (2 if chaos.sweep == "grid" else 1)
    command = Command(chaos.sweep, chaos.trials, chaos.epochs, slots)
    known = [kind for kind in FAULTS.values() if chaos.sweep in kind.sweeps]
    kinds = [kind for kind in known if not chaos.only or any(word in kind.name for word in chaos.only)]
    problems = [f"faults = {chaos.faults}: must be at least 1"] if chaos.faults < 1 else []
    problems += [f"seeds = {chaos.seeds}: must be at least 1"] if chaos.seeds < 1 else []
    if not kinds:
        problems.append(f"only = {' '.join(chaos.only)}: no fault is called so; there are: {_names(known)}")
    if problems:
        raise ConfigError(problems)
    return command, kinds


def _names(kinds: list[Fault]) -> str:
    return "; ".join(kind.name for kind in kinds)


def undisturbed(chaos: Chaos, command: Command, console: Console) -> tuple[Outcome, float]:
    """What the sweep comes to without faults, and its seconds; kept for all seeds with the same settings and code."""
    identity = hashlib.sha256(json.dumps([asdict(command), provenance()["commit"]]).encode()).hexdigest()[:8]
    folder = chaos.out / f"undisturbed-{command.sweep}-{identity}"
    kept, seconds = folder / "outcome.json", folder / "wall.txt"
    if kept.exists() and seconds.exists():
        return Outcome.load(kept), float(seconds.read_text())
    console.print(f"undisturbed: {folder}")
    with scene_at(chaos, command, folder, random.Random(0)) as scene:
        done = endure(scene, [], console.print)
        found = outcome(scene.run, scene.server.database)
    problems = done.wrong + incomplete(found)
    if problems:
        raise ConfigError([f"the undisturbed sweep is not as it should be: {problem}" for problem in problems])
    found.save(kept)
    seconds.write_text(str(done.wall))
    return found, done.wall


def incomplete(found: Outcome) -> list[str]:
    """What MLflow lacks of what the journal has; a yardstick must not itself be short."""
    told = {" ".join(point.split(" ")[:1]) + " " + point.split(" ")[-1] for point in found.points}
    return [
        f"MLflow has nothing of epoch {epoch} of {key}"
        for key, trial in found.trials.items()
        for epoch in trial["epochs"]
        if f"{key} {epoch}" not in told
    ]


def disturbed(
    chaos: Chaos, command: Command, kinds: list[Fault], seed: int, wanted: Outcome, console: Console
) -> dict[str, Any]:
    """The sweep under the faults of ``seed``: what struck, and what is different in the end."""
    folder = chaos.out / f"{command.sweep}-seed-{seed}"
    with scene_at(chaos, command, folder, random.Random(f"strike/{seed}")) as scene:
        absent = missing(scene)
        able = [kind for kind in kinds if kind.name not in absent]
        for name, why in absent.items():
            console.print(Text(f"left out: {name}: {why}", style="yellow"))
        planned = schedule(able, chaos.faults, wanted.epochs, seed)
        console.print(f"seed {seed}: {len(planned)} faults, {folder}")
        endured = endure(scene, planned, console.print)
        found = outcome(scene.run, scene.server.database)
    found.save(folder / "outcome.json")
    return judged(seed, chaos.faults, endured, compare(wanted, found), absent)


def judged(
    seed: int, faults: int, endured: Endured, differences: Differences, absent: dict[str, str]
) -> dict[str, Any]:
    """One seed's record."""
    return {
        "seed": seed,
        "same": differences.none and not endured.wrong,
        "faults": faults,
        "struck": len(endured.struck),
        "recovered": sum(struck.recovered is not None for struck in endured.struck),
        "differences": differences.counts,
        "wrong": endured.wrong,
        "examples": {name: words[:10] for name, words in asdict(differences).items() if words},
        "exit_codes": endured.codes,
        "epochs_trained": endured.trained,
        "epochs_trained_twice": endured.twice,
        "wall": endured.wall,
        "told_mlflow_by_sync": endured.synced,
        "left_out": absent,
        "strikes": [asdict(struck) for struck in endured.struck],
    }


@contextmanager
def scene_at(chaos: Chaos, command: Command, folder: Path, chance: random.Random) -> Iterator[Scene]:
    """Server, disk and clock for one sweep in an empty ``folder``; all ended and unmounted afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder = folder.absolute()
    cache = folder / "cache"
    with ExitStack() as closing:
        disk = Disk(folder / "disk", DISK)
        closing.callback(disk.close)
        server = Server(folder / "mlflow")
        closing.callback(server.close)
        server.start()
        server.wait()
        clock = Clock(folder)
        on_disk = disk.folder if command.sweep == "final" else folder
        place = Place(on_disk / "runs", disk.folder / "storage", server.uri)
        environment = {"VQSWEEP_CACHE": str(cache), "PYTHONUNBUFFERED": "1", **clock.environment}
        scene = Scene(command, place, folder, environment, server, disk, clock, cache, chance)
        closing.callback(scene.close)
        yield scene


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends chaos as Ctrl-C does: by way of all that has to be ended first, which nothing may cut short."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for own in before:
            signal.signal(own, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
