"""Gradients across the quantizer, against explicit matrices in float64, and where the formulas have no answer."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer
from vqcore.config import ConfigError
from vqcore.estimators import ESTIMATORS, estimator, quantize, rotation, straight_through

MAX_RESCALE = QuantizerConfig().max_rescale


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def explicit_rotation(e: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """λ and R = I − 2rrᵀ + 2q̂êᵀ, one vector at a time."""
    e_hat, q_hat = e / e.norm(), q / q.norm()
    r = (e_hat + q_hat) / (e_hat + q_hat).norm()
    return q.norm() / e.norm(), torch.eye(len(e)).double() - 2 * torch.outer(r, r) + 2 * torch.outer(q_hat, e_hat)


def angles(kind: str, count: int = 40, dim: int = 12) -> tuple[Tensor, Tensor]:
    """z and q with ‖q‖/‖z‖ around 1."""
    z, q = normal(count, dim, seed=1), normal(count, dim, seed=2)
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


@pytest.mark.parametrize("kind", ["any", "acute", "obtuse", "right", "near", "nearly antiparallel"])
def test_rotation_is_lambda_times_r_transposed_times_g(kind: str) -> None:
    z, q = angles(kind)
    g = normal(*z.shape, seed=3)
    for row, gradient in enumerate(rotation(g, z, q)):
        scale, R = explicit_rotation(z[row], q[row])
        assert scale < MAX_RESCALE
        torch.testing.assert_close(scale * R @ z[row], q[row], rtol=1e-10, atol=1e-10)  # it does turn z onto q
        torch.testing.assert_close(R @ R.T, torch.eye(12).double(), rtol=1e-10, atol=1e-10)
        assert torch.linalg.det(R).item() == pytest.approx(1)
        torch.testing.assert_close(gradient, scale * R.T @ g[row], rtol=1e-10, atol=1e-10)


def test_rotation_in_fp32_is_as_near_as_fp32_allows() -> None:
    z, q = angles("any", 200, 64)
    g = normal(200, 64, seed=3)
    torch.testing.assert_close(
        rotation(g.float(), z.float(), q.float()).double(), rotation(g, z, q), rtol=1e-4, atol=1e-5
    )


def test_rotation_keeps_lengths_and_the_angle_to_the_code() -> None:
    z, q = angles("any")
    g = normal(*z.shape, seed=3)
    out, scale = rotation(g, z, q), (q.norm(dim=-1) / z.norm(dim=-1))
    torch.testing.assert_close(out.norm(dim=-1), scale * g.norm(dim=-1))
    torch.testing.assert_close((out * z).sum(-1) / z.norm(dim=-1), scale * (g * q).sum(-1) / q.norm(dim=-1))


def test_rotation_of_parallel_vectors_only_rescales() -> None:
    z, g = normal(9, 4, seed=1), normal(9, 4)
    torch.testing.assert_close(rotation(g, z, 3 * z), 3 * g)
    torch.testing.assert_close(rotation(g, z, z), g)


def test_antiparallel_vectors_reflect_along_z() -> None:
    z, g = normal(9, 4, seed=1), normal(9, 4)
    e_hat = z / z.norm(dim=-1, keepdim=True)
    reflected = g - 2 * e_hat * (e_hat * g).sum(-1, keepdim=True)
    torch.testing.assert_close(rotation(g, z, -2 * z), 2 * reflected)


def test_without_a_direction_the_gradient_is_straight_through() -> None:
    vector, g, zero = normal(5, 4, seed=1), normal(5, 4), torch.zeros(5, 4).double()
    for z, q in ((zero, vector), (vector, zero), (zero, zero)):
        assert torch.equal(rotation(g, z, q), g)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotation_is_finite_and_bounded_everywhere(dtype: torch.dtype) -> None:
    """Others multiply the gradient by 3.5e6 at ‖z‖ = 1e-9."""
    z = normal(64, 6, seed=1, dtype=dtype)
    q, g = normal(64, 6, seed=2, dtype=dtype), normal(64, 6, seed=3, dtype=dtype)
    # a tenth for norms near 1e-22, whose squares have few bits left in fp32
    longest = 1.1 * MAX_RESCALE * g.norm(dim=-1)
    lengths = [0.0, *(10.0**power for power in range(-45, 13))]
    pairs = [(z * length, q) for length in lengths] + [(z, q * length) for length in lengths if length < 10]
    pairs += [(z * length, q * length) for length in lengths]
    pairs += [(z, -z * (1 + noise) + noise * q) for noise in (0.0, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)]
    for one, other in pairs:
        out = rotation(g, one, other)
        assert out.isfinite().all()
        assert (out.norm(dim=-1) <= longest).all()


def test_the_bound_on_the_rescaling() -> None:
    z, g = normal(9, 4, seed=1), normal(9, 4)
    torch.testing.assert_close(rotation(g, 1e-9 * z, z), MAX_RESCALE * g)
    torch.testing.assert_close(rotation(g, z, 0.999 * MAX_RESCALE * z), 0.999 * MAX_RESCALE * g)


def test_straight_through_is_the_codes_gradient() -> None:
    z, q, g = normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
    assert torch.equal(straight_through(g, z, q), g)


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_crossing_is_exact_forwards_and_the_codes_get_no_gradient(name: str) -> None:
    z, q = normal(50, 8).requires_grad_(), normal(50, 8, seed=1).requires_grad_()
    g = normal(50, 8, seed=2)
    out = quantize(z, q, torch.arange(len(q)), ESTIMATORS[name])[0]
    torch.autograd.backward(out, g)
    assert torch.equal(out, q)
    assert z.grad is not None
    assert torch.equal(z.grad, ESTIMATORS[name](g, z.detach(), q.detach()))
    assert not q.grad.any(), "without nu the task moves no code"


@pytest.fixture
def half() -> Iterator[str]:
    @estimator("half")
    def half(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
        return 0.5 * g_ND

    yield "half"
    del ESTIMATORS["half"]


def test_an_estimator_of_ones_own_is_one_decorator(half: str) -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=4, dim=3, estimator=half)).eval()
    z = normal(7, 3, dtype=torch.float32).requires_grad_()
    out = layer(z)
    out.quantized.sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, torch.full((7, 3), 0.5))
    assert torch.equal(out.quantized, layer.codebook[out.indices])


def test_the_names_known_without_torch_are_those_of_the_estimators() -> None:
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
