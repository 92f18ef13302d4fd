"""The bits that the codes of an image take, against its MSE."""

import math
from statistics import median

from analysis.fronts import Point
from analysis.results import Group


def entropy_coded(group: Group) -> dict[int, Point]:
    """Rate and MSE of each seed, the rate being ``bits``: those of an ideal entropy coder for an image."""
    return group.points("bits", "mse")


def fixed_length(group: Group) -> dict[int, Point]:
    """Rate and MSE of each seed, the rate being codes an image times log2 K; empty where that is unknown."""
    # bits = codes * log2(perplexity), which says nothing where one code does all
    codes = [bits / math.log2(used) for bits, used in group.points("bits", "perplexity").values() if used > 1.001]
    size = group.config.get("codebook_size")
    if not codes or size is None:
        return {}
    return {seed: (round(median(codes)) * math.log2(size), mse) for seed, mse in group.by_seed("mse").items()}
