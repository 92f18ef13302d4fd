"""python -m benchmarks.chaos: strike a real run at random moments, resume it, and compare with an undisturbed one.

Compared are trials, epochs and metrics to the last bit, results.parquet, exports, tables, and MLflow's runs and points,
read by MLflow's client. The exit code is 1 if anything differs.
"""

import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.chaos.commands import Run, Sweep
from benchmarks.chaos.endure import endure, finished, strike_at_first
from benchmarks.chaos.faults import FAULTS, Fault, Scene, schedule
from benchmarks.chaos.outcome import Outcome, compare
from benchmarks.chaos.services import Disk, Server
from benchmarks.record import circumstances, write
from vqcore.config import ConfigError

MEGABYTES = 256
"""Of the disk that the run lies on."""


@dataclass(frozen=True)
class Chaos:
    """Strike a run at random moments, resume it, and compare with an undisturbed one."""

    sweep: Sweep = "grid"
    """grid: sweeps.beta_ablation; search: sweeps.pareto, on one slot; final: trainables.final."""
    first_seconds: bool = False
    """Instead of faults: kill the first sweep in a new folder in each of its first 10 seconds, one a seed."""
    faults: int = 12
    """That strike a run."""
    seed: int = 0
    """The first; it decides which faults strike, and when."""
    seeds: int = 1
    """Disturbed runs, with seeds from ``seed`` on."""
    trials: int = 20
    """Of the sweep; 4 usual with --first-seconds."""
    epochs: int = 8
    """Of a trial."""
    only: tuple[str, ...] = ()
    """Kinds of faults to draw from, by words in their names; all unless given."""
    out: Path = Path("runs/chaos")
    """Folder for all that is left behind: logs, runs, databases."""
    results: Path | None = None
    """The JSON file to write; benchmarks/results/chaos_<sweep>.json unless given."""


def check(chaos: Chaos) -> list[Fault]:
    """The faults asked for. ``ConfigError`` with everything that is wrong with the flags."""
    there = [kind for kind in FAULTS if chaos.sweep in kind.sweeps]
    kinds = [kind for kind in there if not chaos.only or any(word in kind.name for word in chaos.only)]
    names = [name for name in ("faults", "seeds") if getattr(chaos, name) < 1]
    problems = [f"{name} = {getattr(chaos, name)}: must be at least 1" for name in names]
    if chaos.trials < 2 or chaos.trials % 2:
        problems.append(f"trials = {chaos.trials}: must be even and at least 2, for a grid has two seeds of each")
    if chaos.epochs < 2:
        problems.append(f"epochs = {chaos.epochs}: must be at least 2, or no checkpoint is ever read")
    if not kinds:
        names = [kind.name for kind in there]
        problems.append(f"only = {' '.join(chaos.only)}: is part of no fault's name; there are: {'; '.join(names)}")
    if problems:
        raise ConfigError(problems)
    return kinds


def measure(chaos: Chaos, console: Console) -> int:
    """Run, print and write; the exit code. ``ConfigError`` for flags that make no sense."""
    kinds = check(chaos)
    rows: list[dict[str, Any]] = []
    name = "first_seconds" if chaos.first_seconds else chaos.sweep
    results = chaos.results or Path(f"benchmarks/results/chaos_{name}.json")
    record = circumstances(asdict(chaos))
    undisturbed, wanted = one_run(chaos, kinds, None, Outcome(), console)
    if undisturbed["wrong"]:
        console.print("the undisturbed run is not as it should be: nothing can be compared with it", style="red")
        return 1
    for seed in range(chaos.seed, chaos.seed + chaos.seeds):
        row, found = one_run(chaos, kinds, seed, wanted, console)
        row |= {"differences": compare(wanted, found)}
        rows.append({"seed": seed, "same": not row["wrong"] and not any(row["differences"].values()), **row})
        record |= {"undisturbed_seconds": undisturbed["seconds"], "seeds": rows}
        write(results, record)
    console.print(table(rows, undisturbed["seconds"]))
    return 0 if all(row["same"] for row in rows) else 1


def one_run(
    chaos: Chaos, kinds: Sequence[Fault], seed: int | None, wanted: Outcome, console: Console
) -> tuple[dict[str, Any], Outcome]:
    """The run under the faults of ``seed``, or undisturbed: its record, and its outcome."""
    folder = (chaos.out / f"{chaos.sweep}-{'undisturbed' if seed is None else seed}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    console.print(folder)
    with scene_in(chaos, folder, random.Random(f"strike/{seed}")) as scene:
        began = time.monotonic()
        if chaos.first_seconds and seed is not None:
            strike_at_first(scene, seed, console.print)
        else:
            epochs = len({name.partition(":")[0] for name in wanted.epochs})
            able = [kind for kind in kinds if scene.disk is not None or "disk" not in kind.name]
            planned = [] if seed is None else schedule(able, chaos.faults, epochs, seed)
            endure(scene, planned, console.print)
        seconds = round(time.monotonic() - began, 1)
        # the sweep itself names its database so
        found = finished(scene, scene.run.tracking_uri or f"sqlite:///{quote(str(scene.run.out))}/mlflow.db")
    for line in scene.wrong:
        console.print(f"WRONG: {line}", style="red")
    codes = [driver.code for driver in scene.drivers]
    return {"seconds": seconds, "exit_codes": codes, "strikes": scene.strikes, "wrong": scene.wrong}, found


@contextmanager
def scene_in(chaos: Chaos, folder: Path, chance: random.Random) -> Iterator[Scene]:
    """A disk for the run and an MLflow server; with ``first_seconds`` a plain folder. All is ended afterwards."""
    with ExitStack() as closing:
        disk, server, out = None, None, folder
        folder.mkdir(parents=True)
        if not chaos.first_seconds:
            disk = Disk.mounted(folder / "disk", MEGABYTES)
            if disk is not None:
                closing.callback(disk.close)
                out = disk.folder
            server = Server(folder / "mlflow")
            closing.callback(server.kill)
            server.start()
            server.wait()
        run = Run(chaos.sweep, chaos.trials, chaos.epochs, out / "runs", server.uri if server else None)
        scene = Scene(run, folder, chance, server, disk)
        closing.callback(scene.close)
        yield scene


def table(seeds: Sequence[dict[str, Any]], wall: float) -> Table:
    """For the terminal: a column for each seed."""
    shown = Table("seed", title=f"Beside the undisturbed run, {wall:.0f} s", title_justify="left")
    for one in seeds:
        shown.add_column(str(one["seed"]), justify="right", style="" if one["same"] else "red")
    for name in seeds[0]["differences"]:
        words = name.replace("mlflow", "MLflow:").replace("_", " ")
        shown.add_row(words, *(str(len(one["differences"][name])) for one in seeds))
    for words, name in (("otherwise wrong", "wrong"), ("faults", "strikes"), ("drivers", "exit_codes")):
        shown.add_row(words, *(str(len(one[name])) for one in seeds))
    shown.add_row("seconds", *(f"{one['seconds']:.0f}" for one in seeds))
    return shown


def main(arguments: list[str] | None = None) -> int:
    """The command: 0, 1 if anything differs, 2 for wrong flags, 130 after Ctrl-C or SIGTERM."""
    chaos = tyro.cli(Chaos, prog="python -m benchmarks.chaos", args=arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return measure(chaos, Console(highlight=False, soft_wrap=True))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; every process that was started has been ended.", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
