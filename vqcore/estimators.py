"""How the gradient crosses the quantizer.

The forward pass of every estimator is the same and exact: the code, bit for bit. What differs is the vector-Jacobian
product, the gradient that the encoder output z receives for a gradient g on the code q. So an estimator is one
function ``(g, z, q) -> gradient of z`` on rows, and adding one's own is one decorator:

    @estimator("mine")
    def mine(g_ND, z_ND, q_ND):
        return 0.5 * g_ND

A keyword parameter named as a field of ``QuantizerConfig`` receives that field. Shapes: N vectors, D dimensions.
``gumbel``, whose forward pass draws codes, lives in ``vqcore.gumbel``.
"""

import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from vqcore.registry import ESTIMATORS as ESTIMATORS
from vqcore.registry import VJP, estimator, parameters


def bound(config: Any) -> VJP:
    """``config.estimator`` as a function of (g, z, q), its options taken from the other fields of ``config``."""
    vjp = ESTIMATORS[config.estimator]
    options = [name for name in parameters(vjp) if hasattr(config, name)]
    return functools.partial(vjp, **{name: getattr(config, name) for name in options}) if options else vjp


@estimator("ste")
def straight_through(
    g_ND: Float[Tensor, "n d"], z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """∇z = g: the code's gradient is copied to the encoder output (van den Oord et al. 2017, section 3.2)."""
    return g_ND


@estimator("rotation")
def rotation(
    g_ND: Float[Tensor, "n d"],
    z_ND: Float[Tensor, "n d"],
    q_ND: Float[Tensor, "n d"],
    *,
    max_rescale: float = 10.0,
    obtuse: str = "rotate",
) -> Float[Tensor, "n d"]:
    """∇z = λ Rᵀ g, where λR rotates and rescales z onto q and is held constant (arXiv 2410.06424, section 4.2).

    With ẑ = z/‖z‖, q̂ = q/‖q‖, c = ẑ·q̂, a = ẑ·g, b = q̂·g and ρ = (a + b)/(1 + c), the product needs no matrix:
    λ [g + (2b − ρ) ẑ − ρ q̂].

    Where R is undefined the result is still defined and finite. z = 0 or q = 0: the straight-through gradient.
    q antiparallel to z: ρ = 0, the reflection along z. λ = ‖q‖/‖z‖ is at most ``max_rescale``.
    """
    return _rotated(g_ND, z_ND, q_ND, max_rescale, obtuse)


@estimator("rotation_unscaled")
def rotation_unscaled(
    g_ND: Float[Tensor, "n d"], z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"], *, obtuse: str = "rotate"
) -> Float[Tensor, "n d"]:
    """∇z = Rᵀ g: the rotation without the rescaling (arXiv 2410.06424, appendix, γ = 1); undefined R as there."""
    return _rotated(g_ND, z_ND, q_ND, None, obtuse)


@estimator("reflection")
def reflection(
    g_ND: Float[Tensor, "n d"], z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """∇z = H g with H = I − 2vvᵀ, v = (ẑ − q̂)/‖ẑ − q̂‖: the Householder reflection of ẑ onto q̂ (the same, A.8).

    Two to three times worse than the rotation; here for comparison. Parallel vectors, and a zero
    vector, get the straight-through gradient.
    """
    z_unit_ND, q_unit_ND = F.normalize(z_ND, dim=-1), F.normalize(q_ND, dim=-1)
    v_ND = z_unit_ND - q_unit_ND
    square_N1 = _dot(v_ND, v_ND)
    # below 1e-12 the two directions differ by rounding noise of fp32 alone
    defined_N1 = (square_N1 > 1e-12) & (_dot(z_ND, z_ND) > 0) & (_dot(q_ND, q_ND) > 0)
    share_N1 = torch.where(defined_N1, 2 * _dot(v_ND, g_ND) / torch.where(defined_N1, square_N1, 1.0), 0.0)
    return torch.addcmul(g_ND, share_N1, v_ND, value=-1)


def _rotated(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor, max_rescale: float | None, obtuse: str) -> Tensor:
    z_norm_N1, q_norm_N1 = (torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True) for x_ND in (z_ND, q_ND))
    per_z_N1, per_q_N1 = z_norm_N1.reciprocal(), q_norm_N1.reciprocal()
    one_plus_cos_N1 = _dot(z_ND, q_ND).mul_(per_z_N1).mul_(per_q_N1).add_(1.0)
    a_N1, b_N1 = _dot(z_ND, g_ND).mul_(per_z_N1), _dot(q_ND, g_ND).mul_(per_q_N1)
    # Below 1e-6, 1 + c is rounding noise of fp32 and the plane of rotation with it.
    rho_N1 = a_N1.add_(b_N1).div_(one_plus_cos_N1).masked_fill_(one_plus_cos_N1 <= 1e-6, 0.0)

    scale_N1 = torch.ones_like(a_N1) if max_rescale is None else (q_norm_N1 * per_z_N1).clamp_(max=max_rescale)
    straight_N1 = (torch.minimum(z_norm_N1, q_norm_N1) > 0).logical_not_()  # all above may be NaN there
    if obtuse == "ste":
        straight_N1 = straight_N1 | (one_plus_cos_N1 < 1.0)
    scale_N1.masked_fill_(straight_N1, 1.0)
    along_z_N1 = per_z_N1.mul_(scale_N1).mul_(torch.sub(rho_N1, b_N1, alpha=2)).masked_fill_(straight_N1, 0.0)
    along_q_N1 = per_q_N1.mul_(scale_N1).mul_(rho_N1).masked_fill_(straight_N1, 0.0)
    return (scale_N1 * g_ND).addcmul_(along_z_N1, z_ND, value=-1).addcmul_(along_q_N1, q_ND, value=-1)


def _dot(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    return (x_ND * y_ND).sum(-1, keepdim=True)


BLOCK_ELEMENTS = 2**17
"""Elements of z handled at once on the CPU: half a MiB, so that what a VJP computes on the way stays in the cache."""


def _blocks(z_ND: Tensor) -> Iterator[slice]:
    if z_ND.is_cuda or torch.compiler.is_compiling():  # a loop would make a graph for each number of rows
        yield slice(None)
        return
    rows = max(1, BLOCK_ELEMENTS // z_ND.shape[1])
    for start in range(0, z_ND.shape[0], rows):
        yield slice(start, start + rows)


class _Quantize(torch.autograd.Function):
    """Forward: q itself, never z + (q − z), whose rounding would leak z past the bottleneck. Backward: the VJP.

    The two losses are here too: their gradients are sums with the VJP's, in one pass over z.
    """

    @staticmethod
    def forward(
        ctx: Any, z_ND: Tensor, codes_KD: Tensor, index_N: Tensor, vjp: VJP, nu: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        q_ND = F.embedding(index_N, codes_KD)
        total = sum(((z_ND[rows] - q_ND[rows]).square_().sum() for rows in _blocks(z_ND)), z_ND.new_zeros(()))
        error = total / max(1, z_ND.numel())
        ctx.save_for_backward(z_ND, q_ND, index_N)
        ctx.vjp, ctx.nu, ctx.size = vjp, nu, codes_KD.shape[0]
        codebook_loss = error.clone()
        if not ctx.needs_input_grad[1]:
            ctx.mark_non_differentiable(codebook_loss)
        return q_ND, error, codebook_loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        g_ND, g_commitment, g_codebook = grads
        z_ND, q_ND, index_N = ctx.saved_tensors
        each = 2 / max(1, z_ND.numel())
        to_z_ND = torch.empty_like(z_ND) if ctx.needs_input_grad[0] else None
        to_q_ND = torch.empty_like(z_ND) if ctx.needs_input_grad[1] else None
        for rows in _blocks(z_ND):
            g, z, q = g_ND[rows], z_ND[rows], q_ND[rows]
            apart = z - q
            if to_z_ND is not None:
                torch.addcmul(ctx.vjp(g, z, q), apart, g_commitment, value=each, out=to_z_ND[rows])
            if to_q_ND is not None:
                torch.addcmul(ctx.nu * g, apart, g_codebook, value=-each, out=to_q_ND[rows])
        if to_q_ND is None:
            return to_z_ND, None, None, None, None
        to_codes_KD = z_ND.new_zeros(ctx.size, z_ND.shape[1]).index_add_(0, index_N, to_q_ND)
        return to_z_ND, to_codes_KD, None, None, None


def quantize(
    z_ND: Float[Tensor, "n d"],
    codes_KD: Float[Tensor, "k d"],
    index_N: Int[Tensor, " n"],
    vjp: VJP,
    nu: float = 0.0,
) -> tuple[Float[Tensor, "n d"], Float[Tensor, ""], Float[Tensor, ""]]:
    """The codes of ``index_N``, bit for bit; mean (z − sg q)²; mean (sg z − q)².

    For a gradient g on the codes z receives ``vjp(g, z, q)``, the codes the share ``nu`` of g.
    """
    crossed: tuple[Tensor, Tensor, Tensor] = _Quantize.apply(z_ND, codes_KD, index_N, vjp, nu)
    return crossed
