"""python -m benchmarks.sweep: our beta ablation beside a typical script (``peer_sweep.py``), process for process.

Same networks, codebook, optimiser, images and epochs; one CPU a trial, two trials at once. Wall time runs from the
start of the process to its exit, and so counts imports, Ray's start, data, tracking and, of ours, journal, checkpoints,
figures, tables and exports. Ours decodes its data set anew each time: its cache is a fresh folder (cold).

How much of that time is the trials' own is told beside: of the images that the sweep trained and evaluated, the share
of what bare loops (``bare.py``) would have done in its wall time in as many processes, of the same trials, and of
encoder and decoder with no quantizer; and where the rest went. The loops run in the same turns.
"""

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from benchmarks.bare import Bare, Kind, Work, side_by_side
from benchmarks.cpu_times import CpuTimes
from benchmarks.processes import Command
from benchmarks.record import circumstances, recorded, write
from benchmarks.sweep_parts import parts, share
from sweeps.beta_ablation import BetaAblation
from sweeps.engine.spec import SweepSpec
from trainables.commands import run_command
from trainables.journal import JournalReader, read
from vqcore.config import ConfigError, Precision, TrialConfig, problems_of

PEER = "vector-quantize-pytorch"
SLOTS = 2
BARE_EPOCHS = 2
"""Of each bare loop, in a turn."""

Side = Literal["peer", "ours"]


@dataclass(frozen=True)
class SweepBenchmark:
    """Measure our sweep beside a typical script, as whole processes, in turn."""

    betas: tuple[float, ...] = BetaAblation.betas
    """Commitment weights: a trial each."""
    epochs: int = 4
    """Passes of each trial over 2,432 images, with an evaluation of 500 after each."""
    decay: float = BetaAblation.decay
    """Of the codebook's moving averages, on both sides."""
    precision: Precision = "auto"
    """Of ours; the peer computes in fp32, as its script says nothing else."""
    sides: tuple[Side, ...] = get_args(Side)
    """Whole processes to run; the bare loops run with ours."""
    repeats: int = 2
    """Runs of each side; medians are compared."""
    out: Path = Path("benchmarks/results/sweep.json")
    """The JSON file to write."""


@dataclass(frozen=True)
class Run:
    """One process. Times in seconds."""

    side: str
    """``ours`` or ``peer``."""
    wall: float
    """From the start of the process to its exit."""
    first_epoch: float
    """From the start of the process to the first epoch that any trial reported."""
    after_last_epoch: float
    """From the last epoch that any trial reported to the exit."""
    epochs: int
    """Of all trials."""
    precision: str
    mse: dict[str, float]
    """Of the test images on [-1, 1], after the last epoch, by beta."""
    perplexity: dict[str, float]
    """Over the whole set of test images, after the last epoch, by beta."""
    load: float = 0.0
    """Of the machine, as it began."""
    alone: dict[Kind, Bare] = field(default_factory=dict)
    """Of ours: the bare loops that ran after it."""
    shares: dict[str, float] = field(default_factory=dict)
    """Of ours: of what ``alone`` would have done in its wall time, what it did; of its CPU time what the bare trials
    need; and images a second."""
    parts: dict[str, float] = field(default_factory=dict)
    """Of ours: where its wall time went (``sweep_parts``)."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Of ours: CPU time in seconds, by kind of process."""


def times(started: float, wall: float, epochs: list[float]) -> tuple[float, float, float]:
    """``wall``, ``first_epoch`` and ``after_last_epoch`` of a ``Run``, from the times at which epochs were reported."""
    return round(wall, 3), round(min(epochs) - started, 3), round(started + wall - max(epochs), 3)


