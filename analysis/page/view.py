"""What every figure of the page shares: the numbers of trials and configurations, and each estimator's look."""

from dataclasses import dataclass
from functools import cached_property

from analysis.objectives import Objective
from analysis.page.svg import Scale
from analysis.results import MOST, Group, Results, configuration
from analysis.snapshots import Counts, usage
from trainables.journal import TrialRecord
from vqcore.psnr import psnr

SHAPES = 7
"""Markers and colours that can be told apart; an eighth estimator begins again."""


@dataclass(frozen=True)
class View:
    """A run as the page shows it."""

    results: Results

    @cached_property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials; the position of one is its number on the page."""
        return self.results.trials

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of a trial by its key."""
        return {trial.key: number for number, trial in enumerate(self.trials)}

    @cached_property
    def group_numbers(self) -> dict[str, int]:
        """The number of a configuration by its label."""
        return {group.label: number for number, group in enumerate(self.results.groups)}

    @cached_property
    def group_of(self) -> dict[str, Group]:
        """The configuration of a compared trial, by the trial's key."""
        return {
            trial.key: group
            for group in self.results.groups
            for trial in (*group.trials, *filter(None, [group.screened]))
        }

    @cached_property
    def estimators(self) -> tuple[str, ...]:
        """The estimators of all trials, in the order in which they came."""
        return tuple(dict.fromkeys(str(trial.config.get("estimator", "")) for trial in self.trials))

    def shape(self, estimator: object) -> int:
        """The marker of an estimator."""
        return self.estimators.index(str(estimator)) % SHAPES

    def colour(self, estimator: object) -> str:
        """The class that colours an estimator's marks."""
        return f"e{self.shape(estimator)}"

    def label(self, trial: TrialRecord) -> str:
        """The trial's configuration by the fields that are swept."""
        return configuration(self.results, trial)

    @cached_property
    def problems(self) -> list[str]:
        """A sentence for each file that cannot be shown, filled as they are read."""
        return []

    @cached_property
    def used_codes(self) -> list[tuple[Group, Counts]]:
        """Of the front and other featured configurations the use of each code, of the first seed that has kept it."""
        groups = {group.label: group for group in (*self.results.front, *self.results.featured())}
        found = []
        for group in list(groups.values())[:MOST]:
            trials = (*group.trials, *filter(None, [group.screened]))
            counts = next(
                (counts for trial in trials if (counts := usage(self.results, trial, self.problems)) is not None), None
            )
            if counts is not None and counts.sum():
                found.append((group, counts))
        return found

    @property
    def estimator_legend(self) -> tuple[tuple[str, str], ...]:
        """The estimators' looks."""
        return tuple((f"mean {self.colour(name)}", name) for name in self.estimators)


def axis_label(objective: Objective) -> str:
    """An objective as the name of an axis: ``MSE on [-1, 1] (less is better)``."""
    better = "less" if objective.direction == "min" else "more"
    return f"{objective.name}{objective.metric.axis or ''} ({better} is better)"


def psnr_ticks(mse: Scale) -> list[tuple[float, str]]:
    """Round decibels as the values of an axis of MSE on [-1, 1]."""
    best, worst = psnr(mse.low if mse.low > 0 else mse.high / 100), psnr(mse.high)
    decibels = Scale(worst, best, 0, 1).ticks(6)
    return [(4 / 10 ** (value / 10), text) for value, text in decibels]
