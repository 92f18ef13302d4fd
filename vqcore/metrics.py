"""Metrics of a whole set, streamed: nothing is averaged over batches.

A perplexity averaged over batches is biased by the codebook size, the very axis of a sweep: perfectly uniform use of
K = 1,024 codes reads 584 from batches of 1,024 vectors, and 1,023 from the whole set.
"""

import math

import torch
import torch.distributed as dist
from jaxtyping import Integer
from torch import Tensor

from vqcore.nearest import as_indices


class CodeHistogram:
    """How often each code was used, over as many batches as wanted. Holds K integers and never syncs until read."""

    def __init__(self, codebook_size: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(codebook_size, dtype=torch.int64, device=device)

    def update(self, indices: Integer[Tensor, "..."]) -> None:
        """Count a batch of code indices of any shape and integer type."""
        index_N = as_indices(indices).reshape(-1)
        self.counts.index_add_(0, index_N, torch.ones_like(index_N))  # not bincount: on a GPU that waits for the host

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
        return max(0.0, float(-torch.special.xlogy(p_K, p_K).sum()))  # of one code alone the sum is -0.0

    @property
    def perplexity(self) -> float:
        """exp(entropy): the number of equally used codes that would carry as much, between 1 and K."""
        return math.exp(self.entropy)

    @property
    def corrected_perplexity(self) -> float:
        """exp(entropy + (K₊ − 1)/2N), K₊ the codes seen, N the codes counted (Miller 1955; Madow 1948).

        The entropy of a sample is too low on average; this removes the bias of first order. At most K.
        """
        total = int(self.counts.sum())
        if total == 0:
            return 1.0
        seen = int((self.counts > 0).sum())
        return min(math.exp(self.entropy + (seen - 1) / (2 * total)), float(self.counts.numel()))

    @property
    def dead(self) -> int:
        """Codes that were never used."""
        return int((self.counts == 0).sum())

    @property
    def bits_per_code(self) -> float:
        """Entropy in bits: what a code costs under an ideal entropy coder."""
        return self.entropy / math.log(2)

    @property
    def usage(self) -> float:
        """Share of the codes used at least once, between 0 and 1."""
        return float((self.counts > 0).double().mean())

    def bits(self, codes_per_image: int) -> float:
        """Rate in bits an image: log2 of the perplexity times the codes an image takes."""
        return self.bits_per_code * codes_per_image

    def unigram_bits(self, known: "CodeHistogram", codes_per_image: int) -> float:
        """Bits an image of a code that gives each index a length by its frequency in ``known``, and nothing else.

        The cross entropy of these codes under the counts of ``known`` plus one each (Laplace): what was never seen
        there costs finite bits, and where nothing was seen all cost log2 K. 0 when nothing was counted here.
        """
        counts_K = self.counts.double()
        if counts_K.sum() == 0:
            return 0.0
        length_K = -torch.log_softmax((known.counts.to(counts_K.device).double() + 1).log(), 0) / math.log(2)
        return float((counts_K * length_K).sum() / counts_K.sum()) * codes_per_image

    def reduce(self) -> None:
        """Add up the counts of all processes (``torch.distributed``), in place."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.counts)
