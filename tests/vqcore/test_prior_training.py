"""Training of a prior: it learns what there is to learn, chooses by held-out codes, and goes on to the last bit."""

from typing import Any

import numpy as np
import pytest
import torch

from vqcore.prior import Kind, PriorConfig
from vqcore.prior_training import CodeSet, PriorTrainer, PriorTraining, counted, ends, learned_bits, split

K = 16


def chained(count: int, seed: int, labels: bool = False) -> CodeSet:
    """Grids of 4 x 4 in which each code is the one before it plus 0 or 1, so that 15 of 16 cost one bit; the first is
    any, or of labelled images one of four."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(4, size=count)
    first = 4 * kinds + rng.integers(4, size=count)
    steps = rng.integers(2, size=(count, 15))
    codes = (np.concatenate([first[:, None], steps], 1).cumsum(1) % K).astype(np.uint8).reshape(-1, 4, 4)
    return CodeSet(codes, kinds if labels else None)


def trainer(kind: Kind = "causal", labels: bool = False, **training: Any) -> tuple[PriorTrainer, CodeSet, CodeSet]:
    train, validation = split(chained(1500, 0, labels))
    config = PriorConfig(kind, K, 4, 4, 4 if labels else 0, width=32, layers=2, heads=2, dropout=0)
    usual = {"epochs": 6, "batch_size": 32, "learning_rate": 3e-3, "precision": "fp32"}
    return PriorTrainer(config, PriorTraining(**{**usual, **training}), counted(train.codes, K)), train, validation


def test_what_can_be_learned_is_and_no_more() -> None:
    """15 bits and the 4 of the first code; counting alone gives 64."""
    made, train, validation = trainer()
    while not ends(made.bits, made.training):
        metrics = made.train_epoch(train, validation)
    made.take_best()
    test = chained(1000, 1)
    assert 19 - 0.2 < float(made.evaluate(test).mean()) < 19 + 1.5
    assert metrics["validation_bits"] == pytest.approx(float(made.evaluate(validation).mean()))
    assert float(trainer("unigram")[0].evaluate(test).mean()) == pytest.approx(64, abs=0.5)


def test_a_class_that_is_known_costs_nothing() -> None:
    """Two bits less: of the first code only four are left."""
    made, train, validation = trainer(labels=True)
    while not ends(made.bits, made.training):
        made.train_epoch(train, validation)
    assert float(made.evaluate(chained(1000, 1, labels=True)).mean()) == pytest.approx(17, abs=1.2)


def test_a_masked_prior_learns_too() -> None:
    made, train, validation = trainer("masked", epochs=4)
    first = made.train_epoch(train, validation)["validation_bits"]
    while not ends(made.bits, made.training):
        made.train_epoch(train, validation)
    assert min(made.bits) < first < 64


@pytest.mark.parametrize("kind", ["causal", "masked", "unigram"])
def test_a_resumed_training_is_the_same_to_the_last_bit(kind: Kind) -> None:
    torch.manual_seed(0)
    straight, train, validation = trainer(kind, epochs=3)
    for _ in range(2):
        straight.train_epoch(train, validation)
    state = {name: tensor.clone() for name, tensor in straight.state().items()}
    straight.train_epoch(train, validation)
    resumed = trainer(kind, epochs=3)[0]
    resumed.load_state(state)
    resumed.train_epoch(train, validation)
    assert resumed.bits == straight.bits
    assert all(torch.equal(tensor, straight.state()[name]) for name, tensor in resumed.state().items())


def test_the_best_epoch_is_kept_when_later_ones_are_worse() -> None:
    """Trained on ten grids, it soon knows them by heart."""
    train, validation = chained(10, 0), chained(300, 1)
    config = PriorConfig("causal", K, 4, 4, width=32, layers=2, heads=2, dropout=0)
    usual = PriorTraining(epochs=100, batch_size=5, learning_rate=1e-2, patience=3, precision="fp32")
    made = PriorTrainer(config, usual, counted(train.codes, K))
    while not ends(made.bits, usual):
        made.train_epoch(train, validation)
    assert made.epoch < 100
    assert made.bits[-1] > min(made.bits)
    made.take_best()
    assert float(made.evaluate(validation).mean()) == pytest.approx(min(made.bits))


@pytest.mark.parametrize(
    ("bits", "ended"),
    [([], False), ([9.0], False), ([9.0, 8.0, 8.5], False), ([9.0, 8.0, 8.5, 8.0], True), ([5.0] * 3, True)],
)
def test_a_training_ends_when_held_out_bits_fall_no_more(bits: list[float], ended: bool) -> None:
    assert ends(bits, PriorTraining(epochs=10, patience=2)) is ended


def test_held_out_codes_are_trained_on_by_nobody_and_the_same_for_all() -> None:
    codes = np.arange(400, dtype=np.uint16).reshape(100, 2, 2)
    train, held = split(CodeSet(codes))
    assert (len(train.codes), len(held.codes)) == (90, 10)
    assert sorted([*train.codes.ravel(), *held.codes.ravel()]) == list(range(400))
    assert np.array_equal(split(CodeSet(codes.copy()))[1].codes, held.codes)


def test_a_trials_learned_rate_beats_counting_and_touches_no_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcore.prior_training.SMALL_VISITS", 4000)
    train, test = chained(800, 0).codes, chained(300, 1).codes
    before = torch.get_rng_state()
    bits = learned_bits(train, test, K, seed=0, device=torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert 19 - 0.5 < bits < 40
    assert learned_bits(train, test, K, seed=0, device=torch.device("cpu")) == bits
