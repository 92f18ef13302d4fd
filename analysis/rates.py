"""What an image costs in bits: under an ideal entropy coder, and with codes of fixed length."""

import math
from statistics import median

from analysis.groups import Group
from analysis.results import Results

Place = tuple[float, float]
"""Rate in bits an image, MSE on [-1, 1]."""

_DOWNSAMPLING = 4
"""The encoder's: an image of n pixels a side has (n / 4)² codes."""


def entropy_coded(group: Group, results: Results) -> dict[int, Place]:
    """Rate and MSE of each seed, the rate being ``bits``: what an ideal entropy coder needs."""
    return group.points("bits", "mse")


def fixed_length(group: Group, results: Results) -> dict[int, Place]:
    """Rate and MSE of each seed, the rate being codes an image times log2 K; nothing where that is not known."""
    rate = _codes_per_image(group, results) * math.log2(group.config.get("codebook_size", math.nan))
    return {seed: (rate, mse) for seed, mse in group.by_seed("mse").items() if math.isfinite(rate)}


RATES = {"an ideal entropy coder": entropy_coded, "codes of fixed length": fixed_length}
"""Both, by what they are a rate with."""


def _codes_per_image(group: Group, results: Results) -> float:
    # bits = codes * log2(perplexity), which says nothing where one code does all
    told = [bits / math.log2(codes) for bits, codes in group.points("bits", "perplexity").values() if codes > 1.001]
    if told:
        return round(median(told))
    side = results.told("image_size")
    return (side // _DOWNSAMPLING) ** 2 if isinstance(side, int) else math.nan
