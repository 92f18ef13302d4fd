"""What trials reach without the engine: their loop alone, in as many processes at once as a sweep has slots.

Two processes share caches and memory, so one alone would be too high a limit. All begin their epochs together, once
each has done a few steps. Of two kinds: ``trial`` is the loop of a sweep's trial with the files that it writes,
``network`` the same encoder and decoder with nothing between them.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from subprocess import PIPE, Popen
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from benchmarks.processes import ROOT
from trainables.data import DataSet, prepare
from trainables.device import prepare_process
from trainables.job import TrialJob
from trainables.trial import Trial
from vqcore.config import TrialConfig
from vqcore.training import EVALUATION_BATCH, Images, resolve_precision
from vqcore.vqvae import seeded

Kind = Literal["trial", "network"]


@dataclass(frozen=True)
class Work:
    """What each process does."""

    kind: Kind
    fields: Mapping[str, int | float | str]
    """Of ``TrialConfig``; its ``epochs`` are trained."""
    data: str = "cifar10-mini"
    image_size: int | None = None


@dataclass(frozen=True)
class Bare:
    """Of an epoch, in seconds, a mean; of the files the median."""

    epoch: float
    """Training and evaluation."""
    evaluation: float
    files: float
    """A trial's reconstructions, use of codes and checkpoint; 0 of a network."""
    cpu: float
    """CPU time of all of it, which other work on the machine changes less."""
    images: int
    """Trained on and evaluated."""

    @staticmethod
    def of(found: list["Bare"]) -> "Bare":
        """Of processes side by side."""
        epoch, evaluation, files, cpu = (
            round(mean(getattr(one, name) for one in found), 5) for name in ("epoch", "evaluation", "files", "cpu")
        )
        return Bare(epoch, evaluation, files, cpu, found[0].images)


def side_by_side(work: Work, processes: int, folder: Path, environment: Mapping[str, str]) -> Bare:
    """Do it in ``processes`` at once, with their files in ``folder``. ``RuntimeError`` if one of them fails."""
    command = [sys.executable, "-m", "benchmarks.bare", json.dumps(asdict(work)), str(folder)]
    running = [
        Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdin=PIPE, stdout=PIPE, text=True)
        for _ in range(processes)
    ]
    lines = []
    try:
        for say in ("ready", "done"):  # a process says that it is ready, and goes on with an answer
            lines = [one.stdout.readline() for one in running if one.stdout]
            if not all(lines):
                raise RuntimeError(f"a bare loop ended before it was {say}: {work}")
            for one in running:
                if one.stdin and say == "ready":
                    one.stdin.write("go\n")
                    one.stdin.flush()
    finally:
        for one in running:
            one.kill()
            one.communicate()
    return Bare.of([Bare(**json.loads(line)) for line in lines])


class Network:
    """Encoder and decoder of a configuration, trained and evaluated as a trial does, with no quantizer between."""

    def __init__(self, config: TrialConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.bf16 = resolve_precision(config.training.precision, device) == "bf16"
        layout = torch.channels_last if self.bf16 else torch.contiguous_format
        self.model = seeded(config.model, config.training.seed).to(device).to(memory_format=layout)
        networks = [*self.model.encoder.parameters(), *self.model.decoder.parameters()]
        self.optimizer = Adam(networks, config.training.learning_rate, fused=True)

    def train_epoch(self, images: Images) -> None:
        """One pass."""
        size, squares = self.config.training.batch_size, torch.zeros((), device=self.device)
        order = torch.randperm(len(images))
        for start in range(0, len(images) - size + 1, size):
            squares += self.step(images.batch(order[start : start + size]))
        float(squares)

    def step(self, batch: Tensor) -> Tensor:
        """The least that a step of training is; its squared error."""
        loss = F.mse_loss(self._forward(batch), batch)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, images: Images) -> float:
        """The squared error of a whole set."""
        squares = torch.zeros((), device=self.device)
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images.batch(slice(start, start + EVALUATION_BATCH))
            squares += (self._forward(batch) - batch).square().sum()
        return float(squares)

    def _forward(self, batch: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found: Tensor = self.model.decoder(self.model.latents(batch))
        return found.float()


def network(work: Work, data: DataSet, config: TrialConfig) -> Bare:
    """Its epochs."""
    device = prepare_process(1, 0)
    train, test = Images(data.train(), device), Images(data.test(), device)
    bare = Network(config, device)
    bare.train_epoch(Images(data.train()[: 2 * config.training.batch_size], device))
    _ready()
    trained, evaluated, cpu = [], [], time.process_time()
    for _ in range(config.training.epochs):
        began = time.perf_counter()
        bare.train_epoch(train)
        between = time.perf_counter()
        bare.evaluate(test)
        trained.append(between - began)
        evaluated.append(time.perf_counter() - between)
    cpu = (time.process_time() - cpu) / config.training.epochs
    return Bare(mean(trained) + mean(evaluated), mean(evaluated), 0.0, cpu, _images(data, config))


def trial(work: Work, data: DataSet, config: TrialConfig, folder: Path) -> Bare:
    """A trial's steps, as its process in a sweep does them."""
    device = prepare_process(1, 0)
    warm = Trial(TrialJob("warm", 0, config.replace(epochs=1), data, "")).trainer
    warm.train_epoch(Images(data.train()[: 2 * config.training.batch_size], device))
    own = Trial.open(TrialJob("bare", 0, config, data, str(folder)))
    _ready()
    epochs, files, cpu = [], [], time.process_time()
    for _ in range(config.training.epochs):
        began = time.perf_counter()
        seconds = own.step().metrics["seconds"]
        epochs.append(seconds)
        files.append(time.perf_counter() - began - seconds)
    cpu = (time.process_time() - cpu) / config.training.epochs
    test, began = Images(data.test(), device), time.perf_counter()
    own.trainer.evaluate(test)
    return Bare(mean(epochs), time.perf_counter() - began, median(files), cpu, _images(data, config))


def _images(data: DataSet, config: TrialConfig) -> int:
    size = min(config.training.batch_size, data.train_images)
    return data.train_images // size * size + data.test_images


def _ready() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def main(words: str, folder: str) -> None:
    """One of the processes."""
    os.nice(15)  # as Ray's processes of trials are, which else would have less of a busy machine
    work = Work(**json.loads(words))
    data, config = prepare(work.data, work.image_size), TrialConfig().replace(**work.fields)
    if work.kind == "network":
        found = network(work, data, config)
    else:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            found = trial(work, data, config, Path(own) / "trial")
    print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
