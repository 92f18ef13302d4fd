"""The layer's gradients, to the encoder's output and to the codes, against their definitions in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer, from_taming_legacy, from_vqtorch_beta
from vqcore import gumbel as gumbel_module

K, D, N = 16, 6, 40


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(**config: Any) -> VectorQuantizer:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=K, dim=D, **{"commitment_weight": 0.0} | config))
    layer.codes.weight.data.copy_(normal(K, D, seed=100))
    return layer


def backward(layer: VectorQuantizer, z: Tensor, g: Tensor, loss: bool = True) -> tuple[Tensor, Tensor]:
    """The indices, and the gradient that ``z`` receives."""
    z = z.clone().requires_grad_()
    out = layer(z)
    ((out.quantized * g).sum() + (out.loss if loss else 0)).backward()
    assert z.grad is not None
    return out.indices, z.grad


def effective(layer: VectorQuantizer) -> Tensor:
    return layer.codebook.detach().double()


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=2e-5)


# To the encoder's output


def product_of(name: str, e: Tensor, q: Tensor, g: Tensor, obtuse: str, most: float = 10.0) -> Tensor:
    """One vector, with whole matrices."""
    e_hat, q_hat, eye = e / e.norm(), q / q.norm(), torch.eye(len(e)).double()
    if name == "ste" or (obtuse == "ste" and e @ q < 0):
        return g
    if name == "reflection":
        v = (e_hat - q_hat) / (e_hat - q_hat).norm()
        H = eye - 2 * torch.outer(v, v)
        torch.testing.assert_close(H @ e_hat, q_hat)
        return H @ g
    r = (e_hat + q_hat) / (e_hat + q_hat).norm()
    R = eye - 2 * torch.outer(r, r) + 2 * torch.outer(q_hat, e_hat)
    torch.testing.assert_close(R @ e_hat, q_hat)
    return (min(most, float(q.norm() / e.norm())) if name == "rotation" else 1.0) * R.T @ g


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ste", {}),
        ("rotation", {}),
        ("rotation", {"max_rescale": 1.2}),
        ("rotation", {"obtuse": "ste"}),
        ("rotation_unscaled", {}),
        ("rotation_unscaled", {"obtuse": "ste"}),
        ("reflection", {}),
    ],
)
def test_every_estimator_is_its_matrix_transposed(name: str, options: dict[str, Any], codebook: str) -> None:
    layer = layer_of(estimator=name, codebook=codebook, **options)
    layer.codes.weight.data[:] = normal(K, D, seed=100) * torch.tensor([1.0, 1, 1, 1, 1, 0.2])
    codes, z, g = effective(layer), 0.4 * normal(N, D, seed=1), normal(N, D, seed=2)
    if "obtuse" in options:  # all codes on one side, some vectors on the other
        codes = codes.copy_(codes.abs()) + 0.5
        layer.codes.weight.data.copy_(codes)
    indices, gradient = backward(layer, z, g, loss=False)
    q, e = codes[indices], z.double()
    if "obtuse" in options:
        assert 5 < ((e * q).sum(-1) < 0).sum() < N - 5
    most = options.get("max_rescale", 10.0)
    rows = [product_of(name, e[n], q[n], g[n].double(), options.get("obtuse", "rotate"), most) for n in range(N)]
    close(gradient, torch.stack(rows))


def test_a_reflection_keeps_lengths_and_turns_the_codes_gradient_back() -> None:
    layer, z = layer_of(estimator="reflection"), normal(N, D, seed=1)
    q = effective(layer)[layer.eval()(z).indices]
    _, gradient = backward(layer, z, q.float(), loss=False)
    # H q̂ = ẑ: a pull along the code arrives as a pull along z
    close(gradient, z.double() / z.double().norm(dim=-1, keepdim=True) * q.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("normalize", ["inputs", "cosine"])
@pytest.mark.parametrize("name", ["ste", "rotation"])
def test_through_the_normalisation_of_the_inputs(name: str, normalize: str) -> None:
    """∇z = (I − ẑẑᵀ)/‖z‖ times what ẑ receives."""
    layer = layer_of(estimator=name, normalize=normalize, commitment_weight=0.5)
    codes, z, g = effective(layer), 3 * normal(N, D, seed=1), normal(N, D, seed=2)
    indices, gradient = backward(layer, z, g)
    expected = []
    for n in range(N):
        norm = z[n].double().norm()
        unit, q = z[n].double() / norm, codes[indices[n]]
        inner = product_of(name, unit, q, g[n].double(), "rotate") + 0.5 * 2 * (unit - q) / (N * D)
        expected.append((inner - unit * (unit @ inner)) / norm)
    close(gradient, torch.stack(expected))


# Gumbel-softmax


def noise_of(seed: int) -> Tensor:
    """The layer's Gumbel noise, (N, K) in float64, when the global generator stands at ``seed``."""
    torch.manual_seed(seed)
    own = int(torch.randint(2**62, ()))
    zero_ND, zero_KD = torch.zeros(N, D), torch.zeros(K, D)
    return torch.cat([score for _, score in gumbel_module._scores(zero_ND, zero_KD, 1.0, own)]).double()


