"""Two classifiers of frozen features: a linear probe and the nearest neighbours. Their settings are chosen on a part of
the training images; the test images decide nothing.

Neither copies the features: of 50,000 images with 4,096 each they take 800 MB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DECAYS = (10.0, 1.0, 1e-1, 1e-2, 1e-3)
"""Weight decays of the linear probe that are tried."""
ITERATIONS = 60
"""Of L-BFGS, at most; the weaker decays need not have converged by then."""
NEIGHBOURS = (1, 3, 5, 10, 20, 50)
"""Numbers of neighbours that are tried."""
_SCORES = 2**24
"""Distances held at once: 64 MiB."""


@dataclass(frozen=True)
class Features:
    """What a classifier sees of the images, and their classes. About the training images' mean fp32 has its digits."""

    train: Tensor
    """(N, F) fp32, in random order; the last ``validation`` rows choose the settings."""
    train_labels: Tensor
    """(N,) int64."""
    test: Tensor
    """(M, F) fp32."""
    test_labels: Tensor
    """(M,) int64."""
    validation: int
    classes: int


@dataclass(frozen=True)
class Accuracy:
    """Share of the test images that a classifier puts into their class."""

    test: float
    low: float
    """Lower end of the Wilson interval at 95 %, over the test images."""
    high: float
    validation: float | None = None
    """Of the validation part, with the setting that was best there; None if nothing was chosen."""
    setting: float | None = None
    """The weight decay, or the number of neighbours, that was chosen."""


def wilson(correct: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of Wilson (1927) for a share of ``count`` independent draws; ``z`` standard deviations wide."""
    share = correct / count
    centre = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (centre - half) / (1 + z**2 / count), (centre + half) / (1 + z**2 / count)


def majority(train_labels: Tensor, test_labels: Tensor) -> Accuracy:
    """Every test image into the commonest class of the training images: what needs no features at all."""
    return _accuracy(test_labels == torch.bincount(train_labels).argmax())


def linear_probe(features: Features) -> Accuracy:
    """Multinomial logistic regression on standardised features, by L-BFGS over all images at once.

    The weight decay λ of λ/2·‖W‖² beside the mean cross-entropy is the best of ``DECAYS`` on the validation part; the
    probe is then fitted to all training images.
    """
    fit = len(features.train) - features.validation
    scale = _scale(features.train)

    def correct(decay: float, rows: int, test: Tensor, labels: Tensor) -> Tensor:
        weight, bias = _logistic(features.train[:rows], features.train_labels[:rows], features.classes, decay, scale)
        return (test @ weight + bias).argmax(-1) == labels

    held, held_labels = features.train[fit:], features.train_labels[fit:]
    validation = [float(correct(decay, fit, held, held_labels).float().mean()) for decay in DECAYS]
    best = max(range(len(DECAYS)), key=validation.__getitem__)
    final = correct(DECAYS[best], len(features.train), features.test, features.test_labels)
    return _accuracy(final, validation[best], DECAYS[best])


def nearest_neighbours(features: Features) -> Accuracy:
    """The commonest class among the k nearest training images in Euclidean distance, of the features as they are.

    Not standardised: this is the distance in which the quantizer itself compares. Equal votes go to the class whose
    neighbours are nearer. k is the best of ``NEIGHBOURS`` on the validation part.
    """
    fit = len(features.train) - features.validation
    counts = [count for count in NEIGHBOURS if count <= fit]
    votes = _votes(features, features.train[fit:], fit, counts)
    validation = [float((vote == features.train_labels[fit:]).float().mean()) for vote in votes]
    best = max(range(len(counts)), key=validation.__getitem__)
    (final,) = _votes(features, features.test, len(features.train), [counts[best]])
    return _accuracy(final == features.test_labels, validation[best], counts[best])


def _accuracy(correct: Tensor, validation: float | None = None, setting: float | None = None) -> Accuracy:
    count = int(correct.sum())
    low, high = wilson(count, len(correct))
    return Accuracy(count / len(correct), low, high, validation, setting)


def _scale(train: Tensor) -> Tensor:
    """(F, 1): standard deviation of each feature; infinity, which leaves it out, if that is rounding alone."""
    deviation = train.std(0, correction=0)
    return deviation.masked_fill(deviation <= 1e-7 * deviation.max(), math.inf).unsqueeze(1)


def _logistic(train: Tensor, labels: Tensor, classes: int, decay: float, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (F, C) and bias (C,), of the features as they are: dividing by their scale is folded into the weight."""
    weight = train.new_zeros(train.shape[1], classes, requires_grad=True)
    bias = train.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(train @ (weight / scale) + bias, labels) + decay / 2 * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (weight / scale).detach(), bias.detach()


def _votes(features: Features, queries: Tensor, rows: int, counts: Sequence[int]) -> list[Tensor]:
    """The class of each query by its nearest of the first ``rows`` training images, for each number of neighbours."""
    train, labels = features.train[:rows], features.train_labels[:rows]
    half_norm = 0.5 * torch.cat([part.square().sum(-1) for part in torch.split(train, 4096)])
    votes: list[list[Tensor]] = [[] for _ in counts]
    # a hair less for each nearer one, less than a vote in all: equal votes go to the class of the nearer
    worth = 1 - 1e-4 * torch.arange(max(counts), device=train.device).unsqueeze(1)
    for block in torch.split(queries, max(1, _SCORES // rows)):
        # order of ½‖q − x‖² = ½‖q‖² + (½‖x‖² − q·x), whose first term is the same for every x
        score = torch.addmm(half_norm, block, train.T, alpha=-1)
        near = labels[score.topk(max(counts), largest=False).indices]
        polls = (F.one_hot(near, features.classes) * worth).cumsum(1)
        for vote, count in zip(votes, counts, strict=True):
            vote.append(polls[:, count - 1].argmax(-1))
    return [torch.cat(vote) for vote in votes]
