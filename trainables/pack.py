"""The trials of one process that train as one model: each still a trial with its own checkpoints, metrics and end."""

import logging
import math
import time
from collections.abc import Container
from typing import Any, Self

import torch

from trainables.job import Report, TrialJob
from trainables.trial import Trial
from vqcore.pack import Member, Pack, outcome
from vqcore.sizes import shape

Metrics = dict[str, float]

logger = logging.getLogger(__name__)


class PackedTrial(Trial):
    """A trial whose next epoch may have been trained together with others'."""

    ahead: tuple[Metrics, Metrics, float] | Exception | None = None
    """That epoch's metrics, of the training and the test set, and its seconds; or why it cannot go on."""

    def make_trainer(self, precision: Any = None) -> Member:
        """The model and its training."""
        config = self.job.config if precision is None else self.job.config.replace(precision=precision)
        return Member(config, self.device)

    @property
    def member(self) -> Member:
        """The trainer, as its pack takes it."""
        assert isinstance(self.trainer, Member)
        return self.trainer

    @property
    def shape(self) -> tuple[Any, ...]:
        """What is equal in trials that train as one. A checkpoint names its precision, where a new trial says auto."""
        return self.job.data.hash, shape(self.member.config.replace(precision=self.member.precision))

    def reopened(self) -> Self:
        """The trial as its checkpoint has it; raises what opening it raises."""
        return self.open(self.job, self._recorded)

    def train_epoch(self) -> Metrics:
        """As the pack has trained it; alone if it has not."""
        ahead, self.ahead = self.ahead, None
        if ahead is None:
            return super().train_epoch()
        if isinstance(ahead, Exception):
            raise ahead
        trained, tested, seconds = ahead
        return {**self.metrics(trained, tested), "seconds": round(seconds, 3)}


class TrialGroup:
    """Trials by their keys, which take their steps together. What befalls one is its own result."""

    def __init__(self, kind: type[Trial] = PackedTrial) -> None:
        """Of trials of this ``kind``: packed ones train together, others one after another."""
        self._kind = kind
        self._trials: dict[str, Trial] = {}
        self._packs: dict[tuple[tuple[Any, ...], int], Pack] = {}
        """By the shape, and the place of their first member among those of that shape."""
        self._most: dict[tuple[Any, ...], int] = {}
        """Of a shape, how many fit into memory as one, where not all did."""

    def __contains__(self, key: str) -> bool:
        return key in self._trials

    def __len__(self) -> int:
        return len(self._trials)

    def open(self, job: TrialJob, recorded: int) -> None:
        """Let a trial take part, as its newest whole checkpoint left it. Raises what opening it raises."""
        self._trials[job.key] = self._kind.open(job, recorded)

    def leave(self, key: str) -> None:
        """Let a trial go, if it is there; its checkpoint is written."""
        self._trials.pop(key, None)

    def step(self, keys: Container[str] | None = None) -> dict[str, Report | Exception]:
        """A step of each of those trials, or of all: its report, or its error. Those that have ended are gone then."""
        # in their own order: a pack of the same members in another one would be made anew
        stepping = [key for key in self._trials if keys is None or key in keys]
        self._train([trial for key in stepping if isinstance(trial := self._trials[key], PackedTrial)])
        found: dict[str, Report | Exception] = {}
        for key in stepping:
            found[key] = report = outcome(self._trials[key].step)
            if isinstance(report, Exception) or report.status != "running":
                self.leave(key)
        return found

    def _train(self, trials: list[PackedTrial]) -> None:
        """An epoch of each trial that wants one, of those with one shape together."""
        groups: dict[tuple[Any, ...], list[PackedTrial]] = {}
        for trial in trials:
            if trial.wants_epoch and not isinstance(outcome(trial.begin), Exception):  # which its step will raise
                groups.setdefault(trial.shape, []).append(trial)
        self._packs = {(of, at): pack for (of, at), pack in self._packs.items() if at < len(groups.get(of, ()))}
        for of, group in groups.items():
            self._train_parts(of, group)

    def _train_parts(self, of: tuple[Any, ...], group: list[PackedTrial]) -> None:
        """An epoch of trials of one shape, of as many together as the memory was found to hold."""
        most = self._most.get(of, len(group))
        for at in range(0, len(group), most):
            part = group[at : at + most]
            if _train_together(self._packs.setdefault((of, at), Pack()), part):
                continue
            self._most[of] = fewer = math.ceil(len(part) / 2)
            logger.warning("%d models as one do not fit into memory: %d from now on", len(part), fewer)
            self._packs = {place: pack for place, pack in self._packs.items() if place[0] != of}
            again = [whole for trial in part if (whole := self._reopened(trial)) is not None]
            self._train_parts(of, again + group[at + most :])
            return

    def _reopened(self, trial: PackedTrial) -> PackedTrial | None:
        """A trial that broke off within an epoch, as its checkpoint has it; None if that cannot be opened."""
        try:
            again = self._trials[trial.job.key] = trial.reopened()
        except Exception as error:
            trial.ahead = error
            return None
        return again


def _train_together(pack: Pack, trials: list[PackedTrial]) -> bool:
    """Train and evaluate an epoch of each trial, and leave what came of it with the trial.

    False if they do not fit into memory together: they are in the middle of an epoch then.
    """
    started = time.perf_counter()
    members = [trial.member for trial in trials]
    try:
        train, test = trials[0].images()
        trained = pack.train_epoch(members, train)
        tested = pack.evaluate(members, test)
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) and len(trials) > 1:
            return False
        trained = tested = [error] * len(trials)  # of all, such as damaged images
    seconds = time.perf_counter() - started
    for trial, one, other in zip(trials, trained, tested, strict=True):
        if isinstance(one, Exception):
            trial.ahead = one
        else:
            trial.ahead = other if isinstance(other, Exception) else (one, other, seconds)
    return True
