"""The layer inside torch.compile without graph breaks: the same numbers."""

import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import torch
from layers import grid_of, layer_of, normal

from vqcore import VQVAE, ModelConfig, QuantizerConfig
from vqcore.quantizers import quantizer


@pytest.fixture(scope="module")
def plain() -> Iterator[ProcessPoolExecutor]:
    """A process in which nothing checks the shapes as functions are called: the compiler does not see through that."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


def assert_the_same(config: dict[str, Any], backend: str) -> None:
    """Three training steps, eager and compiled; runs in the plain process."""
    torch.set_num_threads(1)
    torch.compiler.reset()
    layer, compiled_layer = layer_of(32, **config), layer_of(32, **config)
    compiled = torch.compile(compiled_layer, fullgraph=True, backend=backend)
    for step in range(3):
        z, g = normal(2, 4, 6, 6, seed=step), normal(2, 4, 6, 6, seed=step + 10)
        one, other = z.clone().requires_grad_(), z.clone().requires_grad_()
        eager, out = layer(one), compiled(other)
        assert torch.equal(out.indices, eager.indices)
        for name in ("quantized", "commitment_loss", "codebook_loss", "loss"):
            torch.testing.assert_close(getattr(out, name), getattr(eager, name), rtol=1e-5, atol=1e-6)
        for result in (eager, out):
            ((result.quantized * g).sum() + result.loss).backward()
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)
        for (name, mine), theirs in zip(layer.state_dict().items(), compiled_layer.state_dict().values(), strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-5, msg=name)
        for mine, theirs in zip(layer.parameters(), compiled_layer.parameters(), strict=True):
            torch.testing.assert_close(theirs.grad, mine.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"estimator": "ste"},
        {"estimator": "rotation"},
        {"estimator": "ste", "codebook": "gradient"},
        {"estimator": "rotation", "codebook": "gradient", "nu": 0.5},
        {"estimator": "reflection", "codebook": "ema_debiased", "normalize": "cosine"},
        {"estimator": "rotation_unscaled", "codebook": "gradient", "affine": "statistics"},
    ],
    ids=lambda config: ", ".join(map(str, config.values())),
)
def test_a_training_step_in_one_graph(plain: ProcessPoolExecutor, config: dict[str, Any]) -> None:
    plain.submit(assert_the_same, config, "aot_eager").result()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++")
def test_a_training_step_in_compiled_code(plain: ProcessPoolExecutor) -> None:
    plain.submit(assert_the_same, {"estimator": "rotation"}, "inductor").result()


def graphs(config: QuantizerConfig, dynamic: bool | None) -> int:
    """How many graphs batches of 2 to 15 need; runs in the plain process."""
    torch.compiler.reset()
    made: list[object] = []

    def backend(graph: Any, inputs: object) -> Any:
        made.append(graph)
        return graph

    compiled = torch.compile(quantizer(config), fullgraph=True, dynamic=dynamic, backend=backend)
    for rows in range(2, 16):
        z = normal(rows, 4, 6, 6).requires_grad_()
        out = compiled(z)
        (out.quantized.sum() + out.loss).backward()
    return len(made)


@pytest.mark.slow
@pytest.mark.parametrize(("dynamic", "count"), [(True, 1), (None, 2)])
@pytest.mark.parametrize(
    "config",
    [
        QuantizerConfig(codebook_size=32, dim=4),
        QuantizerConfig(codebook_size=32, dim=4, codebook="gradient", nu=0.5, revive_below=0.1),
        grid_of("5,4,3,8").config,
    ],
    ids=["ema", "gradient", "fsq"],
)
def test_one_graph_for_all_batches(
    plain: ProcessPoolExecutor, config: QuantizerConfig, dynamic: bool | None, count: int
) -> None:
    """Without ``dynamic`` the compiler makes one of the first shape, and then the one for all."""
    assert plain.submit(graphs, config, dynamic).result() == count


def model_graphs() -> tuple[int, int]:
    """How many graphs encode and decode each need for batches of 1 to 9; runs in the plain process."""
    torch.set_num_threads(1)
    torch.compiler.reset()
    model = VQVAE(ModelConfig(8, 8, 4, 1, QuantizerConfig(codebook_size=16, dim=8))).eval()
    made: dict[str, list[object]] = {"encode": [], "decode": []}

    def compiled(name: str) -> Any:
        def backend(graph: Any, inputs: object) -> Any:
            made[name].append(graph)
            return graph

        return torch.compile(getattr(model, name), fullgraph=True, dynamic=True, backend=backend)

    encode, decode = compiled("encode"), compiled("decode")
    with torch.no_grad():
        for rows in range(1, 10):
            images = normal(rows, 3, 16, 16, seed=rows)
            assert torch.equal(encode(images), model.encode(images))
            assert torch.equal(decode(model.encode(images)), model.decode(model.encode(images)))
    return len(made["encode"]), len(made["decode"])


@pytest.mark.slow
def test_one_graph_for_all_batches_of_a_model_and_one_for_a_single_image(plain: ProcessPoolExecutor) -> None:
    """The compiler takes a size of one as fixed."""
    assert plain.submit(model_graphs).result() == (2, 2)
