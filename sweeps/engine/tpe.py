"""Where to try next: the tree-structured Parzen estimator of Bergstra et al. 2011, for one or two objectives.

Optuna's, as it is with several objectives: of the trials known a tenth counts as good, and of a field's candidates,
drawn from the density of the good ones, that one is chosen which the rest make least likely. Each field by itself, a
trial without it left out. The densities are Optuna's to the last digits; but Optuna ranks all trials anew for every
field and integrates in Python, and here a density is a few arrays: an eighth of the time (``benchmarks/sampler.py``).

Shapes: N trials, D fields; a point holds a share in [0, 1] for each field (``sweeps.engine.space``), ``IDLE`` where it
has no meaning.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.trial import TrialState

Array = NDArray[np.float64]

IDLE = -1.0
CANDIDATES = 24
"""Drawn for each field, as in Optuna."""


def good(state_N: Array, violation_N: Array, losses_N2: Array) -> NDArray[np.bool_]:
    """Which trials are the tenth to learn from: completed ones, then pruned ones, then those that miss bounds least.

    ``state_N`` holds ``TrialState``; those that run still are none. Losses count of completed trials alone.
    """
    completed_N, pruned_N = state_N == TrialState.COMPLETE, state_N == TrialState.PRUNED
    (completed,), (pruned,) = (np.nonzero(ended_N & (violation_N == 0)) for ended_N in (completed_N, pruned_N))
    (missed,) = np.nonzero((completed_N | pruned_N) & (violation_N > 0))
    count = math.ceil((len(completed) + len(pruned) + len(missed)) / 10)
    chosen = completed[best(losses_N2[completed], count)]
    ranked = np.concatenate([chosen, pruned, missed[np.argsort(violation_N[missed], kind="stable")]])
    good_N = np.zeros(len(state_N), dtype=bool)
    good_N[ranked[:count]] = True
    return good_N


def best(losses_N2: Array, count: int) -> list[int]:
    """Indices of the ``count`` best rows, less being better: front after front, the last one thinned out.

    What is kept of that one is chosen greedily for the area it dominates, as far as a tenth beyond its worst.
    """
    chosen: list[int] = []
    left = np.lexsort(losses_N2.T[::-1])
    while len(chosen) < min(count, len(losses_N2)):
        lowest = np.minimum.accumulate(losses_N2[left, 1])
        on_front = np.append(True, lowest[1:] < lowest[:-1])
        front, left = left[on_front], left[~on_front]
        wanted = count - len(chosen)
        chosen += front.tolist() if len(front) <= wanted else front[_spread(losses_N2[front], wanted)].tolist()
    return chosen


def _spread(front_N2: Array, count: int) -> list[int]:
    """Greedy choice of a sorted front's points by the hypervolume each adds (Guerreiro, Fonseca & Paquete 2016)."""
    worst_2 = front_N2.max(axis=0)
    first_N, second_N = front_N2.T
    # what each point would add is a rectangle, from itself to this corner
    right_N, top_N = np.tile(np.maximum(1.1 * worst_2, 0.9 * worst_2) + 1e-12, (len(front_N2), 1)).T.copy()
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(taken := int(np.argmax((right_N - first_N) * (top_N - second_N))))
        right_N[:taken] = np.minimum(right_N[:taken], first_N[taken])
        top_N[taken:] = np.minimum(top_N[taken:], second_N[taken])
        top_N[taken] = -np.inf
    return chosen


def propose(good_ND: Array, rest_ND: Array, words: Sequence[int], rng: np.random.Generator) -> list[float]:
    """A share for each field. ``words``: how many words a field chooses from, 0 where it is a number.

    Rows are in the order in which the trials began: of the rest, the 25 latest count in full and older ones less.
    """
    shares = []
    for field, count in enumerate(words):
        good_N, rest_N = (column[column != IDLE] for column in (good_ND[:, field], rest_ND[:, field]))
        likely, unlikely = _density(good_N, np.ones(len(good_N)), count), _density(rest_N, _fading(len(rest_N)), count)
        candidates_C = likely.draw(rng)
        shares.append(float(candidates_C[np.argmax(likely(candidates_C) / unlikely(candidates_C))]))
    return shares


