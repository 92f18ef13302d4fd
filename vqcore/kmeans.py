"""k-means++ (Arthur & Vassilvitskii 2007): codes that start where the data are."""

import torch
from jaxtyping import Float
from torch import Tensor

from vqcore.nearest import nearest

ITERATIONS = 10
"""Lloyd's, after the seeding; each lowers the quantization error."""


@torch.no_grad()
def kmeans_plus_plus(
    z_ND: Float[Tensor, "n d"], size: int, generator: torch.Generator | None = None
) -> Float[Tensor, "k d"]:
    """``size`` codes for ``z_ND``, one vector or more: seeded by squared distance, then refined.

    Memory is that of a few vectors of N. With more codes than distinct vectors the rest repeat vectors, moved by a
    hundredth of the data's spread, so that no two codes tie.
    """
    z_ND = z_ND.float()
    codes_KD = _seeds(z_ND, size, generator)
    for _ in range(ITERATIONS):
        index_N = nearest(z_ND, codes_KD)
        sums_KD = torch.zeros_like(codes_KD).index_add_(0, index_N, z_ND)
        counts_K = torch.zeros(size, device=z_ND.device).index_add_(0, index_N, torch.ones_like(z_ND[:, 0]))
        used_K1 = counts_K.unsqueeze(1) > 0
        codes_KD = torch.where(used_K1, sums_KD / counts_K.clamp(min=1).unsqueeze(1), codes_KD)
    return codes_KD


def _seeds(z_ND: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    rows, device = z_ND.shape[0], z_ND.device
    centred_ND = z_ND - z_ND.mean(0)  # the expansion below cancels far from the origin
    square_N = centred_ND.square().sum(-1)
    u_K = torch.rand(size, generator=generator, dtype=torch.float64).to(device)
    chosen_K = torch.zeros(size, dtype=torch.int64, device=device)
    chosen_K[0] = (u_K[0] * rows).long()
    distance_N = torch.full_like(square_N, torch.inf)
    exhausted_K = torch.zeros(size, dtype=torch.bool, device=device)
    for k in range(1, size):
        last = chosen_K[k - 1 : k]
        new_N = torch.addmv(square_N, centred_ND, centred_ND[last].squeeze(0), alpha=-2).add_(square_N[last])
        rounding_N = 1e-6 * (square_N + square_N[last])  # what is less apart is the same vector
        distance_N = torch.minimum(distance_N, torch.where(new_N > rounding_N, new_N, 0))
        cumulative_N = distance_N.cumsum(0, dtype=torch.float64)
        total = cumulative_N[-1]
        drawn = torch.searchsorted(cumulative_N, (u_K[k] * total).reshape(1), right=True)
        exhausted_K[k] = total <= 0
        chosen_K[k : k + 1] = torch.where(total > 0, drawn.clamp(max=rows - 1), (u_K[k] * rows).long())
    spread_D = z_ND.std(0, correction=0)
    moved_KD = 0.01 * spread_D * torch.randn(size, z_ND.shape[1], generator=generator).to(device)
    return z_ND[chosen_K] + moved_KD * exhausted_K.unsqueeze(1)
