"""Finite scalar quantization against its formula in float64, at its ends, and in low precision."""

import math

import pytest
import torch
from layers import grid_of, normal

GRIDS = [("8,5,5,5", False), ("7,7", False), ("4", False), ("3,4,5,6", False), ("16,3", False)]
SYMMETRIC = [("8,5,5,5", True), ("2,2,2", True), ("4", True), ("5,6,2", True)]
every_grid = pytest.mark.parametrize(("levels", "symmetric"), GRIDS + SYMMETRIC)


def bound_and_digit(z: float, levels: int, symmetric: bool) -> tuple[float, int]:
    """One number: where it lies before rounding, and which of the levels it takes."""
    if symmetric:
        bounded = math.tanh(z)
        return bounded, math.floor((levels - 1) * (bounded + 1) / 2 + 0.5)
    half, offset = (levels - 1) * 1.001 / 2, 0.0 if levels % 2 else 0.5
    bounded = math.tanh(z + math.atanh(offset / half)) * half - offset
    return bounded / (levels // 2), round(bounded) + levels // 2


@every_grid
def test_the_formula(levels: str, symmetric: bool) -> None:
    layer = grid_of(levels, symmetric)
    counts = layer.config.level_counts
    z = 2 * normal(300, len(counts))
    out = layer(z, channel_dim=-1)
    for n in range(300):
        index, basis = 0, 1
        for i, count in enumerate(counts):
            _, digit = bound_and_digit(float(z[n, i]), count, symmetric)
            value = 2 * digit / (count - 1) - 1 if symmetric else (digit - count // 2) / (count // 2)
            assert out.quantized[n, i].item() == pytest.approx(value, abs=1e-6)
            index, basis = index + basis * digit, basis * count
        assert out.indices[n].item() == index


@every_grid
def test_every_code_is_a_point_and_every_point_a_code(levels: str, symmetric: bool) -> None:
    """Every index decodes to a point of its own, and the point, from where it is reached, gives the index."""
    layer = grid_of(levels, symmetric)
    counts, size = layer.config.level_counts, layer.config.codebook_size
    assert size == math.prod(counts)
    assert layer.codebook.shape == (size, len(counts))
    assert len(layer.codebook.unique(dim=0)) == size
    every = torch.arange(size)
    values = layer.decode(every, channel_dim=-1)
    # dimension by dimension: an input for every level
    grid = torch.linspace(-6, 6, 5001)
    inputs = torch.zeros(size, len(counts))
    for i in range(len(counts)):
        reached = layer(grid[:, None].expand(-1, len(counts)), channel_dim=-1).quantized[:, i]
        inputs[:, i] = grid[(reached[None] - values[:, i : i + 1]).abs().argmin(-1)]
    out = layer(inputs, channel_dim=-1)
    assert torch.equal(out.indices, every)
    assert torch.equal(out.quantized, values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_grid
def test_low_precision_keeps_every_code(levels: str, symmetric: bool, dtype: torch.dtype) -> None:
    """Bounded and rounded in bf16 half the codes of a grid are never reached."""
    layer = grid_of(levels, symmetric)
    dim = len(layer.config.level_counts)
    z = (1.5 * normal(60_000, dim)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(z, channel_dim=-1)
    assert out.quantized.dtype == dtype
    assert torch.equal(out.indices, layer(z.float(), channel_dim=-1).indices)
    if layer.config.codebook_size <= 360:
        assert len(out.indices.unique()) == layer.config.codebook_size
    # the points that bf16 tells apart are still apart
    assert torch.equal(out.quantized, layer.codebook.to(dtype)[out.indices])


@pytest.mark.parametrize("far", [30.0, 1e6, 3e38, math.inf])
@every_grid
def test_far_inputs_reach_the_outermost_levels_and_no_further(levels: str, symmetric: bool, far: float) -> None:
    layer = grid_of(levels, symmetric)
    dim = len(layer.config.level_counts)
    out = layer(torch.stack([torch.full((dim,), -far), torch.full((dim,), far)]), channel_dim=-1)
    assert out.indices.tolist() == [0, layer.config.codebook_size - 1]
    assert torch.equal(out.quantized[0], torch.full((dim,), -1.0))
    top = [1.0 if symmetric or count % 2 else 1 - 2 / count for count in layer.config.level_counts]
    torch.testing.assert_close(out.quantized[1], torch.tensor(top))


@every_grid
def test_the_gradient_is_that_of_the_bound(levels: str, symmetric: bool) -> None:
    """Rounding is passed straight through: ∇z = g · d(bound)/dz, by differences in float64."""
    layer = grid_of(levels, symmetric)
    counts = layer.config.level_counts
    z, g = normal(40, len(counts)).requires_grad_(), normal(40, len(counts), seed=1)
    out = layer(z, channel_dim=-1)
    assert out.loss == out.commitment_loss == 0
    assert not out.codebook_loss.requires_grad
    (out.quantized * g).sum().backward()
    assert z.grad is not None
    for n in range(40):
        for i, count in enumerate(counts):
            at = float(z[n, i].detach())
            up, down = (bound_and_digit(at + step, count, symmetric)[0] for step in (1e-6, -1e-6))
            assert z.grad[n, i].item() == pytest.approx((up - down) / 2e-6 * float(g[n, i]), rel=1e-3, abs=1e-5)


@every_grid
def test_there_is_nothing_to_learn_but_an_error_to_tell(levels: str, symmetric: bool) -> None:
    layer = grid_of(levels, symmetric)
    counts = layer.config.level_counts
    z = normal(50, len(counts))
    out = layer(z, channel_dim=-1)
    assert not [*layer.parameters(), *layer.state_dict()]
    bounded = torch.tensor(
        [[bound_and_digit(float(x), n, symmetric)[0] for x, n in zip(row, counts, strict=True)] for row in z]
    )
    error = (bounded.double() - out.quantized.double()).square().mean()
    assert out.codebook_loss.item() == pytest.approx(error.item(), rel=1e-4)


def test_not_a_number_is_refused() -> None:
    """Rounded to some level it is a code like any other, and a diverged encoder goes unnoticed."""
    layer, z = grid_of("8,5,5,5"), normal(20, 4)
    z[7, 2] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        layer(z)