class _Words:
    """Each word by how often it was seen, and some of every word."""

    def __init__(self, seen_N: Array, weight_N: Array, count: int) -> None:
        self.count, kernels = count, len(seen_N) + 1
        seen_K = np.bincount((seen_N * count).astype(int), weight_N, minlength=count)
        total = weight_N.sum()
        likely_K = (seen_K + total / kernels) / (1 + count / kernels) + 1 / count
        self.likely_K = likely_K / likely_K.sum()

    def draw(self, rng: np.random.Generator) -> Array:
        return (rng.choice(self.count, CANDIDATES, p=self.likely_K) + 0.5) / self.count

    def __call__(self, share_C: Array) -> Array:
        likely_C: Array = self.likely_K[(share_C * self.count).astype(int)]
        return likely_C


class _Numbers:
    """A Gaussian about each share seen, and a wide one about the middle, all cut off at 0 and 1."""

    def __init__(self, seen_N: Array, weight_N: Array) -> None:
        self.mean_N, self.width_N = np.append(seen_N, 0.5), np.append(_widths(seen_N), 1.0)
        self.weight_N = np.append(weight_N, 1.0) / (weight_N.sum() + 1.0)
        self.below_N = _normal(torch.special.ndtr, (0 - self.mean_N) / self.width_N)
        self.inside_N = _normal(torch.special.ndtr, (1 - self.mean_N) / self.width_N) - self.below_N

    def draw(self, rng: np.random.Generator) -> Array:
        kernel_C = rng.choice(len(self.mean_N), CANDIDATES, p=self.weight_N)
        area_C = self.below_N[kernel_C] + rng.random(CANDIDATES) * self.inside_N[kernel_C]
        share_C = self.mean_N[kernel_C] + self.width_N[kernel_C] * _normal(torch.special.ndtri, area_C)
        return np.clip(share_C, 0.0, 1.0)

    def __call__(self, share_C: Array) -> Array:
        height_N = self.weight_N / (math.sqrt(2 * math.pi) * self.width_N * self.inside_N)
        kernels_CN = np.subtract.outer(share_C, self.mean_N)
        kernels_CN /= self.width_N  # in place, here and below: most of the time goes into memory
        kernels_CN *= kernels_CN
        kernels_CN *= -0.5
        likely_C: Array = np.exp(kernels_CN, out=kernels_CN) @ height_N
        return likely_C


def _density(seen_N: Array, weight_N: Array, count: int) -> _Words | _Numbers:
    return _Words(seen_N, weight_N, count) if count else _Numbers(seen_N, weight_N)


def _fading(count: int) -> Array:
    """Weights of trials by age: forgetting what has long been left keeps the search from one corner."""
    return np.append(np.linspace(1 / count, 1.0, count - 25), np.ones(25)) if count > 25 else np.ones(count)


def _widths(seen_N: Array) -> Array:
    """Each kernel reaches to its farther neighbour; the outermost ones only inwards, not to 0 and 1."""
    order_N = np.argsort(seen_N, kind="stable")
    gap_N = np.diff(seen_N[order_N], prepend=0.0, append=1.0)
    wide_N = np.maximum(gap_N[:-1], gap_N[1:])
    if len(seen_N) > 1:
        wide_N[0], wide_N[-1] = gap_N[1], gap_N[-2]
    widths_N = np.empty_like(wide_N)
    widths_N[order_N] = np.clip(wide_N, 1 / min(100, len(seen_N) + 2), 1.0)
    return widths_N


def _normal(function: Callable[[torch.Tensor], torch.Tensor], values_N: Array) -> Array:
    """The normal distribution function or its inverse, of an array."""
    result: Array = function(torch.from_numpy(values_N)).numpy()
    return result
