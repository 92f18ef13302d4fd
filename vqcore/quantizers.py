"""The vector-quantization layer: nearest code, honest bottleneck, EMA codebook."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqcore.config import QuantizerConfig
from vqcore.estimators import cross
from vqcore.nearest import nearest

LAPLACE_EPS = 1e-5


class Quantized(NamedTuple):
    """What a quantizer returns."""

    quantized: Tensor
    """The codes in the input's shape and dtype: bit for bit rows of the codebook (rounded to that dtype)."""
    indices: Tensor
    """int64; the input's shape without the channel dimension."""
    commitment_loss: Tensor
    """Mean over all elements of (z − sg q)², unweighted, fp32 scalar; its gradient goes to the encoder."""
    codebook_loss: Tensor
    """Mean of (sg z − q)², unweighted, fp32 scalar. The same value; under EMA it has no gradient and is only told."""
    loss: Tensor
    """What to add to the task loss: commitment_weight · commitment_loss."""


class VectorQuantizer(nn.Module):
    """Replaces each vector by its nearest code (van den Oord et al. 2017), with an EMA codebook (their appendix A.1).

    The codebook moves only in training mode and only by the moving averages; the codes of a batch's output are those
    before its own update. Distances, losses and statistics are fp32 under any autocast.
    """

    codebook: Tensor
    ema_counts: Tensor
    ema_sums: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        size, dim = config.codebook_size, config.dim
        codebook_KD = torch.empty(size, dim).uniform_(-1 / size, 1 / size)
        self.register_buffer("codebook", codebook_KD)
        # n = 1 and m = c: from n = 0 an unused code would be m γ / ε, 1e5 away, after one step
        self.register_buffer("ema_counts", torch.ones(size))
        self.register_buffer("ema_sums", codebook_KD.clone())

    def forward(self, z: Float[Tensor, "..."], channel_dim: int = 1) -> Quantized:
        """Quantize ``z``, whose dimension ``channel_dim`` has ``config.dim`` entries; any other dimensions."""
        if z.shape[channel_dim] != self.config.dim:
            raise ValueError(
                f"dimension {channel_dim} of the input has {z.shape[channel_dim]} entries, a code {self.config.dim}: "
                f"name the channel dimension of {tuple(z.shape)} with channel_dim="
            )
        with torch.autocast(z.device.type, enabled=False):
            last = z.movedim(channel_dim, -1)
            z_ND = last.reshape(-1, self.config.dim).float()
            index_N = nearest(z_ND, self.codebook)
            q_ND = F.embedding(index_N, self.codebook)
            commitment_loss = F.mse_loss(z_ND, q_ND) if z_ND.numel() else z_ND.sum()
            quantized = cross(z_ND, q_ND, self.config.estimator).to(z.dtype).view(last.shape).movedim(-1, channel_dim)
            if self.training and z_ND.numel():
                self._update_codebook(z_ND.detach(), index_N)
        return Quantized(
            quantized=quantized,
            indices=index_N.view(last.shape[:-1]),
            commitment_loss=commitment_loss,
            codebook_loss=commitment_loss.detach(),
            loss=self.config.commitment_weight * commitment_loss,
        )

    def decode(self, indices: Int[Tensor, "..."], channel_dim: int = 1) -> Float[Tensor, "..."]:
        """Codes of ``indices``, with the codes' dimension at ``channel_dim``: what the forward pass gave, in fp32."""
        return F.embedding(indices, self.codebook).movedim(-1, channel_dim)

    @torch.no_grad()
    def _update_codebook(self, z_ND: Tensor, index_N: Tensor) -> None:
        """n ← γn + (1−γ)Σ1, m ← γm + (1−γ)Σz, c = m/ñ with ñ = (n+ε)·Σn/(Σn+Kε) (Laplace smoothing)."""
        size, rate = self.config.codebook_size, 1 - self.config.decay
        counts_K = torch.bincount(index_N, minlength=size).float()
        sums_KD = torch.zeros_like(self.ema_sums).index_add_(0, index_N, z_ND)
        self.ema_counts.lerp_(counts_K, rate)
        self.ema_sums.lerp_(sums_KD, rate)
        total = self.ema_counts.sum()
        smoothed_K = (self.ema_counts + LAPLACE_EPS) * (total / (total + size * LAPLACE_EPS))
        torch.div(self.ema_sums, smoothed_K.unsqueeze(1), out=self.codebook)
