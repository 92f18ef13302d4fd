"""Priors over grids of codes: normalised, causal, and sampled as they say."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqcore import ConfigError
from vqcore.prior import (
    UNKNOWN,
    Causal,
    InOrder,
    Kind,
    Masked,
    Prior,
    PriorConfig,
    load_prior,
    make_prior,
    save_prior,
)
from vqcore.prior.drawing import draw

KINDS: tuple[Kind, ...] = ("causal", "masked", "unigram")


def prior(kind: Kind = "causal", k: int = 3, rows: int = 2, columns: int = 2, classes: int = 0) -> Prior:
    """With weights that are not small, so that what should differ does."""
    made = make_prior(PriorConfig(kind, k, rows, columns, classes, width=16, layers=2, heads=2), seed=1)
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.add_(0.3 * noise)
    made.counts.copy_(torch.arange(k))
    return made.eval()


def all_grids(k: int, rows: int, columns: int) -> Tensor:
    return torch.tensor([*itertools.product(range(k), repeat=rows * columns)]).view(-1, rows, columns)


def labelled(made: Prior, count: int) -> Tensor | None:
    return torch.arange(count) % made.config.classes if made.config.classes else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [0, 2])
def test_the_probabilities_of_all_grids_sum_to_one(kind: Kind, classes: int) -> None:
    made, grids = prior(kind, classes=classes), all_grids(3, 2, 2)
    labels = torch.ones(len(grids), dtype=torch.int64) if classes else None
    with torch.no_grad():
        total = torch.exp2(-made.bits(grids, labels)).sum()
    assert float(total) == pytest.approx(1, abs=1e-6)


def test_a_code_changes_no_logits_but_those_after_it() -> None:
    made = prior(k=7, rows=3, columns=3)
    assert isinstance(made, Causal)
    codes = torch.randint(7, (4, 3, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = made(codes)
        for position in range(9):
            changed = codes.clone().flatten(1)
            changed[:, position] = (changed[:, position] + 1) % 7
            after = made(changed.view_as(codes))
            assert torch.equal(after[:, : position + 1], before[:, : position + 1])
            assert position == 8 or not torch.allclose(after[:, position + 1], before[:, position + 1])


def test_a_masked_prior_sees_both_sides_and_nothing_that_is_hidden() -> None:
    made = prior("masked", k=7, rows=3, columns=3)
    assert isinstance(made, Masked)
    codes = torch.randint(7, (4, 3, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        codes[:, 1, 1] = 7
        seen = made(codes)[:, 4]
        for place in ((0, 0), (2, 2)):
            changed = codes.clone()
            changed[:, place[0], place[1]] = (changed[:, place[0], place[1]] + 1) % 7
            assert not torch.allclose(made(changed)[:, 4], seen)


def test_steps_give_the_logits_of_teacher_forcing() -> None:
    made = prior(k=11, rows=3, columns=4, classes=2)
    assert isinstance(made, Causal)
    codes, labels = torch.randint(11, (5, 3, 4)), torch.arange(5) % 2
    steps = made.steps(5, labels)
    flat = codes.flatten(1)
    found = torch.stack([steps.logits(flat[:, n - 1] if n else None) for n in range(12)], 1)
    with torch.no_grad():
        torch.testing.assert_close(found, made(codes, labels), rtol=1e-5, atol=1e-5)


def uncached(made: Causal, count: int, seed: int) -> Tensor:
    """The sample, with the network run anew over the whole grid for each code."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.zeros(count, made.config.rows, made.config.columns, dtype=torch.int64)
    with torch.no_grad():
        for position in range(made.config.positions):
            codes.flatten(1)[:, position] = draw(made(codes)[:, position], 1.0, 0, generator)
    return codes


@pytest.mark.parametrize("seed", range(3))
def test_cached_sampling_equals_uncached_to_the_last_code(seed: int) -> None:
    made = prior(k=64, rows=8, columns=8)
    assert isinstance(made, Causal)
    assert torch.equal(made.sample(16, seed=seed), uncached(made, 16, seed))


@pytest.mark.parametrize("kind", ["causal", "unigram"])
def test_samples_come_as_often_as_the_prior_says(kind: Kind) -> None:
    """Pearson's chi-square over all 81 grids, its 80 degrees of freedom five standard deviations wide."""
    made, grids, count = prior(kind), all_grids(3, 2, 2), 20_000
    with torch.no_grad():
        expected = count * torch.exp2(-made.bits(grids))
    places = torch.tensor([27, 9, 3, 1])
    found = torch.bincount((made.sample(count, seed=3).flatten(1) * places).sum(1), minlength=81)
    assert float(((found - expected).square() / expected).sum()) < 80 + 5 * math.sqrt(160)


def test_a_masked_prior_of_one_position_samples_what_it_says() -> None:
    made = prior("masked", k=5, rows=1, columns=1)
    with torch.no_grad():
        shares = torch.exp2(-made.bits(torch.arange(5).view(5, 1, 1)))
    found = torch.bincount(made.sample(20_000, seed=1).flatten(), minlength=5) / 20_000
    torch.testing.assert_close(found.double(), shares, rtol=0, atol=0.015)


