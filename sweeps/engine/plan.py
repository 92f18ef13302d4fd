"""What a sweep would cost, from a short probe, without running it."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from sweeps.engine.progress import clock
from sweeps.engine.request import Ready, checkpoints_bytes
from sweeps.engine.resources import Booking
from trainables.checkpoint import checkpoint_bytes
from trainables.data import DataSet
from trainables.storage import free_bytes, size
from trainables.trial import prepare_process
from vqcore.config import ConfigError, TrialConfig
from vqcore.training import Images, Trainer

PROBE_STEPS = 12
"""Training steps that are measured, the first quarter of them as warm-up."""


@dataclass(frozen=True)
class Probe:
    """What a few steps of a trial took."""

    seconds: float
    """Of an epoch with its evaluation."""
    memory: int
    """Bytes at the peak: of the GPU its context included, else of the process."""
    memory_there: int
    """Bytes of the GPU, or what the machine has available."""


def print_plan(console: Console, ready: Ready) -> None:
    """Trials, epochs, images, time, memory and disk. ``ConfigError`` if the machine cannot hold it."""
    spec, data, booking = ready.spec, ready.data, ready.booking
    search, budget = spec.search, spec.base.training.epochs
    configs = ready.configs or (max(spec.corners(), key=checkpoint_bytes, default=spec.base),)
    trials = spec.drawn_trials or len(ready.configs)
    rule = search.rule if search else None
    epochs = rule.expected_epochs(trials, budget) if rule else trials * budget
    epochs = min(epochs, search.budget) if search and search.budget else epochs
    at_once = min(booking.slots, trials)
    share = f"{booking.gpus:g} GPU and {booking.cpus:g} CPU" if booking.gpus else f"{booking.cpus:g} CPU"
    disk = checkpoints_bytes(ready.configs or configs * trials, booking.slots, rule is not None)
    table = Table(show_header=False, title="Plan", title_justify="left")
    rows = [
        ("trials", f"{trials}, {at_once} at once, each on {share}"),
        ("data", f"{data.source}: {data.train_images:,} train, {data.test_images:,} test, {data.image_size} pixels"),
    ]
    if rule is not None:
        least = "at least " if rule.forecast else ""
        reached = ", ".join(f"{count} to epoch {epoch}" for epoch, count in rule.plan(trials, budget))
        rows.append(("rungs", f"{reached}: {least}{epochs / (trials * budget):.0%} of training all in full"))
    if search and spec.seeds > 1:
        rows.append(("seeds", f"one to screen; near the front up to {spec.seeds}, which comes on top"))
    rows.append(("epochs", f"{epochs:,} in all, {epochs * data.train_images:,} training images"))
    if booking.gpus and not torch.cuda.is_available():
        rows.append(("wall time", "not known: this machine has no GPU to probe, only the cluster has"))
    else:
        largest = max(configs, key=checkpoint_bytes)
        found = probe(largest, data, booking)
        rows += _measured(found, epochs, at_once, booking)
    free = free_bytes(ready.request.trials_folder)
    rows.append(("checkpoints", f"{size(disk)}, " + ("in a bucket" if free is None else f"of {size(free)} free")))
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)
    if booking.gpus and booking.gpus < 1:
        console.print("The probe had the GPU to itself; trials that share one are slower each.")


def _measured(found: Probe, epochs: int, at_once: int, booking: Booking) -> Iterator[tuple[str, str]]:
    yield "an epoch", f"{found.seconds:.1f} s, from a probe of {PROBE_STEPS} steps of the largest configuration"
    yield "wall time", f"about {clock(found.seconds * epochs / at_once)}, start-up aside"
    if booking.gpus:
        yield "GPU time", f"about {found.seconds * epochs * booking.gpus / 3600:.2f} GPU-hours"
    fit = found.memory_there // max(1, found.memory)
    where = "a GPU" if booking.gpus else "this machine"
    yield "memory", f"{size(found.memory)} a trial at most; {fit} fit {where} ({size(found.memory_there)})"
    wanted = round(1 / booking.gpus) if 0 < booking.gpus <= 1 else at_once
    if fit < wanted:
        step = f"--trials-per-gpu {fit}" if booking.gpus else f"--num-cpus {fit}"
        raise ConfigError(
            [
                f"{wanted} trials at once need {size(wanted * found.memory)} of {where}'s memory, "
                f"{size(found.memory_there)} are there: {step} fits, or a smaller --batch-size"
                if fit
                else f"one trial needs {size(found.memory)} of {where}'s memory, "
                f"{size(found.memory_there)} are there: choose a smaller --batch-size or --preset"
            ]
        )


def probe(config: TrialConfig, data: DataSet, booking: Booking) -> Probe:
    """Train and evaluate a few steps of ``config`` in this process."""
    threads = torch.get_num_threads()
    try:
        trainer = Trainer(config, prepare_process(booking.cpus, booking.gpus))
        size = min(config.training.batch_size, data.train_images)
        few, warm = size * PROBE_STEPS, size * (PROBE_STEPS // 4)
        train, test = data.train(), data.test()
        trainer.train_epoch(Images(train[:warm], trainer.device))
        step = _seconds(lambda: trainer.train_epoch(Images(train[:few], trainer.device))) / min(few, len(train))
        image = _seconds(lambda: trainer.evaluate(Images(test[:few], trainer.device))) / min(few, len(test))
    finally:
        torch.set_num_threads(threads)
    seconds = step * data.train_images + image * data.test_images
    return Probe(seconds, *(_gpu_memory() if booking.gpus else _process_memory()))


def _gpu_memory() -> tuple[int, int]:
    free, total = torch.cuda.mem_get_info()
    context = max(0, total - free - torch.cuda.memory_reserved())
    return torch.cuda.max_memory_reserved() + context, total


def peak_bytes() -> int:
    """The most memory that this process has held. Linux counts it in kB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _process_memory() -> tuple[int, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux: no reason to refuse
        available = 2**62
    return peak_bytes(), available


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
