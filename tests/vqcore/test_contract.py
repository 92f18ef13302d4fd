"""The properties that every quantization layer has, whatever it is made of: one suite for all of them."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layers import grid_of, layer_of, looked_up, normal, state, unchanged
from torch import Tensor

from vqcore import FSQ, Quantized, QuantizerConfig, VectorQuantizer

ESTIMATORS = ["ste", "rotation", "rotation_unscaled", "reflection", "gumbel"]
CODEBOOKS = ["ema", "ema_debiased", "gradient"]
LAYERS: dict[str, dict[str, Any]] = {
    **{f"{e}, {c}": {"estimator": e, "codebook": c} for e in ESTIMATORS for c in CODEBOOKS},
    "inputs": {"normalize": "inputs"},
    "codes": {"normalize": "codes", "codebook": "ema_debiased"},
    "cosine": {"normalize": "cosine"},
    "cosine, gumbel": {"normalize": "cosine", "estimator": "gumbel"},
    "cosine, gradient": {"normalize": "cosine", "codebook": "gradient"},
    "affine learned": {"codebook": "gradient", "affine": "learned", "affine_groups": 4, "affine_rate": 0.5},
    "affine learned, cosine": {"codebook": "gradient", "affine": "learned", "normalize": "cosine"},
    "affine statistics": {"codebook": "gradient", "affine": "statistics", "affine_groups": 2},
    "affine statistics, gumbel": {"codebook": "gradient", "affine": "statistics", "estimator": "gumbel"},
    "nu, obtuse": {"codebook": "gradient", "nu": 0.5, "obtuse": "ste"},
    **{f"kmeans++, {c}": {"init": "kmeans++", "codebook": c} for c in CODEBOOKS},
    "kmeans++, cosine": {"init": "kmeans++", "normalize": "cosine"},
    **{f"revival, {c}": {"revive_below": 0.5, "codebook": c} for c in CODEBOOKS},
    "revival, cosine": {"revive_below": 0.5, "normalize": "cosine"},
    "revival, cosine, gradient": {"revive_below": 0.5, "normalize": "cosine", "codebook": "gradient"},
    "revival, gumbel": {"revive_below": 0.5, "estimator": "gumbel"},
    "revival, affine learned": {"revive_below": 0.5, "codebook": "gradient", "affine": "learned"},
    "all of it": {
        "codebook": "gradient",
        "affine": "statistics",
        "init": "kmeans++",
        "revive_below": 0.5,
        "revive_share": 0.5,
        "normalize": "cosine",
        "nu": 0.1,
    },
}
GRIDS: dict[str, dict[str, Any]] = {
    "fsq": {"levels": "4,5,3,8"},
    "fsq, symmetric": {"levels": "4,5,3,2", "symmetric": True},
}
every_layer = pytest.mark.parametrize("name", [*LAYERS, *GRIDS])
every_codebook = pytest.mark.parametrize("name", LAYERS)


def made(name: str, seed: int = 0, size: int = 16) -> VectorQuantizer | FSQ:
    """A layer of 4 dimensions as after some training: the codes lie among data like ``normal``."""
    if name in GRIDS:
        return grid_of(**GRIDS[name])
    layer = layer_of(size, seed=seed, decay=0.9, **LAYERS[name])
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return layer


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.int16 if tensor.element_size() == 2 else torch.int32)


def train_step(layer: VectorQuantizer | FSQ, seed: int, rows: int = 24) -> Quantized:
    """One step of gradient descent on a task that pulls the output along, with all that is random given by ``seed``."""
    torch.manual_seed(seed)
    z = normal(rows, 4, seed=seed).requires_grad_()
    out: Quantized = layer(z)
    layer.zero_grad()
    ((out.quantized * normal(rows, 4, seed=seed + 1)).mean() + out.loss).backward()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    return out


# The bottleneck


@every_layer
def test_the_output_is_rows_of_the_codebook_in_effect_bit_for_bit(name: str) -> None:
    """Elsewhere z + (q − z) leaks the rounding of z, and ‖z‖ q/‖q‖ a float a vector."""
    layer = made(name)
    for seed, (training, dtype) in enumerate(product([True, False], [torch.float32, torch.bfloat16, torch.float16])):
        layer.train(training)
        z = (0.5 + normal(2, 4, 3, 5, seed=seed)).to(dtype).requires_grad_()
        with looked_up(layer) as seen:
            out = layer(z)
        assert torch.equal(z, (0.5 + normal(2, 4, 3, 5, seed=seed)).to(dtype)), "the layer wrote into its input"
        rows = F.embedding(out.indices, seen[-1].to(dtype)).movedim(-1, 1)
        assert out.quantized.dtype == dtype
        assert torch.equal(bits(out.quantized), bits(rows))
        assert out.commitment_loss.dtype == out.codebook_loss.dtype == out.loss.dtype == torch.float32


@every_layer
def test_what_is_decoded_is_what_the_forward_pass_gave(name: str) -> None:
    layer = made(name)
    train_step(layer, 0)
    layer.eval()
    out = layer(normal(2, 4, 3, seed=1))
    assert torch.equal(layer.decode(out.indices), out.quantized)
    assert torch.equal(layer.codebook[out.indices].movedim(-1, 1), out.quantized)


@every_layer
def test_autocast_makes_no_difference(name: str) -> None:
    plain, cast, z = made(name), made(name), normal(30, 4) + 3
    for seed in range(3):
        torch.manual_seed(seed)
        exact = plain(z.requires_grad_())
        torch.manual_seed(seed)
        with torch.autocast("cpu", torch.bfloat16):
            out = cast(z)
        assert all(torch.equal(one, other) for one, other in zip(exact, out, strict=True))
    assert unchanged(cast, state(plain))


@pytest.mark.parametrize("normalize", ["none", "inputs", "codes", "cosine"])
def test_inputs_and_codes_have_unit_length_where_the_option_names_them(normalize: str) -> None:
    """In a published layer "l2" is unit length for the inputs, and a largest norm of 10 for the codes."""
    torch.manual_seed(0)
    config = QuantizerConfig(codebook_size=16, dim=4, init="normal", normalize=normalize)  # type: ignore[arg-type]
    layer, z = VectorQuantizer(config).eval(), 5 * normal(100, 4)
    codes, out = layer.codebook.double(), layer(z)
    assert torch.allclose(codes.norm(dim=-1), torch.ones(16).double()) is (normalize in ("codes", "cosine"))
    inputs = F.normalize(z.double(), dim=-1) if normalize in ("inputs", "cosine") else z.double()
    assert out.commitment_loss.item() == pytest.approx((inputs - codes[out.indices]).square().mean().item())
    assert torch.equal(out.indices, torch.cdist(inputs, codes).argmin(-1))


@every_layer
def test_the_channels_may_be_anywhere(name: str) -> None:
    layer = made(name).eval()
    for shape, channel in (((4, 7), 0), ((3, 7, 4), -1), ((2, 4, 3, 5), 1), ((2, 3, 2, 4, 2), -2)):
        z = normal(*shape)
        out = layer(z, channel_dim=channel)
        last = layer(z.movedim(channel, -1).reshape(-1, 4))
        assert out.quantized.shape == z.shape
        assert out.indices.shape == z.select(channel, 0).shape
        assert torch.equal(out.indices.flatten(), last.indices)
        assert torch.equal(out.quantized.movedim(channel, -1).reshape(-1, 4), last.quantized)
        if z.dim() == 4:
            other = layer(z.contiguous(memory_format=torch.channels_last), channel_dim=channel)
            assert torch.equal(other.quantized, out.quantized)
    with pytest.raises(ValueError, match=r"dimension 1 .* has 5 entries, .* 4: .*\(2, 5, 5, 4\).*channel_dim="):
        layer(torch.zeros(2, 5, 5, 4))


# State


@every_layer
def test_in_eval_mode_nothing_changes(name: str) -> None:
    """Neither before any training, where k-means++ waits for its first batch, nor after a step."""
    layer = made(name)
    for _ in range(2):
        layer.eval()
        before, random = state(layer), torch.get_rng_state()
        first = layer(normal(30, 4, seed=1).requires_grad_())
        (first.quantized.sum() + first.loss).backward()
        assert torch.equal(layer(normal(30, 4, seed=1)).quantized, first.quantized)
        assert unchanged(layer, before)
        assert torch.equal(torch.get_rng_state(), random)
        train_step(layer.train(), 0)


@every_layer
def test_a_state_in_the_middle_of_training_goes_on_to_the_last_bit(name: str) -> None:
    for steps in (0, 3):
        one, other = made(name), made(name, seed=9)
        for seed in range(steps):
            train_step(one, seed)
        other.load_state_dict(state(one))
        for seed in range(10, 14):
            first, second = train_step(one, seed), train_step(other, seed)
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert unchanged(other, state(one))
        assert torch.equal(one.codebook, other.codebook)


@every_codebook
def test_training_moves_the_codes_and_freezing_stops_them(name: str) -> None:
    layer = made(name)
    train_step(layer, 0)
    layer.freeze()
    assert layer.training
    before = state(layer)
    frozen = [train_step(layer, seed) for seed in range(1, 4)]
    assert unchanged(layer, before)
    assert not any(out.codebook_loss.requires_grad for out in frozen)
    layer.freeze(False)
    codes = layer.codebook.clone()
    train_step(layer, 4)
    assert not torch.equal(layer.codebook, codes)
    assert not unchanged(layer, before)


@every_layer
def test_two_batches_may_wait_for_one_backward_pass(name: str) -> None:
    """Two views of one picture, or the losses of two steps: what the second changes may be in the first's graph."""
    together, apart = made(name), made(name)
    torch.manual_seed(5)
    batches = [normal(24, 4, seed=seed).requires_grad_() for seed in (1, 2)]
    outs = [together(z) for z in batches]
    sum((out.quantized.square().sum() + out.loss for out in outs), torch.zeros(())).backward()
    torch.manual_seed(5)
    for seed, waited in zip((1, 2), batches, strict=True):
        z = normal(24, 4, seed=seed).requires_grad_()
        out = apart(z)
        (out.quantized.square().sum() + out.loss).backward()
        torch.testing.assert_close(waited.grad, z.grad)
    for one, other in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert not any(tensor.requires_grad for _, tensor in together.named_buffers()), "every batch would be kept alive"


