"""What a run recorded, ready to be compared: completed trials in groups, and by name whatever was left out."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis import fronts
from analysis.groups import Group, grouped, varying
from trainables.journal import RunRecord, TrialRecord, read
from trainables.runs import JOURNAL
from vqcore.config import ConfigError

DIRECTIONS: fronts.Directions = ("min", "max")
"""MSE down, perplexity up."""


@dataclass(frozen=True)
class Results:
    """A run as its journal tells it."""

    folder: Path
    record: RunRecord
    swept: tuple[str, ...]
    """The flat fields that vary, besides the seed."""
    groups: tuple[Group, ...]
    """Configurations with at least one completed trial."""
    epoch: int
    """The last epoch that all compared trials have: what is compared. 0 if nothing is."""
    left_out: tuple[tuple[TrialRecord, str], ...]
    """Trials that are not compared, and why not."""

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials that were started, in the order of the plan."""
        return tuple(sorted(self.record.trials.values(), key=lambda trial: trial.number))

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.record.sweep.get("name") or self.folder.name)

    def told(self, name: str) -> Any:
        """What the sweep says of itself under ``name`` in its parameters or tags; ``None`` if nothing."""
        params, tags = (self.record.sweep.get(part) or {} for part in ("params", "tags"))
        return params.get(name, tags.get(name))

    @property
    def data(self) -> str:
        """The data set's short name: without the folders that lead to it."""
        source = self.told("data")
        return Path(str(source)).name if source else "data not recorded"

    @property
    def seeds(self) -> str:
        """How many seeds a group has, in words."""
        counts = sorted({len(group.seeds) for group in self.groups}) or [0]
        number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"{number} seed{'s' if counts[-1] != 1 else ''}"

    @cached_property
    def _means(self) -> list[fronts.Point]:
        return [(group.mean("mse"), group.mean("perplexity")) for group in self.groups]

    @cached_property
    def front(self) -> tuple[Group, ...]:
        """The groups whose means no other's dominate, from the lowest MSE to the highest perplexity."""
        return tuple(self.groups[i] for i in fronts.front(self._means, DIRECTIONS))

    @property
    def knee(self) -> Group | None:
        """Where the front of the means bends most (``fronts.knee``)."""
        index = fronts.knee(self._means, DIRECTIONS)
        return None if index is None else self.groups[index]

    def featured(self, most: int) -> tuple[Group, ...]:
        """All groups if there are at most ``most``; else the front and the lowest MSEs, in the usual order."""
        ranked = [*self.front, *sorted(self.groups, key=lambda group: group.mean("mse"))]
        chosen = list({group.label: None for group in ranked})[:most]
        return tuple(group for group in self.groups if group.label in chosen)


def load(run_folder: Path) -> Results:
    """Read a run. ``ConfigError`` if the folder holds no journal."""
    path = run_folder / JOURNAL
    if not path.is_file():
        raise ConfigError([f"{run_folder}: holds no {JOURNAL}, so it is no run; name a run, its folder, or latest"])
    record = read(path)
    trials = sorted(record.trials.values(), key=lambda trial: trial.number)
    reported = {
        trial.key: {e for e, m in trial.epochs.items() if {"mse", "perplexity"} <= m.keys()} for trial in trials
    }
    compared = [trial for trial in trials if trial.status == "completed" and reported[trial.key]]
    shared = set.intersection(*(reported[trial.key] for trial in compared)) if compared else set()
    if not shared:
        compared = []
    chosen = {trial.key for trial in compared}
    swept = tuple(dict.fromkeys([*(record.sweep.get("swept") or ()), *varying(trials)]))
    left_out = tuple((trial, _why(trial)) for trial in trials if trial.key not in chosen)
    epoch = max(shared, default=0)
    return Results(run_folder, record, swept, grouped(compared, epoch, swept), epoch, left_out)


def _why(trial: TrialRecord) -> str:
    if trial.status == "completed":
        return "completed, but shares no reported epoch with the others"
    if trial.status == "running":
        return f"not finished: {trial.last_epoch} epochs so far"
    return f"{trial.status} after epoch {trial.last_epoch}" + (f": {trial.reason}" if trial.reason else "")
