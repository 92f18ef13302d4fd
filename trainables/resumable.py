"""A training that goes on from its checkpoints: one report an epoch out, one checkpoint an epoch on disk."""

from __future__ import annotations

import functools
import math
import os
import socket
import time
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from trainables.checkpoint import Checkpoint, keep_checkpoint, remove_parts, save_checkpoint, whole_checkpoints
from trainables.device import prepare_process
from trainables.job import Job, Report
from trainables.runs import PROCESS_STARTED
from trainables.storage import Store
from vqcore.errors import ConfigError, DivergedError


class Stateful(Protocol):
    """What is trained, with all that its next epoch depends on."""

    precision: Any

    @property
    def epoch(self) -> int:
        """How many are trained."""

    def state(self) -> dict[str, Tensor]:
        """That, as tensors."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly there. ``KeyError`` or ``RuntimeError`` if it is another's."""


JobT = TypeVar("JobT", bound=Job)
TrainerT = TypeVar("TrainerT", bound=Stateful)


class ResumableTraining(ABC, Generic[JobT, TrainerT]):
    """A training in progress. Each step trains an epoch, evaluates it and writes a checkpoint.

    The state after an epoch depends on the configuration alone: a training may leave its slot after any step and be
    opened again on another one, and its metrics are the same to the last bit on a CPU.
    """

    def __init__(self, job: JobT, store: Store | None = None) -> None:
        """From the beginning. Without a ``store`` no checkpoints are written: the caller keeps the state."""
        self.job, self._store = job, store
        self.device = prepare_process(job.cpus, job.gpus)
        self.history: list[dict[str, Any]] = []
        """The event of each epoch, as the journal has it."""
        self.damaged: list[str] = []
        """Checkpoints that could not be used, each with the reason."""
        self._recorded = self._resumed_from = 0
        self._checkpoint = ""

    @abstractmethod
    def make_trainer(self, precision: Any = None) -> TrainerT:
        """What is trained, from the beginning; in the job's precision unless given."""

    @abstractmethod
    def train_epoch(self) -> dict[str, float]:
        """Train an epoch and evaluate it; its metrics. ``DivergedError``."""

    @abstractmethod
    def outcome(self, recorded: int) -> tuple[str, str]:
        """The status that so many epochs have led to, and its reason."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many are trained."""

    def before_first_epoch(self, store: Store) -> None:
        """Keep what is wanted of the untrained."""

    @property
    def wants_epoch(self) -> bool:
        """Whether the next step trains: it is not at its end, and no checkpoint has that epoch."""
        return len(self.history) <= self._recorded and self.outcome(self._recorded)[0] == "running"

    def keep_beside(self, store: Store) -> None:
        """Keep what is looked at of this epoch and holds no state; each epoch replaces it."""

    @classmethod
    def open(cls, job: JobT, recorded: int = 0) -> Self:
        """The training as its newest whole checkpoint left it; from the beginning if there is none.

        ``recorded`` epochs are known to the caller; the first report is of the next one, which the checkpoint may have
        already: so no epoch is lost between a checkpoint and a crash. ``StorageError`` if nothing can be read.
        """
        store = Store(job.folder)
        remove_parts(store)
        training = cls(job, store)
        for checkpoint in whole_checkpoints(store, job.key, training.damaged):
            try:
                training.load(checkpoint)
                break
            except ConfigError as error:
                training.damaged += error.problems
        training._recorded = recorded
        return training

    @functools.cached_property
    def trainer(self) -> TrainerT:
        """What is trained, made when first wanted."""
        return self.make_trainer()

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint, which may be of another configuration, but for the shapes of its model.

        ``ConfigError`` if its tensors are not those of this model.
        """
        # as it began: "auto" may mean something else on the machine that goes on
        trainer = self.make_trainer(checkpoint.facts["precision"])
        try:
            trainer.load_state(checkpoint.tensors)
        except (KeyError, RuntimeError) as error:  # the code of the model has changed since, say
            raise ConfigError([f"{checkpoint.name}: its tensors are not those of this model"]) from error
        self.trainer, self.history, self._checkpoint = trainer, checkpoint.facts["history"], checkpoint.name
        self._recorded = self._resumed_from = len(self.history)

    def step(self) -> Report:
        """The epoch after the one reported last: as the checkpoint has it, or trained now."""
        event: dict[str, Any] = {}
        status, reason = self.outcome(self._recorded)
        if status == "running":
            try:
                while len(self.history) <= self._recorded:
                    self._train()
                event = self.history[self._recorded]
                self._recorded += 1
                status, reason = self.outcome(self._recorded)
            except DivergedError as error:
                status, reason = "diverged", str(error)
        if status != "running" and self._store is not None and self._checkpoint:
            keep_checkpoint(self._store, self._checkpoint)  # of a training that has ended, the last one is enough
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
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "precision": self.trainer.precision,
            "parameters": self.parameters,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_started": PROCESS_STARTED,
            "resumed_from": self._resumed_from,
            **({"damaged": self.damaged} if self.damaged else {}),
        }

    def begin(self) -> None:
        """Keep what is wanted of the untrained, if nothing is trained yet."""
        if self._store is not None and self.trainer.epoch == 0:
            self.before_first_epoch(self._store)

    def _train(self) -> None:
        """Train an epoch, and write what there is then."""
        trainer = self.trainer
        self.begin()
        started = time.perf_counter()
        metrics = self.train_epoch()
        if unfit := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise DivergedError(f"{unfit[0]} is {metrics[unfit[0]]} after epoch {trainer.epoch}")
        metrics.setdefault("seconds", round(time.perf_counter() - started, 3))
        event = {"event": "epoch", "epoch": trainer.epoch, "metrics": metrics, "time": round(time.time(), 3)}
        self.history.append(event)
        if self._store is not None:
            # before the checkpoint, than which they must never be older; the next epoch's replace them anyway
            self.keep_beside(self._store)
            self._checkpoint = save_checkpoint(self._store, trainer.epoch, trainer.state(), self.facts())
