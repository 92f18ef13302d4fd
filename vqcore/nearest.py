"""Which code is nearest: exact, streamed, centred.

The usual ‖z‖² − 2 z·c + ‖c‖² cancels catastrophically when the data sit far from the origin (post-ReLU latents do):
at offset 100 and spread 0.05 it picks the right code for 9 % of fp32 vectors. Subtracting the codebook's mean from
both sides first changes no distance and removes the offset.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_ELEMENTS_CPU = 2**19
"""Scores held at once on the CPU: 2 MiB of fp32, near the size of an L2 cache. The N x K matrix is never built."""

BLOCK_ELEMENTS_CUDA = 2**23
"""Scores held at once on a GPU: 32 MiB, which an A100's L2 cache (40 MiB) and an H100's (50 MiB) hold. Not measured."""

TILE_CODES = 1024
"""Most codes of a tile on the CPU: 2 MiB of scores of 8,192 codes would be those of 64 vectors, too few for BLAS."""

_GROUP = 64


@torch.no_grad()
def nearest(z_ND: Float[Tensor, "n d"], codes_KD: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """Index of the Euclidean-nearest code of each vector; ties go to the lowest index.

    Computed in fp32, whatever torch's setting of the precision of fp32 products (TF32, bf16).
    ``FloatingPointError`` if a vector holds infinities or NaN; on a GPU, where a check would wait for it, they are
    assigned to some code, and the loss tells.
    """
    if torch.compiler.is_exporting():
        return _at_once(z_ND, *_centred(codes_KD))
    # to torch's compiler the search is one operator: tracing its loop would make a graph for each number of vectors
    search = _as_operator if torch.compiler.is_compiling() else _search
    index_N: Tensor = search(z_ND, codes_KD)
    return index_N


def rows_at_once(codes_KD: Tensor) -> int:
    """Rows of scores against these codes that are held at once."""
    block = BLOCK_ELEMENTS_CUDA if codes_KD.is_cuda else BLOCK_ELEMENTS_CPU
    return max(1, block // codes_KD.shape[0])


def _search(z_ND: Tensor, codes_KD: Tensor) -> Tensor:
    with _exact_products(z_ND.is_cuda):
        return _in_blocks(z_ND, codes_KD) if z_ND.is_cuda else _in_tiles(z_ND, codes_KD)


@contextmanager
def _exact_products(cuda: bool) -> Iterator[None]:
    """Products of fp32 are products of fp32 inside, also after ``torch.set_float32_matmul_precision("high")``."""
    products = torch.backends.cuda.matmul if cuda else torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    if before in ("ieee", "none"):
        yield
        return
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def _in_blocks(z_ND: Tensor, codes_KD: Tensor) -> Tensor:
    """On a GPU: blocks of vectors against all codes; of static shape, and nothing waits for the host.

    In fp32 throughout. Scores of bf16 from the tensor cores, with what is near rechecked in fp32, would be faster, but
    the choice is that of fp32 only if every code within the error bound is rechecked. With s = ½‖c‖² − z·c of centred
    vectors, z and c rounded to bf16 (unit roundoff u = 2⁻⁸) change s by at most (2u + u²)‖z‖‖c‖, and accumulation adds
    little; so the nearest code is among those whose score lies within twice that of the smallest. How many those are
    hangs on the data and has no limit below K: codes within 2⁻⁷ of their length of each other all are near a vector as
    long. A fixed number of rechecks needs a second, whole search for the vectors that have more, and without waiting
    for the host that search runs for all vectors. No GPU has been there to measure it.
    """
    centred = _centred(codes_KD)
    rows = rows_at_once(codes_KD)
    index_N = torch.empty(z_ND.shape[0], dtype=torch.int64, device=z_ND.device)
    for start in range(0, z_ND.shape[0], rows):
        index_N[start : start + rows] = _at_once(z_ND[start : start + rows], *centred)
    return index_N


def _at_once(z_ND: Tensor, centre_D: Tensor, negative_KD: Tensor, half_norm_K: Tensor) -> Tensor:
    """In one block, of torch's operators alone: what ``torch.export`` records then loads without this package.

    An exported graph has no loop over a number of vectors that it does not know: it holds all N x K scores.
    """
    score_NK = F.linear(z_ND.float() - centre_D, negative_KD, half_norm_K)
    return score_NK.argmin(-1) if score_NK.is_cuda or score_NK.shape[1] % _GROUP else _first_min(score_NK)[1]


def _in_tiles(z_ND: Tensor, codes_KD: Tensor) -> Tensor:
    """On the CPU: tiles of vectors and codes whose scores stay in the cache; of the tiles' winners the smallest."""
    centre_D, weight_TDC, bias_TC = _tiles(codes_KD)
    rows = max(1, BLOCK_ELEMENTS_CPU // bias_TC.shape[1])
    buffer_BC = bias_TC.new_empty(min(rows, z_ND.shape[0]), bias_TC.shape[1])
    index_N = torch.zeros(z_ND.shape[0], dtype=torch.int64)
    best_N = bias_TC.new_full((z_ND.shape[0],), torch.inf)
    for start in range(0, z_ND.shape[0], rows):
        z_BD = z_ND[start : start + rows].float() - centre_D
        index_B, best_B = index_N[start : start + rows], best_N[start : start + rows]
        for tile, (weight_DC, bias_C) in enumerate(zip(weight_TDC, bias_TC, strict=True)):
            score_BC = torch.addmm(bias_C, z_BD, weight_DC, out=buffer_BC[: len(z_BD)])
            value_B, code_B = _first_min(score_BC)
            closer_B = value_B < best_B  # of equals the earlier tile's stays
            torch.where(closer_B, code_B.add_(tile * len(bias_C)), index_B, out=index_B)
            torch.where(closer_B, value_B, best_B, out=best_B)
    if not math.isfinite(best_N.sum()):  # infinities and NaN have no finite score; finite vectors may overflow
        check_finite(z_ND)
    return index_N


def _tiles(codes_KD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The codes' mean, and weight and bias of ``_centred`` in tiles of one width, filled up with codes infinitely far.

    Of one width, because BLAS may round the same code's score otherwise in a narrower tile: equal codes would not tie.
    """
    size, dim = codes_KD.shape
    tiles = -(-size // TILE_CODES)
    width = -(-size // (tiles * _GROUP)) * _GROUP
    centre_D, negative_KD, half_norm_K = _centred(codes_KD)
    more = tiles * width - size
    weight_TCD = F.pad(negative_KD, (0, 0, 0, more)).view(tiles, width, dim)
    bias_TC = F.pad(half_norm_K, (0, more), value=torch.inf).view(tiles, width)
    return centre_D, weight_TCD.transpose(1, 2).contiguous(), bias_TC  # contiguous: BLAS is faster by a twentieth


def _centred(codes_KD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The codes' mean, and about it -c and ½‖c‖² of each code: the weight and the bias of a score.

    argmin of ½‖z − c‖² = ½‖z‖² + (½‖c‖² − z·c); the first term is the same for every code.
    """
    codes_KD = codes_KD.float()
    centre_D = codes_KD.mean(0)
    negative_KD = centre_D - codes_KD
    return centre_D, negative_KD, 0.5 * negative_KD.square().sum(-1)


def _first_min(score_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's smallest score and its first index. In two levels: on the CPU ``amin`` vectorises, ``argmin`` not."""
    rows, size = score_BC.shape
    groups = size // _GROUP
    value_B, group_B = score_BC.view(rows, groups, _GROUP).amin(-1).min(-1)
    first_B = torch.arange(0, rows * groups, groups)
    winner_BE = score_BC.view(rows * groups, _GROUP).index_select(0, first_B + group_B)
    return value_B, winner_BE.argmin(-1).add_(group_B, alpha=_GROUP)


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


def as_indices(indices: Tensor) -> Int[Tensor, "..."]:
    """Code indices of any integer type as int64. ``TypeError`` for anything else."""
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise TypeError(f"code indices are integers, and these are {indices.dtype}; convert them with .long()")
    return indices.long()
