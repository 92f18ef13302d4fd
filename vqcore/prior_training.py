"""Training of a prior on the codes of one model: its best epoch is chosen on codes that it was not trained on."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.optim import AdamW

from vqcore.config import MAX_SEED, Precision
from vqcore.errors import DivergedError
from vqcore.fields import Checked, number, whole
from vqcore.metrics import CodeHistogram
from vqcore.prior import Prior, PriorConfig, make_prior
from vqcore.training import adam_state, load_adam_state, resolve_precision

EVALUATION_BATCH = 256
WARM_UP_STEPS = 100
"""In which the learning rate rises to its value."""

VALIDATION_SHARE = 0.1
"""Of the training codes: they choose the epoch, and nothing is trained on them."""

SMALL_VISITS = 50_000
"""Images that ``learned_bits`` trains on, counted once for each epoch."""


@dataclass(frozen=True)
class PriorTraining(Checked):
    """How a prior is trained: AdamW, its rate rising over ``WARM_UP_STEPS`` and falling to 0 as a half cosine."""

    epochs: int = whole(30, 1, 10**6)
    """Passes over the training codes at most; the learning rate falls over them."""
    batch_size: int = whole(64, 1)
    """Grids a step."""
    learning_rate: float = number(1e-3, "a finite number above 0; 1e-3 is usual", lambda v: v > 0)
    """AdamW's highest."""
    weight_decay: float = number(0.05, "a finite number, 0 or more", lambda v: v >= 0)
    """AdamW's."""
    patience: int = whole(4, 1)
    """Epochs in a row without fewer validation bits that end the training."""
    precision: Precision = "auto"
    """As a model's; validation and test are fp32 either way."""
    seed: int = whole(0, 0, MAX_SEED)
    """Of weights, dropout and the order of the data."""


