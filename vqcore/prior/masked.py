"""The masked prior: all hidden codes at once from those that are seen (MaskGIT, Chang et al. 2022)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from vqcore.prior.base import UNKNOWN, Drawn, Labels
from vqcore.prior.drawing import bits_each, gumbel
from vqcore.prior.transformer import Transformer

ITERATIONS = 12
"""In which a masked prior fills a grid; 8 to 12 in Chang et al. 2022."""

_CHOICE_TEMPERATURE = 4.5
"""Of the noise on a masked prior's confidence, which falls to 0 with the iterations (Chang et al. 2022, their code)."""


class Masked(Transformer):
    """Hidden codes from those that are seen, wherever they are."""

    def forward(self, codes: Integer[Tensor, "b y x"], labels: Labels = None) -> Float[Tensor, "b n k"]:
        """Logits of each code, fp32; a code of K is hidden."""
        return self.run(self.flat(codes, labels), labels, causal=False)

    def loss(self, codes: Tensor, labels: Labels = None, generator: torch.Generator | None = None) -> Tensor:
        """Of hidden codes, whose share is cos(π/2 u), u uniform (Chang et al. 2022, section 3.3)."""
        index_BN = self.flat(codes, labels)
        share = torch.cos(torch.rand(len(codes), generator=generator) * (math.pi / 2))
        hidden = self._hidden((share * self.config.positions).ceil().clamp(min=1), generator)
        logits = self(index_BN.masked_fill(hidden, self.config.codebook_size).view(codes.shape), labels)
        return F.cross_entropy(logits[hidden], index_BN[hidden])

    def bits(self, codes: Tensor, labels: Labels = None) -> Tensor:
        """By the chain rule in one order of the positions, the same for all grids; a pass of the network a position.

        Another order gives other bits, since nothing makes the conditional probabilities those of one distribution.
        """
        index_BN, bits = self.flat(codes, labels), []
        order = torch.randperm(self.config.positions, generator=torch.Generator().manual_seed(0)).to(codes.device)
        seen = torch.full_like(index_BN, self.config.codebook_size)
        for place in order:
            logits = self(seen.view(codes.shape), labels)[:, place]
            bits.append(bits_each(logits, index_BN[:, place]))
            seen[:, place] = index_BN[:, place]
        return torch.stack(bits).sum(0)

    def estimated_bits(self, codes: Tensor, labels: Labels = None, generator: torch.Generator | None = None) -> Tensor:
        """An unbiased estimate of ``bits``' mean over all orders (Uria et al. 2014): N times the mean bits of hidden
        codes, their number uniform on 1 to N."""
        index_BN, positions = self.flat(codes, labels), self.config.positions
        number = torch.randint(1, positions + 1, (len(codes),), generator=generator)
        hidden = self._hidden(number, generator)
        logits = self(index_BN.masked_fill(hidden, self.config.codebook_size).view(codes.shape), labels)
        bits = bits_each(logits, index_BN).masked_fill(~hidden, 0).sum(1)
        return bits * positions / number.to(bits.device)

    def fill(
        self, given: Integer[Tensor, "b n"], labels: Labels, drawn: Drawn, generator: torch.Generator
    ) -> Integer[Tensor, "b n"]:
        """All hidden codes in every iteration, of which the most confident stay (Chang et al. 2022, section 3.2)."""
        hidden = given == UNKNOWN
        index_BN, first = given.masked_fill(hidden, self.config.codebook_size), hidden.sum(1)
        for iteration in range(1, ITERATIONS + 1):
            progress = iteration / ITERATIONS
            logits = self(index_BN.view(-1, self.config.rows, self.config.columns), labels)
            drawn_BN = drawn(logits)
            confidence = logits.log_softmax(-1).gather(-1, drawn_BN.unsqueeze(-1)).squeeze(-1)
            confidence += _CHOICE_TEMPERATURE * (1 - progress) * gumbel(confidence, generator)
            remaining = (first * math.cos(math.pi / 2 * progress)).floor()  # none after the last
            rank = confidence.masked_fill(~hidden, math.inf).argsort(1).argsort(1)
            stays_hidden = rank < remaining.unsqueeze(1)
            index_BN = torch.where(hidden & ~stays_hidden, drawn_BN, index_BN)
            hidden = stays_hidden
        return index_BN

    def _hidden(self, number: Tensor, generator: torch.Generator | None) -> Tensor:
        """(B, N) of which ``number`` (B,) in each row, at random places, are true."""
        order = torch.rand(len(number), self.config.positions, generator=generator).argsort(1).argsort(1)
        return (order < number.unsqueeze(1)).to(self.counts.device)
