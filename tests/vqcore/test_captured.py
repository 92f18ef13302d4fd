"""A step that may be a CUDA graph waits for no GPU; what cannot be one says so and trains all the same."""

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vqcore.captured import WARM_UP, CapturedStep
from vqcore.config import TrialConfig
from vqcore.estimators import _Quantize
from vqcore.registry import ESTIMATORS
from vqcore.training import Images, Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = TrialConfig().replace(
    channels=8, hidden_channels=12, residual_channels=4, residual_blocks=1, dim=6, codebook_size=16, batch_size=16,
    learning_rate=1e-3, decay=0.9, precision="fp32",
)  # fmt: skip
WAITS = {"item", "tolist", "numpy", "nonzero", "argwhere", "bincount", "masked_select", "unique", "cpu",
         "__float__", "__int__", "__bool__", "__index__"}  # fmt: skip
"""What makes the host wait for a GPU's tensor."""

Pictures = Callable[[int, int], np.ndarray]


class Pretended(TorchFunctionMode):
    """Every tensor says that it is on a GPU, so that the code takes that way; whatever would wait for one raises."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.is_cuda.__get__:
            return True
        by_mask = func in (Tensor.__getitem__, Tensor.__setitem__) and getattr(args[1], "dtype", None) == torch.bool
        assert getattr(func, "__name__", "") not in WAITS, f"{func.__name__} waits for the GPU"
        assert not by_mask, "an index by a mask waits for the GPU"
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("backward_too")
def test_a_wait_would_be_seen_in_the_backward_pass_too(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ESTIMATORS, "waits", waits)
    trainer = Trainer(CONFIG.replace(estimator="waits"))
    with Pretended(), pytest.raises(AssertionError, match="__float__ waits for the GPU"):
        trainer.step(Images(pictures(16, 0), CPU).batch(slice(None)))


def waits(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
    """An estimator of one's own, as one writes it without a thought of graphs."""
    return g_ND * float(g_ND.abs().max() > 0)


