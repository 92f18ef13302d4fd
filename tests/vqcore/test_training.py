"""An epoch, an evaluation, and a state from which the next epoch is the same to the last bit."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from layers import looked_up
from torch import Tensor

from vqcore.config import TrialConfig
from vqcore.errors import DivergedError
from vqcore.registry import ARCHITECTURES
from vqcore.sizes import parameters, state_bytes
from vqcore.training import Images, Trainer, resolve_precision
from vqcore.vqvae import parameter_count

CPU = torch.device("cpu")
CONFIG = TrialConfig().replace(
    channels=8, hidden_channels=12, residual_channels=4, residual_blocks=1, dim=6, codebook_size=16, batch_size=16,
    learning_rate=1e-3, decay=0.9, precision="fp32",
)  # fmt: skip

Pictures = Callable[[int, int], np.ndarray]


@pytest.fixture
def train(pictures: Pictures) -> Images:
    return Images(pictures(70, 0), CPU)


@pytest.fixture
def test(pictures: Pictures) -> Images:
    return Images(pictures(20, 1), CPU)


class Recorded(Images):
    """Images that remember the indices of every batch."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array, CPU)
        self.batches: list[list[int]] = []

    def batch(self, index: Tensor | slice) -> Tensor:
        self.batches.append(torch.arange(len(self))[index].tolist())
        return super().batch(index)


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.state().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


# Sizes

SIZES: dict[str, dict[str, Any]] = {
    "averages": {},
    "no projection": {"dim": 12, "residual_blocks": 2},
    "averages from zero": {"codebook": "ema_debiased", "init": "kmeans++", "revive_below": 0.1},
    "a gradient codebook": {"codebook": "gradient", "affine": "learned", "affine_groups": 4},
    "with statistics": {"codebook": "gradient", "affine": "statistics", "affine_groups": 4},
    "a grid": {"layer": "fsq", "levels": "5,4", "estimator": "ste", "commitment_weight": 0.0, "decay": 0.99},
    "a network that is made": {"architecture": "made"},
}


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES)
def test_sizes_follow_from_the_configuration(
    changes: dict[str, Any], train: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ARCHITECTURES, "made", replace(ARCHITECTURES["residual"], parameters=None))
    trainer = Trainer(CONFIG.replace(**changes), CPU)
    trainer.train_epoch(train)
    assert parameters(trainer.model.config) == parameter_count(trainer.model)
    numbers = sum(tensor.nbytes for name, tensor in trainer.state().items() if not name.startswith("generator"))
    assert numbers == pytest.approx(state_bytes(trainer.model.config), abs=200), "all but a few counts"


# Images


def test_bytes_become_minus_one_to_one_exactly_at_the_ends() -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 1, 3).transpose(2, 0, 1, 3)
    batch = Images(values, CPU).batch(slice(0, 1))
    assert batch.shape == (1, 3, 16, 16)
    assert batch.dtype == torch.float32
    flat = batch[0, 0].flatten()
    assert flat[0] == -1
    assert flat[255] == 1
    torch.testing.assert_close(flat.double(), torch.arange(256).double() * 2 / 255 - 1, rtol=0, atol=2e-7)


def test_batches_by_index_and_by_slice(pictures: Pictures) -> None:
    array = pictures(9, 0)
    images = Images(array, CPU)
    assert len(images) == 9
    expected = torch.from_numpy(array[[3, 1, 8]]).permute(0, 3, 1, 2).float() * 2 / 255 - 1
    torch.testing.assert_close(images.batch(torch.tensor([3, 1, 8])), expected)
    assert torch.equal(images.batch(slice(2, 4)), images.batch(torch.tensor([2, 3])))


# The order of the data


