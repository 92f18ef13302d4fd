"""The ways to stop early that ``benchmarks.early_stopping`` compares, each with the parameters that users choose among.

Ours and Pareto-ASHA train at last what they stopped, so that all epochs are spent; a peer stays at what it found by its
own end.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from analysis.objectives import Objective
from benchmarks.curves import Scheduler
from benchmarks.early_stopping_grids import SPREAD, Question
from benchmarks.peer_stopping import InOrder, Stops, hyperband, median_stopping, moasha, ray_asha
from sweeps.engine.queue import TrialQueue
from sweeps.engine.scheduler import Halving
from sweeps.engine.stopping import FreezeThaw
from trainables.job import TrialJob

GRACES = {"1": 0.0, "epochs/10": 0.1, "epochs/4": 0.25}
"""Epochs before the first stop, as a share of a trial's, at least 1."""
USUAL_CHANCE = 0.05
SYNE_TUNE = "syne-tune"
RANDOM, OURS = "random", "freeze-thaw"

Jobs = Sequence[TrialJob]


class Build(Protocol):
    """A contender with its parameters. A value, so that what several questions ask for is replayed once."""

    def __call__(self, jobs: Jobs, slots: int) -> Scheduler:
        """To run these trials on so many slots."""


@dataclass(frozen=True)
class AtRandom:
    """Every trial to its full budget, in the order given."""

    def __call__(self, jobs: Jobs, slots: int) -> TrialQueue:
        return _queue(jobs, TrialQueue(slots))


@dataclass(frozen=True)
class Ours:
    """Our engine, as a sweep runs it."""

    question: Question
    chance: float = USUAL_CHANCE
    spends: bool = True
    """Whether the epochs of all trials are spent; else it ends when nothing is worth going on."""

    def __call__(self, jobs: Jobs, slots: int) -> TrialQueue:
        rule = FreezeThaw(self.question.objectives, self.question.group_by, self.chance)
        return _queue(jobs, TrialQueue(slots, rule.start(_epochs(jobs)), budget=_total(jobs) if self.spends else None))


@dataclass(frozen=True)
class ParetoAsha:
    """Our engine with ``--early-stopping asha``."""

    question: Question
    grace: float
    reduction: float

    def __call__(self, jobs: Jobs, slots: int) -> TrialQueue:
        grace = grace_epochs(self.grace, _epochs(jobs))
        rule = Halving(self.question.objectives, grace, self.reduction, self.question.group_by)
        return _queue(jobs, TrialQueue(slots, rule.start(_epochs(jobs)), budget=_total(jobs)))


@dataclass(frozen=True)
class Peer:
    """A peer's class, which ``starts`` makes anew."""

    starts: Callable[..., Stops]
    objectives: tuple[Objective, ...]
    grace: float = 0.0
    reduction: float | None = None
    """None where it has no such parameter."""

    def __call__(self, jobs: Jobs, slots: int) -> InOrder:
        epochs = _epochs(jobs)
        more = {} if self.reduction is None else {"reduction": self.reduction}
        return InOrder(jobs, self.starts(self.objectives, epochs, grace_epochs(self.grace, epochs), **more), slots)


def grace_epochs(share: float, epochs: int) -> int:
    return max(1, round(share * epochs))


def _epochs(jobs: Jobs) -> int:
    return jobs[0].config.training.epochs


def _total(jobs: Jobs) -> int:
    return sum(job.config.training.epochs for job in jobs)


def _queue(jobs: Jobs, queue: TrialQueue) -> TrialQueue:
    queue.add((job, 0) for job in jobs)
    return queue


Settings = Mapping[str, Build]
"""By their label: those that a contender's user chooses among."""


def contenders(question: Question) -> dict[str, Settings]:
    """All that can be run here, by name: without Syne Tune, what is left."""

    def settings(build: Callable[..., Build], *reductions: int) -> Settings:
        return {
            f"grace {grace}, reduction {reduction}": build(grace=share, reduction=reduction)
            for grace, share in GRACES.items()
            for reduction in reductions
        }

    mse = question.objectives[:1]
    both = question.objectives if len(question.objectives) > 1 else SPREAD
    found: dict[str, Settings] = {
        RANDOM: {"": AtRandom()},
        OURS: {f"chance {USUAL_CHANCE:g}": Ours(question)},
        "Pareto-ASHA": settings(partial(ParetoAsha, question), 2, 3),
        "Ray ASHA": settings(partial(Peer, ray_asha, mse), 2, 4),
        "Hyperband": {f"reduction {r}": Peer(hyperband, mse, reduction=r) for r in (3, 4)},
        "median stopping": {f"grace {g}": Peer(median_stopping, mse, share) for g, share in GRACES.items()},
    }
    if installed(SYNE_TUNE):
        found["Syne Tune MOASHA"] = settings(partial(Peer, moasha, both), 2, 3)
    return found


def installed(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None
