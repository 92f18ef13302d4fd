"""The cost of a sweep, from a short probe, without running it."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sweeps.engine.request import CheckedSweep, checkpoints_bytes, largest
from sweeps.engine.resources import Booking
from sweeps.engine.spec import SweepSpec
from trainables.commands import duration
from trainables.data import DataSet
from trainables.device import prepare_process, process_memory
from trainables.storage import free_bytes, size
from vqcore.config import ConfigError, TrialConfig
from vqcore.pack import Member, Pack
from vqcore.registry import ARCHITECTURES
from vqcore.training import Images

PROBE_STEPS = 12
"""Training steps that are measured, after as many as a warm-up."""


PRIOR_PROBE = 512
"""Images whose made-up codes the prior of a learned rate is timed on."""


class Probe(NamedTuple):
    """Measurements of a few steps of a trial."""

    seconds: float
    """Of an epoch with its evaluation."""
    memory: int
    """Bytes at the peak: of the GPU its context included, else of the process."""
    capacity: int
    """Bytes of the GPU, or those that the machine has available."""


def print_plan(console: Console, checked: CheckedSweep) -> None:
    """Print trials, epochs, images, time, memory and disk. ``ConfigError`` if the machine cannot hold it."""
    table = Table(show_header=False, title="Plan", title_justify="left")
    for name, value in _rows(checked):
        table.add_row(name, value)
    console.print(table)
    for note in checked.notes:
        console.print(note)
    if 0 < checked.booking.gpus < 1 and checked.sharing is None:
        console.print("The probe had the GPU to itself; trials that share one are slower each.")


def _rows(checked: CheckedSweep) -> Iterator[tuple[str, str]]:
    spec, data, booking = checked.spec, checked.data, checked.booking
    search, per_trial = spec.search, spec.base.training.epochs
    rule = search.rule if search else None
    trials = spec.drawn_trials or len(checked.configs)
    epochs, most = spec.expected_epochs(trials), _most_epochs(spec, trials)
    at_once = min(booking.slots, trials)
    # trials are spread over the processes
    together = math.ceil(at_once / booking.processes)
    booking = replace(booking, slots=booking.processes * together, pack=together)
    resources = f"{booking.gpus:g} GPU and {booking.cpus:g} CPU" if booking.gpus else f"{booking.cpus:g} CPU"
    each = "each" if booking.pack == 1 else f"{booking.pack} as one model"
    yield "trials", f"{trials}, {at_once} at once, {each} on {resources}"
    if checked.sharing is not None:
        mps = ", under NVIDIA's MPS" if checked.sharing.measured["mps"] else ""
        yield f"trials a GPU{mps}", "\n".join(checked.sharing.lines()) or "not measured"
    images = f"{data.train_images:,} train, {data.test_images:,} test"
    yield "data", f"{data.source}: {images}, {data.image_size} pixels"
    if rule is not None:
        reached = rule.plan(trials, per_trial) + (", and on within the budget" if search and search.budget else "")
        yield "stopping", f"{reached}: about {epochs / (trials * per_trial):.0%} of training all in full"
    if search and spec.seeds > 1:
        yield "seeds", f"one to screen, which counts in no mean; near the front up to {spec.seeds - 1} more, on top"
    about = f"{epochs:,} in all" if epochs == most else f"about {epochs:,}, at most {most:,}"
    yield "epochs", f"{about}, of {data.train_images:,} training images each"
    if booking.gpus and not torch.cuda.is_available():
        yield "wall time", "not known: this machine has no GPU to probe, only the cluster has"
    else:
        measured = probe(largest(spec, checked.configs), data, booking)
        slower = checked.sharing.slowdown if checked.sharing else 1.0
        measured = measured._replace(seconds=measured.seconds * slower)
        yield from _measured(measured, (epochs, most), at_once, booking)
        if checked.request.flags.rate == "learned":
            yield "learned rate", _learned_rate(largest(spec, checked.configs), data, booking, trials, at_once)
    disk, free = checkpoints_bytes(spec, checked.configs, booking.slots), free_bytes(checked.request.trials_folder)
    yield "checkpoints", f"{size(disk)}, " + ("in a bucket" if free is None else f"of {size(free)} free")


def _learned_rate(config: TrialConfig, data: DataSet, booking: Booking, trials: int, at_once: int) -> str:
    """What the priors take at the ends of trials, in words."""
    seconds = prior_seconds(config, data, booking)
    every = duration(seconds * trials / at_once)
    return f"on top: at most {duration(seconds)} for the prior of a trial, {every} if all {trials} reach their end"


def _most_epochs(spec: SweepSpec, trials: int) -> int:
    """If nothing is stopped early, and each round of more seeds brings others near the front."""
    whole, search = spec.base.training.epochs * trials, spec.search
    return min(whole * spec.seeds, search.budget or whole * spec.seeds) if search else whole


def _measured(measured: Probe, epochs: tuple[int, int], at_once: int, booking: Booking) -> Iterator[tuple[str, str]]:
    """``epochs`` are those expected, and the most there can be."""
    seconds, memory, capacity = measured
    yield "an epoch", f"{seconds:.1f} s, from a probe of {PROBE_STEPS} steps of the largest configuration"
    wall = ", at most ".join(dict.fromkeys(duration(seconds * number / at_once) for number in epochs))
    yield "wall time", f"about {wall}, start-up aside"
    if booking.gpus:
        shares = booking.gpus / booking.pack
        hours = ", at most ".join(dict.fromkeys(f"{seconds * n * shares / 3600:.2f}" for n in epochs))
        yield "GPU time", f"about {hours} GPU-hours"
    fit = capacity // max(1, memory)
    where, flag = ("a GPU", "--trials-per-gpu") if booking.gpus else ("this machine", "--num-cpus")
    what = "trial" if booking.pack == 1 else "pack"
    yield "memory", f"{size(memory)} a {what} at most; {fit} fit {where} ({size(capacity)})"
    wanted = round(1 / booking.gpus) if booking.gpus else math.ceil(at_once / booking.pack)
    if fit < wanted:
        smaller = "--batch-size" if booking.pack == 1 else "--pack"
        step = f"{flag} {fit} fits, or a smaller {smaller}" if fit else f"choose a smaller {smaller} or --preset"
        need = f"{what}s at once: {wanted}, which need {size(wanted * memory)} of {where}'s memory"
        raise ConfigError([f"{need}, {size(capacity)} are there: {step}"])


def probe(config: TrialConfig, data: DataSet, booking: Booking) -> Probe:
    """Train and evaluate a few steps of ``config`` in this process, in a pack if trials are packed.

    ``ConfigError`` if a GPU's share is too small.
    """
    threads = torch.get_num_threads()
    try:
        device = prepare_process(booking.cpus, booking.gpus)
        members = [Member(config.replace(seed=seed), device) for seed in range(booking.pack)]
        few = min(config.training.batch_size, data.train_images) * PROBE_STEPS
        train, test, pack = Images(data.train()[:few], device), Images(data.test()[:few], device), Pack()
        _whole(pack.train_epoch(members, train))  # the first steps of a process are no measure
        step = _seconds(lambda: _whole(pack.train_epoch(members, train))) / len(train)
        image = _seconds(lambda: _whole(pack.evaluate(members, test))) / len(test)
    except torch.OutOfMemoryError as error:
        what = "trial" if booking.pack == 1 else "pack"
        need = f"a {what} does not fit into {booking.gpus:g} GPU, its CUDA context counted"
        raise ConfigError([f"{need}: fewer --trials-per-gpu, or a smaller --batch-size or --pack"]) from error
    finally:
        torch.set_num_threads(threads)
    seconds = step * data.train_images + image * data.test_images
    return Probe(seconds, *_memory(booking.gpus > 0))


def _whole(outcomes: list[dict[str, float] | Exception]) -> None:
    """Raise the first error among the members' outcomes, if there is any."""
    for one in outcomes:
        if isinstance(one, Exception):
            raise one


