"""The autoregressive prior: each code from those before it in raster order (Esser et al. 2021)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor

from vqcore.prior.base import InOrder, Labels, Steps
from vqcore.prior.drawing import bits_each
from vqcore.prior.transformer import Cache, Transformer


class Causal(Transformer, InOrder):
    """Each code from those before it in raster order."""

    def forward(self, codes: Integer[Tensor, "b y x"], labels: Labels = None) -> Float[Tensor, "b n k"]:
        """Logits of each code given those before it (teacher forcing), fp32."""
        index_BN = self.flat(codes, labels)
        start = index_BN.new_full((len(index_BN), 1), self.config.codebook_size)
        return self.run(torch.cat([start, index_BN[:, :-1]], 1), labels, causal=True)

    def loss(self, codes: Tensor, labels: Labels = None, generator: torch.Generator | None = None) -> Tensor:
        """Of all codes."""
        return F.cross_entropy(self(codes, labels).flatten(0, 1), self.flat(codes, labels).flatten())

    def bits(self, codes: Tensor, labels: Labels = None) -> Tensor:
        """In one pass."""
        return bits_each(self(codes, labels), self.flat(codes, labels)).sum(1)

    def steps(self, batch: int, labels: Labels = None) -> Steps:
        """With keys and values kept, so that a step costs one position."""
        self.check_labels(batch, labels)
        return _CausalSteps(self, batch, labels)


class _CausalSteps(Steps):
    def __init__(self, prior: Causal, batch: int, labels: Labels) -> None:
        self._prior, self._position = prior, 0
        self._places = prior.places(labels)
        self._caches = [Cache(prior.config.positions) for _ in prior.blocks]
        self._start = torch.full((batch,), prior.config.codebook_size, device=prior.counts.device)

    @torch.no_grad()
    def logits(self, previous: Tensor | None) -> Tensor:
        prior = self._prior
        x = prior.codes(self._start if previous is None else previous.long()) + self._places[..., self._position, :]
        x = x.unsqueeze(1)
        for block, cache in zip(prior.blocks, self._caches, strict=True):
            x = block(x, True, cache)
        self._position += 1
        return prior.head(x[:, 0])
