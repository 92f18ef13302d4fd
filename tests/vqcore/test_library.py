"""The layer as a part of others' programs: checkpointing, compiling, averaging, other default types, loaded codes."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from vqcore import FSQ, CodeHistogram, QuantizerConfig, VectorQuantizer, quantizer
from vqcore.nearest import as_indices

GRID = QuantizerConfig(layer="fsq", levels="5,4,3,8", estimator="ste", commitment_weight=0)
Loss = Callable[["Network", Tensor], Tensor]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer_of(**config: Any) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(QuantizerConfig(codebook_size=16, dim=4, **{"init": "normal", "decay": 0.8} | config))


class Network(nn.Module):
    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.quantizer = layer_of(**config)
        self.encoder, self.decoder = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        out = self.quantizer(self.encoder(x))
        loss: Tensor = (self.decoder(out.quantized) - x).square().mean() + out.loss
        return loss


# Gradient checkpointing


@pytest.fixture(params=[False, True], ids=["not reentrant", "reentrant"])
def checkpointed(request: pytest.FixtureRequest) -> Loss:
    return lambda network, x: checkpoint(network, x, use_reentrant=request.param)  # type: ignore[no-any-return]


def step(network: Network, loss: Loss, batches: range) -> list[Tensor]:
    """The gradients of one backward pass for all ``batches``."""
    torch.manual_seed(0)
    network.zero_grad()
    sum((loss(network, normal(40, 6, seed=n).requires_grad_()) for n in batches), torch.zeros(())).backward()
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    ("config", "batches"),
    [
        ({}, 1),
        ({}, 3),
        ({"codebook": "ema_debiased", "normalize": "cosine"}, 2),
        ({"estimator": "gumbel"}, 1),
        ({"revive_below": 0.5, "init": "kmeans++"}, 2),
        ({"codebook": "gradient"}, 3),
        ({"codebook": "gradient", "revive_below": 0.5}, 1),
        ({"codebook": "gradient", "affine": "statistics", "init": "kmeans++"}, 1),
    ],
    ids=str,
)
def test_a_checkpointed_layer_learns_once_and_has_the_gradients_of_a_plain_one(
    checkpointed: Loss, config: dict[str, Any], batches: int
) -> None:
    """The recomputation comes after the codes have moved; elsewhere it moves them again, and its gradient is theirs."""
    plain, other = Network(**config), Network(**config)
    for start in range(3):
        numbers = range(10 * start, 10 * start + batches)
        expected = step(plain, lambda network, x: network(x), numbers)  # type: ignore[no-any-return]
        for one, gradient in zip(step(other, checkpointed, numbers), expected, strict=True):
            torch.testing.assert_close(one, gradient, rtol=1e-6, atol=1e-7)
        for one, tensor in zip(other.state_dict().values(), plain.state_dict().values(), strict=True):
            assert torch.equal(one, tensor)


def test_checkpoints_inside_a_checkpoint(checkpointed: Loss) -> None:
    plain, other = Network(), Network()
    expected = step(plain, lambda network, x: network(x), range(1))  # type: ignore[no-any-return]
    found = step(other, lambda network, x: checkpoint(checkpointed, network, x, use_reentrant=False), range(1))  # type: ignore[no-any-return]
    assert all(map(torch.equal, found, expected))
    assert torch.equal(other.quantizer.codebook, plain.quantizer.codebook)


def test_what_cannot_be_recomputed_is_refused(checkpointed: Loss) -> None:
    network = Network(codebook="gradient", revive_below=0.9)
    with pytest.raises(RuntimeError, match=r"moved since the forward pass .* call backward"):
        step(network, checkpointed, range(2))


# torch.compile, torch.export, torch.jit


@pytest.mark.parametrize("config", [QuantizerConfig(codebook_size=16, dim=4), GRID], ids=["vq", "fsq"])
def test_an_exported_layer_takes_any_batch(config: QuantizerConfig) -> None:
    layer = quantizer(config).eval()
    free = {"z": {0: torch.export.Dim("batch")}}
    program = torch.export.export(layer, (normal(2, 4, 6, 6),), dynamic_shapes=free).module()
    for rows in (1, 3, 17):
        z = normal(rows, 4, 6, 6, seed=rows)
        assert torch.equal(program(z).indices, layer(z).indices)
        assert torch.equal(program(z).quantized, layer(z).quantized)


@pytest.mark.parametrize("config", [QuantizerConfig(codebook_size=16, dim=4), GRID], ids=["vq", "fsq"])
def test_tracing_ends_in_a_line_that_names_the_ways_out(config: QuantizerConfig) -> None:
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace .*torch\.export\.export or torch\.compile"):
        torch.jit.trace(quantizer(config).eval(), (normal(2, 4),))


# Averages of models, other default types, loaded codes


@pytest.mark.parametrize("init", ["uniform", "kmeans++"])
def test_an_averaged_model_averages_the_codes(init: str) -> None:
    layer = layer_of(init=init, revive_below=0.1)
    averaged, seen = AveragedModel(layer, use_buffers=True), []
    for seed in range(4):
        layer(5 + normal(64, 4, seed=seed))
        averaged.update_parameters(layer)
        seen.append(layer.codebook.clone())
    expected = torch.stack(seen).mean(0)
    torch.testing.assert_close(averaged.module.codebook, expected)
    averaged.module.train()(-5 + normal(64, 4))
    assert (averaged.module.codebook - expected).abs().median() < 5, "started again"


def test_an_averaged_grid_is_the_grid() -> None:
    layer = FSQ(GRID)
    averaged = AveragedModel(layer, use_buffers=True)
    for _ in range(3):
        averaged.update_parameters(layer)
    assert torch.equal(averaged.module(normal(50, 4)).quantized, layer(normal(50, 4)).quantized)


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "config",
    [
        {"init": "kmeans++", "revive_below": 0.5},
        {"codebook": "ema_debiased", "estimator": "gumbel"},
        {"codebook": "gradient", "affine": "statistics", "normalize": "cosine", "estimator": "reflection"},
        {"codebook": "gradient", "affine": "learned", "revive_below": 0.5},
    ],
    ids=str,
)
def test_the_codebook_is_fp32_whatever_the_default(default_dtype: torch.dtype, config: dict[str, Any]) -> None:
    layer = layer_of(**config)
    for seed in range(2):
        z = normal(64, 4, seed=seed).to(default_dtype).requires_grad_()
        out = layer(z)
        (out.quantized.sum() + out.loss).backward()
        assert out.quantized.dtype == default_dtype
        assert out.loss.dtype == torch.float32
    assert {tensor.dtype for tensor in layer.state_dict().values()} == {torch.float32}


def test_a_grid_is_fp32_whatever_the_default_and_its_model(default_dtype: torch.dtype) -> None:
    z, expected = 2 * normal(500, 4), FSQ(GRID).to(default_dtype)
    torch.set_default_dtype(torch.float32)
    assert expected.codebook.dtype == torch.float32
    assert torch.equal(expected(z.float()).quantized, FSQ(GRID)(z.float()).quantized)


def test_loaded_codes_count_as_started() -> None:
    trained, fresh = layer_of(init="uniform"), layer_of(init="kmeans++")
    trained(normal(64, 4))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.codebook, trained.codebook)
    fresh(50 + normal(64, 4))
    trained(50 + normal(64, 4))
    assert torch.equal(fresh.codebook, trained.codebook)
    layer_of(init="uniform").load_state_dict(fresh.state_dict())


def test_the_flag_of_earlier_versions_was_a_bool() -> None:
    for started in (False, True):
        layer, z = layer_of(init="kmeans++"), 50 + normal(64, 4)
        layer.load_state_dict(layer.state_dict() | {"codes.started": torch.tensor(started)})
        assert (layer(z).codebook_loss < 10) is not started


# Types of the arguments


@pytest.mark.parametrize("layer", [VectorQuantizer(QuantizerConfig(codebook_size=16, dim=4)), FSQ(GRID)], ids=type)
def test_an_input_of_integers_is_refused_and_indices_may_be_of_any_integer_type(layer: VectorQuantizer | FSQ) -> None:
    with pytest.raises(TypeError, match=r"torch\.int64.*\.float\(\)"):
        layer(torch.ones(3, 4, dtype=torch.int64))
    histogram, indices = CodeHistogram(16), torch.tensor([3, 0, 3])
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64):
        assert torch.equal(layer.decode(indices.to(dtype)), layer.decode(indices))
        histogram.update(indices.to(dtype))
    assert histogram.counts[:4].tolist() == [6, 0, 0, 12]
    assert (histogram.dead, histogram.bits_per_code > 0) == (14, True)


def test_indices_that_are_no_integers_are_refused() -> None:
    for indices in (torch.zeros(3), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(TypeError, match=r"are integers, .*\.long\(\)"):
            as_indices(indices)
