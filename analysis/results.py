"""What a run recorded, ready to be compared: completed trials in groups, and by name whatever was left out."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis import fronts
from analysis.groups import Group, grouped, varying
from analysis.objectives import Objective, recorded
from analysis.pictures import MOST, Pictures, read_pictures
from analysis.uncertainty import probability_on_front
from trainables.journal import RunRecord, TrialRecord, read
from trainables.runs import JOURNAL
from vqcore.config import ConfigError, TrialConfig


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
    def objectives(self) -> tuple[Objective, Objective]:
        """What the run was to be good at, as it recorded it; else MSE down and perplexity up."""
        return recorded(self.told("objectives"))

    @property
    def columns(self) -> tuple[str, str]:
        """The columns of the objectives."""
        first, second = self.objectives
        return first.column, second.column

    @property
    def directions(self) -> fronts.Directions:
        """The directions of the objectives."""
        first, second = self.objectives
        return first.direction, second.direction

    @cached_property
    def means(self) -> list[fronts.Point]:
        """Each group's mean of both objectives."""
        first, second = self.columns
        return [(group.mean(first), group.mean(second)) for group in self.groups]

    @cached_property
    def front(self) -> tuple[Group, ...]:
        """The groups whose means no other's dominate, from the best in the first objective to the best in the second.

        By default: from the lowest MSE to the highest perplexity.
        """
        return tuple(self.groups[i] for i in fronts.front(self.means, self.directions))

    @property
    def knee(self) -> Group | None:
        """Where the front of the means bends most (``fronts.knee``)."""
        index = fronts.knee(self.means, self.directions)
        return None if index is None else self.groups[index]

    @property
    def repeated(self) -> bool:
        """Whether any configuration has several seeds: only then can anything be said of how sure a number is."""
        return any(len(group.seeds) > 1 for group in self.groups)

    @cached_property
    def on_front(self) -> list[float]:
        """How probably each group's true mean is on the front; NaN unless ``repeated`` (``probability_on_front``)."""
        return probability_on_front([group.points(*self.columns) for group in self.groups], self.directions)

    @cached_property
    def pictures(self) -> Pictures:
        """What the featured groups made of test images."""
        return read_pictures(self.folder, self.record, self.featured(MOST))

    def best(self, objective: Objective) -> Group:
        """The group whose mean is the best in an objective; of equals the first. There must be a group."""
        return min(self.groups, key=lambda group: objective.signed(group.mean(objective.column)))

    def featured(self, most: int) -> tuple[Group, ...]:
        """All groups if there are at most ``most``; else the front and the best in the first objective, in order."""
        first = self.objectives[0]
        ranked = sorted(self.groups, key=lambda group: first.signed(group.mean(first.column)))
        chosen = list({group.label: None for group in (*self.front, *ranked)})[:most]
        return tuple(group for group in self.groups if group.label in chosen)


def load(run_folder: Path) -> Results:
    """Read a run. ``ConfigError`` if the folder holds no journal."""
    path = run_folder / JOURNAL
    if not path.is_file():
        raise ConfigError([f"{run_folder}: holds no {JOURNAL}, so it is no run; name a run, its folder, or latest"])
    record = read(path)
    record.trials = {key: trial for key, trial in record.trials.items() if _sound(trial.config)}
    trials = sorted(record.trials.values(), key=lambda trial: trial.number)
    params = record.sweep.get("params") or {}
    needed = {"mse", "perplexity", *(objective.column for objective in recorded(params.get("objectives")))}
    reported = {trial.key: {e for e, metrics in trial.epochs.items() if needed <= metrics.keys()} for trial in trials}
    compared = [trial for trial in trials if trial.status == "completed" and reported[trial.key]]
    shared = set.intersection(*(reported[trial.key] for trial in compared)) if compared else set()
    if not shared:
        compared = []
    chosen = {trial.key for trial in compared}
    swept = tuple(dict.fromkeys([*(record.sweep.get("swept") or ()), *varying(trials)]))
    left_out = tuple((trial, _why(trial)) for trial in trials if trial.key not in chosen)
    epoch = max(shared, default=0)
    return Results(run_folder, record, swept, grouped(compared, epoch, swept), epoch, left_out)


_USUAL = TrialConfig().flat()


def _sound(config: dict[str, Any]) -> bool:
    """Whether each field has a value of its type: nobody here wrote another."""
    kinds = {name: (int, float) if type(usual) is float else (type(usual),) for name, usual in _USUAL.items()}
    return all(type(value) in kinds.get(name, (type(value),)) for name, value in config.items())


def _why(trial: TrialRecord) -> str:
    if trial.status == "completed":
        return "completed, but shares no reported epoch with the others"
    if trial.status == "running":
        return f"not finished: {trial.last_epoch} epochs so far"
    return f"{trial.status} after epoch {trial.last_epoch}" + (f": {trial.reason}" if trial.reason else "")
