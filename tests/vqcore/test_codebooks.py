"""How codes start, move and come back, against float64: debiased averages, affine maps, k-means++, revival."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layers import layer_of, looked_up, normal
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer
from vqcore.codebooks import LAPLACE_EPS, kmeans_plus_plus


def in_effect(layer: VectorQuantizer, z: Tensor) -> tuple[Tensor, Tensor]:
    """One training forward: the codes that were looked up, and the indices."""
    with looked_up(layer) as seen:
        indices = layer(z).indices
    return seen[-1], indices


# Codes moved by averages


@pytest.mark.parametrize("codebook", ["ema", "ema_debiased"])
@pytest.mark.parametrize(
    ("decay", "size", "rows"),
    [(0.5, 16, 64), (0.8, 16, 64), (0.99, 16, 64), (0.9, 512, 2)],  # the last: where smoothing takes half a percent
)
def test_the_codebook_follows_the_moving_averages_for_a_hundred_steps(
    decay: float, size: int, rows: int, codebook: str
) -> None:
    """The formulas of ``Codes.learn`` with the one-hot matrix, in float64."""
    layer = layer_of(size, codebook=codebook, decay=decay)
    codes = layer.codebook.double()
    n, m = torch.ones(size).double(), codes.clone()
    if codebook == "ema_debiased":
        n, m = torch.zeros(size).double(), torch.zeros(size, 4).double()
    for step in range(1, 101):
        z = normal(rows, 4, seed=step) + 0.02 * step
        nearest_N = torch.cdist(z.double(), codes).argmin(-1)
        assert torch.equal(layer(z).indices, nearest_N)  # of the codes before this step's update
        hot_NK = F.one_hot(nearest_N, size).double()
        n, m = decay * n + (1 - decay) * hot_NK.sum(0), decay * m + (1 - decay) * hot_NK.T @ z.double()
        correction = 1 - decay**step if codebook == "ema_debiased" else 1.0
        n_hat = n / correction
        smoothed = (n_hat + LAPLACE_EPS) * n_hat.sum() / (n_hat.sum() + size * LAPLACE_EPS)
        codes = torch.where(n[:, None] > 0, m / correction / smoothed[:, None], codes)
        torch.testing.assert_close(layer.codebook.double(), codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.codes.ema_counts.double(), n, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(layer.codes.ema_sums.double(), m, rtol=1e-4, atol=1e-5)


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


def test_the_codebook_starts_uniform_within_one_over_its_size() -> None:
    layer = VectorQuantizer(QuantizerConfig(codebook_size=128, dim=32))
    assert layer.codebook.abs().max() <= 1 / 128
    assert layer.codebook.std().item() == pytest.approx(1 / 128 / math.sqrt(3), rel=0.05)
    assert not list(layer.parameters()), "no optimiser may move the codebook"
    assert set(layer.state_dict()) == {"codes.weight", "codes.ema_counts", "codes.ema_sums"}


@pytest.mark.parametrize("codebook", ["ema", "ema_debiased"])
def test_a_cosine_codebook_is_the_direction_of_the_mean(codebook: str) -> None:
    """z and codes at unit length; c is the normalised average of the normalised z."""
    layer = layer_of(2, 2, codebook=codebook, normalize="cosine", decay=0.5)
    layer.codes.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    angles = torch.tensor([0.5, -0.1, 3.0])
    z = torch.stack([angles.cos(), angles.sin()], 1) * torch.tensor([[10.0], [0.1], [5.0]])
    for _ in range(60):
        out = layer(z)
        torch.testing.assert_close(layer.codebook.norm(dim=-1), torch.ones(2))
    assert out.indices.tolist() == [0, 0, 1]
    # of two unit vectors the mean points half-way, whatever their lengths were
    half = torch.tensor([0.2, 3.0])
    torch.testing.assert_close(layer.codebook, torch.stack([half.cos(), half.sin()], 1), rtol=1e-4, atol=1e-4)


# Affine maps


@pytest.mark.parametrize("groups", [1, 2])
def test_affine_statistics_run_with_a_momentum_of_a_tenth(groups: int) -> None:
    """c' = σ_z/σ_c (c − μ_c) + μ_z in every group: the codes in effect have the mean and the spread of the data."""
    layer = layer_of(16, 4, codebook="gradient", affine="statistics", affine_groups=groups)
    raw = layer.codes.weight.detach().double().view(groups, -1, 4)
    mean = variance = torch.zeros(4).double()
    for step in range(6):
        z = (normal(64, 4, seed=step) * torch.tensor([3.0, 0.1, 1.0, 20.0]) * (1 + step) + step).double()
        layer(z.float())
        rate = 0.1 if step else 1.0  # the first batch is copied
        mean = mean + rate * (z.mean(0) - mean)
        variance = variance + rate * (z.var(0, correction=0) - variance)
        scale = (variance / (raw.var(1, correction=0, keepdim=True) + 1e-8)).sqrt()
        expected = scale * (raw - raw.mean(1, keepdim=True)) + mean
        torch.testing.assert_close(layer.codebook.detach().double(), expected.flatten(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("offset", [1.0, 100.0, 1000.0])
def test_affine_statistics_of_data_far_from_the_origin(offset: float) -> None:
    """The mean of squares less the square of the mean has no digits left at an offset of 1,000 and a spread of 0.05."""
    layer, z = layer_of(64, 8, codebook="gradient", affine="statistics"), offset + 0.05 * normal(2000, 8)
    layer(z)
    spread = z.double().std(0, correction=0)
    torch.testing.assert_close(layer.codes.variance.double().sqrt(), spread, rtol=0.02, atol=0)
    torch.testing.assert_close(layer.codebook.detach().double().std(0, correction=0), spread, rtol=0.05, atol=0)


# k-means++


def quantization_error(z_ND: Tensor, codes_KD: Tensor) -> float:
    return float((z_ND.double()[:, None] - codes_KD.double()).square().sum(-1).amin(-1).mean())


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize(("rows", "size"), [(1, 2), (1, 9), (3, 8), (100, 150), (50, 50), (200, 7), (2000, 64)])
def test_kmeans_gives_as_many_distinct_codes_as_the_codebook_has(rows: int, size: int, offset: float) -> None:
    """Elsewhere 100 vectors for 150 codes leave a codebook of 100."""
    z = offset + 0.05 * normal(rows, 3)
    codes = kmeans_plus_plus(z, size, torch.Generator().manual_seed(0))
    assert codes.shape == (size, 3)
    assert codes.isfinite().all()
    if rows > 1:  # one vector has no spread to move its copies by
        assert len(codes.unique(dim=0)) == size
    assert codes.min() >= z.min() - 0.01
    assert codes.max() <= z.max() + 0.01


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_kmeans_finds_every_cluster_where_random_picks_do_not(offset: float) -> None:
    centres = 0.5 * normal(20, 4)
    z = offset + (centres[:, None] + 0.005 * normal(20, 50, 4, seed=1)).flatten(0, 1)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        picks = z[torch.randperm(1000, generator=generator)[:20]]
        codes = kmeans_plus_plus(z, 20, generator)
        assert quantization_error(z, codes) < 0.5 * quantization_error(z, picks)
        assert (torch.cdist(centres.double() + offset, codes.double()).amin(-1) < 0.05).float().mean() > 0.8


def test_kmeans_depends_on_its_generator_alone() -> None:
    z, random = normal(300, 4), torch.get_rng_state()
    one, other, third = (kmeans_plus_plus(z, 16, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, third)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("codebook", ["ema", "ema_debiased", "gradient"])
def test_a_layer_starts_where_its_first_batch_is(codebook: str) -> None:
    z = 50 + normal(300, 4)
    layer, plain = layer_of(codebook=codebook, init="kmeans++"), layer_of(codebook=codebook)
    assert layer(z).codebook_loss < 0.001 * plain(z).codebook_loss
    assert layer.codes.started
    before = layer.codebook.detach().clone()
    layer(-z)
    assert (layer.codebook.detach() - before).norm(dim=-1).median() < 25, "started again from the second batch"


# Revival

REVIVED = {
    "ema": {},
    "ema_debiased": {"codebook": "ema_debiased"},
    "gradient": {"codebook": "gradient"},
    "cosine": {"normalize": "cosine"},
    "cosine, gradient": {"normalize": "cosine", "codebook": "gradient"},
    "affine learned": {"codebook": "gradient", "affine": "learned", "affine_groups": 2, "affine_rate": 0.5},
    "affine statistics": {"codebook": "gradient", "affine": "statistics", "affine_groups": 2},
    "affine learned, cosine": {"codebook": "gradient", "affine": "learned", "normalize": "cosine"},
}


def with_dead_codes(name: str, **config: Any) -> VectorQuantizer:
    """Codes 10 to 15 were not used for long, whatever they did before."""
    layer = layer_of(decay=0.9, revive_below=0.5, revive_share=1.0, **REVIVED[name] | config)
    if layer.config.affine == "learned":
        layer.codes.scale.data.copy_(0.3 * normal(*layer.codes.scale.shape, seed=5))
        layer.codes.shift.data.copy_(normal(*layer.codes.shift.shape, seed=6))
    if layer.config.affine == "statistics":
        layer(3 + 2 * normal(100, 4))
    layer.codes.ema_counts.copy_(torch.tensor([10.0] * 10 + [0.01] * 6))
    return layer


@pytest.mark.parametrize("name", REVIVED)
def test_dead_codes_alone_land_in_effect_on_vectors_of_the_batch(name: str) -> None:
    """Elsewhere the vector is written under the affine map, and the code in effect lands far from all data."""
    layer = with_dead_codes(name)
    raw, z = layer.codes.weight.detach().clone(), 3 + 2 * normal(100, 4, seed=1)
    seen: list[Tensor] = []
    hook = layer.codes.register_forward_hook(lambda *_: seen.append(layer.codes.weight.detach().clone()))
    codes, indices = in_effect(layer, z)
    hook.remove()
    assert torch.equal(seen[0][:10], raw[:10]), "a code in use moved before the batch was quantized"
    assert layer.codes.revived.tolist() == [False] * 10 + [True] * 6
    targets = F.normalize(z, dim=-1) if "cosine" in name else z
    apart, which = torch.cdist(codes[10:].double(), targets.double()).min(-1)
    assert apart.max() < 1e-5
    assert len(which.unique()) == 6, "two codes on one vector"
    assert torch.equal(indices[which], torch.arange(10, 16)), "and that vector is quantized by its code at once"


@pytest.mark.parametrize("codebook", ["ema", "ema_debiased", "gradient"])
def test_a_revived_code_starts_with_an_average_count_and_stays(codebook: str) -> None:
    """Elsewhere its averages are kept, and the next update draws it back to where it died."""
    layer = with_dead_codes(codebook)
    if codebook == "ema_debiased":
        layer.codes.steps.fill_(200)
    average = layer.codes.ema_counts.mean().item()
    if codebook != "gradient":
        layer.codes.ema_sums.copy_(layer.codes.weight * layer.codes.ema_counts.unsqueeze(1))
    z = 3 + 2 * normal(16, 4, seed=1)
    codes, indices = in_effect(layer, z)
    used = torch.bincount(indices, minlength=16)
    expected = torch.tensor([10.0] * 10 + [average] * 6) * 0.9 + used * 0.1
    torch.testing.assert_close(layer.codes.ema_counts, expected)
    for k in range(10, 16):
        mean = z[indices == k].mean(0) if used[k] else codes[k]
        share = 0.1 * used[k] / expected[k]
        if codebook != "gradient":
            torch.testing.assert_close(layer.codebook[k], (1 - share) * codes[k] + share * mean, rtol=1e-3, atol=1e-3)
    layer(z)
    assert not layer.codes.revived[10:].any(), "revived again at once"


@pytest.mark.parametrize(("below", "dead"), [(0.05, 2), (0.5, 4), (1.0, 6)])
def test_dead_is_relative_to_the_average_use(below: float, dead: int) -> None:
    """Absolute thresholds mean something else for every batch size and every codebook size."""
    shares = torch.tensor([0.01, 0.02, 0.3, 0.4, 0.8, 0.9] + [1.357] * 10)
    for average in (0.02, 1.0, 5000.0):
        layer = layer_of(revive_below=below, revive_share=1.0)
        layer.codes.ema_counts.copy_(shares / shares.mean() * average)
        layer(normal(100, 4))
        assert layer.codes.revived.tolist() == [True] * dead + [False] * (16 - dead)


@pytest.mark.parametrize(("share", "moved"), [(0.1, 10), (0.25, 25), (1.0, 90), (0.001, 1)])
def test_no_more_than_a_share_is_moved_and_the_deadest_first(share: float, moved: int) -> None:
    layer = layer_of(100, revive_below=0.5, revive_share=share)
    counts = torch.cat([torch.linspace(0.001, 0.1, 90), torch.full((10,), 20.0)])
    order = torch.randperm(100)
    layer.codes.ema_counts.copy_(counts[order])
    layer(normal(300, 4))
    assert layer.codes.revived.sum() == moved
    assert counts[order][layer.codes.revived].max() <= counts[moved - 1]


def test_a_batch_smaller_than_the_dead_gives_each_vector_once() -> None:
    layer, z = with_dead_codes("ema"), 9 + normal(2, 4)
    codes, indices = in_effect(layer, z)
    assert layer.codes.revived.sum() == 2
    assert torch.equal(codes[indices], z)
