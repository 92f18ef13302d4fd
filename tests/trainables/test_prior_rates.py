"""Rates of codes under priors, and how close samples are to images."""

import math

import numpy as np
import pytest
import torch

from trainables.fidelity import fidelity
from trainables.generated import sample_codes
from trainables.rates import learned_name, measure, metric_name, rate_lines
from vqcore.prior import Kind, PriorConfig, make_prior
from vqcore.prior_training import CodeSet, PriorTrainer, PriorTraining, counted


def measured(train: np.ndarray, test: np.ndarray, k: int, kind: str = "causal") -> dict[str, dict[str, float]]:
    config = PriorConfig(kind, k, *train.shape[1:], width=16, layers=1, heads=2)  # type: ignore[arg-type]
    trainer = PriorTrainer(config, PriorTraining(precision="fp32"), counted(train, k))
    found = measure(trainer, CodeSet(test), dimensions=48)
    return {row["prior"].split(",")[0]: row for row in found["rates"]} | {"all": found}


def test_codes_used_alike_cost_log2_k() -> None:
    codes = np.arange(8, dtype=np.uint8).reshape(1, 2, 4).repeat(50, 0)
    rates = measured(codes, codes, 8)
    for name in ("uniform", "unigram entropy of the test codes", "unigram code of the training codes"):
        assert rates[name]["bits"] == pytest.approx(24)
        assert rates[name]["bits_per_dimension"] == pytest.approx(0.5)


def test_counts_of_the_training_codes_cost_more_than_the_tests_own() -> None:
    """Half and half in the test set, three to one in training; a code that training never had costs what is finite."""
    train = np.array([0, 0, 0, 1] * 25, np.uint8).reshape(25, 2, 2)
    test = np.array([0, 1, 0, 1] * 25, np.uint8).reshape(25, 2, 2)
    rates = measured(train, test, 2)
    assert rates["unigram entropy of the test codes"]["bits"] == pytest.approx(4)
    expected = -2 * (math.log2(76 / 102) + math.log2(26 / 102))
    assert rates["unigram code of the training codes"]["bits"] == pytest.approx(expected)
    assert math.isfinite(measured(train, test + 1, 3)["unigram code of the training codes"]["bits"])


def test_the_saving_has_an_interval_of_pairs() -> None:
    """Before training a causal prior codes as the unigram does: some per cent, with an interval around it."""
    rng = np.random.default_rng(0)
    train, test = (rng.integers(4, size=(count, 4, 4)).astype(np.uint8) for count in (400, 300))
    found = measured(train, test, 4)["all"]
    assert found["percent_low"] < found["percent_under_entropy"] < found["percent_high"]
    assert abs(found["percent_under_entropy"]) < 5
    assert found["percent_high"] - found["percent_low"] < 1
    assert "percent_under_entropy" not in measured(train, test, 4, "unigram")["all"]


def test_codes_of_a_collapsed_codebook_cost_nothing_that_could_be_saved() -> None:
    codes = np.zeros((5, 2, 2), np.uint8)
    found = measured(codes, codes, 2)["all"]
    assert found["rates"][1]["bits"] == 0
    assert "percent_under_entropy" not in found


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_mlflow_takes_the_names_of_the_rates(kind: Kind) -> None:
    names = {metric_name(learned_name(kind, classes)) for classes in (0, 10)}
    assert names == {f"bits_{kind}_prior", f"bits_{kind}_prior_given_the_class"}
    assert metric_name("uniform, log2 K") == "bits_uniform"


def test_the_screen_has_a_line_for_each_rate() -> None:
    codes = np.arange(8, dtype=np.uint8).reshape(1, 2, 4).repeat(5, 0)
    lines = rate_lines(measured(codes, codes, 8)["all"]["rates"])
    assert len(lines) == 4
    assert "24.00 bits an image" in lines[0]


def test_the_same_distribution_is_precise_and_covers() -> None:
    generator = torch.Generator().manual_seed(0)
    real, same = torch.randn(400, 4, generator=generator), torch.randn(400, 4, generator=generator)
    alike = fidelity(real, same)
    assert min(alike) > 0.6
    narrow = fidelity(real, 0.1 * same)  # probable ones alone
    assert narrow.precision > 0.9
    assert max(narrow.recall, narrow.coverage) < 0.2
    far = fidelity(real, same + 100)
    assert far == (0, 0, 0)


def test_outliers_raise_recall_and_not_coverage() -> None:
    generator = torch.Generator().manual_seed(0)
    real, wide = torch.randn(400, 4, generator=generator), 8 * torch.randn(400, 4, generator=generator)
    found = fidelity(real, wide)
    assert found.recall > 0.5 > 0.2 > found.coverage


def test_a_handful_of_images_is_no_set() -> None:
    with pytest.raises(ValueError, match="more than 3 of each are needed"):
        fidelity(torch.zeros(3, 2), torch.zeros(9, 2))


def test_many_samples_begin_with_the_priors_own_repeat_none_and_share_none_with_the_next_seed() -> None:
    made = make_prior(PriorConfig("unigram", 64, 4, 4))
    one, other = (sample_codes(made, 600, seed=seed) for seed in (0, 1))
    assert torch.equal(one[:256], made.sample(256, seed=0))
    rows = [{tuple(codes.flatten().tolist()) for codes in drawn} for drawn in (one, other)]
    assert len(rows[0]) == 600
    assert not rows[0] & rows[1]