@pytest.fixture
def backward_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch leaves a mode for the backward pass."""
    unwatched = _Quantize.backward

    def watched(*args: Any) -> Any:
        with Pretended():
            return unwatched(*args)

    monkeypatch.setattr(_Quantize, "backward", staticmethod(watched))


STEPS: dict[str, dict[str, Any]] = {
    **{name: {"estimator": name} for name in sorted({*ESTIMATORS} - {"gumbel"})},
    "bf16": {"precision": "bf16"},
    "cosine": {"normalize": "cosine"},
    "averages from zero": {"codebook": "ema_debiased"},
    "revival": {"revive_below": 0.5},
    "a gradient codebook": {"codebook": "gradient", "revive_below": 0.5, "alternate": True, "nu": 0.1},
    "a learned map": {"codebook": "gradient", "affine": "learned"},
    "statistics": {"codebook": "gradient", "affine": "statistics"},
    "a grid": {"layer": "fsq", "levels": "5,4", "estimator": "ste", "commitment_weight": 0.0, "decay": 0.99},
}


@pytest.mark.usefixtures("backward_too")
@pytest.mark.parametrize("changes", STEPS.values(), ids=STEPS)
def test_a_step_never_waits_for_a_gpu_and_draws_nothing_on_the_host(
    changes: dict[str, Any], pictures: Pictures
) -> None:
    images, trainer = Images(pictures(40, 0), CPU), Trainer(CONFIG.replace(**changes))
    trainer.model.train()
    for index in (torch.arange(16), torch.arange(16, 32)):  # the first makes the optimiser's moments
        batch, random = images.batch(index), torch.get_rng_state()
        with Pretended():
            trainer.step(batch)
        if not changes.get("revive_below"):  # which draws where its vectors are, and here that is the host
            assert torch.equal(random, torch.get_rng_state())
    assert trainer.tally.metrics()["mse"] > 0


def test_gumbel_draws_on_the_host_and_is_no_graph(pictures: Pictures) -> None:
    images, trainer = Images(pictures(40, 0), CPU), Trainer(CONFIG.replace(estimator="gumbel"))
    trainer.model.train()
    random = torch.get_rng_state()
    trainer.step(images.batch(torch.arange(16)))
    assert not torch.equal(random, torch.get_rng_state())


def test_a_step_over_static_indices_is_the_step_and_a_refusal_is_said_once(
    pictures: Pictures, caplog: pytest.LogCaptureFixture
) -> None:
    images, straight, static = Images(pictures(100, 0), CPU), Trainer(CONFIG), Trainer(CONFIG)
    expected = straight.train_epoch(images)
    static.model.train()
    with caplog.at_level(logging.WARNING):
        step = CapturedStep(lambda index: static.step(images.batch(index)), torch.zeros(16, dtype=torch.int64))
        for index in static.batches(images):
            step(index)
    assert static.tally.metrics() == expected
    for name, tensor in straight.state().items():
        assert name == "epoch" or torch.equal(static.state()[name], tensor), name
    assert not step.recorded
    assert [record.message for record in caplog.records] == [
        "the training step is not run as a CUDA graph: there are none on the device 'cpu'"
    ]


# On a GPU


def trained(pictures: Pictures, graphed: bool, epochs: int = 3, **changes: Any) -> tuple[Trainer, dict[str, float]]:
    trainer, images = Trainer(CONFIG.replace(**changes), CUDA, graphed), Images(pictures(100, 0), CUDA)
    for _ in range(epochs):
        metrics = trainer.train_epoch(images)
    return trainer, metrics


@pytest.mark.gpu
@pytest.mark.parametrize("changes", STEPS.values(), ids=STEPS)
def test_a_graph_trains_as_the_step_does(changes: dict[str, Any], pictures: Pictures) -> None:
    """To a thousandth, bf16 to a hundredth: atomic additions round in another order each time."""
    graphed, found = trained(pictures, True, **changes)
    eager, expected = trained(pictures, False, **changes)
    assert graphed._captured is not None
    assert graphed._captured[1].recorded, graphed._captured[1].refused
    assert eager._captured is None
    assert found["mse"] == pytest.approx(expected["mse"], rel=0.01 if changes.get("precision") == "bf16" else 1e-3)
    assert graphed.state().keys() == eager.state().keys()
    assert graphed.state()["optimizer.0.step"] == eager.state()["optimizer.0.step"] == 3 * (100 // 16)


@pytest.mark.gpu
@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_a_state_goes_on_in_either_mode(before: bool, after: bool, pictures: Pictures) -> None:
    images = Images(pictures(100, 0), CUDA)
    first, _ = trained(pictures, before)
    kept = {name: tensor.clone() for name, tensor in first.state().items()}
    expected = first.train_epoch(images)["mse"]
    resumed, _ = trained(pictures, after, epochs=1)
    resumed.load_state(kept)  # also where a graph was recorded already
    assert resumed.train_epoch(images)["mse"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.gpu
def test_what_cannot_be_a_graph_trains_all_the_same(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(ESTIMATORS, "waits", waits)
    for name, reason in (("waits", "it waits for the GPU"), ("gumbel", "it draws random numbers on the host")):
        caplog.clear()
        trainer, metrics = trained(pictures, True, estimator=name)
        assert np.isfinite(metrics["mse"])
        assert [reason in record.message for record in caplog.records] == [True]
        assert trainer._captured is not None
        assert not trainer._captured[1].recorded


@pytest.mark.gpu
def test_a_failed_recording_leaves_the_step_as_it_is(pictures: Pictures) -> None:
    """What only a recording refuses: the synchronisation below is no operation that torch would have warned of."""
    total, calls = torch.zeros((), device=CUDA), []

    def step(index: Tensor) -> None:
        total.add_(index.sum())
        calls.append(index)
        if len(calls) > WARM_UP:
            torch.cuda.synchronize()

    index = torch.ones(4, dtype=torch.int64, device=CUDA)
    captured = CapturedStep(step, index)
    for _ in range(6):
        captured(index)
    assert captured.refused
    assert total.item() == 24


@pytest.mark.gpu
def test_a_trainer_that_is_let_go_leaves_no_memory(pictures: Pictures) -> None:
    trainer, _ = trained(pictures, True)
    alive = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert alive() is None
    finally:
        gc.enable()
