"""Which code is nearest: exact, streamed, centred.

The usual ‖z‖² − 2 z·c + ‖c‖² cancels catastrophically when the data sit far from the origin (post-ReLU latents do):
at offset 100 and spread 0.05 it picks the right code for 9 % of fp32 vectors. Subtracting the codebook's mean from
both sides first changes no distance and removes the offset.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ELEMENTS_CPU = 2**19
"""Scores held at once on the CPU: 2 MiB of fp32, which stays in the L2 cache. The N x K matrix is never built."""

BLOCK_ELEMENTS_CUDA = 2**26
"""Scores held at once on a GPU: 256 MiB, enough to fill it and far from N x K at large K."""

_GROUP = 64


@torch.no_grad()
def nearest(z_ND: Float[Tensor, "n d"], codes_KD: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """Index of the Euclidean-nearest code of each vector; ties go to the lowest index. Computed in fp32.

    ``FloatingPointError`` if a vector holds infinities or NaN; on a GPU, where a check would wait for it, they are
    assigned to some code, and the loss tells.
    """
    if torch.compiler.is_exporting():
        return _at_once(z_ND, codes_KD)
    # to torch's compiler the search is one operator: tracing its loop would make a graph for each number of vectors
    search = _as_operator if torch.compiler.is_compiling() else _search
    index_N: Tensor = search(z_ND, codes_KD)
    return index_N


def rows_at_once(codes_KD: Tensor) -> int:
    """Rows of scores against these codes that are held at once."""
    block = BLOCK_ELEMENTS_CUDA if codes_KD.is_cuda else BLOCK_ELEMENTS_CPU
    return max(1, block // codes_KD.shape[0])


def _search(z_ND: Tensor, codes_KD: Tensor) -> Tensor:
    centre_D, negative_KD, half_norm_K = _centred(codes_KD)
    rows = rows_at_once(codes_KD)
    index_N = torch.empty(z_ND.shape[0], dtype=torch.int64, device=z_ND.device)
    for start in range(0, z_ND.shape[0], rows):
        z_BD = z_ND[start : start + rows].float() - centre_D
        index_N[start : start + rows] = _argmin(F.linear(z_BD, negative_KD, half_norm_K))
    check_finite(z_ND)
    return index_N


def _at_once(z_ND: Tensor, codes_KD: Tensor) -> Tensor:
    """In one block, of torch's operators alone: what ``torch.export`` records then loads without this package.

    An exported graph has no loop over a number of vectors that it does not know: it holds all N x K scores.
    """
    centre_D, negative_KD, half_norm_K = _centred(codes_KD)
    return _argmin(F.linear(z_ND.float() - centre_D, negative_KD, half_norm_K))


def _centred(codes_KD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The codes' mean, and about it -c and ½‖c‖² of each code: the weight and the bias of a score.

    argmin of ½‖z − c‖² = ½‖z‖² + (½‖c‖² − z·c); the first term is the same for every code.
    """
    codes_KD = codes_KD.float()
    centre_D = codes_KD.mean(0)
    codes_KD = codes_KD - centre_D
    half_norm_K = 0.5 * codes_KD.square().sum(-1)
    return centre_D, codes_KD.neg_(), half_norm_K


def check_finite(z_ND: Tensor) -> None:
    """``FloatingPointError`` if ``z_ND`` holds infinities or NaN; on a GPU and under the compiler no check."""
    if z_ND.is_cuda or torch.compiler.is_compiling():
        return
    # a sum of finite numbers may overflow: then look again
    if not math.isfinite(z_ND.detach().sum()) and not z_ND.isfinite().all():
        raise FloatingPointError("the vectors to quantize are not finite (inf or nan)")


_as_operator = torch.library.custom_op("vqcore::nearest", _search, mutates_args=())


@_as_operator.register_fake
def _(z_ND: Tensor, codes_KD: Tensor) -> Tensor:
    return z_ND.new_empty(z_ND.shape[0], dtype=torch.int64)


def _argmin(score_BK: Tensor) -> Tensor:
    """First index of the smallest score in each row. On the CPU in two levels: ``amin`` vectorises, ``argmin`` not."""
    rows, size = score_BK.shape
    if score_BK.is_cuda or size % _GROUP or size == _GROUP:
        return score_BK.argmin(-1)
    score_BGE = score_BK.view(rows, size // _GROUP, _GROUP)
    group_B = score_BGE.amin(-1).argmin(-1)
    winner_BE = score_BGE[torch.arange(rows), group_B]
    return group_B * _GROUP + winner_BE.argmin(-1)


def as_indices(indices: Tensor) -> Int[Tensor, "..."]:
    """Code indices of any integer type as int64. ``TypeError`` for anything else."""
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(f"code indices are integers, and these are {indices.dtype}; convert them with .long()")
    return indices.long()