def check(benchmark: SweepBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    spec = SweepSpec({"commitment_weight": benchmark.betas}, seeds=1)
    problems = [
        *problems_of(spec.configs),
        *problems_of(lambda: TrialConfig().replace(epochs=benchmark.epochs, decay=benchmark.decay)),
    ]
    if benchmark.repeats < 1:
        problems.append(f"repeats = {benchmark.repeats}: must be at least 1; 2 is usual")
    if importlib.util.find_spec(PEER.replace("-", "_")) is None:
        problems.append(f"{PEER} is not installed, and the peer needs it; pip install -e '.[dev]'")
    if problems:
        raise ConfigError(problems)


def run_ours(benchmark: SweepBenchmark, folder: Path) -> Run:
    """The whole command of ours, with all that it leaves behind."""
    words = ["--epochs", benchmark.epochs, "--seeds", 1, "--num-gpus", 0, "--num-cpus", SLOTS]
    words += ["--decay", benchmark.decay, "--precision", benchmark.precision, "--betas", *benchmark.betas]
    command = [sys.executable, "-m", "sweeps.beta_ablation", *words, "--out", folder / "runs", "--name", "benchmark"]
    sweep = Command(command, folder / "output.log", {"VQSWEEP_CACHE": str(folder / "cache")})
    cpu = CpuTimes()
    wall = sweep.watch(lambda: cpu.look(sweep))
    journal = folder / "runs" / "beta_ablation" / "benchmark" / "journal.jsonl"
    trials = read(journal).trials.values()
    last = {f"{trial.config['commitment_weight']:g}": trial.epochs[trial.last_epoch] for trial in trials}
    epochs = [time for trial in trials for time in trial.times.values()]
    alone: dict[Kind, Bare] = {kind: run_bare(benchmark, kind, folder) for kind in get_args(Kind)}
    network, trial = alone["network"], alone["trial"]
    events, data = list(JournalReader(journal).new()), data_seconds(folder / "cache")
    return Run(
        "ours",
        *times(sweep.started, wall, epochs),
        len(epochs),
        ", ".join(sorted({trial.info["precision"] for trial in trials})),
        mse={beta: metrics["mse"] for beta, metrics in last.items()},
        perplexity={beta: metrics["perplexity"] for beta, metrics in last.items()},
        alone=alone,
        shares={
            "of_trials": share(trial, len(epochs), SLOTS, wall),
            "of_network": share(network, len(epochs), SLOTS, wall),
            "of_cpu_time": len(epochs) * trial.cpu / sum(cpu.by_kind.values()),
            "images_per_second": len(epochs) * trial.images / wall,
        },
        parts=parts(events, sweep.started, wall, data, network, trial, SLOTS),
        cpu=cpu.by_kind,
    )


def run_bare(benchmark: SweepBenchmark, kind: Kind, folder: Path) -> Bare:
    """A loop alone, in as many processes as there are slots, on the data set that the sweep has made."""
    fields = {"decay": benchmark.decay, "precision": benchmark.precision, "epochs": BARE_EPOCHS}
    return side_by_side(Work(kind, fields), SLOTS, folder, {"VQSWEEP_CACHE": str(folder / "cache")})


def data_seconds(cache: Path) -> float:
    """How long a data set was in the making: from the lock of its folder to the last file in it."""
    lock, meta = next((cache / "data").glob("*.lock")), next((cache / "data").glob("*/meta.json"))
    return meta.stat().st_mtime - lock.stat().st_mtime


def run_peer(benchmark: SweepBenchmark, folder: Path) -> Run:
    """The peer's script; its results are read where its user would look, in MLflow."""
    from mlflow import MlflowClient

    words = ["--out", folder, "--epochs", benchmark.epochs, "--decay", benchmark.decay, "--num-cpus", SLOTS]
    command = [sys.executable, "-m", "benchmarks.peer_sweep", *words, "--betas", *benchmark.betas]
    script = Command(command, folder / "output.log")
    wall = script.watch()
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = {f"{float(run.data.params['beta']):g}": run for run in client.search_runs(experiments)}
    points = [point for run in runs.values() for point in client.get_metric_history(run.info.run_id, "mse")]
    return Run(
        "peer",
        *times(script.started, wall, [point.timestamp / 1000 for point in points]),
        len(points),
        "fp32",
        mse={beta: run.data.metrics["mse"] for beta, run in runs.items()},
        perplexity={beta: run.data.metrics["perplexity"] for beta, run in runs.items()},
    )


SIDES: dict[Side, Callable[[SweepBenchmark, Path], Run]] = {"peer": run_peer, "ours": run_ours}


def measure(benchmark: SweepBenchmark, console: Console) -> list[Run]:
    """All runs, the sides in turn, each in a fresh folder. ``RuntimeError`` if one did not do all of the work."""
    runs = []
    for repeat in range(benchmark.repeats):
        # the other order each time: what the machine does meanwhile should not always meet the same side
        for side in benchmark.sides[:: 1 if repeat % 2 == 0 else -1]:
            load = round(os.getloadavg()[0], 1)
            with tempfile.TemporaryDirectory(prefix="vqsweep-benchmark-") as folder:
                run = replace(SIDES[side](benchmark, Path(folder)), load=load)
            wanted = len(benchmark.betas) * benchmark.epochs
            if run.epochs != wanted or len(run.mse) != len(benchmark.betas):
                raise RuntimeError(f"{side}: {run.epochs} epochs were recorded, {wanted} should have been")
            told = "".join(f", {name} {value:.3g}" for name, value in run.shares.items())
            console.print(f"{repeat + 1}/{benchmark.repeats} {side}: {run.wall:.1f} s at load {load}{told}")
            runs.append(run)
    return runs


def summary(runs: Iterable[Run]) -> dict[str, Any]:
    """Medians of each side, how many times longer the peer took, and of ours its shares and the parts of its time."""
    sides: dict[str, list[Run]] = {}
    for run in runs:
        sides.setdefault(run.side, []).append(run)
    found: dict[str, Any] = {}
    if len(sides) == 2:
        found["ratio"] = round(median(run.wall for run in sides["peer"]) / median(run.wall for run in sides["ours"]), 2)
    found["median_seconds"] = {
        side: {name: median(getattr(run, name) for run in own) for name in ("wall", "first_epoch", "after_last_epoch")}
        for side, own in sides.items()
    }
    for name in ("shares", "parts", "cpu"):
        told = [getattr(run, name) for run in sides.get("ours", ())]
        found[name] = {key: round(median(one[key] for one in told), 3) for key in next(iter(told), {})}
    return found


def tables(runs: list[Run], told: dict[str, Any]) -> list[Table]:
    """For the terminal: times, what both sides found, and where our time went."""
    faster = f": the peer takes {told['ratio']:.2f} times as long as ours" if "ratio" in told else ""
    times = Table(title=f"Wall time{faster}", title_justify="left")
    for name in ("", "median s", "each run", "to the first epoch", "after the last", "precision"):
        times.add_column(name, justify="left" if name == "" else "right")
    found = Table(title="MSE on [-1, 1] / perplexity, test images", title_justify="left", min_width=48)
    found.add_column("beta", justify="right")
    for side, medians in sorted(told["median_seconds"].items()):
        own = [run for run in runs if run.side == side]
        seconds = [f"{medians[name]:.1f}" for name in ("wall", "first_epoch", "after_last_epoch")]
        each = " ".join(f"{run.wall:.1f}" for run in own)
        times.add_row(side, seconds[0], each, *seconds[1:], own[0].precision)
        found.add_column(side, justify="right")
    first = [next(run for run in runs if run.side == side) for side in sorted(told["median_seconds"])]
    for beta in sorted(first[0].mse, key=float):
        found.add_row(beta, *(f"{run.mse[beta]:.4f} / {run.perplexity[beta]:.1f}" for run in first))
    return [times, found, *([_account(told)] if told["parts"] else [])]


def _account(told: dict[str, Any]) -> Table:
    shares, whole = told["shares"], sum(told["parts"].values())
    title = (
        f"Ours, {shares['images_per_second']:.0f} images/s: {shares['of_trials']:.0%} of what its trials alone reach, "
        f"{shares['of_network']:.0%} of encoder and decoder alone"
    )
    table = Table("where the wall time went", title=title, title_justify="left")
    for name in ("median s", "%"):
        table.add_column(name, justify="right")
    for part, seconds in told["parts"].items():
        table.add_row(part, f"{seconds:.2f}", f"{100 * seconds / whole:.1f}")
    cpu = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in told["cpu"].items())
    table.caption = f"CPU time, of which its trials alone need {shares['of_cpu_time']:.0%}: {cpu}"
    return table


def main(benchmark: OmitArgPrefixes[SweepBenchmark]) -> None:
    """Measure our sweep beside a typical script, as whole processes, in turn."""
    check(benchmark)
    facts = circumstances({**asdict(benchmark), "slots": SLOTS, "data_cache_of_ours": "cold"}, PEER)
    console = Console(highlight=False)
    runs = measure(benchmark, console)
    told = summary(runs)
    console.print(*tables(runs, told), sep="\n")
    kept = {name: part for name, part in recorded(benchmark.out).items() if name.endswith("epochs")}
    write(
        benchmark.out, {**kept, f"{benchmark.epochs} epochs": {**told, **facts, "runs": [asdict(run) for run in runs]}}
    )


if __name__ == "__main__":
    run_command(main)
