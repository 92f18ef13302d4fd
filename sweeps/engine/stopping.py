"""Early stopping as a sweep is given it: a rule, which starts afresh for the trials of one run.

Rules are plain values. What they start is imported then, since it needs libraries that ``--help`` need not wait for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from analysis.objectives import Objective
from vqcore.config import ConfigError, Scalar


class EarlyStopping(Protocol):
    """Which trials wait at rungs, and which of them goes on."""

    def add(self, key: str, config: Mapping[str, Scalar]) -> None:
        """Take note of a trial that may begin."""

    def next_rung(self, epoch: int) -> int:
        """The epoch up to which a trial with ``epoch`` epochs trains: a rung's, or the last."""

    def on_result(self, key: str, config: Mapping[str, Scalar], epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of a trial's metrics after ``epoch``; whether it now waits at a rung."""

    def choose(self, draw: Callable[[], str | None], spare: bool) -> str | None:
        """The trial that gets a slot, which ``draw`` may give; asking changes nothing else.

        ``spare``: whether epochs are left to be spent, so that trials go on that it would stop.
        """

    def promote(self, key: str) -> None:
        """Let a trial begin, or go on from the rung at which it waits."""

    def drop(self, key: str) -> None:
        """Let a trial go no further: it has ended. What it reached still counts."""

    def waits(self, key: str) -> bool:
        """Whether a trial waits at a rung."""

    def reason(self, key: str) -> str:
        """Where a waiting trial stands, in words: why it was stopped, if it goes no further."""


class Rule(Protocol):
    """How a sweep stops trials early."""

    @property
    def name(self) -> str:
        """The rule and its parameters, in a few words."""

    def start(self, max_epochs: int) -> EarlyStopping:
        """For the trials of one run, of so many epochs each."""

    def plan(self, trials: int, max_epochs: int) -> str:
        """How many of so many trials are trained until when, in words."""

    def expected_epochs(self, trials: int, max_epochs: int) -> int:
        """The epochs of all trials, as far as they can be told."""


LEAST_TRIALS = 12
"""Fewer are not stopped: those that forecasts are learnt from would be most of them."""

USUAL_SHARE = 0.68
"""Of the epochs: what freeze-thaw search trained of recorded grids (``python -m benchmarks.early_stopping``)."""


@dataclass(frozen=True)
class FreezeThaw:
    """Stop what is improbable to end in the part that matters; ``sweeps/engine/freeze_thaw.py``."""

    objectives: tuple[Objective, ...]
    """One or two."""
    group_by: str | None = "codebook_size"
    """A field of the configuration: each of its values has a front of its own. None has one of all trials."""
    chance: float = 0.05
    """A trial is stopped when it is less probable than this to end on the front, or with the best of one objective."""

    def __post_init__(self) -> None:
        problems = objectives_problems(self.objectives)
        if not 0 < self.chance < 1:
            problems.append(f"stop_chance = {self.chance:g}: must be between 0 and 1; 0.05 is usual")
        if problems:
            raise ConfigError(problems)

    @property
    def name(self) -> str:
        """The rule and its parameters, in a few words."""
        return f"freeze-thaw, below a chance of {self.chance:g}, by {self.group_by or 'all'}"

    def start(self, max_epochs: int) -> EarlyStopping:
        """For the trials of one run, of so many epochs each."""
        from sweeps.engine.freeze_thaw import FreezeThawSearch

        return FreezeThawSearch(self.objectives, max_epochs, self.chance, self.group_by)

    def plan(self, trials: int, max_epochs: int) -> str:
        """How many of so many trials are trained until when, in words."""
        from analysis.forecast import LEAST_FITTED
        from sweeps.engine.freeze_thaw import AUDITED

        return f"the first {LEAST_FITTED} and 1 in {AUDITED} in full, the others while it is worth it"

    def expected_epochs(self, trials: int, max_epochs: int) -> int:
        """The epochs of all trials, as far as they can be told."""
        return max(trials, round(trials * max_epochs * USUAL_SHARE))


def objectives_problems(aims: tuple[Objective, ...]) -> list[str]:
    """What is wrong with the objectives of a rule."""
    if 1 <= len(aims) <= 2:
        return []
    return [f"objectives = {' '.join(map(str, aims))}: early stopping takes one or two"]