def prior_seconds(config: TrialConfig, data: DataSet, booking: Booking) -> float:
    """The most that the learned rate of a trial takes, from a few steps on codes drawn by chance."""
    from vqcore.prior_training import SMALL_VISITS, VALIDATION_SHARE, CodeSet, small_prior

    side, codes = data.image_size // ARCHITECTURES[config.model.architecture].downsampling, config.model.quantizer
    drawn = CodeSet(np.random.default_rng(0).integers(codes.codebook_size, size=(PRIOR_PROBE, side, side)))
    held = drawn.part(np.arange(max(1, round(VALIDATION_SHARE * PRIOR_PROBE))))
    threads = torch.get_num_threads()
    try:
        trainer = small_prior(drawn, codes.codebook_size, 0, prepare_process(booking.cpus, booking.gpus))
        trainer.train_epoch(held, held)
        seconds = _seconds(lambda: trainer.train_epoch(drawn, held))
    finally:
        torch.set_num_threads(threads)
    return seconds / PRIOR_PROBE * max(SMALL_VISITS, data.train_images)


def _memory(on_gpu: bool) -> tuple[int, int]:
    """Bytes at the peak, and those that there are."""
    if on_gpu:
        free, total = torch.cuda.mem_get_info()
        context = max(0, total - free - torch.cuda.memory_reserved())
        return torch.cuda.max_memory_reserved() + context, total
    return process_memory()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
