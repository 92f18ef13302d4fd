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
from typing import Any

import numpy as np
import torch

from trainables.checkpoint import Checkpoint, keep_checkpoint, remove_parts, save_checkpoint, whole_checkpoints
from trainables.data import DataSet
from trainables.storage import Store, open_store
from vqcore.config import TrialConfig
from vqcore.training import DivergedError, Images, Trainer
from vqcore.vqvae import parameter_count

RECONSTRUCTIONS = 8
"""Test images whose reconstructions a trial keeps."""

PICTURES = "reconstructions.npy"
"""Where it keeps them."""


COLLAPSED = "collapsed"
"""The first word of the reason why such a trial stopped."""


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
        return f"{COLLAPSED}: usage {used:.1%}, under {self.usage:.1%} for {self.epochs} epochs"


@dataclass(frozen=True)
class TrialJob:
    """One trial to run: what, on which data, where its files go, and what was booked for it."""

    key: str
    number: int
    config: TrialConfig
    data: DataSet
    folder: str
    """Where its checkpoints and reconstructions lie (``storage``), in a folder that there is; on a cluster, every node
    reaches it."""
    cpus: float = 1.0
    gpus: float = 0.0
    """Share of a GPU, or number of GPUs; 0 trains on the CPU."""
    collapse: Collapse | None = None
    """Whether to stop when the codebook collapses."""


def run_trial(job: TrialJob, until: int | None = None, known: int = 0) -> Iterator[dict[str, Any]]:
    """Train, yielding the trial's journal events: ``start``, an ``epoch`` each, ``end``.

    Goes on from the newest whole checkpoint if there is one, and tells the epochs after ``known``: also those that it
    had already, so that none is lost between a checkpoint and a crash. The configuration's ``epochs`` is the budget,
    and may be larger than at the last run; a slice that stops at an earlier epoch, ``until``, has no ``end``.
    ``StorageError`` if nothing can be kept.
    """
    budget = job.config.training.epochs
    until = budget if until is None else min(until, budget)
    device = prepare_process(job.cpus, job.gpus)
    trial = _Trial.begun(job, open_store(job.folder), device)
    yield {"event": "start", "info": _info(trial)}
    yield from trial.history[known:until]
    try:
        for event in trial.epochs(until):
            if event["epoch"] > known:
                yield event
    except DivergedError as error:
        end = {"event": "end", "status": "diverged", "reason": str(error)}
    except _CollapsedError as error:
        end = {"event": "end", "status": "stopped", "reason": str(error)}
    else:
        if until < budget:
            return
        end = {"event": "end", "status": "completed", "reason": ""}
    trial.keep_one()
    yield end


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


@dataclass
class _Trial:
    """A trial in progress."""

    job: TrialJob
    store: Store
    trainer: Trainer
    history: list[dict[str, Any]]
    """The event of each epoch."""
    checkpoint: str
    """Name of the newest; empty before the first."""
    damaged: list[str]
    """Checkpoints that were passed over, each with the reason."""

    @classmethod
    def begun(cls, job: TrialJob, store: Store, device: torch.device) -> "_Trial":
        """As the newest checkpoint that is whole and fits left it; from the beginning if there is none."""
        remove_parts(store)
        damaged: list[str] = []
        for checkpoint in whole_checkpoints(store, job.key, damaged):
            # as it began: "auto" may mean something else on the machine that goes on
            trainer = Trainer(job.config.replace(precision=checkpoint.facts["precision"]), device)
            if _fits(trainer, checkpoint):
                trainer.load_state(checkpoint.tensors)
                return cls(job, store, trainer, checkpoint.facts["history"], checkpoint.name, damaged)
            damaged.append(f"{checkpoint.name}: its tensors are not those of this model")
        return cls(job, store, Trainer(job.config, device), [], "", damaged)

    def epochs(self, until: int) -> Iterator[dict[str, Any]]:
        """Train to epoch ``until``, a checkpoint and an event each."""
        job, trainer = self.job, self.trainer
        if trainer.epoch >= until:
            return
        job.data.check()
        train, test = _images(job.data, trainer.device)
        while trainer.epoch < until:
            if job.collapse is not None and (reason := job.collapse.reason(self.history)):
                raise _CollapsedError(reason)
            started = time.perf_counter()
            trained = trainer.train_epoch(train)
            metrics = trainer.evaluate(test) | {f"train_{name}": value for name, value in trained.items()}
            if unfit := [name for name, value in metrics.items() if not math.isfinite(value)]:
                raise DivergedError(f"{unfit[0]} is {metrics[unfit[0]]} after epoch {trainer.epoch}")
            metrics["seconds"] = round(time.perf_counter() - started, 3)
            event = {"event": "epoch", "epoch": trainer.epoch, "metrics": metrics, "time": round(time.time(), 3)}
            self.history.append(event)
            self.keep(test, durable=trainer.epoch == until)
            yield event

    def keep(self, test: Images, durable: bool) -> None:
        """Write what there is after an epoch; the pictures first, for they must never be the older of the two."""
        buffer = io.BytesIO()
        np.save(buffer, self.trainer.reconstruct(test, RECONSTRUCTIONS))
        self.store.write(PICTURES, [buffer.getvalue()], durable)  # the next epoch's would replace them anyway
        facts = {
            "trial": self.job.key,
            "number": self.job.number,
            "config": self.job.config.flat(),
            "precision": self.trainer.precision,
            "history": self.history,
        }
        self.checkpoint = save_checkpoint(self.store, self.trainer.epoch, self.trainer.state(), facts)

    def keep_one(self) -> None:
        """Of a trial that has ended, the last checkpoint is enough."""
        if self.checkpoint:
            keep_checkpoint(self.store, self.checkpoint)


def _fits(trainer: Trainer, checkpoint: Checkpoint) -> bool:
    """Whether the tensors are those that this model's training has, as they are not after a change of its code.

    By names and shapes: of its dtypes one flag's has changed between versions, and loading converts it.
    """
    ours, theirs = (
        {name: tensor.shape for name, tensor in state.items() if name != "generator.cuda"}
        for state in (trainer.state(), checkpoint.tensors)
    )
    return ours == theirs and int(checkpoint.tensors["epoch"]) == checkpoint.facts["epoch"]


class _CollapsedError(RuntimeError):
    """The codebook collapsed, as ``Collapse`` says."""


def _images(data: DataSet, device: torch.device) -> tuple[Images, Images]:
    return _on_gpu(data, device) if device.type == "cuda" else _mapped(data, device)


def _mapped(data: DataSet, device: torch.device) -> tuple[Images, Images]:
    return Images(data.train(), device), Images(data.test(), device)


_on_gpu = functools.lru_cache(maxsize=1)(_mapped)
"""One copy of the data set on the GPU, kept from slice to slice of a process."""


def _info(trial: _Trial) -> dict[str, Any]:
    trainer = trial.trainer
    gpu = torch.cuda.get_device_name() if trainer.device.type == "cuda" else ""
    return {
        "device": gpu or "cpu",
        "precision": trainer.precision,
        "parameters": parameter_count(trainer.model),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "threads": torch.get_num_threads(),
        "resumed_from": trainer.epoch,
        **({"damaged": trial.damaged} if trial.damaged else {}),
    }
