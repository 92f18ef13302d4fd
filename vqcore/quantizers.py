"""The quantization layers: a learned codebook's nearest code, and finite scalar quantization's grid."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from vqcore.codebooks import Codes, Fp32Module, distributed
from vqcore.config import ConfigError, QuantizerConfig
from vqcore.estimators import bound, quantize, straight_through
from vqcore.gumbel import gumbel_softmax
from vqcore.nearest import as_indices, check_finite, nearest
from vqcore.registry import GUMBEL

MARGIN = 1e-3
"""Of FSQ's bound: its outermost values stay within reach of a finite input."""


class Quantized(NamedTuple):
    """The output of a quantization layer."""

    quantized: Tensor
    """The codes in the input's shape and dtype: bit for bit rows of the codebook (rounded to that dtype)."""
    indices: Tensor
    """int64; the input's shape without the channel dimension."""
    commitment_loss: Tensor
    """Mean over all elements of (z − sg q)², unweighted, fp32 scalar; its gradient goes to the encoder."""
    codebook_loss: Tensor
    """Mean of (sg z − q)², unweighted, fp32 scalar: the quantization error. Its gradient goes to a codebook trained by
    gradient; else it has none."""
    loss: Tensor
    """What to add to the task loss: the two losses, weighted."""


class VectorQuantizer(nn.Module):
    """Replaces each vector by its nearest code (van den Oord et al. 2017).

    The codebook changes only in training mode; the codes of a batch's output are those before its own update.
    Distances, losses and statistics are fp32 under any autocast.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        _require(config, "vq")
        self.config = config
        self.codes = Codes(config)
        self.frozen = False

    @property
    def codebook(self) -> Float[Tensor, "k d"]:
        """The codes in effect."""
        codes_KD: Tensor = self.codes()
        return codes_KD

    def freeze(self, frozen: bool = True) -> None:
        """Keep the codebook as it is, also in training mode; ``freeze(False)`` lets it move again."""
        self.frozen = frozen
        for parameter in self.codes.parameters():
            parameter.requires_grad_(not frozen).grad = None

    def forward(self, z: Tensor, channel_dim: int = 1) -> Quantized:
        """Quantize ``z``, whose dimension ``channel_dim`` has ``config.dim`` entries; any other dimensions.

        ``TypeError`` if ``z`` holds no real numbers, ``ValueError`` if its channels are not ``config.dim``.
        """
        config = self.config
        z_ND = self.vectors(z, channel_dim)
        # a process without vectors still takes part in the sums of all
        learns = self.training and not self.frozen and (z_ND.shape[0] > 0 or distributed())
        if learns and self.codes.move_in_forward:
            _refuse_checkpointing()
        with _without_autocast(z):
            if learns:
                self.codes.prepare(z_ND.detach())
            codes_KD = self.codes()
            if config.estimator == GUMBEL and self.training and z_ND.shape[0] > 0:
                check_finite(z_ND)
                q_ND, index_N = gumbel_softmax(z_ND, codes_KD, config.temperature)
                _, commitment_loss, codebook_loss = quantize(z_ND, codes_KD, index_N, straight_through)
            else:
                index_N = nearest(z_ND, codes_KD)
                q_ND, commitment_loss, codebook_loss = quantize(z_ND, codes_KD, index_N, bound(config), config.nu)
            if learns:
                self.codes.learn(z_ND.detach(), index_N)
        loss = config.commitment_weight * commitment_loss
        if config.codebook == "gradient":
            loss = loss + config.codebook_weight * codebook_loss
        return Quantized(*_shaped(q_ND, index_N, z, channel_dim), commitment_loss, codebook_loss, loss)

    def vectors(self, z: Tensor, channel_dim: int = 1) -> Float[Tensor, "n d"]:
        """``z`` as the vectors that are compared with the codes: a row a position, normalised if the layer does."""
        z_ND = _rows_of(z, channel_dim, self.config.dim)
        with _without_autocast(z):
            return F.normalize(z_ND, dim=-1) if self.config.normalize in ("inputs", "cosine") else z_ND

    def decode(self, indices: Integer[Tensor, "..."], channel_dim: int = 1) -> Float[Tensor, "..."]:
        """Codes of ``indices``, with the codes' dimension at ``channel_dim``: what the forward pass gave, in fp32."""
        return F.embedding(as_indices(indices), self.codebook).movedim(-1, channel_dim)


