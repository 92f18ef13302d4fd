"""What the codes of an image cost under each prior, in bits an image and a dimension, on test images."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqcore.prior import Kind, PriorConfig, make_prior
from vqcore.prior_training import CodeSet, PriorTrainer

Bits = npt.NDArray[np.float64]
"""Of each test image."""

_Z = 1.96
"""Of a 95 % interval; a mean over hundreds of images is normal."""


@dataclass(frozen=True)
class Rate:
    """What an ideal entropy coder needs for an image, on average."""

    prior: str
    bits: float
    """An image."""
    low: float
    """End of the 95 % interval over images."""
    high: float
    bits_per_dimension: float
    """``bits`` over 3 x height x width of the image, the unit of likelihoods."""


def measure(trainer: PriorTrainer, test: CodeSet, dimensions: int) -> dict[str, Any]:
    """The content of ``rates.json``: the test codes under four priors, from the one that knows least to the learned.

    The unigram entropy is that of the test codes' own frequencies, which no decoder knows: the unigram code is what
    counting the training codes gives. ``dimensions``: numbers of an image.
    """
    config = trainer.prior.config
    own = torch.bincount(torch.from_numpy(test.codes.astype(np.int64)).flatten(), minlength=config.codebook_size)
    costs_K = -(own.double() / own.sum()).log2().numpy()
    entropy = costs_K[test.codes].reshape(len(test.codes), -1).sum(1)
    counts = make_prior(PriorConfig("unigram", config.codebook_size, config.rows, config.columns))
    counts.count(trainer.prior.counts.cpu())
    unigram = counts.bits(torch.from_numpy(test.codes.astype(np.int64))).numpy()
    rates = [
        _rate("uniform, log2 K", np.full(len(entropy), config.positions * math.log2(config.codebook_size)), dimensions),
        _rate("unigram entropy of the test codes", entropy, dimensions),
        _rate("unigram code of the training codes", unigram, dimensions),
    ]
    saved: dict[str, Any] = {}
    if config.kind != "unigram":
        learned = trainer.evaluate(test).numpy()
        rates.append(_rate(learned_name(config.kind, config.classes), learned, dimensions))
        saved = _under(learned, entropy) if entropy.any() else {}  # one code alone: there is nothing to be under
    return {
        "test_images": len(test.codes),
        "codes_an_image": config.positions,
        "dimensions_an_image": dimensions,
        **saved,
        "rates": [asdict(rate) for rate in rates],
    }


def learned_name(kind: Kind, classes: int) -> str:
    """Of a learned prior among the rates."""
    given = " given the class" if classes else ""
    return f"{kind} prior{given}" + (" (mean over all orders, estimated)" if kind == "masked" else "")


def metric_name(prior: str) -> str:
    """Of a rate in MLflow, which takes neither commas nor parentheses."""
    return "bits_" + re.split(r" \(|,", prior)[0].replace(" ", "_")


def rate_lines(rates: Sequence[dict[str, Any]]) -> list[str]:
    """The rates as aligned lines for the screen."""
    width = max(len(rate["prior"]) for rate in rates)
    return [
        f"{rate['prior']:<{width}}  {rate['bits']:7.2f} bits an image [{rate['low']:.2f}, {rate['high']:.2f}]"
        f"  {rate['bits_per_dimension']:.4f} a dimension"
        for rate in rates
    ]


def _rate(name: str, bits: Bits, dimensions: int) -> Rate:
    mean, half = float(bits.mean()), _half(bits)
    return Rate(name, mean, mean - half, mean + half, mean / dimensions)


def _under(learned: Bits, entropy: Bits) -> dict[str, float]:
    """How far the learned rate is under the unigram entropy, in per cent, with an interval from the images' pairs."""
    ratio = float(learned.mean() / entropy.mean())
    half = _half(learned - ratio * entropy) / float(entropy.mean())
    percent = [100 * (1 - value) for value in (ratio, ratio + half, ratio - half)]
    return dict(zip(("percent_under_entropy", "percent_low", "percent_high"), percent, strict=True))


def _half(bits: Bits) -> float:
    """Half the width of the mean's 95 % interval."""
    return float(_Z * bits.std(ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else math.inf