def test_every_configuration_with_one_seed_sees_the_same_batches(pictures: Pictures) -> None:
    seen = []
    for changes in (
        {},
        {"commitment_weight": 2.0},
        {"estimator": "ste", "decay": 0.5, "codebook_size": 64},
        {"seed": 1},
    ):
        images = Recorded(pictures(70, 0))
        trainer = Trainer(CONFIG.replace(**changes))
        trainer.train_epoch(images)
        trainer.train_epoch(images)
        seen.append(images.batches)
    assert seen[0] == seen[1] == seen[2] != seen[3]
    first, second = seen[0][:4], seen[0][4:]
    assert [len(batch) for batch in seen[0]] == [16] * 8
    assert len({row for batch in first for row in batch}) == 64, "an epoch shows a picture at most once"
    assert first != second


def test_a_batch_larger_than_the_set_is_the_set(pictures: Pictures) -> None:
    images = Recorded(pictures(5, 0))
    Trainer(CONFIG).train_epoch(images)
    assert [sorted(batch) for batch in images.batches] == [[0, 1, 2, 3, 4]]


# Training


@pytest.mark.parametrize("estimator", ["ste", "rotation"])
def test_training_lowers_the_error(train: Images, test: Images, estimator: str) -> None:
    trainer = Trainer(CONFIG.replace(learning_rate=5e-3, estimator=estimator))
    first = trainer.train_epoch(train)
    for _ in range(29):
        last = trainer.train_epoch(train)
    assert last["mse"] < 0.5 * first["mse"]
    assert trainer.evaluate(test)["mse"] < 0.6 * first["mse"]
    assert trainer.epoch == 30


def test_an_epoch_moves_weights_codes_and_nothing_else(train: Images) -> None:
    trainer, random = Trainer(CONFIG), torch.get_rng_state()
    before = state_of(trainer)
    trainer.train_epoch(train)
    after = state_of(trainer)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(before) - {"generator.cpu"}
    assert torch.equal(torch.get_rng_state(), random)


