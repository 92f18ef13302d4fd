"""The layer against its definition in float64: an honest bottleneck, the losses, the moving averages."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer
from vqcore.codebooks import LAPLACE_EPS

ESTIMATORS = ["ste", "rotation"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def layer_of(size: int = 32, dim: int = 6, seed: int = 0, **config: Any) -> VectorQuantizer:
    """A layer whose codes are spread like ``normal``, as after some training."""
    layer = VectorQuantizer(QuantizerConfig(codebook_size=size, dim=dim, **config))
    layer.codebook.copy_(normal(size, dim, seed=seed + 100))
    layer.codes.ema_sums.copy_(layer.codebook)
    return layer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def assert_rows_of(codebook_KD: Tensor, quantized: Tensor, indices: Tensor) -> None:
    """Bit for bit, −0 told from 0."""
    rows = F.embedding(indices, codebook_KD.to(quantized.dtype)).movedim(-1, 1)
    assert torch.equal(bits(quantized), bits(rows))


# The bottleneck


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_output_is_rows_of_the_codebook_bit_for_bit(
    name: str, dtype: torch.dtype, training: bool, autocast: bool
) -> None:
    layer = layer_of(estimator=name).train(training)
    before = layer.codebook.clone()
    z = (1000 + normal(3, 6, 4, 5)).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(z)
    assert out.quantized.dtype == dtype
    assert out.quantized.shape == z.shape
    assert_rows_of(before, out.quantized, out.indices)
    assert out.commitment_loss.dtype == out.loss.dtype == out.codebook_loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "channel"), [((7, 6), 1), ((7, 6), -1), ((2, 3, 6), 2), ((6, 5), 0), ((2, 6, 3, 4, 5), 1)]
)
def test_any_shape_with_the_channels_anywhere(shape: tuple[int, ...], channel: int) -> None:
    layer = layer_of().eval()
    z = normal(*shape)
    out = layer(z, channel_dim=channel)
    assert out.quantized.shape == z.shape
    assert out.indices.shape == (*shape[: channel % len(shape)], *shape[channel % len(shape) + 1 :])
    assert out.indices.dtype == torch.int64
    z_ND = z.movedim(channel, -1).reshape(-1, 6).double()
    nearest_N = (z_ND[:, None] - layer.codebook.double()).square().sum(-1).argmin(-1)
    assert torch.equal(out.indices.flatten(), nearest_N)
    assert torch.equal(out.quantized, layer.decode(out.indices, channel_dim=channel))


def test_channels_last_makes_no_difference() -> None:
    z, one, other = normal(2, 6, 4, 4), layer_of(), layer_of()
    plain, last = one(z), other(z.contiguous(memory_format=torch.channels_last))
    assert torch.equal(plain.quantized, last.quantized)
    assert torch.equal(one.codebook, other.codebook)


def test_channels_of_another_number_name_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"dimension 1 .* has 4 entries, .* 6: .*\(2, 4, 4, 6\).*channel_dim="):
        layer_of()(torch.zeros(2, 4, 4, 6))


def test_an_empty_batch_changes_nothing() -> None:
    layer = layer_of()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    out = layer(torch.zeros(0, 6, 4, 4))
    assert out.quantized.shape == (0, 6, 4, 4)
    assert out.indices.shape == (0, 4, 4)
    assert out.loss == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


# Losses and gradients


@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_losses_and_the_gradient_of_the_encoder_output(name: str, beta: float) -> None:
    """∇z = (the estimator's product of g) + β · 2(z − q)/(N·D), with explicit matrices in float64."""
    layer = layer_of(estimator=name, commitment_weight=beta)
    codes = layer.codebook.double().clone()
    z, g = normal(20, 6, seed=1).requires_grad_(), normal(20, 6, seed=2)
    out = layer(z)
    ((out.quantized * g).sum() + out.loss).backward()

    e, q = z.detach().double(), codes[out.indices]
    mean = sum(float((e[n, d] - q[n, d]) ** 2) for n in range(20) for d in range(6)) / 120
    assert out.commitment_loss.item() == pytest.approx(mean)
    assert out.codebook_loss.item() == out.commitment_loss.item()
    assert out.loss.item() == pytest.approx(beta * mean)
    assert not out.codebook_loss.requires_grad

    expected = torch.empty_like(e)
    for n in range(20):
        crossed = g[n].double()
        if name == "rotation":
            e_hat, q_hat = e[n] / e[n].norm(), q[n] / q[n].norm()
            r = (e_hat + q_hat) / (e_hat + q_hat).norm()
            R = torch.eye(6).double() - 2 * torch.outer(r, r) + 2 * torch.outer(q_hat, e_hat)
            crossed = q[n].norm() / e[n].norm() * R.T @ crossed
        expected[n] = crossed + beta * 2 * (e[n] - q[n]) / 120
    assert z.grad is not None
    torch.testing.assert_close(z.grad.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_bf16_input_gets_its_gradient_and_fp32_losses() -> None:
    layer = layer_of()
    before = layer.codebook.clone()
    z = (5 + normal(400, 6)).bfloat16().requires_grad_()
    out = layer(z)
    (out.quantized.float().sum() + out.loss).backward()
    assert z.grad is not None
    assert z.grad.dtype == torch.bfloat16
    exact = (z.detach().double() - before[out.indices].double()).square().mean()  # q itself, not q rounded to bf16
    assert out.loss.item() == pytest.approx(0.25 * exact.item(), rel=1e-6)


# The codebook


def one_hot_ema(state: dict[str, Tensor], z_ND: Tensor, index_N: Tensor, decay: float) -> None:
    """One step as the formulas say, with the one-hot matrix, in float64."""
    size = len(state["n"])
    hot_NK = (index_N[:, None] == torch.arange(size)).double()
    state["n"] = decay * state["n"] + (1 - decay) * hot_NK.sum(0)
    state["m"] = decay * state["m"] + (1 - decay) * hot_NK.T @ z_ND.double()
    total = state["n"].sum()
    smoothed_K = (state["n"] + LAPLACE_EPS) / (total + size * LAPLACE_EPS) * total
    state["c"] = state["m"] / smoothed_K[:, None]


@pytest.mark.parametrize(
    ("decay", "size", "rows"),
    [(0.5, 16, 64), (0.8, 16, 64), (0.99, 16, 64), (0.9, 512, 2)],  # the last: where smoothing takes half a percent
)
def test_the_codebook_follows_the_moving_averages_for_a_hundred_steps(decay: float, size: int, rows: int) -> None:
    layer = layer_of(size=size, decay=decay)
    state = {"n": torch.ones(size).double(), "m": layer.codebook.double(), "c": layer.codebook.double()}
    for step in range(100):
        z = normal(rows, 6, seed=step) + 0.02 * step
        exact = (z[:, None].double() - state["c"]).square().sum(-1).argmin(-1)
        out = layer(z)
        assert torch.equal(out.indices, exact)  # of the codes before this step's update
        one_hot_ema(state, z, exact, decay)
        torch.testing.assert_close(layer.codebook.double(), state["c"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.codes.ema_counts.double(), state["n"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.codes.ema_sums.double(), state["m"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decay", [0.8, 0.99])
def test_unused_codes_stay_where_they_were(decay: float) -> None:
    """From counts of 0 they are 3.8e5 away after one step, in several public implementations."""
    layer = VectorQuantizer(QuantizerConfig(codebook_size=512, dim=64, decay=decay))
    for steps in (1, 500):
        before = layer.codebook.clone()
        for _ in range(steps):
            layer(3 + 0.001 * normal(64, 64))
        used = layer.codes.ema_counts > 1
        assert 0 < used.sum() < 512
        moved = (layer.codebook - before)[~used].abs().max()
        assert layer.codebook.isfinite().all()
        assert moved <= (1e-4 if steps == 1 else 1) / 512


def test_a_code_reaches_the_mean_of_its_vectors() -> None:
    layer = layer_of(size=2, dim=2, decay=0.8)
    z = torch.tensor([[5.0, 1.0], [7.0, 3.0], [-4.0, 0.0]])
    layer.codebook.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    for _ in range(100):
        layer(z)
    torch.testing.assert_close(layer.codebook, torch.tensor([[6.0, 2.0], [-4.0, 0.0]]), rtol=1e-4, atol=1e-4)


def test_the_codebook_starts_uniform_within_one_over_its_size() -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=128, dim=32))
    assert layer.codebook.abs().max() <= 1 / 128
    assert layer.codebook.std().item() == pytest.approx(1 / 128 / math.sqrt(3), rel=0.05)
    assert not list(layer.parameters()), "no optimiser may move the codebook"


@pytest.mark.parametrize("grad", [True, False])
def test_in_eval_mode_nothing_changes(grad: bool) -> None:
    layer = layer_of().eval()
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    random = torch.get_rng_state()
    with torch.set_grad_enabled(grad):
        layer(normal(50, 6).requires_grad_(grad))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_in_training_only_its_own_buffers_change() -> None:
    layer, z = layer_of(), normal(50, 6)
    before, kept, random = layer.codebook.clone(), z.clone(), torch.get_rng_state()
    out = layer(z)
    assert torch.equal(z, kept)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(out.quantized, before[out.indices]), "the batch saw its own update"
    used = torch.bincount(out.indices, minlength=32) > 0
    assert (layer.codebook != before)[used].any(-1).all()
    torch.testing.assert_close(layer.codebook[~used], before[~used], rtol=1e-4, atol=1e-5)
    assert not layer.codebook.requires_grad, "a codebook in the graph keeps every batch alive"


def test_a_state_goes_on_as_if_nothing_had_happened() -> None:
    one, other = layer_of(), layer_of(seed=9)
    one(normal(50, 6))
    other.load_state_dict(one.state_dict())
    for step in range(3):
        z = normal(50, 6, seed=step)
        assert torch.equal(one(z).quantized, other(z).quantized)
    assert torch.equal(one.codebook, other.codebook)
    assert set(one.state_dict()) == {"codes.weight", "codes.ema_counts", "codes.ema_sums"}
