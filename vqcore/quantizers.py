"""The vector-quantization layer: nearest code, honest bottleneck."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqcore.codebooks import Codes, distributed
from vqcore.config import QuantizerConfig
from vqcore.estimators import GUMBEL, bound, quantize, straight_through
from vqcore.fsq import FSQ
from vqcore.gumbel import gumbel_softmax
from vqcore.nearest import check_finite, nearest
from vqcore.quantized import Quantized, require, rows_of, shaped


class VectorQuantizer(nn.Module):
    """Replaces each vector by its nearest code (van den Oord et al. 2017).

    The codebook changes only in training mode; the codes of a batch's output are those before its own update.
    Distances, losses and statistics are fp32 under any autocast.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        require(config, "vq")
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

    def forward(self, z: Float[Tensor, "..."], channel_dim: int = 1) -> Quantized:
        """Quantize ``z``, whose dimension ``channel_dim`` has ``config.dim`` entries; any other dimensions."""
        config = self.config
        z_ND = rows_of(z, channel_dim, config.dim)
        # a process without vectors still takes part in the sums of all
        learns = self.training and not self.frozen and (z_ND.shape[0] > 0 or distributed())
        with torch.autocast(z.device.type, enabled=False):
            if config.normalize in ("inputs", "cosine"):
                z_ND = F.normalize(z_ND, dim=-1)
            if learns:
                self.codes.prepare(z_ND.detach())
            codes_KD = self.codes()
            if config.estimator == GUMBEL and self.training and z_ND.shape[0] > 0:
                check_finite(z_ND)
                q_ND, index_N = gumbel_softmax(z_ND, codes_KD, config.temperature)
                _, commitment_loss, codebook_loss = quantize(z_ND, codes_KD, index_N, straight_through)
            else:
                index_N = nearest(z_ND, codes_KD)
                # in evaluation gumbel passes its gradient straight through
                vjp = straight_through if config.estimator == GUMBEL else bound(config)
                q_ND, commitment_loss, codebook_loss = quantize(z_ND, codes_KD, index_N, vjp, config.nu)
            if learns:
                self.codes.learn(z_ND.detach(), index_N)
        loss = config.commitment_weight * commitment_loss
        if config.codebook == "gradient":
            loss = loss + config.codebook_weight * codebook_loss
        shape = z.movedim(channel_dim, -1).shape[:-1]
        return Quantized(shaped(q_ND, z, channel_dim), index_N.view(shape), commitment_loss, codebook_loss, loss)

    def decode(self, indices: Int[Tensor, "..."], channel_dim: int = 1) -> Float[Tensor, "..."]:
        """Codes of ``indices``, with the codes' dimension at ``channel_dim``: what the forward pass gave, in fp32."""
        return F.embedding(indices, self.codebook).movedim(-1, channel_dim)


def quantizer(config: QuantizerConfig) -> VectorQuantizer | FSQ:
    """The layer that ``config`` describes."""
    return FSQ(config) if config.layer == "fsq" else VectorQuantizer(config)
