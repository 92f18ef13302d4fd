"""A trial: configuration in, one report an epoch out, a checkpoint an epoch on disk.

It runs alike under Ray Tune, in process and in the final training. Imports neither ray, mlflow, optuna nor matplotlib.
"""

from __future__ import annotations

import ctypes
import functools
import io
import math
import os
import socket
import time
from typing import Any

import numpy as np
import torch

from trainables.checkpoint import Checkpoint, keep_checkpoint, remove_parts, save_checkpoint, whole_checkpoints
from trainables.data import DataSet
from trainables.job import Report, TrialJob
from trainables.runs import PICTURES, PROCESS_STARTED, USAGE
from trainables.snapshots import write_snapshot
from trainables.storage import Store
from vqcore.errors import ConfigError, DivergedError
from vqcore.training import Images, Trainer
from vqcore.vqvae import parameter_count

RECONSTRUCTIONS = 8
"""Test images whose reconstructions a trial keeps."""


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


class Trial:
    """A training in progress. Each step trains an epoch, evaluates it and writes a checkpoint.

    The state after an epoch depends on the configuration alone: a trial may leave its slot after any step and be opened
    again on another one, and its metrics are the same to the last bit on a CPU.
    """

    def __init__(self, job: TrialJob, store: Store | None = None) -> None:
        """From the beginning. Without a ``store`` no checkpoints are written: the caller keeps the state."""
        self.job, self._store = job, store
        self._device = prepare_process(job.cpus, job.gpus)
        self.history: list[dict[str, Any]] = []
        """The event of each epoch, as the journal has it."""
        self.damaged: list[str] = []
        """Checkpoints that could not be used, each with the reason."""
        self._recorded = self._resumed_from = 0
        self._checkpoint = ""
        self._sets: tuple[Images, Images] | None = None

    @classmethod
    def open(cls, job: TrialJob, recorded: int = 0) -> Trial:
        """The trial as its newest whole checkpoint left it; from the beginning if there is none.

        ``recorded`` epochs are known to the caller; the first report is of the next one, which the checkpoint may have
        already: so no epoch is lost between a checkpoint and a crash. ``StorageError`` if nothing can be read.
        """
        store = Store(job.folder)
        remove_parts(store)
        trial = cls(job, store)
        for checkpoint in whole_checkpoints(store, job.key, trial.damaged):
            try:
                trial.load(checkpoint)
                break
            except ConfigError as error:
                trial.damaged += error.problems
        trial._recorded = recorded
        return trial

    @functools.cached_property
    def trainer(self) -> Trainer:
        """The model and its training, made when first wanted."""
        return Trainer(self.job.config, self._device)

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, which may be of a trial with another configuration, but for the shapes of its model.

        ``ConfigError`` if its tensors are not those of this model.
        """
        # as it began: "auto" may mean something else on the machine that goes on
        trainer = Trainer(self.job.config.replace(precision=checkpoint.facts["precision"]), self._device)
        try:
            trainer.load_state(checkpoint.tensors)
        except (KeyError, RuntimeError) as error:  # the code of the model has changed since, say
            raise ConfigError([f"{checkpoint.name}: its tensors are not those of this model"]) from error
        self.trainer, self.history, self._checkpoint = trainer, checkpoint.facts["history"], checkpoint.name
        self._recorded = self._resumed_from = len(self.history)

    def step(self) -> Report:
        """The epoch after the one reported last: as the checkpoint has it, or trained now."""
        event: dict[str, Any] = {}
        status, reason = self._status()
        if status == "running":
            try:
                while len(self.history) <= self._recorded:
                    self._train()
                event = self.history[self._recorded]
                self._recorded += 1
                status, reason = self._status()
            except DivergedError as error:
                status, reason = "diverged", str(error)
        if status != "running" and self._store is not None and self._checkpoint:
            keep_checkpoint(self._store, self._checkpoint)  # of a trial that has ended, the last one is enough
        return Report(self._recorded, event.get("metrics", {}), event.get("time", 0.0), status, reason, self.info)

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says beside its tensors."""
        return {
            "trial": self.job.key,
            "number": self.job.number,
            "config": self.job.config.flat(),
            "precision": self.trainer.precision,
            "history": self.history,
        }

    @property
    def info(self) -> dict[str, Any]:
        """Where and with what it trains."""
        return {
            "device": torch.cuda.get_device_name() if self._device.type == "cuda" else "cpu",
            "precision": self.trainer.precision,
            "parameters": parameter_count(self.trainer.model),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": PROCESS_STARTED,
            "resumed_from": self._resumed_from,
            **({"damaged": self.damaged} if self.damaged else {}),
        }

    def _status(self) -> tuple[str, str]:
        """The status that the reported epochs have led to, and its reason."""
        if self.job.collapse and (reason := self.job.collapse.reason(self.history[: self._recorded])):
            return "stopped", reason
        return ("completed" if self._recorded >= self.job.config.training.epochs else "running"), ""

    def _train(self) -> None:
        """Train an epoch, evaluate it, and write what there is then."""
        trainer, (train, test) = self.trainer, self._images()
        if self._store is not None and trainer.epoch == 0 and 0 in self.job.snapshots:
            trainer.evaluate(test)
            self._keep_snapshot(self._store, trainer.reconstruct(test, RECONSTRUCTIONS), test)
        started = time.perf_counter()
        trained = trainer.train_epoch(train)
        metrics = trainer.evaluate(test) | {f"train_{name}": value for name, value in trained.items()}
        if self.job.rate == "learned" and trainer.epoch == self.job.config.training.epochs:
            metrics["bits_learned"] = self._learned_rate(train, test)
        if unfit := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise DivergedError(f"{unfit[0]} is {metrics[unfit[0]]} after epoch {trainer.epoch}")
        metrics["seconds"] = round(time.perf_counter() - started, 3)
        event = {"event": "epoch", "epoch": trainer.epoch, "metrics": metrics, "time": round(time.time(), 3)}
        self.history.append(event)
        if self._store is not None:
            # before the checkpoint, than which they must never be older; the next epoch's replace them anyway
            last = trainer.epoch == self.job.config.training.epochs
            pictures = trainer.reconstruct(test, RECONSTRUCTIONS)
            self._store.write(PICTURES, _npy(pictures), durable=last)
            self._store.write(USAGE, _npy(trainer.counts), durable=last)
            if trainer.epoch in self.job.snapshots:
                self._keep_snapshot(self._store, pictures, test)
            self._checkpoint = save_checkpoint(self._store, trainer.epoch, trainer.state(), self.facts())

    def _learned_rate(self, train: Images, test: Images) -> float:
        """Bits an image that the test codes take under a small prior of the training codes; no state changes."""
        from vqcore.prior_training import learned_bits  # which few trials need

        trainer, config = self.trainer, self.job.config
        size, seed = config.model.quantizer.codebook_size, config.training.seed
        return learned_bits(trainer.codes(train), trainer.codes(test), size, seed, self._device)

    def _keep_snapshot(self, store: Store, pictures: np.ndarray, test: Images) -> None:
        """Of this epoch, which was evaluated last; ``pictures`` are the originals and their reconstructions."""
        shown = {"images": pictures[0], "reconstructions": pictures[1], "counts": self.trainer.counts}
        write_snapshot(store, self.trainer.epoch, {**shown, **self.trainer.snapshot(test)})

    def _images(self) -> tuple[Images, Images]:
        """The training and the test images, opened once. ``DamagedDataError`` if they are not as they were prepared."""
        if self._sets is None:
            self.job.data.check()
            self._sets = (_on_gpu if self._device.type == "cuda" else _mapped)(self.job.data, self._device)
        return self._sets


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _mapped(data: DataSet, device: torch.device) -> tuple[Images, Images]:
    return Images(data.train(), device), Images(data.test(), device)


_on_gpu = functools.lru_cache(maxsize=1)(_mapped)
"""One copy of the data set on the GPU, kept from trial to trial of a process."""