def test_evaluation_is_over_the_whole_set_and_changes_nothing(pictures: Pictures) -> None:
    """300 pictures, in two batches of unequal length; the means are over pictures, not over batches."""
    images, trainer = Images(pictures(300, 1), CPU), Trainer(CONFIG)
    trainer.train_epoch(images)
    before, random = state_of(trainer), torch.get_rng_state()
    metrics = trainer.evaluate(images)
    assert_equal(state_of(trainer), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert trainer.evaluate(images) == metrics

    with torch.no_grad():
        whole = images.batch(slice(0, 300))
        latents, out = trainer.model.encoder(whole), trainer.model(whole)
    assert metrics["mse"] == pytest.approx((out.reconstruction - whole).double().square().mean().item(), rel=1e-5)
    quantization = (latents - out.quantized.quantized).double().square().mean().item()
    assert metrics["codebook_loss"] == metrics["commitment_loss"] == pytest.approx(quantization, rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["mse"] + 0.25 * quantization, rel=1e-5)
    p = out.quantized.indices.flatten().bincount(minlength=16).double() / (300 * 16)
    entropy = -sum(float(x) * math.log(x) for x in p if x > 0)
    assert metrics["perplexity"] == pytest.approx(math.exp(entropy))
    assert metrics["usage"] == (p > 0).double().mean().item()
    assert metrics["bits"] == pytest.approx(16 * entropy / math.log(2))
    codes = trainer.codes(images)
    assert (codes == out.quantized.indices.numpy()).all()
    assert_equal(state_of(trainer), before)


def test_a_unigram_rate_is_of_the_codes_of_the_epoch_before(pictures: Pictures) -> None:
    """Test images of another kind cost more than their own entropy; without an epoch there is no such rate."""
    trainer, test = Trainer(CONFIG), Images(pictures(20, 1), CPU)
    assert "bits_unigram" not in trainer.evaluate(test)
    trainer.train_epoch(Images(np.zeros((70, 16, 16, 3), np.uint8), CPU))
    metrics = trainer.evaluate(test)
    assert metrics["bits"] < metrics["bits_unigram"] < 16 * math.log2(70 * 16 + 16)
    assert metrics["bits_uniform"] == 16 * 4
    trainer.load_state(state_of(trainer))
    assert "bits_unigram" not in trainer.evaluate(test), "the codes of that state's epoch are not known here"


@pytest.mark.parametrize("changes", [{}, {"codebook_weight": 0.7, "nu": 0.1}, {"alternate": True}])
def test_the_loss_of_a_gradient_codebook_is_the_objective(pictures: Pictures, changes: dict[str, float]) -> None:
    """The codebook's own loss is a part of it, with its weight."""
    images, trainer = Images(pictures(40, 1), CPU), Trainer(CONFIG.replace(codebook="gradient", **changes))
    metrics, whole = trainer.evaluate(images), images.batch(slice(0, 40))
    out = trainer.model(whole)
    objective = (out.reconstruction - whole).square().mean() + out.quantized.loss
    assert metrics["loss"] == pytest.approx(objective.item(), rel=1e-6)


@pytest.mark.parametrize("alternate", [False, True])
def test_the_optimiser_forgets_its_moments_of_a_revived_code(train: Images, alternate: bool) -> None:
    """Else the momentum of the dead carries the revived away from the data."""
    revival = {"codebook": "gradient", "revive_below": 0.5, "revive_share": 0.25, "decay": 0.5}
    one = Trainer(CONFIG.replace(alternate=alternate, **revival))
    one.train_epoch(train)
    codes = one.model.quantizer.codes
    moments = one.optimizers["codebook_optimizer" if alternate else "optimizer"].state[codes.weight]
    moments["exp_avg"].fill_(1000.0)
    moments["exp_avg_sq"].fill_(1e6)
    codes.ema_counts.copy_(torch.tensor([10.0] * 12 + [0.0] * 4))
    one.step(train.batch(torch.arange(8)))
    assert codes.revived.tolist() == [False] * 12 + [True] * 4
    assert (moments["exp_avg"][12:].abs() < 1).all()
    assert (moments["exp_avg"][:12].abs() > 800).all()


def test_alternated_steps_move_codes_on_their_loss_and_the_rest_on_the_tasks(train: Images) -> None:
    """First c ← Adam(∇‖sg z − c‖²) alone, then the rest, on latents quantized by the codes that have moved."""
    one, batch = Trainer(CONFIG.replace(codebook="gradient", alternate=True)), train.batch(torch.arange(8))
    model, weight = one.model.train(), one.model.quantizer.codes.weight
    before = weight.detach().clone()
    z_ND = model.encoder(batch).detach().movedim(1, -1).reshape(-1, 6).double()
    nearest_N = torch.cdist(z_ND, before.double()).argmin(-1)
    pull_ND = 2 * (before.double()[nearest_N] - z_ND) / z_ND.numel()
    gradient = torch.zeros(16, 6).double().index_add(0, nearest_N, pull_ND)
    with looked_up(model.quantizer) as seen:
        one.step(batch)
    step = -1e-3 * gradient / (gradient.abs() + 1e-8)  # Adam's first
    torch.testing.assert_close(weight.detach().double(), before.double() + step, rtol=1e-4, atol=1e-6)
    assert torch.equal(seen[0], before)
    assert torch.equal(seen[1], weight), "the task saw the codes of before"


def test_reconstructions_are_bytes_beside_their_originals(pictures: Pictures) -> None:
    array = pictures(20, 1)
    trainer = Trainer(CONFIG)
    trainer.train_epoch(Images(pictures(70, 0), CPU))
    pair = trainer.reconstruct(Images(array, CPU), 8)
    assert pair.shape == (2, 8, 16, 16, 3)
    assert pair.dtype == np.uint8
    assert np.array_equal(pair[0], array[:8])
    with torch.no_grad():
        exact = trainer.model(Images(array, CPU).batch(slice(0, 8))).reconstruction.permute(0, 2, 3, 1)
    assert np.abs(pair[1] - (exact.numpy() + 1) * 127.5).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("rate", [1e30, 1e4])
def test_a_loss_that_is_not_finite_is_named_with_its_step(train: Images, rate: float) -> None:
    trainer = Trainer(CONFIG.replace(learning_rate=rate, commitment_weight=1e6))
    with pytest.raises(DivergedError, match=r"(loss is (nan|inf)|are not finite .*) in epoch \d+, step \d+"):
        all(trainer.train_epoch(train) for _ in range(20))


# State


@pytest.mark.parametrize(
    "changes",
    [
        {"estimator": "ste"},
        {"precision": "bf16"},
        {"codebook": "gradient", "revive_below": 0.5, "alternate": True, "nu": 0.1},
        {"codebook": "gradient", "revive_below": 0.5, "init": "kmeans++", "affine": "statistics"},
        {"codebook": "gradient", "estimator": "gumbel", "affine": "learned", "precision": "bf16"},
    ],
    ids=str,
)
def test_a_trainer_from_a_state_goes_on_to_the_last_bit(train: Images, test: Images, changes: dict[str, Any]) -> None:
    straight = Trainer(CONFIG.replace(**changes))
    straight.train_epoch(train)
    kept = state_of(straight)
    floats = {tensor.dtype for name, tensor in kept.items() if not name.startswith("generator") and name != "epoch"}
    assert floats == {torch.float32}
    expected = [(straight.train_epoch(train), straight.evaluate(test)) for _ in range(2)]
    last = state_of(straight)
    resumed = Trainer(CONFIG.replace(**changes))
    loaded = {name: tensor.clone() for name, tensor in kept.items()}
    resumed.load_state(loaded)
    assert_equal(state_of(resumed), kept)
    assert resumed.epoch == 1
    assert [(resumed.train_epoch(train), resumed.evaluate(test)) for _ in range(2)] == expected
    assert_equal(state_of(resumed), last)
    assert_equal(loaded, kept)  # training does not write into what was loaded


def test_the_tensors_of_a_state_keep_their_names_and_a_fresh_one_is_complete(train: Images) -> None:
    """Checkpoints of earlier versions hold Adam's moments under these names; zero before the first step."""
    fresh = Trainer(CONFIG)
    state = state_of(fresh)
    names = {f"optimizer.{n}.{part}" for n in range(len(list(fresh.model.parameters())))
             for part in ("step", "exp_avg", "exp_avg_sq")}  # fmt: skip
    assert {name for name in state if name.startswith("optimizer.")} == names
    assert not any(state[name].any() for name in names)
    fresh.train_epoch(train)
    assert_equal({name: t.to(state[name].dtype) for name, t in fresh.state().items()}, state_of(fresh))
    assert state_of(fresh).keys() == state.keys()
    again = Trainer(CONFIG)
    again.load_state(state)
    again.train_epoch(train)
    assert_equal(state_of(again), state_of(fresh))


def test_the_state_of_another_model_is_refused(train: Images) -> None:
    trainer = Trainer(CONFIG)
    trainer.train_epoch(train)
    for other in (CONFIG.replace(dim=7), CONFIG.replace(residual_blocks=2)):
        with pytest.raises((KeyError, RuntimeError)):
            Trainer(other).load_state(trainer.state())


def test_auto_is_bf16_where_the_hardware_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    for instructions, meaning in (({}, "fp32"), ({"avx2": True, "avx512_bf16": False}, "fp32"),
                                  ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda instructions=instructions: instructions)
        assert resolve_precision("auto", CPU) == meaning


@pytest.mark.gpu
def test_on_a_gpu_an_epoch_comes_near_the_cpus(pictures: Pictures) -> None:
    cuda, array = torch.device("cuda"), pictures(70, 0)
    cpu_trainer, gpu_trainer = Trainer(CONFIG), Trainer(CONFIG, cuda)
    expected, found = cpu_trainer.train_epoch(Images(array, CPU)), gpu_trainer.train_epoch(Images(array, cuda))
    assert found["mse"] == pytest.approx(expected["mse"], rel=0.02)
    resumed = Trainer(CONFIG, cuda)
    resumed.load_state(gpu_trainer.state())
    assert resumed.evaluate(Images(array, cuda))["mse"] == pytest.approx(
        gpu_trainer.evaluate(Images(array, cuda))["mse"]
    )
    assert resolve_precision("auto", cuda) == "bf16"
