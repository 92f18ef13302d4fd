"""Finite scalar quantization (Mentzer et al. 2023): each dimension is bounded and rounded; nothing to learn."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqcore.config import QuantizerConfig
from vqcore.estimators import quantize, straight_through
from vqcore.nearest import check_finite
from vqcore.quantized import Quantized, require, rows_of, shaped

MARGIN = 1e-3
"""The outermost values stay within reach of a finite input."""


class FSQ(nn.Module):
    """Replaces each vector by a point of a grid; dimension i takes ``levels[i]`` values on [-1, 1].

    Computed in fp32 under any autocast: bf16 would merge neighbouring levels.
    """

    codebook: Tensor
    """(codebook_size, dim): every point of the grid, by its index."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        require(config, "fsq")
        self.config = config
        levels_D = torch.tensor(config.level_counts)
        self.register_buffer("levels", levels_D, persistent=False)
        basis_D = torch.cat([torch.ones(1, dtype=torch.int64), levels_D[:-1].cumprod(0)])
        self.register_buffer("basis", basis_D, persistent=False)
        digits_KD = torch.arange(config.codebook_size).unsqueeze(1) // basis_D % levels_D
        self.register_buffer("codebook", self._values(digits_KD), persistent=False)

    levels: Tensor
    basis: Tensor

    def forward(self, z: Float[Tensor, "..."], channel_dim: int = 1) -> Quantized:
        """Quantize ``z``, whose dimension ``channel_dim`` has one entry a level; any other dimensions."""
        z_ND = rows_of(z, channel_dim, self.config.dim)
        with torch.autocast(z.device.type, enabled=False):
            bounded_ND = self._bounded(z_ND)
            check_finite(bounded_ND)  # infinities have an end of the grid, NaN has none
            digits_ND = self._digits(bounded_ND.detach())
            index_N = (digits_ND * self.basis).sum(-1)
            q_ND, error, _ = quantize(bounded_ND, self.codebook, index_N, straight_through)
        none = torch.zeros((), device=z.device)
        shape = z.movedim(channel_dim, -1).shape[:-1]
        return Quantized(shaped(q_ND, z, channel_dim), index_N.view(shape), none, error.detach(), none)

    def decode(self, indices: Int[Tensor, "..."], channel_dim: int = 1) -> Float[Tensor, "..."]:
        """Points of ``indices``, with their dimension at ``channel_dim``: what the forward pass gave, in fp32."""
        return F.embedding(indices, self.codebook).movedim(-1, channel_dim)

    def _bounded(self, z_ND: Tensor) -> Tensor:
        """On (-1, 1), before rounding. Equation 1: (tanh(z + shift)·h − o)/⌊L/2⌋; symmetric: tanh z."""
        if self.config.symmetric:
            return z_ND.tanh()
        half_D = (self.levels - 1) * (1 + MARGIN) / 2
        offset_D = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return ((z_ND + (offset_D / half_D).atanh()).tanh() * half_D - offset_D) / (self.levels // 2)

    def _digits(self, bounded_ND: Tensor) -> Tensor:
        """0 .. L−1 in each dimension; never outside, whatever rounding did."""
        if self.config.symmetric:
            digits_ND = ((bounded_ND + 1) / 2 * (self.levels - 1)).add(0.5).floor()
        else:
            digits_ND = (bounded_ND * (self.levels // 2)).round() + self.levels // 2
        return torch.minimum(digits_ND.long().clamp_(min=0), self.levels - 1)

    def _values(self, digits_KD: Tensor) -> Tensor:
        if self.config.symmetric:
            return 2 * digits_KD / (self.levels - 1) - 1
        return (digits_KD - self.levels // 2) / (self.levels // 2)