# Batches of any size


@every_layer
def test_an_empty_batch_is_quantized_to_nothing_and_changes_nothing(name: str) -> None:
    layer = made(name)
    before = state(layer)
    for training in (False, True):
        z = torch.zeros(0, 4, 3, requires_grad=True)
        out = layer.train(training)(z)
        (out.quantized.sum() + out.loss).backward()
        assert out.quantized.shape == (0, 4, 3)
        assert out.indices.shape == (0, 3)
        assert out.loss == out.codebook_loss == 0
        assert z.grad is not None
        assert unchanged(layer, before)


@every_layer
def test_fewer_vectors_than_codes(name: str) -> None:
    for rows in (1, 3):
        layer = made(name, size=64)
        for seed in range(5):
            out = train_step(layer, seed, rows)
            assert out.quantized.shape == (rows, 4)
            assert out.loss.isfinite()
        assert all(tensor.isfinite().all() for tensor in layer.state_dict().values())
        assert layer.codebook.shape == (layer.config.codebook_size, 4)
        assert out.indices.max() < layer.config.codebook_size


# Gradients where the formulas have no answer

CODE = torch.tensor([1.0, 2.0, -1.0, 0.5])
VECTORS = {
    "zero": 0 * CODE,
    "tiny": 1e-9 * CODE.flip(0),
    "antiparallel": -0.5 * CODE,
    "nearly antiparallel": -0.5 * CODE + 1e-7 * CODE.flip(0),
    "obtuse": torch.tensor([-2.0, 1.0, -1.0, 0.0]),
    "equal": CODE,
    "nearly equal": CODE * (1 + 1e-6),
    "large": 1e6 * CODE,
}