@pytest.mark.parametrize("block", [2**19, 7 * K])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_gumbel_is_the_dense_softmax_with_the_same_noise(
    monkeypatch: pytest.MonkeyPatch, temperature: float, block: int
) -> None:
    """Both gradients, by autograd through the N x K matrix in float64."""
    monkeypatch.setattr("vqcore.nearest.BLOCK_ELEMENTS_CPU", block)
    layer = layer_of(estimator="gumbel", codebook="gradient", codebook_weight=0.0, temperature=temperature)
    layer.codes.weight.data += 2.0  # far from the origin, where an expansion of the square loses digits
    z, g, noise_NK = 2.0 + normal(N, D, seed=1), normal(N, D, seed=2), noise_of(7)
    torch.manual_seed(7)
    indices, gradient = backward(layer, z, g, loss=False)

    e, codes = z.double().requires_grad_(), effective(layer).clone().requires_grad_()
    logits_NK = -(e[:, None] - codes).square().sum(-1) / temperature + noise_NK
    assert torch.equal(indices, logits_NK.argmax(-1))
    (logits_NK.softmax(-1) @ codes * g.double()).sum().backward()
    assert e.grad is not None
    assert codes.grad is not None
    close(gradient, e.grad)
    close(layer.codes.weight.grad, codes.grad)


def test_gumbel_draws_by_the_softmax_of_the_distances() -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=3, dim=1, estimator="gumbel", temperature=2.0)).train()
    layer.freeze()
    layer.codes.weight.copy_(torch.tensor([[0.0], [1.0], [3.0]]))
    torch.manual_seed(0)
    drawn = torch.bincount(layer(torch.full((20_000, 1), 0.5)).indices, minlength=3) / 20_000
    expected = (-torch.tensor([0.25, 0.25, 6.25]) / 2).softmax(-1)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=0.015)


def test_gumbel_evaluates_by_the_nearest_code() -> None:
    layer, z = layer_of(estimator="gumbel").eval(), normal(N, D, seed=1)
    assert torch.equal(layer(z).indices, torch.cdist(z.double(), effective(layer)).argmin(-1))


def test_gumbel_and_the_commitment_loss_add_up() -> None:
    plain, z, g = layer_of(estimator="gumbel"), normal(N, D, seed=1), normal(N, D, seed=2)
    committed = layer_of(estimator="gumbel", commitment_weight=0.7)
    codes = effective(plain).clone()
    torch.manual_seed(3)
    indices, without = backward(plain, z, g)
    torch.manual_seed(3)
    _, gradient = backward(committed, z, g)
    close(gradient, without.double() + 0.7 * 2 * (z.double() - codes[indices]) / (N * D))


# To the codes


@pytest.mark.parametrize("estimator", ["ste", "rotation", "reflection"])
@pytest.mark.parametrize("nu", [0.0, 0.3, 2.0])
def test_codes_receive_nu_of_the_tasks_gradient_and_their_own_loss(nu: float, estimator: str) -> None:
    """ν Σ g + w Σ 2(q − z)/(N·D), over the vectors of each code."""
    layer = layer_of(codebook="gradient", nu=nu, codebook_weight=0.6, estimator=estimator, commitment_weight=9.0)
    codes, z, g = effective(layer), normal(N, D, seed=1), normal(N, D, seed=2)
    indices, _ = backward(layer, z, g)
    expected = torch.zeros(K, D).double()
    for n, k in enumerate(indices.tolist()):
        expected[k] += nu * g[n].double() + 0.6 * 2 * (codes[k] - z[n].double()) / (N * D)
    close(layer.codes.weight.grad, expected)


