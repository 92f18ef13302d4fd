"""Whether the objectives trade off, in words: what the front is, how sure it is, and what a rate makes of it."""

from collections.abc import Callable, Sequence
from statistics import fmean

from analysis import fronts
from analysis.fronts import Point
from analysis.groups import Group
from analysis.objectives import DEFAULT
from analysis.rates import RATES
from analysis.results import Results
from analysis.uncertainty import settled

DOUBT = 0.05
"""A configuration is on the front, or off it, where the other has a smaller probability than this."""

_NAMED = 4


def names(groups: Sequence[Group], most: int = 8) -> str:
    """The labels, or the first ``most`` and how many more there are."""
    rest = len(groups) - most
    return "; ".join(group.label for group in groups[:most]) + (f"; and {rest} more" if rest > 0 else "")


def front_words(results: Results, listed: bool = True) -> str:
    """What the front of the means is, and whether there is a trade-off at all. There must be a group.

    Without ``listed``, how many are on the front, not which.
    """
    if len(results.groups) == 1:
        return "One configuration only: there is no front to speak of."
    first, second = results.objectives
    by = "By the means" if all(len(group.seeds) > 1 for group in results.front) else "By a single seed, so no claim"
    named, number = names(results.front), len(results.front)
    if not _one_point(results):
        which = f", {first.best} first: {named}" if listed else ""
        return f"{by}: a trade-off, {number} configurations are on the front{which}."
    best = f"best in both {first.name} and {second.name} is {named}{'' if number == 1 else ' (equal)'}"
    return f"{by}: {best}; the front is one point, no trade-off here."


def sure_words(results: Results) -> str | None:
    """Whether the front is settled; none where that is not known or there is nothing to settle."""
    if len(results.groups) == 1 or not results.repeated:
        return None
    if settled(results.on_front, DOUBT):
        said = "each configuration is on it or off it with a probability above 95 %"
        if single := sum(len(group.seeds) == 1 for group in results.front):
            return f"By the spread of the others {said}, but of those on the front {single} have one seed only."
        return f"The front is settled: {said}."
    known = zip(results.groups, results.on_front, strict=True)
    open_ones = sorted(((g, p) for g, p in known if DOUBT <= p <= 1 - DOUBT), key=lambda pair: -pair[1])
    said = "; ".join(f"{group.label} ({p:.2f})" for group, p in open_ones[:_NAMED])
    rest = f"; and {len(open_ones) - _NAMED} more" if len(open_ones) > _NAMED else ""
    are = "configurations" if len(open_ones) > 1 else "configuration"
    return f"The front is not settled: {len(open_ones)} {are} may be on it, with probability: {said}{rest}."


def rate_words(results: Results) -> str | None:
    """Where MSE and perplexity do not trade off: what MSE and rate do; none elsewhere."""
    if len(results.groups) == 1 or set(results.objectives) != set(DEFAULT) or not _one_point(results):
        return None
    told = [
        f"with {how} {_spanned(results, places)}"
        for how, places in RATES.items()
        if any(places(group, results) for group in results.groups)
    ]
    beside = "MSE against the rate of an image, beside it (figures/rate.png)"
    return f"{beside}: {'; '.join(told)}." if told else None


def _spanned(results: Results, places: Callable[[Group, Results], dict[int, Point]]) -> str:
    """How many are on the front of rate and MSE, and from where to where it goes."""
    known = [list(by_seed.values()) for group in results.groups if (by_seed := places(group, results))]
    means = [(fmean(x for x, _ in seeds), fmean(y for _, y in seeds)) for seeds in known]
    chosen = [means[i] for i in fronts.front(means)]
    (low, worst), (high, best) = chosen[0], chosen[-1]
    if len(set(chosen)) == 1:
        return f"no trade-off either: the best is {best:.4f} at {low:.0f} bits"
    return f"{len(chosen)} configurations on the front, from {worst:.4f} at {low:.0f} bits to {best:.4f} at {high:.0f}"


def _one_point(results: Results) -> bool:
    first, second = results.columns
    return len({(group.mean(first), group.mean(second)) for group in results.front}) == 1
