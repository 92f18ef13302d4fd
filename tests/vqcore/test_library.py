"""The layer as a part of others' programs: checkpointing, compiling, averaging, other default types, loaded codes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from layers import grid_of, layer_of, normal, state, unchanged
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from vqcore import FSQ, CodeHistogram, VectorQuantizer
from vqcore.nearest import as_indices

GRID = "5,4,3,8"
either_layer = pytest.mark.parametrize("layer", [layer_of(), grid_of(GRID)], ids=["vq", "fsq"])


# Gradient checkpointing


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("config", [{}, {"revive_below": 0.5}, {"affine": "statistics"}], ids=str)
def test_a_checkpointed_layer_is_refused_where_its_codes_move(config: dict[str, Any], reentrant: bool) -> None:
    """Its second run would look up other codes, and move them again."""
    layer = layer_of(codebook="gradient" if config else "ema", **config)
    before = state(layer)
    with pytest.raises(RuntimeError, match=r"leave it out of the checkpointed part, freeze\(\) it, or take"):
        checkpoint(layer, normal(40, 4).requires_grad_(), use_reentrant=reentrant)
    assert unchanged(layer, before)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("config", [{"codebook": "gradient"}, {"estimator": "gumbel"}, {}], ids=str)
def test_a_checkpointed_layer_whose_codes_stay_has_the_gradients_of_a_plain_one(
    config: dict[str, Any], reentrant: bool
) -> None:
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        layer, z = layer_of(**config), normal(40, 4).requires_grad_()
        layer.freeze(config != {"codebook": "gradient"})

        def loss(z: Tensor, layer: VectorQuantizer = layer) -> Tensor:
            out = layer(z)
            return out.quantized.square().sum() + out.loss

        (checkpoint(loss, z, use_reentrant=reentrant) if checkpointed else loss(z)).backward()
        assert z.grad is not None
        gradients.append([z.grad, *(parameter.grad for parameter in layer.parameters() if parameter.requires_grad)])
    assert all(map(torch.equal, *gradients))


# torch.export, torch.jit


@either_layer
def test_an_exported_layer_takes_any_batch(layer: VectorQuantizer | FSQ) -> None:
    free = {"z": {0: torch.export.Dim("batch")}}
    program = torch.export.export(layer.eval(), (normal(2, 4, 6, 6),), dynamic_shapes=free).module()
    for rows in (1, 3, 17):
        z = normal(rows, 4, 6, 6, seed=rows)
        assert torch.equal(program(z).indices, layer(z).indices)
        assert torch.equal(program(z).quantized, layer(z).quantized)


@either_layer
def test_an_exported_layer_needs_torchs_operators_alone(layer: VectorQuantizer | FSQ) -> None:
    """Or the file loads only where this package is."""
    program = torch.export.export(layer.eval(), (normal(2, 4, 6, 6),))
    used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "vqcore" not in " ".join(used)


@either_layer
def test_tracing_ends_in_a_line_that_names_the_ways_out(layer: VectorQuantizer | FSQ) -> None:
    with pytest.raises(RuntimeError, match=r"torch\.jit\.trace .*torch\.export\.export or torch\.compile"):
        torch.jit.trace(layer.eval(), (normal(2, 4),))


# Averages of models, other default types, loaded codes


@pytest.mark.parametrize("init", ["uniform", "kmeans++"])
def test_an_averaged_model_averages_the_codes(init: str) -> None:
    layer = layer_of(init=init, revive_below=0.1, decay=0.8)
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
    layer = grid_of(GRID)
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
    z, expected = 2 * normal(500, 4), grid_of(GRID).to(default_dtype)
    torch.set_default_dtype(torch.float32)
    assert expected.codebook.dtype == torch.float32
    assert torch.equal(expected(z.float()).quantized, grid_of(GRID)(z.float()).quantized)


def test_loaded_codes_count_as_started() -> None:
    trained, fresh = layer_of(init="uniform"), layer_of(init="kmeans++")
    trained(normal(64, 4))
    fresh.load_state_dict(trained.state_dict())
    for _ in range(2):
        assert torch.equal(fresh.codebook, trained.codebook)
        fresh(50 + normal(64, 4))
        trained(50 + normal(64, 4))
    layer_of(init="uniform").load_state_dict(fresh.state_dict())


def test_the_flag_of_earlier_versions_was_a_bool() -> None:
    for started in (False, True):
        layer, z = layer_of(init="kmeans++"), 50 + normal(64, 4)
        layer.load_state_dict(layer.state_dict() | {"codes.started": torch.tensor(started)})
        assert (layer(z).codebook_loss < 10) is not started


# Types of the arguments


@either_layer
def test_an_input_of_integers_is_refused_and_indices_may_be_of_any_integer_type(layer: VectorQuantizer | FSQ) -> None:
    with pytest.raises(TypeError, match=r"torch\.int64.*\.float\(\)"):
        layer(torch.ones(3, 4, dtype=torch.int64))
    histogram, indices = CodeHistogram(16), torch.tensor([3, 0, 3])
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64):
        assert torch.equal(layer.decode(indices.to(dtype)), layer.decode(indices))
        histogram.update(indices.to(dtype))
    assert histogram.counts[:4].tolist() == [6, 0, 0, 12]
    assert (histogram.dead, histogram.bits_per_code > 0) == (14, True)
    for wrong in (torch.zeros(3), torch.zeros(3, dtype=torch.bool)):
        with pytest.raises(TypeError, match=r"are integers, .*\.long\(\)"):
            as_indices(wrong)
