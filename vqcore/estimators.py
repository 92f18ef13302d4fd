"""How the gradient crosses the quantizer.

The forward pass of every estimator is the same and exact: the code, bit for bit. What differs is the vector-Jacobian
product, the gradient that the encoder output z receives for a gradient g on the code q. So an estimator is one
function ``(g, z, q) -> gradient of z`` on rows, and adding one's own is one decorator:

    @estimator("mine")
    def mine(g_ND, z_ND, q_ND):
        return 0.5 * g_ND

Shapes: N vectors, D dimensions.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

VJP = Callable[[Float[Tensor, "n d"], Float[Tensor, "n d"], Float[Tensor, "n d"]], Float[Tensor, "n d"]]

ESTIMATORS: dict[str, VJP] = {}
"""Every estimator by its name."""

MAX_RESCALE = 10.0
"""Bound on λ = ‖q‖/‖z‖ in the rotation trick: unbounded, an encoder output near 0 gets a gradient millions of times
larger than the others (seen in the public implementations at ‖z‖ = 1e-9)."""


def estimator(name: str) -> Callable[[VJP], VJP]:
    """Register a vector-Jacobian product under ``name``."""

    def register(vjp: VJP) -> VJP:
        ESTIMATORS[name] = vjp
        return vjp

    return register


@estimator("ste")
def straight_through(
    g_ND: Float[Tensor, "n d"], z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """∇z = g: the code's gradient is copied to the encoder output (van den Oord et al. 2017, section 3.2)."""
    return g_ND


@estimator("rotation")
def rotation(
    g_ND: Float[Tensor, "n d"], z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """∇z = λ Rᵀ g, where λR rotates and rescales z onto q and is held constant (arXiv 2410.06424, section 4.2).

    With ẑ = z/‖z‖, q̂ = q/‖q‖, c = ẑ·q̂, a = ẑ·g, b = q̂·g and ρ = (a + b)/(1 + c), the product needs no matrix:
    λ [g + (2b − ρ) ẑ − ρ q̂].

    Where R is undefined the result is still defined and finite. z = 0 or q = 0: the straight-through gradient.
    q antiparallel to z: ρ = 0, the reflection along z. λ is at most ``MAX_RESCALE``.
    """
    z_norm_N1 = torch.linalg.vector_norm(z_ND, dim=-1, keepdim=True)
    q_norm_N1 = torch.linalg.vector_norm(q_ND, dim=-1, keepdim=True)
    defined_N1 = (z_norm_N1 > 0) & (q_norm_N1 > 0)
    z_unit_ND = z_ND / torch.where(defined_N1, z_norm_N1, 1.0)
    q_unit_ND = q_ND / torch.where(defined_N1, q_norm_N1, 1.0)

    one_plus_cos_N1 = 1.0 + (z_unit_ND * q_unit_ND).sum(-1, keepdim=True)
    a_N1 = (z_unit_ND * g_ND).sum(-1, keepdim=True)
    b_N1 = (q_unit_ND * g_ND).sum(-1, keepdim=True)
    # Below 1e-6, 1 + c is rounding noise of fp32 and the plane of rotation with it.
    turns_N1 = one_plus_cos_N1 > 1e-6
    rho_N1 = torch.where(turns_N1, (a_N1 + b_N1) / torch.where(turns_N1, one_plus_cos_N1, 1.0), 0.0)

    scale_N1 = (q_norm_N1 / torch.where(defined_N1, z_norm_N1, 1.0)).clamp(max=MAX_RESCALE)
    turned_ND = torch.addcmul(g_ND, 2 * b_N1 - rho_N1, z_unit_ND).addcmul_(rho_N1, q_unit_ND, value=-1).mul_(scale_N1)
    return torch.where(defined_N1, turned_ND, g_ND)


class _Cross(torch.autograd.Function):
    """Forward: q itself, never z + (q − z), whose rounding would leak z past the bottleneck. Backward: the VJP."""

    @staticmethod
    def forward(ctx: Any, z_ND: Tensor, q_ND: Tensor, vjp: VJP) -> Tensor:
        ctx.save_for_backward(z_ND, q_ND)
        ctx.vjp = vjp
        return q_ND.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        z_ND, q_ND = ctx.saved_tensors
        return ctx.vjp(grads[0], z_ND, q_ND), None, None


def cross(z_ND: Float[Tensor, "n d"], q_ND: Float[Tensor, "n d"], name: str) -> Float[Tensor, "n d"]:
    """The codes q, bit for bit, with estimator ``name``'s gradient to the encoder outputs z. q itself gets none."""
    crossed: Tensor = _Cross.apply(z_ND, q_ND, ESTIMATORS[name])
    return crossed
