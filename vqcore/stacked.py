"""Several networks as one: their parameters in one tensor each, and ``torch.func`` maps the forward pass over them."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LOWERED = {
    *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d, F.linear),
    *(torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, torch.bmm, torch.baddbmm, torch.addmm),
    F.scaled_dot_product_attention,
}
"""What autocast computes in the lower precision."""


class Stacked:
    """One network of several: all parameters of a name in one tensor, of which each network's own are views."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._skeleton = copy.deepcopy(networks[0]).to("meta")
        self._own = [dict(network.named_parameters()) for network in networks]
        buffers = [dict(network.named_buffers()) for network in networks]
        self.parameters = {name: part.requires_grad_() for name, part in _stack(self._own).items()}
        self.buffers = _stack(buffers)

    def __call__(self, inputs: Tensor, shared: bool = False) -> Tensor:
        """(M, B, ...) inputs, or (B, ...) ones that all networks share, to (M, B, ...) outputs."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
            out: Tensor = torch.func.functional_call(self._skeleton, (parameters, buffers), (batch,))
            return out

        mapped = torch.func.vmap(one, in_dims=(0, 0, None if shared else 0), randomness="different")
        with _Lowered(inputs.device.type):
            outputs: Tensor = mapped(self.parameters, self.buffers, inputs)
        return outputs

    def hand_out_gradients(self) -> None:
        """Give each network its share of the gradients of the stacked parameters, which have none then."""
        for name, parameter in self.parameters.items():
            gradient, parameter.grad = parameter.grad, None
            shares = [None] * len(self._own) if gradient is None else gradient.unbind()
            for own, share in zip(self._own, shares, strict=True):
                own[name].grad = share

    def train(self, mode: bool) -> None:
        """As ``nn.Module.train``."""
        self._skeleton.train(mode)


class _Lowered(TorchFunctionMode):
    """What ``torch.autocast`` does to convolutions and products, where it is on: ``vmap`` takes a convolution apart
    before autocast sees it, and on a CPU it would stay fp32 (pytorch/functorch pull request 327)."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._dtype is not None and function in LOWERED:
            args, kwargs = tuple(map(self._lower, args)), {name: self._lower(one) for name, one in kwargs.items()}
        return function(*args, **kwargs)

    def _lower(self, argument: Any) -> Any:
        lower = isinstance(argument, Tensor) and argument.dtype == torch.float32
        return argument.to(self._dtype) if lower else argument


def _stack(networks: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """The tensors of a name in one, whose parts they become."""
    stacked = {name: torch.stack([own[name].detach() for own in networks]) for name in networks[0]}
    for place, own in enumerate(networks):
        for name, tensor in own.items():
            tensor.data = stacked[name][place]
    return stacked
