"""What a sweep would cost, without running it."""

import time
from collections.abc import Callable, Iterator

import torch
from rich.console import Console
from rich.table import Table

from sweeps.engine.checks import checkpoints_bytes
from sweeps.engine.progress import clock
from sweeps.engine.resources import Booking
from trainables.checkpoint import megabytes
from trainables.data import DataSet
from trainables.trial import prepare_process
from vqcore.config import TrialConfig
from vqcore.training import Images, Trainer

PROBE_STEPS = 12
"""Training steps that are measured, the first quarter of them as warm-up."""


def print_plan(console: Console, configs: tuple[TrialConfig, ...], data: DataSet, booking: Booking) -> None:
    """Trials, epochs, images, disk, and the time that a short probe of the largest trial predicts."""
    epochs = sum(config.training.epochs for config in configs)
    largest = max(configs, key=lambda c: c.model.quantizer.codebook_size).replace(commitment_weight=0.25)
    share = f"{booking.gpus:g} GPU and {booking.cpus:g} CPU" if booking.gpus else f"{booking.cpus:g} CPU"
    table = Table(show_header=False, title="Plan", title_justify="left")
    for name, value in (
        ("trials", f"{len(configs)}, {booking.slots} at once, each on {share}"),
        ("data", f"{data.source}: {data.train_images:,} train, {data.test_images:,} test, {data.image_size} pixels"),
        ("epochs", f"{epochs:,} in all, {epochs * data.train_images:,} training images"),
        *_times(largest, epochs, min(booking.slots, len(configs)), data, booking),
        ("checkpoints", megabytes(checkpoints_bytes(configs, booking.slots))),
    ):
        table.add_row(name, value)
    console.print(table)
    if booking.gpus and booking.gpus < 1:
        console.print("The probe had the GPU to itself; trials that share one are slower each.")


def _times(
    config: TrialConfig, epochs: int, at_once: int, data: DataSet, booking: Booking
) -> Iterator[tuple[str, str]]:
    if booking.gpus and not torch.cuda.is_available():
        yield "wall time", "not known: this machine has no GPU to probe, only the cluster has"
        return
    seconds = probe_seconds(config, data, booking)
    yield "an epoch", f"{seconds:.1f} s, from a probe of {PROBE_STEPS} steps in this process"
    yield "wall time", f"about {clock(seconds * epochs / at_once)}, start-up aside"


def probe_seconds(config: TrialConfig, data: DataSet, booking: Booking) -> float:
    """Seconds of one epoch with its evaluation, from a few steps of each."""
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
    return step * data.train_images + image * data.test_images


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
