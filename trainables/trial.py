"""A trial: configuration in, one report an epoch out, a checkpoint an epoch on disk.

Runs alike under Ray Tune, in process and in the final training. Imports neither mlflow, optuna nor matplotlib.
"""

import ctypes
import functools
import io
import math
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.checkpoint import load_checkpoint, replace_file, save_checkpoint
from trainables.data import DataSet
from vqcore.config import TrialConfig
from vqcore.training import DivergedError, Images, Trainer
from vqcore.vqvae import parameter_count

RECONSTRUCTIONS = 8
"""Test images whose reconstructions a trial keeps."""


@dataclass(frozen=True)
class Collapse:
    """When a codebook counts as collapsed: its usage on the test set was below ``usage`` after ``epochs`` in a row."""

    usage: float
    """Share of the codes, 0 to 1."""
    epochs: int = 3

    def reason(self, history: list[dict[str, Any]]) -> str:
        """Why the trial of these epoch events is stopped, in words; empty if it is not."""
        latest = history[-self.epochs :]
        if len(latest) < self.epochs or any(event["metrics"]["usage"] >= self.usage for event in latest):
            return ""
        used = latest[-1]["metrics"]["usage"]
        return f"collapsed: usage {used:.1%}, under {self.usage:.1%} for {self.epochs} epochs"


@dataclass(frozen=True)
class TrialJob:
    """One trial to run: what, on which data, where its files go, and what was booked for it."""

    key: str
    number: int
    config: TrialConfig
    data: DataSet
    folder: Path
    """For checkpoint and reconstructions; on a cluster, storage that every node reaches."""
    cpus: float = 1.0
    gpus: float = 0.0
    """Share of a GPU, or number of GPUs; 0 trains on the CPU."""
    collapse: Collapse | None = None
    """Whether to stop when the codebook collapses."""


def run_trial(job: TrialJob, until: int | None = None, known: int = 0) -> Iterator[dict[str, Any]]:
    """Train, yielding the trial's journal events: ``start``, an ``epoch`` each, ``end``.

    Goes on from the folder's checkpoint if there is one, first telling again the epochs after ``known`` that it already
    had, so that none is lost between a checkpoint and a crash. The configuration's ``epochs`` is the budget, and may be
    larger than at the last run; a slice that stops at an earlier epoch, ``until``, has no ``end``.
    """
    budget = job.config.training.epochs
    until = budget if until is None else min(until, budget)
    device = prepare_process(job.cpus, job.gpus)
    checkpoint = load_checkpoint(job.folder)
    if checkpoint is None:
        trainer, history = Trainer(job.config, device), []
    else:
        # as it began: "auto" may mean something else on the machine that goes on
        trainer = Trainer(job.config.replace(precision=checkpoint.facts["precision"]), device)
        trainer.load_state(checkpoint.tensors)
        history = checkpoint.facts["history"]
    yield {"event": "start", "info": _info(trainer)}
    yield from history[known:until]
    try:
        yield from _epochs(job, trainer, history, until)
    except DivergedError as error:
        yield {"event": "end", "status": "diverged", "reason": str(error)}
    except _CollapsedError as error:
        yield {"event": "end", "status": "stopped", "reason": str(error)}
    else:
        if until == budget:
            yield {"event": "end", "status": "completed", "reason": ""}


def prepare_process(cpus: float, gpus: float) -> torch.device:
    """Set what a process carries from one trial to the next: threads, generators, the GPU memory it may take."""
    torch.set_num_threads(max(1, int(cpus)))
    torch.manual_seed(0)
    _keep_freed_memory()
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"{gpus:g} GPU booked for this trial, but torch {torch.__version__} sees none: "
            "install a CUDA build of torch and its driver, or run with --num-gpus 0"
        )
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
    return torch.device("cuda")


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them; elsewhere than on glibc, do nothing.

    Mapping and zeroing the activations anew at every step costs 10 % of a bf16 step on the CPU, 20 % of an fp32 one.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 2**31 - 1)


def _epochs(job: TrialJob, trainer: Trainer, history: list[dict[str, Any]], until: int) -> Iterator[dict[str, Any]]:
    if trainer.epoch >= until:
        return
    train, test = _images(job.data, trainer.device)
    while trainer.epoch < until:
        if job.collapse is not None and (reason := job.collapse.reason(history)):
            raise _CollapsedError(reason)
        started = time.perf_counter()
        trained = trainer.train_epoch(train)
        metrics = trainer.evaluate(test) | {f"train_{name}": value for name, value in trained.items()}
        if unfit := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise DivergedError(f"{unfit[0]} is {metrics[unfit[0]]} after epoch {trainer.epoch}")
        metrics["seconds"] = round(time.perf_counter() - started, 3)
        event = {"event": "epoch", "epoch": trainer.epoch, "metrics": metrics, "time": round(time.time(), 3)}
        history.append(event)
        _save_reconstructions(job.folder, trainer, test)  # before the checkpoint: it must never be the older of the two
        facts = {"epoch": trainer.epoch, "precision": trainer.precision, "history": history}
        save_checkpoint(job.folder, trainer.epoch, trainer.state(), facts)
        yield event


class _CollapsedError(RuntimeError):
    """The codebook collapsed, as ``Collapse`` says."""


def _images(data: DataSet, device: torch.device) -> tuple[Images, Images]:
    return _on_gpu(data, device) if device.type == "cuda" else _mapped(data, device)


def _mapped(data: DataSet, device: torch.device) -> tuple[Images, Images]:
    return Images(data.train(), device), Images(data.test(), device)


_on_gpu = functools.lru_cache(maxsize=1)(_mapped)
"""One copy of the data set on the GPU, kept from slice to slice of a process."""


def _save_reconstructions(folder: Path, trainer: Trainer, test: Images) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, trainer.reconstruct(test, RECONSTRUCTIONS))
    replace_file(folder / "reconstructions.npy", buffer.getvalue())


def _info(trainer: Trainer) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if trainer.device.type == "cuda" else ""
    return {
        "device": gpu or "cpu",
        "precision": trainer.precision,
        "parameters": parameter_count(trainer.model),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "threads": torch.get_num_threads(),
        "resumed_from": trainer.epoch,
    }