@pytest.mark.parametrize(("kind", "codebook"), [(kind, CODEBOOKS[i % 3]) for i, kind in enumerate(VECTORS)])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_finite_and_bounded(estimator: str, kind: str, codebook: str) -> None:
    """Others multiply the gradient by 3.5e6 where the encoder's output is tiny."""
    layer = VectorQuantizer(
        QuantizerConfig(codebook_size=2, dim=4, estimator=estimator, codebook=codebook, commitment_weight=0)
    )
    layer.codes.weight.data.copy_(torch.stack([CODE, 4 * CODE.roll(1)]))
    z, g = VECTORS[kind].repeat(5, 1).requires_grad_(), normal(5, 4, seed=1)
    out = layer(z)
    (out.quantized * g).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    # rotation: its largest rescaling, 10; Gumbel: twice the largest distance of two codes, squared, over 4
    most = max(10.0, 2 * float((CODE - 4 * CODE.roll(1)).square().sum()) / 4)
    assert (z.grad.norm(dim=-1) <= 1.001 * most * g.norm(dim=-1)).all()
    if estimator != "gumbel":
        assert out.indices.tolist() == [0] * 5


@every_layer
def test_gradients_are_finite_in_every_layer(name: str) -> None:
    layer = made(name)
    z = torch.stack([vector for kind, vector in VECTORS.items() if kind != "large"] * 2).requires_grad_()
    out = layer(z)
    ((out.quantized * normal(*z.shape, seed=1)).sum() + out.loss).backward()
    for gradient in (z.grad, *(parameter.grad for parameter in layer.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()


@every_codebook
def test_in_a_bf16_model_the_codes_stay_fp32_and_still_move(name: str) -> None:
    layer = made(name).bfloat16()
    assert {tensor.dtype for tensor in layer.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    train_step(layer, 0)
    before = state(layer)
    for seed in range(1, 4):
        train_step(layer, seed)
    assert not unchanged(layer, before)


@pytest.mark.gpu
@every_codebook
def test_on_a_gpu_a_training_step_never_waits_for_it(name: str) -> None:
    layer = made(name).cuda()
    z = normal(24, 4).cuda().requires_grad_()
    for _ in range(2):  # the first batch starts k-means++, which asks whether it has started
        out = layer(z)
        (out.quantized.sum() + out.loss).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = layer(z)
        (out.quantized.sum() + out.loss).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
