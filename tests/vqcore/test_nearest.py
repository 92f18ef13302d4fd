"""The code chosen is the nearest one, to the last digit that fp32 data have."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vqcore import QuantizerConfig, VectorQuantizer
from vqcore import nearest as module
from vqcore.nearest import nearest


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_nearest(z_ND: Tensor, codes_KD: Tensor) -> None:
    """Against float64 differences, written out; where two codes are within 1e-6 of a tie either will do."""
    chosen_N = nearest(z_ND, codes_KD)
    assert chosen_N.dtype == torch.int64
    distance_NK = (z_ND.double()[:, None] - codes_KD.double()[None]).square().sum(-1)
    best_N2 = distance_NK.topk(2, largest=False).values
    clear_N = best_N2[:, 1] > best_N2[:, 0] * (1 + 1e-6)
    assert clear_N.float().mean() > 0.95
    assert torch.equal(chosen_N[clear_N], distance_NK.argmin(-1)[clear_N])
    torch.testing.assert_close(distance_NK.gather(1, chosen_N[:, None])[:, 0], best_N2[:, 0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [2, 3, 63, 64, 65, 100, 128, 192, 512])
def test_as_brute_force_in_float64(size: int) -> None:
    assert_nearest(normal(300, 16), normal(size, 16, seed=1))


@pytest.mark.parametrize("size", [100, 512])
@pytest.mark.parametrize("offset", [0.0, 1.0, 100.0, -1000.0, 1000.0])
def test_far_from_the_origin(size: int, offset: float) -> None:
    """The usual expansion of the square picks 9 % right at an offset of 100."""
    assert_nearest(offset + 0.05 * normal(300, 64), offset + 0.05 * normal(size, 64, seed=1))


def test_a_codebook_still_at_its_tiny_start_and_data_far_away() -> None:
    assert_nearest(3 + normal(200, 8), (normal(512, 8, seed=1)).div(512))


@pytest.mark.parametrize("size", [2, 100, 256])
def test_ties_go_to_the_lowest_index(size: int) -> None:
    codes_KD = normal(size, 8)
    twice_KD = torch.cat([codes_KD, codes_KD])
    assert torch.equal(nearest(codes_KD, twice_KD), torch.arange(size))
    assert torch.equal(nearest(normal(9, 8), torch.ones(size, 8)), torch.zeros(9, dtype=torch.int64))
    between = torch.tensor([[0.0]])
    assert nearest(between, torch.tensor([[5.0], [1.0], [-1.0], [-5.0]])).item() == 1


@pytest.mark.parametrize("size", [2, 64, 100, 512])
@pytest.mark.parametrize("rows", [0, 1])
def test_one_vector_and_none(rows: int, size: int) -> None:
    codes_KD = normal(size, 4)
    assert nearest(codes_KD[-1:].repeat(rows, 1), codes_KD).tolist() == [size - 1] * rows


@pytest.mark.parametrize("size", [100, 512])
def test_bf16_vectors_are_compared_in_fp32(size: int) -> None:
    z_ND, codes_KD = (1 + 0.02 * normal(200, 16)).bfloat16(), 1 + 0.02 * normal(size, 16, seed=1)
    assert_nearest(z_ND, codes_KD)


@pytest.mark.parametrize("size", [96, 512])
def test_blocks_of_any_length_give_the_same(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    z_ND, codes_KD = normal(101, 8), normal(size, 8, seed=1)
    whole_N = nearest(z_ND, codes_KD)
    for elements in (1, 7 * size, 100 * size, 101 * size):
        monkeypatch.setattr(module, "BLOCK_ELEMENTS_CPU", elements)
        assert torch.equal(nearest(z_ND, codes_KD), whole_N)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most elements that any one tensor made inside had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_the_whole_matrix_is_never_built() -> None:
    """16,384 vectors and 4,096 codes: 256 MiB at once elsewhere, here a block of 2 MiB at a time."""
    z_ND, codes_KD = normal(16_384, 4), normal(4096, 4, seed=1)
    with Largest() as largest:  # type: ignore[no-untyped-call]
        nearest(z_ND, codes_KD)
    assert largest.elements == module.BLOCK_ELEMENTS_CPU


def test_its_arguments_are_left_as_they_were() -> None:
    z_ND, codes_KD = normal(9, 4), normal(128, 4, seed=1)
    before = z_ND.clone(), codes_KD.clone()
    nearest(z_ND, codes_KD)
    assert torch.equal(z_ND, before[0])
    assert torch.equal(codes_KD, before[1])


@pytest.mark.parametrize("size", [2, 7, 64, 128, 1000, 4096, 65_536])
@pytest.mark.parametrize(("offset", "spread"), [(0.0, 1.0), (1000.0, 0.05)])
def test_any_number_of_codes_near_and_far(size: int, offset: float, spread: float) -> None:
    """All exact at an offset of 1,000 and a spread of 0.05, where an expanded square picks at random."""
    rows = 64 if size > 5000 else 200
    z_ND, codes_KD = offset + spread * normal(rows, 16), offset + spread * normal(size, 16, seed=1)
    exact_NK = torch.cat([(codes_KD.double() - z).square().sum(-1)[None] for z in z_ND.double()])
    chosen_N = nearest(z_ND, codes_KD)
    best_N = exact_NK.amin(-1)
    torch.testing.assert_close(exact_NK.gather(1, chosen_N[:, None])[:, 0], best_N, rtol=1e-5, atol=0)
    assert (chosen_N == exact_NK.argmin(-1)).float().mean() > 0.99


def test_the_first_of_many_equal_codes() -> None:
    codes_KD = normal(8, 4).repeat(8192, 1)
    assert torch.equal(nearest(codes_KD[-8:], codes_KD), torch.arange(8))


@pytest.mark.parametrize("size", [3, 512])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (99, 3), (50, 1)])
def test_numbers_that_are_none_are_refused(bad: float, place: tuple[int, int], size: int) -> None:
    z_ND = normal(100, 4)
    z_ND[place] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        nearest(z_ND, normal(size, 4, seed=1))


def test_opposite_infinities_are_refused_too() -> None:
    z_ND = normal(100, 4)
    z_ND[3, 0], z_ND[4, 0] = math.inf, -math.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        nearest(z_ND, normal(16, 4, seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_finite_numbers_whose_sum_is_not_are_taken(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    z_ND = torch.full((100, 4), largest / 4, dtype=dtype)
    assert nearest(z_ND, normal(16, 4, seed=1)).shape == (100,)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("estimator", ["ste", "rotation", "gumbel"])
@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_a_layer_refuses_them_and_keeps_its_codebook(codebook: str, estimator: str, training: bool) -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=16, dim=4, codebook=codebook, estimator=estimator))
    layer.train(training)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    z = normal(20, 4)
    z[7, 2] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        layer(z)
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


@pytest.mark.parametrize("init", ["kmeans++", "uniform"])
def test_a_start_or_a_revival_from_such_a_batch_is_refused(init: str) -> None:
    """Else the state holds what no later batch mends."""
    layer = VectorQuantizer(QuantizerConfig(codebook_size=16, dim=4, init=init, revive_below=0.9, revive_share=1.0))
    layer.codes.ema_counts[:8] = 0
    z = normal(20, 4)
    z[:, 2] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        layer(z)
    assert all(tensor.isfinite().all() for tensor in layer.state_dict().values())


@pytest.mark.gpu
def test_on_a_gpu_too() -> None:
    z_ND, codes_KD = 100 + 0.05 * normal(5000, 64), 100 + 0.05 * normal(1000, 64, seed=1)
    found_N = nearest(z_ND.cuda(), codes_KD.cuda()).cpu()
    distance_NK = torch.cdist(z_ND.double(), codes_KD.double())
    best_N = distance_NK.amin(-1)
    torch.testing.assert_close(distance_NK.gather(1, found_N[:, None])[:, 0], best_N, rtol=1e-5, atol=0)
