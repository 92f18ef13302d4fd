"""Beside vector-quantize-pytorch, where it is right: the same numbers from the same start."""

from typing import Any

import pytest
import torch
from layers import normal

from vqcore import QuantizerConfig, VectorQuantizer

peers = pytest.importorskip("vector_quantize_pytorch")


@pytest.mark.parametrize("estimator", ["ste", "rotation"])
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("decay", [0.8, 0.99])
def test_twenty_steps_of_moving_averages(decay: float, cosine: bool, estimator: str) -> None:
    """Output, indices, commitment loss, gradient and codebook at every step."""
    size, dim = 32, 8
    shared = {"dim": dim, "codebook_size": size, "decay": decay, "commitment_weight": 0.25}
    their_own = {"kmeans_init": False, "threshold_ema_dead_code": 0, "use_cosine_sim": cosine}
    theirs = peers.VectorQuantize(eps=1e-5, rotation_trick=estimator == "rotation", **shared, **their_own).train()
    our_own: dict[str, Any] = {"estimator": estimator, "normalize": "cosine" if cosine else "none"}
    unbounded = {"max_rescale": 1e6} if estimator == "rotation" else {}
    ours = VectorQuantizer(QuantizerConfig(**shared, **our_own, **unbounded))
    start = normal(size, dim, seed=5)
    start = start / start.norm(dim=-1, keepdim=True) if cosine else start
    buffers = {name.rpartition(".")[2]: buffer for name, buffer in theirs.named_buffers()}
    for tensor in (ours.codes.weight, ours.codes.ema_sums, buffers["embed"], buffers["embed_avg"]):
        tensor.copy_(start.view_as(tensor))
    for step in range(20):
        x, g = normal(4, 30, dim, seed=step) + 0.05 * step, normal(4, 30, dim, seed=step + 100)
        one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        out = ours(one, channel_dim=-1)
        quantized, indices, loss = theirs(other)
        assert torch.equal(out.indices, indices), step
        torch.testing.assert_close(out.quantized, quantized, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(out.loss, loss.squeeze(), rtol=1e-5, atol=1e-6)
        ((out.quantized * g).sum() + out.loss).backward()
        ((quantized * g).sum() + loss.sum()).backward()
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.codebook, theirs.codebook, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.codes.ema_counts, buffers["cluster_size"][0], rtol=1e-5, atol=1e-6)
