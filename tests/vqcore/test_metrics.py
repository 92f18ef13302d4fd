"""Whole-set metrics against their definitions."""

import math

import pytest
import torch

from vqcore import CodeHistogram
from vqcore.psnr import psnr


def test_perplexity_usage_and_bits_by_hand() -> None:
    histogram = CodeHistogram(4)
    histogram.update(torch.tensor([0, 0, 1, 2]))
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert histogram.perplexity == pytest.approx(math.exp(entropy))
    assert histogram.usage == 0.75
    assert histogram.bits(64) == pytest.approx(1.5 * 64) == pytest.approx(64 * math.log2(histogram.perplexity))


def test_uniform_use_reaches_the_codebook_size_and_one_code_is_one() -> None:
    uniform, single = CodeHistogram(1024), CodeHistogram(1024)
    uniform.update(torch.arange(1024).repeat(3).view(3, 32, 32))
    single.update(torch.full((7,), 5))
    assert uniform.perplexity == pytest.approx(1024)
    assert uniform.usage == 1
    assert uniform.bits(1) == pytest.approx(10)
    assert single.perplexity == 1
    assert str(single.bits(64)) == "0.0", "not -0.0"
    assert single.usage == 1 / 1024


def test_a_unigram_code_by_hand() -> None:
    """Of counts 2 1 1 0, under 5 0 1 0 with one more each: 6 1 2 1 of 10."""
    seen, known = CodeHistogram(4), CodeHistogram(4)
    seen.update(torch.tensor([0, 0, 1, 2]))
    known.update(torch.tensor([0] * 5 + [2]))
    bits = -(2 * math.log2(0.6) + math.log2(0.1) + math.log2(0.2)) / 4
    assert seen.unigram_bits(known, 64) == pytest.approx(64 * bits)
    assert seen.unigram_bits(known, 64) > seen.bits(64), "other frequencies cost more than one's own"


def test_a_code_that_was_never_seen_costs_finite_bits() -> None:
    seen, known = CodeHistogram(1024), CodeHistogram(1024)
    seen.update(torch.full((7,), 5))
    assert seen.unigram_bits(known, 1) == pytest.approx(10), "nothing known: log2 K"
    known.update(torch.full((10**6,), 3))
    assert seen.unigram_bits(known, 1) == pytest.approx(math.log2(10**6 + 1024))
    assert known.unigram_bits(known, 1) < 0.002
    assert CodeHistogram(1024).unigram_bits(known, 64) == 0, "of no code"


def test_uniform_codes_cost_log2_k_under_every_code_that_knows_it() -> None:
    uniform = CodeHistogram(32)
    uniform.update(torch.arange(32).repeat(5))
    assert uniform.bits(64) == pytest.approx(320) == pytest.approx(uniform.unigram_bits(uniform, 64))


def test_before_anything_is_counted() -> None:
    assert (CodeHistogram(8).perplexity, CodeHistogram(8).usage, CodeHistogram(8).bits(64)) == (1, 0, 0)


def test_a_set_in_pieces_is_the_set() -> None:
    """Averaged over batches, uniform use of 1,024 codes would read 584."""
    indices = torch.randint(0, 1024, (40, 1024), generator=torch.Generator().manual_seed(0))
    whole, streamed, shard = CodeHistogram(1024), CodeHistogram(1024), CodeHistogram(1024)
    whole.update(indices)
    for batch in indices[:30]:
        streamed.update(batch)
    shard.update(indices[30:])
    streamed.merge(shard)
    assert streamed.perplexity == whole.perplexity > 1000
    assert torch.equal(streamed.counts, whole.counts)
    assert int(whole.counts.sum()) == 40 * 1024


def test_psnr() -> None:
    assert psnr(0.0097) == pytest.approx(26.15, abs=0.01)
    assert psnr(0.0) == math.inf
