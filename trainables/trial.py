"""A trial of a VQ-VAE: configuration in, one report an epoch out.

It runs alike under Ray Tune, in process and in the final training. Imports neither ray, mlflow, optuna nor matplotlib.
"""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
import torch

from trainables.data import DataSet
from trainables.job import TrialJob
from trainables.resumable import ResumableTraining
from trainables.runs import PICTURES, USAGE
from trainables.snapshots import write_snapshot
from trainables.storage import Store
from vqcore.training import Images, Trainer
from vqcore.vqvae import parameter_count

RECONSTRUCTIONS = 8
"""Test images whose reconstructions a trial keeps."""


class Trial(ResumableTraining[TrialJob, Trainer]):
    """The training of a VQ-VAE: each step trains an epoch, evaluates it on the test set and writes a checkpoint."""

    _sets: tuple[Images, Images] | None = None

    def make_trainer(self, precision: Any = None) -> Trainer:
        """The model and its training."""
        config = self.job.config if precision is None else self.job.config.replace(precision=precision)
        return Trainer(config, self.device)

    def before_first_epoch(self, store: Store) -> None:
        """Keep what the model is before training, if asked for."""
        if 0 in self.job.snapshots:
            test = self.images()[1]
            self.trainer.evaluate(test)
            self._keep_snapshot(store, self.trainer.reconstruct(test, RECONSTRUCTIONS), test)

    def train_epoch(self) -> dict[str, float]:
        """Metrics of the test set, and of the training set as ``train_`` ones."""
        train, test = self.images()
        trained = self.trainer.train_epoch(train)
        return self.metrics(trained, self.trainer.evaluate(test))

    def metrics(self, trained: dict[str, float], tested: dict[str, float]) -> dict[str, float]:
        """Of an epoch, from those of both sets; after the last one perhaps with the rate of a learned prior."""
        metrics = tested | {f"train_{name}": value for name, value in trained.items()}
        if self.job.rate == "learned" and self.trainer.epoch == self.job.config.training.epochs:
            metrics["bits_learned"] = self._learned_rate(*self.images())
        return metrics

    def keep_beside(self, store: Store) -> None:
        """Reconstructions, the use of codes and snapshots."""
        trainer, test = self.trainer, self.images()[1]
        last = trainer.epoch == self.job.config.training.epochs
        pictures = trainer.reconstruct(test, RECONSTRUCTIONS)
        store.write(PICTURES, _npy(pictures), durable=last)
        store.write(USAGE, _npy(trainer.counts), durable=last)
        if trainer.epoch in self.job.snapshots:
            self._keep_snapshot(store, pictures, test)

    def outcome(self, recorded: int) -> tuple[str, str]:
        """A collapsed codebook stops the trial, if asked for."""
        if self.job.collapse and (reason := self.job.collapse.reason(self.history[:recorded])):
            return "stopped", reason
        return ("completed" if recorded >= self.job.config.training.epochs else "running"), ""

    @property
    def parameters(self) -> int:
        """The codebook's entries among them."""
        return parameter_count(self.trainer.model)

    def _learned_rate(self, train: Images, test: Images) -> float:
        """Bits an image that the test codes take under a small prior of the training codes; no state changes."""
        from vqcore.prior_training import learned_bits  # which few trials need

        trainer, config = self.trainer, self.job.config
        size, seed = config.model.quantizer.codebook_size, config.training.seed
        return learned_bits(trainer.codes(train), trainer.codes(test), size, seed, self.device)

    def _keep_snapshot(self, store: Store, pictures: np.ndarray, test: Images) -> None:
        """Of this epoch, which was evaluated last; ``pictures`` are the originals and their reconstructions."""
        shown = {"images": pictures[0], "reconstructions": pictures[1], "counts": self.trainer.counts}
        write_snapshot(store, self.trainer.epoch, {**shown, **self.trainer.snapshot(test)})

    def images(self) -> tuple[Images, Images]:
        """The training and the test images, opened once. ``DamagedDataError`` if they are not as they were prepared."""
        if self._sets is None:
            self.job.data.check()
            self._sets = (_on_gpu if self.device.type == "cuda" else _mapped)(self.job.data, self.device)
        return self._sets


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _mapped(data: DataSet, device: torch.device) -> tuple[Images, Images]:
    return Images(data.train(), device), Images(data.test(), device)


_on_gpu = functools.lru_cache(maxsize=1)(_mapped)
"""One copy of the data set on the GPU, kept from trial to trial of a process."""
