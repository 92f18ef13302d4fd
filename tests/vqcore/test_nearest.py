"""The code chosen is the nearest one, to the last digit that fp32 data have."""

import math
from typing import Any

import pytest
import torch
from layers import normal
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer
from vqcore import nearest as module
from vqcore.nearest import nearest


@pytest.mark.parametrize(
    ("offset", "spread", "dtype"),
    [
        (0.0, 1.0, torch.float32),
        (1.0, 0.02, torch.bfloat16),
        (100.0, 0.05, torch.float32),
        (-1000.0, 0.05, torch.float32),
    ],
)
@pytest.mark.parametrize("size", [2, 63, 64, 100, 512, 1025, 65_536])
def test_as_brute_force_in_float64(size: int, offset: float, spread: float, dtype: torch.dtype) -> None:
    """The usual expansion of the square picks 9 % right at an offset of 100, 8 % in bf16 at an offset of 1."""
    z_ND, codes_KD = (offset + spread * normal(64, 32)).to(dtype), offset + spread * normal(size, 32, seed=1)
    assert_nearest(z_ND, codes_KD)


def assert_nearest(z_ND: Tensor, codes_KD: Tensor) -> None:
    """Against float64 differences, written out; where two codes are within 1e-6 of a tie either will do."""
    before = z_ND.clone(), codes_KD.clone()
    chosen_N = nearest(z_ND, codes_KD)
    assert chosen_N.dtype == torch.int64
    assert all(map(torch.equal, before, (z_ND, codes_KD))), "its arguments were written to"
    distance_NK = torch.stack([(codes_KD.double() - z).square().sum(-1) for z in z_ND.double()])
    best_N2 = distance_NK.topk(2, largest=False).values
    clear_N = best_N2[:, 1] > best_N2[:, 0] * (1 + 1e-6)
    assert clear_N.float().mean() > 0.95
    assert torch.equal(chosen_N[clear_N], distance_NK.argmin(-1)[clear_N])
    torch.testing.assert_close(distance_NK.gather(1, chosen_N[:, None])[:, 0], best_N2[:, 0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [2, 100, 256])
def test_ties_go_to_the_lowest_index(size: int) -> None:
    codes_KD = normal(size, 8)
    twice_KD = torch.cat([codes_KD, codes_KD])
    assert torch.equal(nearest(codes_KD, twice_KD), torch.arange(size))
    assert torch.equal(nearest(normal(9, 8), torch.ones(size, 8)), torch.zeros(9, dtype=torch.int64))
    many_KD = normal(8, 4).repeat(8192, 1)
    for more in (1025, 1087, 4001):  # the repeated code alone in a last tile, or at the end of one
        far_KD = 9 + normal(more, 64, seed=1)
        far_KD[[7, -1]] = normal(1, 64)
        assert torch.equal(nearest(far_KD[-1:].repeat(9, 1) + 0.1, far_KD), torch.full((9,), 7))
    assert torch.equal(nearest(many_KD[-8:], many_KD), torch.arange(8))
    between = torch.tensor([[0.0]])
    assert nearest(between, torch.tensor([[5.0], [1.0], [-1.0], [-5.0]])).item() == 1


@pytest.mark.parametrize("size", [2, 64, 100, 512])
@pytest.mark.parametrize("rows", [0, 1])
def test_one_vector_and_none(rows: int, size: int) -> None:
    codes_KD = normal(size, 4)
    assert nearest(codes_KD[-1:].repeat(rows, 1), codes_KD).tolist() == [size - 1] * rows


@pytest.mark.parametrize("size", [96, 512])
def test_blocks_of_any_length_give_the_same(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    z_ND, codes_KD = normal(101, 8), normal(size, 8, seed=1)
    whole_N = nearest(z_ND, codes_KD)
    for elements in (1, 7 * size, 100 * size, 101 * size):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS_CPU", elements)
        assert torch.equal(nearest(z_ND, codes_KD), whole_N)


def test_the_whole_matrix_is_never_built() -> None:
    """16,384 vectors and 4,096 codes: 256 MiB at once elsewhere, here a block of 2 MiB at a time."""
    z_ND, codes_KD = normal(16_384, 4), normal(4096, 4, seed=1)
    with torch.profiler.profile(profile_memory=True) as profile:
        nearest(z_ND, codes_KD)
    assert max(event.self_cpu_memory_usage for event in profile.events()) == 4 * module.BLOCK_ELEMENTS_CPU


def test_faster_products_allowed_elsewhere_change_no_choice() -> None:
    """A training may allow TF32 or bf16 for its own; the setting is still there afterwards."""
    z_ND, codes_KD = 100 + 0.05 * normal(500, 64), 100 + 0.05 * normal(256, 64, seed=1)
    exact_N = nearest(z_ND, codes_KD)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(nearest(z_ND, codes_KD), exact_N)
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("bad", [(math.nan,), (math.inf,), (-math.inf,), (math.inf, -math.inf)])
@pytest.mark.parametrize("row", [0, 50, 98])
def test_infinities_and_nan_are_refused(bad: tuple[float, ...], row: int) -> None:
    z_ND = normal(100, 4)
    z_ND[row : row + len(bad), 1] = torch.tensor(bad)
    with pytest.raises(FloatingPointError, match="not finite"):
        nearest(z_ND, normal(16, 4, seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_numbers_whose_sum_is_not_are_taken(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    z_ND = torch.full((100, 4), largest / 4, dtype=dtype)
    assert nearest(z_ND, normal(16, 4, seed=1)).shape == (100,)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        *({"codebook": c, "estimator": e} for c in ("ema", "gradient") for e in ("rotation", "gumbel")),
        *({"init": init, "revive_below": 0.9, "revive_share": 1.0} for init in ("kmeans++", "uniform")),
    ],
    ids=str,
)
def test_a_layer_refuses_them_and_keeps_its_state(config: dict[str, Any], training: bool) -> None:
    """Else the codes hold what no later batch mends."""
    layer = VectorQuantizer(QuantizerConfig(codebook_size=16, dim=4, **config)).train(training)
    layer.codes.ema_counts[:8] = 0
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    z = normal(20, 4)
    z[:, 2] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        layer(z)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


@pytest.mark.gpu
def test_on_a_gpu_too() -> None:
    z_ND, codes_KD = 100 + 0.05 * normal(5000, 64), 100 + 0.05 * normal(1000, 64, seed=1)
    found_N = nearest(z_ND.cuda(), codes_KD.cuda()).cpu()
    distance_NK = torch.cdist(z_ND.double(), codes_KD.double())
    best_N = distance_NK.amin(-1)
    torch.testing.assert_close(distance_NK.gather(1, found_N[:, None])[:, 0], best_N, rtol=1e-5, atol=0)
