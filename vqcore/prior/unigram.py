"""The prior that knows no neighbours: each code by its share."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vqcore.prior.base import InOrder, Labels, Steps


class Unigram(InOrder):
    """Every code by its share in the training set, each counted once more than it was seen (Laplace)."""

    def _log_shares(self) -> Float[Tensor, "k"]:
        return (self.counts + 1).double().log() - math.log(int(self.counts.sum()) + self.config.codebook_size)

    def loss(self, codes: Tensor, labels: Labels = None, generator: torch.Generator | None = None) -> Tensor:
        """Nats a code; nothing in it can be trained."""
        nats: Tensor = -self._log_shares()[self.flat(codes, labels)]
        return nats.mean().float()

    def bits(self, codes: Tensor, labels: Labels = None) -> Tensor:
        """A code's bits are the same at every position."""
        nats: Tensor = -self._log_shares()[self.flat(codes, labels)]
        return nats.sum(1) / math.log(2)

    def steps(self, batch: int, labels: Labels = None) -> Steps:
        """The same logits at each step."""
        self.check_labels(batch, labels)
        return _Repeated((self.counts + 1).double().log().float().expand(batch, -1))


class _Repeated(Steps):
    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def logits(self, previous: Tensor | None) -> Tensor:
        return self._logits
