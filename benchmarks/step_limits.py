"""The least that a training step does, counted from its configuration; and how fast a machine does such work alone."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vqcore.config import TrialConfig
from vqcore.networks import ResidualBlock
from vqcore.registry import ARCHITECTURES
from vqcore.sizes import parameters

Step = Callable[[], object]

MATRIX = 1024
"""Side of the square matrices whose product is timed."""
COPIED = 2**26
"""Bytes that are copied to time the memory: more than a last-level cache holds."""


class Work(NamedTuple):
    """Of a training step."""

    macs: int
    """Multiply-accumulates of the networks' convolutions an image, forward."""
    flops: int
    """Of the convolutions, forward and backward, and of the search for the nearest code."""
    bytes: int
    """Read or written, if all pointwise work were part of a convolution and nothing stayed in a cache."""


class Seen(NamedTuple):
    """A layer as a batch passed it."""

    layer: nn.Module
    inputs: Tensor
    outputs: Tensor


def work(config: TrialConfig, side: int, bf16: bool) -> Work:
    """Of a step on images of ``side`` pixels. Activations are bf16 or fp32; codes, moments and gradients are fp32."""
    with torch.device("meta"):
        encoder, decoder = _networks(config)
        images = torch.empty(config.training.batch_size, 3, side, side)
    with FlopCounterMode(display=False) as forward:
        seen, outputs = _passed(encoder, decoder, images)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.backward(outputs.sum())
    quantizer, vectors = config.model.quantizer, _vectors(config, side)
    search = 2 * vectors * quantizer.codebook_size * quantizer.dim if quantizer.layer == "vq" else 0
    width, total = 2 if bf16 else 4, 0
    for layer, inputs, made in seen:
        if isinstance(layer, ResidualBlock):
            total += width * (inputs.numel() + made.numel())  # what a sum and its gradient read besides
        else:
            # forward; backward for the weight, and for the input, which images do not want
            passes = 2 if inputs is images else 3
            total += width * passes * (inputs.numel() + made.numel())
            total += (2 * width + 4) * sum(parameter.numel() for parameter in layer.parameters())
    total += 7 * 4 * parameters(config.model)  # Adam: parameter, gradient and both moments in, all but the gradient out
    total += 6 * 4 * vectors * quantizer.dim  # vectors and codes, and their gradients
    macs = forward.get_total_flops() // 2 // config.training.batch_size
    return Work(macs, forward.get_total_flops() + backward.get_total_flops() + search, total)


def matrices(dtype: torch.dtype, device: torch.device) -> tuple[Step, int]:
    """A product of matrices, and its floating-point operations."""
    one, other = (torch.randn(MATRIX, MATRIX).to(device, dtype) for _ in range(2))
    return lambda: one @ other, 2 * MATRIX**3


def memory(device: torch.device) -> tuple[Step, int]:
    """A copy, and the bytes that it reads and writes."""
    source, target = (torch.zeros(COPIED // 4, device=device) for _ in range(2))
    return lambda: target.copy_(source), 2 * COPIED


def convolutions(config: TrialConfig, side: int, dtype: torch.dtype, device: torch.device) -> Step:
    """The model's own convolutions one by one, forward and backward, channels last, on inputs that are ready."""
    encoder, decoder = _networks(config)
    images = torch.randn(config.training.batch_size, 3, side, side)
    alone = []
    for layer, inputs, outputs in _passed(encoder, decoder, images)[0]:
        if not isinstance(layer, ResidualBlock):
            ready = inputs.detach().to(device, dtype, memory_format=torch.channels_last, copy=True)
            gradient = torch.randn_like(outputs).to(device, dtype, memory_format=torch.channels_last)
            wanted: list[Tensor] = list(layer.to(device, dtype).to(memory_format=torch.channels_last).parameters())
            wanted += [] if inputs is images else [ready.requires_grad_()]
            alone.append((layer, ready, wanted, gradient))

    def step() -> None:
        for layer, ready, wanted, gradient in alone:
            torch.autograd.grad(layer(ready), wanted, gradient)

    return step


def _networks(config: TrialConfig) -> tuple[nn.Module, nn.Module]:
    architecture = ARCHITECTURES[config.model.architecture]
    return architecture.encoder(config.model), architecture.decoder(config.model)


def _passed(encoder: nn.Module, decoder: nn.Module, images: Tensor) -> tuple[list[Seen], Tensor]:
    """The convolutions and residual blocks that images pass, and what they become."""
    seen: list[Seen] = []
    for network in (encoder, decoder):
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | ResidualBlock):
                layer.register_forward_hook(lambda layer, given, made: seen.append(Seen(layer, given[0], made)))
    return seen, decoder(encoder(images))


def _vectors(config: TrialConfig, side: int) -> int:
    return int(config.training.batch_size * (side // ARCHITECTURES[config.model.architecture].downsampling) ** 2)
