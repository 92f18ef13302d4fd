"""An alarm, and how it names the trials that raise it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.layout import enumerated
from analysis.results import Results, configuration
from trainables.journal import TrialRecord

FEW = 0.03
"""The share of trials from which on a fault is worth an alarm: of a hundred, one or two are always odd."""


@dataclass(frozen=True)
class Alarm:
    """Something that looks wrong in a run."""

    title: str
    """A few words."""
    evidence: str
    """One sentence, with the numbers."""
    advice: str
    """One sentence: what to do."""

    @property
    def sentence(self) -> str:
        """The alarm as a screen has it."""
        return f"Look at this: {self.title}. {self.evidence} {self.advice}"


def compared_trials(results: Results) -> list[TrialRecord]:
    """The trials that are compared, those of a screening seed among them, in the order of their groups."""
    return [trial for group in results.groups for trial in (*group.trials, *filter(None, [group.screened]))]


def many(faulty: Sequence[TrialRecord], among: Sequence[TrialRecord]) -> bool:
    """Whether a fault is more than a trifle."""
    return len(faulty) >= max(1, FEW * len(among))


def named(results: Results, trials: Iterable[TrialRecord]) -> str:
    """The configurations of the trials, each once, the first three by name."""
    return enumerated(list(dict.fromkeys(configuration(results, trial) for trial in trials)), most=3)
