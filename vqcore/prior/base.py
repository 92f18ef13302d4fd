"""What all priors are: distributions over grids of codes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from vqcore.fields import Checked, number, whole
from vqcore.nearest import as_indices
from vqcore.prior.drawing import draw

Kind = Literal["causal", "masked", "unigram"]

Labels = Integer[Tensor, "b"] | None
"""Class of each image, for a prior that is conditioned on it."""

UNKNOWN = -1
"""Marks the codes that a completion is to find."""

Drawn = Callable[[Tensor], Tensor]
"""Draws a code (...) from logits (..., K), as a sample's temperature and top k say."""


@dataclass(frozen=True)
class PriorConfig(Checked):
    """A prior over grids of ``rows`` x ``columns`` codes."""

    kind: Kind = "causal"
    """``causal``, ``masked`` or ``unigram``, which takes no notice of width, layers, heads and dropout."""
    codebook_size: int = whole(512, 2)
    """Number of codes K."""
    rows: int = whole(8, 1, 1024)
    """Of the grid."""
    columns: int = whole(8, 1, 1024)
    """Of the grid."""
    classes: int = whole(0, 0)
    """Of the labels that it is conditioned on; 0 for none."""
    width: int = whole(128, 1)
    """Of the transformer's residual stream."""
    layers: int = whole(4, 1, 1000)
    """Transformer blocks."""
    heads: int = whole(4, 1)
    """Attention heads; they divide the width."""
    dropout: float = number(0.1, "a share, 0 to 0.9", lambda v: 0 <= v <= 0.9)
    """Share of each block's output that is dropped in training."""

    def _contradictions(self) -> Iterable[str]:
        sizes = (self.width, self.heads)
        if all(isinstance(size, int) and size > 0 for size in sizes) and self.width % self.heads:
            yield f"heads = {self.heads}: must divide width = {self.width}"

    @property
    def positions(self) -> int:
        """Codes an image."""
        return self.rows * self.columns


class Prior(nn.Module, ABC):
    """A distribution over code grids, exactly normalised. Codes are any integers, (B, rows, columns)."""

    counts: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("counts", torch.zeros(config.codebook_size, dtype=torch.int64))
        """(K,): how often each code stands in what the prior was trained on."""

    def count(self, counts: Integer[Tensor, "k"]) -> None:
        """Take over how often each code stands in the training set, before the training."""
        self.counts.copy_(counts)

    @abstractmethod
    def loss(
        self, codes: Integer[Tensor, "b y x"], labels: Labels = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Mean nats a code that is predicted, to be minimised. ``generator`` chooses what a masked prior hides."""

    @abstractmethod
    def bits(self, codes: Integer[Tensor, "b y x"], labels: Labels = None) -> Float[Tensor, "b"]:
        """−log2 of the probability of each grid, fp64: what an ideal coder needs with this prior."""

    def estimated_bits(
        self, codes: Integer[Tensor, "b y x"], labels: Labels = None, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b"]:
        """``bits`` in one pass of the network: an estimate only where ``bits`` needs more of them."""
        return self.bits(codes, labels)

    @torch.no_grad()
    def sample(
        self,
        count: int,
        labels: Labels = None,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        known: Integer[Tensor, "b y x"] | None = None,
    ) -> Integer[Tensor, "b y x"]:
        """``count`` grids; on the CPU the same for the same arguments.

        ``temperature`` divides the logits, and ``top_k`` keeps the most probable codes (0: all). ``known`` holds codes
        that are given, and ``UNKNOWN`` elsewhere: a completion. With a causal prior a code follows only from those
        before it, so what is known should be the upper rows.
        """
        self.check_labels(count, labels)
        grid, generator = (count, self.config.rows, self.config.columns), torch.Generator().manual_seed(seed)
        given = torch.full(grid, UNKNOWN) if known is None else known.reshape(grid)
        drawn = partial(draw, temperature=temperature, top_k=top_k, generator=generator)
        return self.fill(given.flatten(1).long().to(self.counts.device), labels, drawn, generator).view(grid)

    @abstractmethod
    def fill(
        self, given: Integer[Tensor, "b n"], labels: Labels, drawn: Drawn, generator: torch.Generator
    ) -> Integer[Tensor, "b n"]:
        """Codes in raster order for those that are ``UNKNOWN``; ``drawn`` takes logits and uses the generator."""

    def flat(self, codes: Tensor, labels: Labels) -> Integer[Tensor, "b n"]:
        """Codes in raster order. ``ValueError`` for another grid, and where labels lack or are not asked for."""
        if codes.shape[1:] != (self.config.rows, self.config.columns):
            grid = f"({self.config.rows}, {self.config.columns})"
            raise ValueError(f"codes of shape {tuple(codes.shape)}: this prior is over grids of {grid}")
        self.check_labels(len(codes), labels)
        return as_indices(codes).flatten(1)

    def check_labels(self, count: int, labels: Labels) -> None:
        """``ValueError`` unless there are as many labels as this prior needs."""
        classes = self.config.classes
        if (labels is None) != (classes == 0) or (labels is not None and len(labels) != count):
            need = f"{count} labels of {classes} classes" if classes else "no labels"
            raise ValueError(f"labels of {0 if labels is None else len(labels)} images: this prior takes {need}")


class Steps(ABC):
    """The codes of ``batch`` grids one position after the other, in raster order."""

    @abstractmethod
    def logits(self, previous: Integer[Tensor, "b"] | None) -> Float[Tensor, "b k"]:
        """Of the next position, fp32; ``previous`` are the codes of the one before, None at the first."""


class InOrder(Prior):
    """A prior that gives each code from those before it in raster order."""

    @abstractmethod
    def steps(self, batch: int, labels: Labels = None) -> Steps:
        """To go through the positions of ``batch`` grids."""

    def fill(
        self, given: Integer[Tensor, "b n"], labels: Labels, drawn: Drawn, generator: torch.Generator
    ) -> Integer[Tensor, "b n"]:
        """One code after the other."""
        steps, codes = self.steps(len(given), labels), list[Tensor]()
        for given_B in given.unbind(1):
            drawn_B = drawn(steps.logits(codes[-1] if codes else None))
            codes.append(torch.where(given_B == UNKNOWN, drawn_B, given_B))
        return torch.stack(codes, 1)
