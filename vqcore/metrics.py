"""Metrics of a whole set, streamed: nothing is averaged over batches.

A perplexity averaged over batches is biased by the codebook size, the very axis of a sweep: perfectly uniform use of
K = 1,024 codes reads 584 from batches of 1,024 vectors, and 1,023 from the whole set.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


class CodeHistogram:
    """How often each code was used, over as many batches as wanted. Holds K integers and never syncs until read."""

    def __init__(self, codebook_size: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=device)

    def update(self, indices: Int[Tensor, "..."]) -> None:
        """Count a batch of code indices of any shape."""
        self.counts += torch.bincount(indices.reshape(-1), minlength=self.counts.numel())

    def merge(self, other: "CodeHistogram") -> None:
        """Add what another process or shard counted."""
        self.counts += other.counts.to(self.counts.device)

    @property
    def entropy(self) -> float:
        """Entropy of the codes in nats; 0 when nothing was counted."""
        counts_K = self.counts.double()
        total = counts_K.sum()
        if total == 0:
            return 0.0
        p_K = counts_K / total
        return float(-torch.special.xlogy(p_K, p_K).sum())

    @property
    def perplexity(self) -> float:
        """exp(entropy): the number of equally used codes that would carry as much, between 1 and K."""
        return math.exp(self.entropy)

    @property
    def usage(self) -> float:
        """Share of the codes used at least once, between 0 and 1."""
        return float((self.counts > 0).double().mean())

    def bits(self, codes_per_image: int) -> float:
        """Rate in bits an image: log2 of the perplexity times the codes an image takes."""
        return self.entropy / math.log(2) * codes_per_image


class MeanSquaredError:
    """Mean squared error over a whole set, in float64, on the scale of what it is given ([-1, 1] in this project)."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        # MPS has no float64; nothing here runs there
        self.total = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0

    def update(self, prediction: Float[Tensor, "..."], target: Float[Tensor, "..."]) -> None:
        """Add the squared errors of a batch."""
        self.total += (prediction.float() - target.float()).square().sum().double()
        self.count += target.numel()

    @property
    def value(self) -> float:
        """The mean; nan when nothing was added."""
        return float(self.total) / self.count if self.count else math.nan


def psnr(mse: float, data_range: float = 2.0) -> float:
    """Peak signal-to-noise ratio in dB; ``data_range`` is 2 for images on [-1, 1]."""
    return math.inf if mse == 0 else 10 * math.log10(data_range**2 / mse)