def test_nu_leaves_the_encoders_gradient_alone() -> None:
    """Elsewhere a layer's synchronised update adds ν g to the encoder's gradient and gives the codebook none."""
    z, g = normal(N, D, seed=1), normal(N, D, seed=2)
    gradients = [backward(layer_of(codebook="gradient", nu=nu), z, g)[1] for nu in (0.0, 0.5)]
    assert torch.equal(*gradients)


def test_moving_averages_leave_the_codes_without_a_gradient() -> None:
    layer = layer_of(commitment_weight=1.0)
    out = layer(normal(N, D).requires_grad_())
    assert not out.codebook_loss.requires_grad
    assert not list(layer.parameters())


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_a_learned_affine_map_and_its_codes(rate: float, groups: int) -> None:
    """c' = (1 + η s) c + η b: ∇c = (1 + η s) ∇c', ∇s = η Σ c ∇c', ∇b = η Σ ∇c' over the group."""
    layer = layer_of(codebook="gradient", affine="learned", affine_groups=groups, affine_rate=rate, nu=0.5)
    layer.codes.scale.data.copy_(0.3 * normal(groups, 1, D, seed=5))
    layer.codes.shift.data.copy_(0.3 * normal(groups, 1, D, seed=6))
    raw, s, b = (tensor.detach().double() for tensor in (layer.codes.weight, layer.codes.scale, layer.codes.shift))
    group_of = torch.arange(K) // (K // groups)
    codes = (1 + rate * s[group_of, 0]) * raw + rate * b[group_of, 0]
    close(layer.codebook.detach(), codes)

    z, g = normal(N, D, seed=1), normal(N, D, seed=2)
    indices, _ = backward(layer, z, g)
    each = torch.zeros(K, D).double()
    for n, k in enumerate(indices.tolist()):
        each[k] += 0.5 * g[n].double() + 2 * (codes[k] - z[n].double()) / (N * D)
    close(layer.codes.weight.grad, (1 + rate * s[group_of, 0]) * each)
    zero = torch.zeros(groups, D).double()
    close(layer.codes.scale.grad, rate * zero.index_add(0, group_of, raw * each)[:, None])
    close(layer.codes.shift.grad, rate * zero.index_add(0, group_of, each)[:, None])


def test_normalised_codes() -> None:
    """The raw code receives (I − ĉĉᵀ)/‖c‖ times what the code in effect does."""
    layer = layer_of(codebook="gradient", normalize="codes")
    raw, z = layer.codes.weight.detach().double(), normal(N, D, seed=1)
    indices, _ = backward(layer, z, torch.zeros(N, D))
    expected = torch.zeros(K, D).double()
    for n, k in enumerate(indices.tolist()):
        unit = raw[k] / raw[k].norm()
        pull = 2 * (unit - z[n].double()) / (N * D)
        expected[k] += (pull - unit * (unit @ pull)) / raw[k].norm()
    close(layer.codes.weight.grad, expected)


# Weights of the losses under others' names


@pytest.mark.parametrize(
    ("weights", "commitment", "codebook"),
    [(from_vqtorch_beta(0.95), 0.05, 0.95), (from_taming_legacy(0.25), 1.0, 0.25), ({"codebook": "gradient"}, 0.25, 1)],
)
def test_the_meanings_of_beta(weights: dict[str, Any], commitment: float, codebook: float) -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=K, dim=D, **weights))
    out = layer(normal(N, D).requires_grad_())
    error = (normal(N, D).double() - effective(layer)[out.indices]).square().mean().item()
    assert out.commitment_loss.item() == pytest.approx(error)
    assert out.codebook_loss.item() == pytest.approx(error)
    assert out.loss.item() == pytest.approx((commitment + codebook) * error)
