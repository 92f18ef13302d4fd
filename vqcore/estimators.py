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
import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

VJP = Callable[..., Float[Tensor, "n d"]]

ESTIMATORS: dict[str, VJP] = {}
"""Every estimator that is a vector-Jacobian product, by its name."""

GUMBEL = "gumbel"


def estimator(name: str) -> Callable[[VJP], VJP]:
    """Register a vector-Jacobian product under ``name``."""

    def register(vjp: VJP) -> VJP:
        ESTIMATORS[name] = vjp
        return vjp

    return register


def bound(config: Any) -> VJP:
    """``config.estimator`` as a function of (g, z, q), its options taken from the other fields of ``config``."""
    vjp = ESTIMATORS[config.estimator]
    options = [name for name in inspect.signature(vjp).parameters if hasattr(config, name)]
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

    Known to be two to three times worse than the rotation; here to be compared with. Parallel vectors, and a zero
    vector, get the straight-through gradient.
    """
    z_unit_ND, q_unit_ND = torch.nn.functional.normalize(z_ND, dim=-1), torch.nn.functional.normalize(q_ND, dim=-1)
    v_ND = z_unit_ND - q_unit_ND
    square_N1 = _dot(v_ND, v_ND)
    # below 1e-12 the two directions differ by rounding noise of fp32 alone
    defined_N1 = (square_N1 > 1e-12) & (_dot(z_ND, z_ND) > 0) & (_dot(q_ND, q_ND) > 0)
    share_N1 = torch.where(defined_N1, 2 * _dot(v_ND, g_ND) / torch.where(defined_N1, square_N1, 1.0), 0.0)
    return torch.addcmul(g_ND, share_N1, v_ND, value=-1)


def _rotated(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor, max_rescale: float | None, obtuse: str) -> Tensor:
    z_norm_N1 = torch.linalg.vector_norm(z_ND, dim=-1, keepdim=True)
    q_norm_N1 = torch.linalg.vector_norm(q_ND, dim=-1, keepdim=True)
    defined_N1 = (z_norm_N1 > 0) & (q_norm_N1 > 0)
    # divided before they are multiplied: squares of a tiny z underflow
    z_unit_ND = z_ND / torch.where(defined_N1, z_norm_N1, 1.0)
    q_unit_ND = q_ND / torch.where(defined_N1, q_norm_N1, 1.0)

    one_plus_cos_N1 = 1.0 + _dot(z_unit_ND, q_unit_ND)
    a_N1, b_N1 = _dot(z_unit_ND, g_ND), _dot(q_unit_ND, g_ND)
    # Below 1e-6, 1 + c is rounding noise of fp32 and the plane of rotation with it.
    turns_N1 = one_plus_cos_N1 > 1e-6
    rho_N1 = torch.where(turns_N1, (a_N1 + b_N1) / torch.where(turns_N1, one_plus_cos_N1, 1.0), 0.0)

    turned_ND = torch.addcmul(g_ND, 2 * b_N1 - rho_N1, z_unit_ND).addcmul_(rho_N1, q_unit_ND, value=-1)
    if max_rescale is not None:
        turned_ND *= (q_norm_N1 / torch.where(defined_N1, z_norm_N1, 1.0)).clamp(max=max_rescale)
    if obtuse == "ste":
        defined_N1 = defined_N1 & (one_plus_cos_N1 >= 1.0)
    return torch.where(defined_N1, turned_ND, g_ND)


def _dot(x_ND: Tensor, y_ND: Tensor) -> Tensor:
    return (x_ND * y_ND).sum(-1, keepdim=True)


class _Cross(torch.autograd.Function):
    """Forward: q itself, never z + (q − z), whose rounding would leak z past the bottleneck. Backward: the VJP."""

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, q_ND: Tensor, vjp: VJP, nu: float) -> Tensor:
        ctx.save_for_backward(z_ND, q_ND)
        ctx.vjp, ctx.nu = vjp, nu
        return q_ND.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        z_ND, q_ND = ctx.saved_tensors
        to_z = ctx.vjp(grads[0], z_ND, q_ND) if ctx.needs_input_grad[0] else None
        return to_z, ctx.nu * grads[0] if ctx.nu else None, None, None


def cross(z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"], vjp: VJP, nu: float = 0.0) -> Float[Tensor, "n d"]:
    """The codes q, bit for bit, with ``vjp``'s gradient to the encoder outputs z, and the share ``nu`` of it to q."""
    crossed: Tensor = _Cross.apply(z_ND, q_ND, vjp, nu)
    return crossed