class FSQ(Fp32Module):
    """Finite scalar quantization (Mentzer et al. 2023): each dimension is bounded and rounded; nothing to learn.

    Replaces each vector by a point of a grid; dimension i takes ``levels[i]`` values on [-1, 1]. Computed in fp32 under
    any autocast: bf16 would merge neighbouring levels.
    """

    codebook: Tensor
    """(codebook_size, dim): every point of the grid, by its index."""
    levels: Tensor
    basis: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        _require(config, "fsq")
        self.config = config
        levels_D = torch.tensor(config.level_counts)
        basis_D = torch.cat([torch.ones(1, dtype=torch.int64), levels_D[:-1].cumprod(0)])
        digits_KD = torch.arange(config.codebook_size).unsqueeze(1) // basis_D % levels_D
        # floats, all of them whole numbers below 2^24: model averaging (torch.optim.swa_utils) takes nothing else
        self.register_buffer("levels", levels_D.to(torch.float32), persistent=False)
        self.register_buffer("basis", basis_D.to(torch.float32), persistent=False)
        self.register_buffer("codebook", self._values(digits_KD.to(torch.float32)), persistent=False)

    def forward(self, z: Tensor, channel_dim: int = 1) -> Quantized:
        """Quantize ``z``, whose dimension ``channel_dim`` has one entry a level; any other dimensions."""
        with _without_autocast(z):
            bounded_ND = self.vectors(z, channel_dim)
            check_finite(bounded_ND)  # infinities have an end of the grid, NaN has none
            index_N = (self._digits(bounded_ND.detach()) * self.basis).sum(-1).long()
            q_ND, error, _ = quantize(bounded_ND, self.codebook, index_N, straight_through)
        none = bounded_ND.new_zeros(())
        return Quantized(*_shaped(q_ND, index_N, z, channel_dim), none, error.detach(), none)

    def vectors(self, z: Tensor, channel_dim: int = 1) -> Float[Tensor, "n d"]:
        """``z`` as the vectors that are rounded to the grid: a row a position, each of its dimensions bounded."""
        with _without_autocast(z):
            return self._bounded(_rows_of(z, channel_dim, self.config.dim))

    def decode(self, indices: Integer[Tensor, "..."], channel_dim: int = 1) -> Float[Tensor, "..."]:
        """Points of ``indices``, with their dimension at ``channel_dim``: what the forward pass gave, in fp32."""
        return F.embedding(as_indices(indices), self.codebook).movedim(-1, channel_dim)

    def _bounded(self, z_ND: Tensor) -> Tensor:
        """On (-1, 1), before rounding. Equation 1: (tanh(z + shift)·h − o)/⌊L/2⌋; symmetric: tanh z."""
        if self.config.symmetric:
            return z_ND.tanh()
        half_D = (self.levels - 1) * (1 + MARGIN) / 2
        offset_D = 0.5 * (self.levels % 2 == 0).to(torch.float32)
        return ((z_ND + (offset_D / half_D).atanh()).tanh() * half_D - offset_D) / (self.levels // 2)

    def _digits(self, bounded_ND: Tensor) -> Tensor:
        """0 .. L−1 in each dimension; never outside, whatever rounding did."""
        if self.config.symmetric:
            digits_ND = ((bounded_ND + 1) / 2 * (self.levels - 1)).add(0.5).floor()
        else:
            digits_ND = (bounded_ND * (self.levels // 2)).round() + self.levels // 2
        return torch.minimum(digits_ND.clamp_(min=0), self.levels - 1)

    def _values(self, digits_KD: Tensor) -> Tensor:
        if self.config.symmetric:
            return 2 * digits_KD / (self.levels - 1) - 1
        return (digits_KD - self.levels // 2) / (self.levels // 2)


def quantizer(config: QuantizerConfig) -> VectorQuantizer | FSQ:
    """The layer that ``config`` describes."""
    return FSQ(config) if config.layer == "fsq" else VectorQuantizer(config)


def _require(config: QuantizerConfig, layer: str) -> None:
    """``ConfigError`` unless ``config`` describes this ``layer``."""
    if config.layer != layer:
        raise ConfigError(
            [f"layer = {config.layer!r}: this is the layer {layer!r}; vqcore.quantizer(config) makes either"]
        )


def _without_autocast(z: Tensor) -> AbstractContextManager[None]:
    """No autocast; nothing while ``torch.export`` traces, whose graphs of such a region cannot be loaded."""
    return nullcontext() if torch.compiler.is_exporting() else torch.autocast(z.device.type, enabled=False)


def _rows_of(z: Tensor, channel_dim: int, dim: int) -> Tensor:
    """``z`` as fp32 rows (N, dim)."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise RuntimeError("torch.jit.trace cannot record this layer; use torch.export.export or torch.compile")
    if not z.is_floating_point():
        raise TypeError(f"the input is {z.dtype}, and codes are real numbers: convert it with .float()")
    if z.shape[channel_dim] != dim:
        raise ValueError(
            f"dimension {channel_dim} of the input has {z.shape[channel_dim]} entries, a code {dim}: "
            f"name the channel dimension of {tuple(z.shape)} with channel_dim="
        )
    return z.movedim(channel_dim, -1).reshape(-1, dim).float()


def _shaped(rows_ND: Tensor, index_N: Tensor, like: Tensor, channel_dim: int) -> tuple[Tensor, Tensor]:
    """The inverse of ``_rows_of``: rows and indices in the shape of ``like``, the rows in its dtype."""
    shape = like.movedim(channel_dim, -1).shape
    return rows_ND.to(like.dtype).view(shape).movedim(-1, channel_dim), index_N.view(shape[:-1])


def _refuse_checkpointing() -> None:
    """``RuntimeError`` inside ``torch.utils.checkpoint``, which runs a forward pass again when its codes have moved."""
    frame = None if torch.compiler.is_compiling() else inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            raise RuntimeError(
                "torch.utils.checkpoint runs this layer twice, and its codes move in the first run: leave it out of "
                "the checkpointed part, freeze() it, or take codebook='gradient' without revival or statistics"
            )
        frame = frame.f_back