def test_one_pass_estimates_the_masked_bits_without_bias() -> None:
    """Over both orders of two positions the chain rule's mean is what the estimate is of."""
    made = prior("masked", k=4, rows=1, columns=2)
    assert isinstance(made, Masked)
    codes = torch.tensor([[[1, 3]]])
    with torch.no_grad():
        hidden = made(torch.tensor([[[4, 4]]])).log_softmax(-1)[0]
        second_given = made(torch.tensor([[[1, 4]]])).log_softmax(-1)[0, 1, 3]
        first_given = made(torch.tensor([[[4, 3]]])).log_softmax(-1)[0, 0, 1]
        orders = [hidden[0, 1] + second_given, hidden[1, 3] + first_given]
        mean = -sum(float(order) for order in orders) / 2 / math.log(2)
        estimates = made.estimated_bits(codes.expand(20_000, 1, 2), generator=torch.Generator().manual_seed(0))
    assert float(estimates.mean()) == pytest.approx(mean, rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_keeps_what_is_known_and_repeats_itself(kind: Kind) -> None:
    made = prior(kind, k=9, rows=4, columns=4)
    known = torch.full((6, 4, 4), UNKNOWN)
    known[:, :2] = torch.randint(9, (6, 2, 4))
    one, again, other = (made.sample(6, seed=seed, known=known) for seed in (0, 0, 1))
    assert torch.equal(one[:, :2], known[:, :2])
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert 0 <= int(one.min()) <= int(one.max()) < 9


def test_top_k_and_temperature_narrow_the_choice() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0]).expand(4000, 4)
    generator = torch.Generator().manual_seed(0)
    assert draw(logits, 1.0, 2, generator).unique().tolist() == [2, 3]
    shares = [float((draw(logits, t, 0, generator) == 3).double().mean()) for t in (0.5, 1.0, 2.0)]
    expected = [1 / sum(math.exp(-n / t) for n in range(4)) for t in (0.5, 1.0, 2.0)]
    assert shares == pytest.approx(expected, abs=0.03)
    with pytest.raises(ValueError, match="temperature 0"):
        draw(logits, 0.0, 0, generator)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_is_read_back_and_tells_what_it_is_not(kind: Kind, tmp_path: Path) -> None:
    made, path = prior(kind), tmp_path / "prior.safetensors"
    save_prior(made, path, {"model": {"hash": "0" * 16}})
    read = load_prior(path)
    with torch.no_grad():
        grids = all_grids(3, 2, 2)
        assert torch.equal(read.bits(grids), made.bits(grids))
    path.with_suffix(".toml").write_text("[prior]\ncodebook_size = 5\n")
    with pytest.raises(ConfigError, match="does not hold the prior that its TOML describes") as raised:
        load_prior(path)
    assert "\n" not in str(raised.value)  # torch has a line for each tensor
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ConfigError, match="does not hold the prior that its TOML describes"):
        load_prior(path)
    table = path.with_suffix(".toml")
    table.write_text(table.read_text().replace("rows = 2", "rows = 1024").replace("width = 16", f"width = {2**24}"))
    if kind != "unigram":
        with pytest.raises(ConfigError, match=r"does not hold the prior .* numbers, and it has"):
            load_prior(path)
    path.unlink()
    with pytest.raises(ConfigError, match="no such file; name the prior"):
        load_prior(path)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_another_grid_and_labels_nobody_asked_for_are_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match=r"codes of shape \(1, 3, 2\): this prior is over grids of \(2, 2\)"):
        prior(kind).bits(torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="this prior takes no labels"):
        prior(kind).bits(torch.zeros(1, 2, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="takes 1 labels of 2 classes"):
        prior(kind, classes=2).bits(torch.zeros(1, 2, 2, dtype=torch.int64))


def test_a_new_prior_starts_at_the_unigram_rate() -> None:
    """So that a learned rate is never worse than counting for want of training."""
    counts, codes = torch.tensor([900, 90, 9, 1]), torch.tensor([0] * 90 + [1] * 9 + [2]).view(25, 2, 2)
    made = {kind: make_prior(PriorConfig(kind, 4, 2, 2, width=16, heads=2)) for kind in KINDS}
    for one in made.values():
        one.count(counts)
    with torch.no_grad():
        bits = {kind: float(one.eval().bits(codes).mean()) for kind, one in made.items()}
    assert bits["causal"] == pytest.approx(bits["unigram"], rel=0.1)
    assert bits["masked"] == pytest.approx(bits["unigram"], rel=0.1)


def test_only_what_goes_in_order_has_steps() -> None:
    assert [isinstance(prior(kind), InOrder) for kind in KINDS] == [True, False, True]


def test_heads_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="heads = 3: must divide width = 16"):
        PriorConfig(width=16, heads=3)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_priors_are_equal_files_and_an_edited_toml_is_noticed(kind: Kind, tmp_path: Path) -> None:
    made, path, again = prior(kind), tmp_path / "prior.safetensors", tmp_path / "again.safetensors"
    for place in (path, again):
        save_prior(made, place)
    assert path.read_bytes() == again.read_bytes()
    toml = path.with_suffix(".toml")
    toml.write_text(toml.read_text().replace("heads = 2", "heads = 4"))  # which fits the same weights
    with pytest.raises(ConfigError, match=r'is not what the weights beside it were trained as, .*"heads": 2'):
        load_prior(path)
