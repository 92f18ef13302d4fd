"""The trials of one process that train as one model: each still a trial with its own checkpoints, metrics and end."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from trainables.job import Report, TrialJob
from trainables.trial import Trial
from vqcore.pack import Member, Pack, outcome
from vqcore.sizes import shape

Metrics = dict[str, float]


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
        self._packs: dict[tuple[Any, ...], Pack] = {}

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

    def step(self, keys: Iterable[str] | None = None) -> dict[str, Report | Exception]:
        """A step of each of those trials, or of all: its report, or its error. Those that have ended are gone then."""
        trials = {key: self._trials[key] for key in (self._trials if keys is None else keys)}
        packed = [trial for trial in trials.values() if isinstance(trial, PackedTrial)]
        errors = self._train([trial for trial in packed if trial.wants_epoch])
        found: dict[str, Report | Exception] = {}
        for key, trial in trials.items():
            report = outcome(trial.step) if key not in errors else errors[key]
            found[key] = report
            if isinstance(report, Exception) or report.status != "running":
                self.leave(key)
        return found

    def _train(self, trials: list[PackedTrial]) -> dict[str, Exception]:
        """An epoch of each trial, of those with one shape together; errors from before it, by the trials' keys."""
        groups: dict[tuple[Any, ...], list[PackedTrial]] = {}
        errors: dict[str, Exception] = {}
        for trial in trials:
            begun = outcome(trial.begin)
            if isinstance(begun, Exception):
                errors[trial.job.key] = begun
            else:
                groups.setdefault((trial.job.data.hash, shape(trial.member.config)), []).append(trial)
        self._packs = {of: self._packs.get(of, Pack()) for of in groups}
        for of, group in groups.items():
            failure = outcome(partial(_train_together, self._packs[of], group))
            if isinstance(failure, Exception):  # of all: no memory, damaged images
                errors |= {trial.job.key: failure for trial in group}
        return errors


def _train_together(pack: Pack, trials: list[PackedTrial]) -> None:
    """Train and evaluate an epoch of each trial, and leave what came of it with the trial."""
    started = time.perf_counter()
    train, test = trials[0].images()
    members = [trial.member for trial in trials]
    trained = pack.train_epoch(members, train)
    tested = pack.evaluate(members, test)
    seconds = time.perf_counter() - started
    for trial, one, other in zip(trials, trained, tested, strict=True):
        if isinstance(one, Exception):
            trial.ahead = one
        else:
            trial.ahead = other if isinstance(other, Exception) else (one, other, seconds)