class CodeSet(NamedTuple):
    """Codes of a set of images, and their classes where a prior is conditioned on them."""

    codes: Integer[np.ndarray, "n y x"]
    """Of any integer type, perhaps mapped from a file."""
    labels: Integer[np.ndarray, "n"] | None = None

    def batch(self, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Codes (B, rows, columns) and labels (B,) of these images, int64."""
        rows = index.numpy()
        codes = torch.from_numpy(self.codes[rows].astype(np.int64)).to(device)
        labels = None if self.labels is None else torch.from_numpy(self.labels[rows].astype(np.int64)).to(device)
        return codes, labels

    def part(self, index: Integer[np.ndarray, "m"]) -> "CodeSet":
        """Some of the images, in memory."""
        return CodeSet(self.codes[index], None if self.labels is None else self.labels[index])


def split(whole_set: CodeSet) -> tuple[CodeSet, CodeSet]:
    """Codes to train on and to choose by: the same parts of a set whatever the seed, the prior and the model."""
    count = len(whole_set.codes)
    order = np.random.default_rng(0).permutation(count)
    held = max(1, round(VALIDATION_SHARE * count))
    return whole_set.part(np.sort(order[held:])), whole_set.part(np.sort(order[:held]))


class PriorTrainer:
    """A prior in training; what two of them with equal arguments do is equal to the last bit on a CPU, if torch's
    generator, from which dropout draws, is seeded alike before each: ``torch.manual_seed(training.seed)``.

    ``state`` and ``load_state`` carry all that the next epoch depends on, the best epoch's weights among it.
    """

    def __init__(
        self,
        config: PriorConfig,
        training: PriorTraining,
        counts: Integer[Tensor, "k"],
        device: torch.device | str = "cpu",
    ) -> None:
        self.training, self.device = training, torch.device(device)
        self.precision = resolve_precision(training.precision, self.device)
        self.prior: Prior = make_prior(config, training.seed).to(self.device)
        self.prior.count(counts)
        self.bits: list[float] = []
        """Validation bits an image after each epoch."""
        self.best = self._weights()
        """Weights of the epoch that has the fewest, by name."""
        parameters = list(self.prior.parameters())
        self._optimizer = (
            AdamW(parameters, training.learning_rate, betas=(0.9, 0.95), weight_decay=training.weight_decay, fused=True)
            if parameters
            else None
        )
        self._step = 0

    @property
    def epoch(self) -> int:
        """How many are trained."""
        return len(self.bits)

    @property
    def best_epoch(self) -> int:
        """The one with the fewest validation bits, the first of equals; 0 before the first."""
        return self.bits.index(min(self.bits)) + 1 if self.bits else 0

    def train_epoch(self, codes: CodeSet, validation: CodeSet) -> dict[str, float]:
        """One pass over ``codes``: ``train_bits`` and ``validation_bits``, each bits an image. ``DivergedError``.

        ``train_bits`` are taken while it trains, with dropout; of a masked prior they are those of its training
        objective, which weighs the numbers of hidden codes otherwise than a rate does.
        """
        trained = self._train(codes)
        bits = float(self.evaluate(validation).mean())
        if not math.isfinite(bits):
            raise DivergedError(f"validation bits are {bits} after epoch {self.epoch + 1}")
        self.bits.append(bits)
        if self.best_epoch == self.epoch:
            self.best = self._weights()
        return {"train_bits": trained, "validation_bits": bits}

    @torch.no_grad()
    def evaluate(self, codes: CodeSet) -> Float[Tensor, "n"]:
        """Bits of each image with the weights as they are now, fp64, on the CPU: exact, or of a masked prior the
        estimate in one pass, with the same codes hidden each time."""
        self.prior.eval()
        generator, bits = torch.Generator().manual_seed(0), []
        for index in torch.split(torch.arange(len(codes.codes)), EVALUATION_BATCH):
            bits.append(self.prior.estimated_bits(*codes.batch(index, self.device), generator).cpu())
        return torch.cat(bits)

    def take_best(self) -> Prior:
        """The prior with its best epoch's weights, in eval mode."""
        self.prior.load_state_dict(self.best)
        return self.prior.eval()

    def state(self) -> dict[str, Tensor]:
        """Weights now and at the best epoch, optimiser, generators and counters, as contiguous CPU tensors."""
        state = {f"prior.{name}": tensor for name, tensor in self.prior.state_dict().items()}
        state |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        if self._optimizer:
            state |= {f"optimizer.{name}": tensor for name, tensor in adam_state(self._optimizer).items()}
        state["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            state["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        state["steps"], bits = torch.tensor(self._step), torch.tensor(self.bits, dtype=torch.float64)
        state["validation_bits"] = bits
        return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on exactly where ``state`` was taken. ``KeyError`` or ``RuntimeError`` if it is another prior's."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        self.prior.load_state_dict(parts["prior"])
        self.best = {name: tensor.to(self.device) for name, tensor in parts["best"].items()}
        if self._optimizer:
            load_adam_state(self._optimizer, parts["optimizer"])
        torch.set_rng_state(state["generator.cpu"])
        if self.device.type == "cuda" and "generator.cuda" in state:
            torch.cuda.set_rng_state(state["generator.cuda"], self.device)
        self._step, self.bits = int(state["steps"]), state["validation_bits"].tolist()

    def _train(self, codes: CodeSet) -> float:
        """One pass; the mean training bits an image."""
        if not self._optimizer:
            return float(self.evaluate(codes).mean())
        self.prior.train()
        nats, count = torch.zeros((), dtype=torch.float64, device=self.device), 0
        hidden = torch.Generator().manual_seed(self.training.seed * 1_000_003 + self.epoch)
        for index, rate in self._batches(len(codes.codes)):
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            with self._autocast():
                loss = self.prior.loss(*codes.batch(index, self.device), hidden)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.prior.parameters(), 1.0)
            self._optimizer.step()
            nats += loss.detach().double() * len(index)
            count += len(index)
        mean = float(nats) / count * self.prior.config.positions / math.log(2)
        if not math.isfinite(mean):
            raise DivergedError(f"training bits are {mean} in epoch {self.epoch + 1}; a smaller learning rate may help")
        return mean

    def _batches(self, count: int) -> Iterator[tuple[Tensor, float]]:
        """The images of each step in this epoch's order, and its learning rate."""
        generator = torch.Generator().manual_seed(self.training.seed * 1_000_003 + self.epoch)
        parts = torch.split(torch.randperm(count, generator=generator), self.training.batch_size)
        total = len(parts) * self.training.epochs
        for index in parts:
            rise = min(1.0, (self._step + 1) / WARM_UP_STEPS)
            fall = 0.5 * (1 + math.cos(math.pi * min(1.0, self._step / total)))
            yield index, self.training.learning_rate * rise * fall
            self._step += 1

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.prior.state_dict().items()}

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def ends(bits: Sequence[float], training: PriorTraining) -> bool:
    """Whether a training with these validation bits ends: after all epochs, or when they fall no more."""
    since_best = len(bits) - 1 - bits.index(min(bits)) if bits else 0
    return len(bits) >= training.epochs or since_best >= training.patience


def counted(codes: Integer[np.ndarray, "n y x"], codebook_size: int) -> Integer[Tensor, "k"]:
    """How often each code stands in a set."""
    histogram = CodeHistogram(codebook_size)
    for start in range(0, len(codes), 10_000):
        histogram.update(torch.from_numpy(codes[start : start + 10_000].astype(np.int64)))
    return histogram.counts


def small_prior(train: CodeSet, codebook_size: int, seed: int, device: torch.device) -> PriorTrainer:
    """The prior of ``learned_bits`` before its training on these codes."""
    _, rows, columns = train.codes.shape
    config = PriorConfig(codebook_size=codebook_size, rows=rows, columns=columns, width=64, layers=2, dropout=0)
    epochs = max(1, round(SMALL_VISITS / len(train.codes)))
    training = PriorTraining(epochs=epochs, learning_rate=2e-3, patience=3, seed=seed)
    return PriorTrainer(config, training, counted(train.codes, codebook_size), device)


def learned_bits(
    train_codes: Integer[np.ndarray, "n y x"],
    test_codes: Integer[np.ndarray, "m y x"],
    codebook_size: int,
    seed: int,
    device: torch.device,
) -> float:
    """Bits an image of ``test_codes`` under a small causal prior trained on ``train_codes``.

    An upper bound of what a larger prior needs, got in the same way for all models that are compared by it: some
    ``SMALL_VISITS`` images, or one pass over more. The caller's generators are left as they were.
    """
    train, validation = split(CodeSet(train_codes))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        trainer = small_prior(train, codebook_size, seed, device)
        while not ends(trainer.bits, trainer.training):
            trainer.train_epoch(train, validation)
        trainer.take_best()
        return float(trainer.evaluate(CodeSet(test_codes)).mean())
