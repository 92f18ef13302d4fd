"""The training of a prior as something that is run: each step trains an epoch on the codes of one model."""

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from trainables.data import DataSet
from trainables.encode import Codes, Progress, codes
from trainables.labels import Labels
from trainables.models import TrainedModel
from trainables.resumable import ResumableTraining
from vqcore.config import Scalar
from vqcore.prior import PriorConfig
from vqcore.prior_training import CodeSet, PriorTrainer, PriorTraining, counted, ends, split


@dataclass(frozen=True)
class PriorTrialConfig:
    """A prior and how it is trained: what tells two trainings on the same codes apart."""

    prior: PriorConfig
    training: PriorTraining

    def flat(self) -> dict[str, Scalar]:
        """Every field under its own name."""
        return {**vars(self.prior), **vars(self.training)}

    def key(self, model: str, data: str) -> str:
        """Twelve hex digits over every field and the hashes of model and images."""
        canonical = json.dumps({"model": model, "data": data, **self.flat()}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class PriorJob:
    """One prior to train."""

    key: str
    config: PriorTrialConfig
    model: TrainedModel
    data: DataSet
    labels: Labels | None
    """Classes of the images, for a prior that is conditioned on them."""
    folder: str
    """Where its checkpoints lie, in a folder that there is."""
    cpus: float
    gpus: float
    show: Progress | None = None
    """Is told how far the images are encoded."""
    number: int = 0


class PriorTrial(ResumableTraining[PriorJob, PriorTrainer]):
    """A prior in training. A part of the training set's codes is held out, and its bits choose the epoch."""

    @functools.cached_property
    def codes(self) -> Codes:
        """Of the data set, by the model; made at the first use unless they are there."""
        return codes(self.job.model, self.job.data, self.device, self.job.show)

    @functools.cached_property
    def parts(self) -> tuple[CodeSet, CodeSet]:
        """What is trained on, and what is held out."""
        return split(CodeSet(self.codes.train(), None if self.job.labels is None else self.job.labels.train))

    @property
    def test_set(self) -> CodeSet:
        """The test codes, by which nothing is chosen."""
        return CodeSet(self.codes.test(), None if self.job.labels is None else self.job.labels.test)

    def make_trainer(self, precision: Any = None) -> PriorTrainer:
        """The prior and its training."""
        config, codes = self.job.config, self.parts[0].codes
        training = config.training
        if precision is not None:
            training = PriorTraining(**{**vars(training), "precision": precision})
        torch.manual_seed(training.seed)
        return PriorTrainer(config.prior, training, counted(codes, config.prior.codebook_size), self.device)

    def train_epoch(self) -> dict[str, float]:
        """``train_bits`` and ``validation_bits``, in bits an image."""
        return self.trainer.train_epoch(*self.parts)

    def outcome(self, recorded: int) -> tuple[str, str]:
        """Completed after all epochs, or when the validation bits fall no more."""
        bits = [float(event["metrics"]["validation_bits"]) for event in self.history[:recorded]]
        training = self.job.config.training
        if not ends(bits, training):
            return "running", ""
        early = recorded < training.epochs
        return "completed", f"the validation bits fell no more for {training.patience} epochs" if early else ""

    @property
    def parameters(self) -> int:
        """Of the network; none of a unigram."""
        return sum(parameter.numel() for parameter in self.trainer.prior.parameters())
