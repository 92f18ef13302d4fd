"""From logits to bits, and to codes."""

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor


def bits_each(logits: Float[Tensor, "... k"], codes: Integer[Tensor, "..."]) -> Float[Tensor, "..."]:
    """−log2 of the probability of each code, fp64."""
    return -logits.double().log_softmax(-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1) / math.log(2)


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, drawn on the CPU: the same on every device."""
    return -torch.empty(like.shape).exponential_(generator=generator).log().to(like.device)


def draw(logits: Float[Tensor, "... k"], temperature: float, top_k: int, generator: torch.Generator) -> Tensor:
    """A code for each row of logits, by the Gumbel-max trick: of two ways to compute the logits, which differ in their
    last bits, both draw the same code but once in a million."""
    if temperature <= 0 or top_k < 0:
        raise ValueError(f"temperature {temperature:g}, top_k {top_k}: must be above 0, and 0 or more")
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return (logits + gumbel(logits, generator)).argmax(-1)
