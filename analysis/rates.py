"""The bits that the codes of an image take, against its MSE."""

import math
from statistics import median

from analysis.fronts import Point
from analysis.objectives import RATES
from analysis.results import Group, Results


def entropy_coded(group: Group) -> dict[int, Point]:
    """Rate and MSE of each seed, the rate being ``bits``: those of an ideal entropy coder for an image."""
    return group.points("bits", "mse")


def fixed_length(group: Group) -> dict[int, Point]:
    """Rate and MSE of each seed, the rate being codes an image times log2 K; empty where that is unknown."""
    if recorded := group.points("bits_uniform", "mse"):
        return recorded
    # of older runs: bits = codes * log2(perplexity), which says nothing where one code does all
    codes = [bits / math.log2(used) for bits, used in group.points("bits", "perplexity").values() if used > 1.001]
    size = group.config.get("codebook_size")
    if not codes or size is None:
        return {}
    return {seed: (round(median(codes)) * math.log2(size), mse) for seed, mse in group.by_seed("mse").items()}


def learned(group: Group) -> dict[int, Point]:
    """Rate and MSE of each seed, the rate being ``bits_learned``; empty where no prior was trained."""
    return group.points("bits_learned", "mse")


def has_learned(results: Results) -> bool:
    """Whether there are learned rates to compare: of two configurations or more."""
    return sum(bool(learned(group) or (group.screening and learned(group.screening))) for group in results.groups) > 1


def recorded_rates(results: Results) -> tuple[str, ...]:
    """The columns of those rates that any configuration has; older runs have ``bits`` alone."""
    shown = [group if group.trials else group.screening or group for group in results.groups]
    return tuple(column for column in RATES if any(group.by_seed(column) for group in shown))


def dimensions(results: Results) -> int | None:
    """Numbers an image consists of: three a pixel; None where its size is not recorded."""
    side = results.metadata("image_size")
    return 3 * side**2 if isinstance(side, int) and side > 0 else None
