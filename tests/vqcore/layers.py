"""What the tests of the layer share: data by chance, layers to try, and the codes that a layer looks up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vqcore import FSQ, QuantizerConfig, VectorQuantizer


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def layer_of(size: int = 16, dim: int = 4, seed: int = 0, **config: Any) -> VectorQuantizer:
    """A layer whose codes lie among data like ``normal``."""
    torch.manual_seed(seed)
    return VectorQuantizer(QuantizerConfig(codebook_size=size, dim=dim, **{"init": "normal"} | config))


def grid_of(levels: str, symmetric: bool = False) -> FSQ:
    config = {"layer": "fsq", "estimator": "ste", "commitment_weight": 0}
    return FSQ(QuantizerConfig(levels=levels, symmetric=symmetric, **config))  # type: ignore[arg-type]


def state(layer: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def unchanged(layer: torch.nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


@contextmanager
def looked_up(layer: VectorQuantizer | FSQ) -> Iterator[list[Tensor]]:
    """The codes in effect of each forward pass inside."""
    if isinstance(layer, FSQ):
        yield [layer.codebook]
        return
    seen: list[Tensor] = []
    hook = layer.codes.register_forward_hook(lambda _, __, codes: seen.append(codes.detach().clone()))
    yield seen
    hook.remove()
