"""Gradients through the layer, to the encoder's output and to the codes, against their definitions in float64."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from layers import normal
from torch import Tensor

from vqcore import ConfigError, QuantizerConfig, VectorQuantizer
from vqcore import gumbel as gumbel_module
from vqcore.estimators import ESTIMATORS, estimator, rotation

K, D, N = 16, 6, 40
MAX_RESCALE = QuantizerConfig().max_rescale


def layer_of(**config: Any) -> VectorQuantizer:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=K, dim=D, **{"commitment_weight": 0.0} | config))
    layer.codes.weight.data.copy_(normal(K, D, seed=100))
    return layer


def backward(layer: VectorQuantizer, z: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """The indices, and the gradient that ``z`` receives."""
    z = z.clone().requires_grad_()
    out = layer(z)
    ((out.quantized * g).sum() + out.loss).backward()
    assert z.grad is not None
    return out.indices, z.grad


def effective(layer: VectorQuantizer) -> Tensor:
    return layer.codebook.detach().double()


def close(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=2e-5)


def matrix_of(name: str, e: Tensor, q: Tensor, max_rescale: float = MAX_RESCALE, obtuse: str = "rotate") -> Tensor:
    """The matrix that takes e to q, or to its direction: the gradient is its transpose times g."""
    e_hat, q_hat, eye = e / e.norm(), q / q.norm(), torch.eye(len(e)).double()
    if name == "ste" or (obtuse == "ste" and e @ q < 0):
        return eye
    if name == "reflection":
        v = (e_hat - q_hat) / (e_hat - q_hat).norm()
        return eye - 2 * torch.outer(v, v)
    r = (e_hat + q_hat) / (e_hat + q_hat).norm()
    R = eye - 2 * torch.outer(r, r) + 2 * torch.outer(q_hat, e_hat)
    return min(max_rescale, float(q.norm() / e.norm())) * R if name == "rotation" else R


# An estimator is a function of g, z and q


def angles(kind: str, count: int = 40, dim: int = 12) -> tuple[Tensor, Tensor]:
    """z and q in float64 with ‖q‖/‖z‖ around 1."""
    z, q = (normal(count, dim, seed=seed, dtype=torch.float64) for seed in (1, 2))
    along = (z * q).sum(-1, keepdim=True)
    match kind:
        case "acute":
            q = torch.where(along > 0, q, -q)
        case "obtuse":
            q = torch.where(along < 0, q, -q)
        case "right":
            q = q - z * along / z.square().sum(-1, keepdim=True)
        case "near":
            q = z + 0.01 * q
        case "nearly antiparallel":
            q = -z + 0.05 * q
    return z, q


@pytest.mark.parametrize("kind", ["acute", "obtuse", "right", "near", "nearly antiparallel"])
@pytest.mark.parametrize(("name", "determinant"), [("rotation", 1), ("rotation_unscaled", 1), ("reflection", -1)])
def test_the_gradient_is_the_transposed_matrix_times_g(name: str, determinant: int, kind: str) -> None:
    """Elsewhere it is the matrix itself, or a reflection under the name of a rotation."""
    z, q = angles(kind)
    g = normal(*z.shape, seed=3, dtype=torch.float64)
    for row, gradient in enumerate(ESTIMATORS[name](g, z, q)):
        matrix, unit = matrix_of(name, z[row], q[row]), q[row] / q[row].norm()
        length = q[row].norm() if name == "rotation" else z[row].norm()
        torch.testing.assert_close(matrix @ z[row], length * unit, rtol=1e-10, atol=1e-10)
        orthogonal = matrix * z[row].norm() / length
        torch.testing.assert_close(orthogonal @ orthogonal.T, torch.eye(12).double(), rtol=1e-10, atol=1e-10)
        assert torch.linalg.det(orthogonal).item() == pytest.approx(determinant)
        torch.testing.assert_close(gradient, matrix.T @ g[row], rtol=1e-10, atol=1e-10)


def test_rotation_where_its_matrix_is_undefined() -> None:
    """Parallel: a rescaling, up to its bound. Antiparallel: the reflection along z. No direction: straight through."""
    z, g = (normal(9, 4, seed=seed, dtype=torch.float64) for seed in (1, 2))
    torch.testing.assert_close(rotation(g, z, 3 * z), 3 * g)
    torch.testing.assert_close(rotation(g, 1e-9 * z, z), MAX_RESCALE * g)
    unit = z / z.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(rotation(g, z, -2 * z), 2 * (g - 2 * unit * (unit * g).sum(-1, keepdim=True)))
    for one, other in ((0 * z, z), (z, 0 * z), (0 * z, 0 * z)):
        assert torch.equal(rotation(g, one, other), g)


@pytest.fixture
def half() -> Iterator[str]:
    @estimator("half")
    def half(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
        return 0.5 * g_ND

    yield "half"
    del ESTIMATORS["half"]


def test_an_estimator_of_ones_own_is_one_decorator(half: str) -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=4, dim=3, estimator=half)).eval()
    z = normal(7, 3).requires_grad_()
    out = layer(z)
    out.quantized.sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.full((7, 3), 0.5))
    assert torch.equal(out.quantized, layer.codebook[out.indices])


def test_the_names_without_torch_are_those_of_the_estimators() -> None:
    program = (
        "from vqcore.config import DEFAULTS;"
        "from vqcore.registry import ESTIMATORS, estimator_names, parameters, reads;"
        "names = estimator_names(); assert not ESTIMATORS; import vqcore.quantizers;"
        "assert set(ESTIMATORS) == {*names};"
        "vjps = {n: parameters(f) for n, f in ESTIMATORS.items() if n != 'gumbel'};"
        "assert all(reads(n, field) == (field in vjps[n]) for n in vjps for field in DEFAULTS)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_estimator_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(ConfigError, match="'half': there are gumbel, reflection, rotation, rotation_unscaled, ste"):
        QuantizerConfig(estimator="half")


# The layer, to the encoder's output


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
def test_the_encoder_receives_the_estimators_gradient_and_the_commitment_losss(
    name: str, options: dict[str, Any], codebook: str
) -> None:
    """∇z = Mᵀg + β · 2(z − q)/(N·D)."""
    layer = layer_of(estimator=name, codebook=codebook, commitment_weight=0.5, **options)
    layer.codes.weight.data[:] = normal(K, D, seed=100) * torch.tensor([1.0, 1, 1, 1, 1, 0.2])
    codes, z, g = effective(layer).clone(), 0.4 * normal(N, D, seed=1), normal(N, D, seed=2)
    if "obtuse" in options:  # all codes on one side, some vectors on the other
        codes = codes.abs() + 0.5
        layer.codes.weight.data.copy_(codes)
    indices, gradient = backward(layer, z, g)
    q, e = codes[indices], z.double()
    if "obtuse" in options:
        assert 5 < ((e * q).sum(-1) < 0).sum() < N - 5
    crossed = torch.stack([matrix_of(name, e[n], q[n], **options).T @ g[n].double() for n in range(N)])
    close(gradient, crossed + 0.5 * 2 * (e - q) / (N * D))


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
        inner = matrix_of(name, unit, q).T @ g[n].double() + 0.5 * 2 * (unit - q) / (N * D)
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
    """Both gradients, by autograd through the N x K matrix in float64; the commitment loss adds its own."""
    monkeypatch.setattr("vqcore.nearest.BLOCK_ELEMENTS_CPU", block)
    options = {"estimator": "gumbel", "codebook": "gradient", "codebook_weight": 0.0, "commitment_weight": 0.7}
    layer = layer_of(temperature=temperature, **options)
    layer.codes.weight.data += 2.0  # far from the origin, where an expansion of the square loses digits
    z, g, noise_NK = 2.0 + normal(N, D, seed=1), normal(N, D, seed=2), noise_of(7)
    torch.manual_seed(7)
    indices, gradient = backward(layer, z, g)

    e, codes = z.double().requires_grad_(), effective(layer).clone().requires_grad_()
    logits_NK = -(e[:, None] - codes).square().sum(-1) / temperature + noise_NK
    assert torch.equal(indices, logits_NK.argmax(-1))
    commitment = (e - codes.detach()[indices]).square().mean()
    ((logits_NK.softmax(-1) @ codes * g.double()).sum() + 0.7 * commitment).backward()
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


# To the codes


@pytest.mark.parametrize("estimator", ["ste", "rotation", "reflection"])
@pytest.mark.parametrize("nu", [0.0, 0.3, 2.0])
def test_codes_receive_nu_of_the_tasks_gradient_and_their_own_loss(nu: float, estimator: str) -> None:
    """ν Σ g + w Σ 2(q − z)/(N·D), over the vectors of each code."""
    layer = layer_of(codebook="gradient", nu=nu, codebook_weight=0.6, estimator=estimator, commitment_weight=9.0)
    codes, z, g = effective(layer), normal(N, D, seed=1), normal(N, D, seed=2)
    indices, gradient = backward(layer, z, g)
    expected = torch.zeros(K, D).double()
    for n, k in enumerate(indices.tolist()):
        expected[k] += nu * g[n].double() + 0.6 * 2 * (codes[k] - z[n].double()) / (N * D)
    close(layer.codes.weight.grad, expected)
    without = layer_of(codebook="gradient", estimator=estimator, commitment_weight=9.0)
    assert torch.equal(gradient, backward(without, z, g)[1]), "elsewhere ν g goes to the encoder"


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
    [
        ({}, 0.25, 0),
        ({"codebook": "gradient"}, 0.25, 1),
        ({"codebook": "gradient", "commitment_weight": 0.05, "codebook_weight": 0.95}, 0.05, 0.95),
    ],
)
def test_the_meanings_of_beta(weights: dict[str, Any], commitment: float, codebook: float) -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=K, dim=D, **weights))
    codes, out = effective(layer).clone(), layer(normal(N, D).requires_grad_())
    error = (normal(N, D).double() - codes[out.indices]).square().mean().item()
    assert out.commitment_loss.item() == pytest.approx(error)
    assert out.codebook_loss.item() == pytest.approx(error)
    assert out.loss.item() == pytest.approx((commitment + codebook) * error)
    assert out.codebook_loss.requires_grad is (layer.config.codebook == "gradient")
