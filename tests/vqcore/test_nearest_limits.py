"""The search at its limits: any number of codes, far from the origin, and numbers that are none."""

import math

import pytest
import torch
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer
from vqcore import nearest as module
from vqcore.nearest import nearest


@pytest.fixture(params=["oneDNN", "public"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "public":
        monkeypatch.setattr(module, "_onednn_works", lambda device: False)
    elif not module._onednn_works(torch.device("cpu")):
        pytest.skip("this build of torch has no oneDNN linear")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
