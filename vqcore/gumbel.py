"""Gumbel-softmax (Jang et al. 2017): codes are drawn, and the gradient is that of the softmax.

The comparison of the rotation paper (arXiv 2410.06424, section 5). Streamed over rows as the search is: the N x K
probabilities are made again for the backward pass, from the seed of their noise, and never kept.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vqcore.estimators import straight_through
from vqcore.nearest import rows_at_once
from vqcore.registry import GUMBEL, estimator

estimator(GUMBEL)(straight_through)  # what it does in evaluation, where the nearest code is taken


class _GumbelSoftmax(torch.autograd.Function):
    """Forward: the drawn codes, bit for bit. Backward: of softmax((−‖z − c‖² + noise·T)/T) · C."""

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, codes_KD: Tensor, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
        index_N = torch.cat([scores.argmax(-1) for _, scores in _scores(z_ND, codes_KD, temperature, seed)])
        ctx.save_for_backward(z_ND, codes_KD.clone())  # moving averages change them before the backward pass
        ctx.temperature, ctx.seed = temperature, seed
        ctx.mark_non_differentiable(index_N)
        return F.embedding(index_N, codes_KD), index_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        g_ND, (z_ND, codes_KD) = grads[0], ctx.saved_tensors
        to_z_ND, to_codes_KD = torch.empty_like(z_ND), torch.zeros_like(codes_KD)
        for rows, score_BK in _scores(z_ND, codes_KD, ctx.temperature, ctx.seed):
            p_BK = score_BK.softmax(-1)
            g_BD = g_ND[rows]
            to_codes_KD.addmm_(p_BK.T, g_BD)
            through_BK = g_BD @ codes_KD.T
            through_BK = p_BK * (through_BK - (p_BK * through_BK).sum(-1, keepdim=True)) * (2 / ctx.temperature)
            # the gradient of −‖z − c‖²/T: rows of through_BK sum to 0, so that of ‖z‖² vanishes
            to_z_ND[rows] = through_BK @ codes_KD
            to_codes_KD.addmm_(through_BK.T, z_ND[rows]).addcmul_(through_BK.sum(0).unsqueeze(1), codes_KD, value=-1)
        return to_z_ND, to_codes_KD, None, None


def _scores(z_ND: Tensor, codes_KD: Tensor, temperature: float, seed: int) -> Iterator[tuple[slice, Tensor]]:
    """(−‖z − c‖² + ‖z‖²)/T + Gumbel noise, a block of rows at a time; the same for the same seed."""
    generator = torch.Generator(z_ND.device).manual_seed(seed)
    centre_D = codes_KD.mean(0)
    codes_KD = codes_KD - centre_D
    square_K = codes_KD.square().sum(-1)
    step = rows_at_once(codes_KD)
    for start in range(0, z_ND.shape[0], step):
        rows = slice(start, start + step)
        score_BK = torch.addmm(square_K, z_ND[rows] - centre_D, codes_KD.T, beta=-1, alpha=2).div_(temperature)
        exponential_BK = torch.empty_like(score_BK).exponential_(generator=generator)
        yield rows, score_BK.sub_(exponential_BK.log_())


def gumbel_softmax(
    z_ND: Float[Tensor, "n d"], codes_KD: Float[Tensor, "k d"], temperature: float
) -> tuple[Float[Tensor, "n d"], Int[Tensor, " n"]]:
    """Codes drawn with probability softmax(−‖z − c‖²/T), and their indices; both z and the codes get its gradient."""
    seed = int(torch.randint(2**62, ()))  # on the host, from the generator that checkpoints hold
    drawn: tuple[Tensor, Tensor] = _GumbelSoftmax.apply(z_ND, codes_KD, temperature, seed)
    return drawn
