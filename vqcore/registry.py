"""Estimators and networks by name. Needs no torch, so that a configuration is checked without it."""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from vqcore.config import ModelConfig

VJP = Callable[..., Any]
"""(gradient of the code, encoder output, code), each (N, D), to the gradient of the encoder output, (N, D)."""

ESTIMATORS: dict[str, VJP] = {}
"""Vector-Jacobian products by name; those of ``vqcore.estimators`` come with its import."""

GUMBEL = "gumbel"

_BUILT_IN: dict[str, tuple[str, ...]] = {
    GUMBEL: ("temperature",),
    "reflection": (),
    "rotation": ("max_rescale", "obtuse"),
    "rotation_unscaled": ("obtuse",),
    "ste": (),
}
"""The estimators of ``vqcore.estimators``, each with the fields of ``QuantizerConfig`` that it reads."""


def estimator(name: str) -> Callable[[VJP], VJP]:
    """Register a vector-Jacobian product under ``name``."""

    def register(vjp: VJP) -> VJP:
        ESTIMATORS[name] = vjp
        return vjp

    return register


def estimator_names() -> tuple[str, ...]:
    """Every estimator's name, sorted."""
    return tuple(sorted({*_BUILT_IN, *ESTIMATORS}))


def reads(name: object, field: str) -> bool:
    """Whether estimator ``name`` reads the configuration's ``field``."""
    if not isinstance(name, str):
        return False
    if name in _BUILT_IN:
        return field in _BUILT_IN[name]
    return name in ESTIMATORS and field in parameters(ESTIMATORS[name])


@functools.cache
def parameters(vjp: VJP) -> tuple[str, ...]:
    """Names of a function's parameters."""
    return tuple(inspect.signature(vjp).parameters)


@dataclass(frozen=True)
class Architecture:
    """Networks around the quantizer."""

    encoder: "Callable[[ModelConfig], nn.Module]"
    """Makes the network from (B, 3, H, W) images on [-1, 1] to (B, dim, H/downsampling, W/downsampling) latents."""
    decoder: "Callable[[ModelConfig], nn.Module]"
    """Makes the network back from codes of the latents' shape to (B, 3, H, W) images on [-1, 1]."""
    downsampling: int
    """Image pixels that a code spans along each side; the sides of images are multiples of it."""
    parameters: "Callable[[ModelConfig], int] | None" = None
    """How many both networks have; they are made to be counted unless given."""


def _build(function: str, config: "ModelConfig") -> "nn.Module":
    network: nn.Module = getattr(importlib.import_module("vqcore.networks"), function)(config)
    return network


def _parameters(config: "ModelConfig") -> int:
    def convolution(source: int, target: int, side: int) -> int:
        return side * side * source * target + target

    first, width, inner, dim = config.channels, config.hidden_channels, config.residual_channels, config.quantizer.dim
    block = convolution(width, inner, 3) + convolution(inner, width, 3)
    projections = 0 if width == dim else convolution(width, dim, 1) + convolution(dim, width, 1)
    down = convolution(3, first, 4) + convolution(first, width, 4)
    up = convolution(width, first, 4) + convolution(first, 3, 4)
    return down + 2 * config.residual_blocks * block + projections + up


ARCHITECTURES: dict[str, Architecture] = {
    "residual": Architecture(
        functools.partial(_build, "encoder"), functools.partial(_build, "decoder"), 4, _parameters
    ),
}
"""Networks by the name that ``ModelConfig.architecture`` gives. One's own is one more entry."""
