"""A run's record, ready to be compared: completed trials in groups, their fronts, rates and images."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis import fronts
from analysis.fronts import Point
from analysis.objectives import Objective, metric_of, recorded
from analysis.stats import Estimate
from trainables.journal import RunRecord, TrialRecord, read
from trainables.runs import JOURNAL, PICTURES, SHORT
from trainables.storage import StorageError, Store, is_bucket, join
from vqcore.config import ConfigError, TrialConfig

Images = NDArray[np.uint8]

MOST_IMAGES = 12
"""Configurations that a picture of reconstructions has room for."""

_NOT_COMPARED = ("seed", "epochs")
_USUAL = TrialConfig().flat()


@dataclass(frozen=True)
class Group:
    """One configuration: its completed trials, one a seed, all compared after the same epoch."""

    label: str
    config: dict[str, Any]
    """The flat configuration, without ``seed`` and ``epochs``."""
    trials: tuple[TrialRecord, ...]
    epoch: int

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(seed_of(trial) for trial in self.trials)

    @property
    def estimator(self) -> str:
        """The name of its estimator; empty if none is recorded."""
        return str(self.config.get("estimator", ""))

    def by_seed(self, metric: str) -> dict[int, float]:
        """The metric of each seed that reported it; ``total`` is mse + (1 + beta) codebook_loss, as in the paper."""
        if metric.endswith("total"):
            prefix = metric.removesuffix("total")
            mse, codebook = self.by_seed(f"{prefix}mse"), self.by_seed(f"{prefix}codebook_loss")
            weight = 1 + self.config.get("commitment_weight", math.nan)
            return {seed: mse[seed] + weight * codebook[seed] for seed in mse.keys() & codebook.keys()}
        reports = {seed_of(trial): trial.epochs[self.epoch] for trial in self.trials}
        return {seed: report[metric] for seed, report in reports.items() if metric in report}

    def estimate(self, metric: str) -> Estimate:
        """Mean and spread of a metric over the seeds that reported it."""
        return Estimate.of(list(self.by_seed(metric).values()), metric_of(metric).least)

    def mean(self, metric: str) -> float:
        """The mean of a metric over seeds; NaN if no seed reported it."""
        return self.estimate(metric).mean

    def points(self, first: str, second: str) -> dict[int, Point]:
        """Two metrics of each seed that reported both."""
        xs, ys = self.by_seed(first), self.by_seed(second)
        return {seed: (xs[seed], ys[seed]) for seed in xs if seed in ys}


class Pictures(NamedTuple):
    """Test images with their reconstructions, of one trial of each group that has some."""

    rows: tuple[tuple[Group, TrialRecord, Images], ...]
    """The (2, n, H, W, 3) originals and reconstructions of a trial of the group."""
    problems: tuple[str, ...]
    """One sentence for each trial whose images cannot be shown."""


@dataclass(frozen=True)
class Results:
    """A run as its journal records it."""

    folder: Path
    record: RunRecord
    swept: tuple[str, ...]
    """The flat fields that vary, besides the seed."""
    groups: tuple[Group, ...]
    """Configurations with at least one completed trial."""
    epoch: int
    """The last epoch that all compared trials have: the one that is compared. 0 if there are none."""
    left_out: tuple[tuple[TrialRecord, str], ...]
    """Trials that are not compared, each with the reason."""

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials that were started, in the order of the plan."""
        return tuple(sorted(self.record.trials.values(), key=lambda trial: trial.number))

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.record.sweep.get("name") or self.folder.name)

    def metadata(self, name: str) -> Any:
        """The sweep's parameter or tag of that name; ``None`` if it has none."""
        params, tags = (self.record.sweep.get(part) or {} for part in ("params", "tags"))
        return params.get(name, tags.get(name))

    @property
    def data(self) -> str:
        """The data set's short name: without the folders that lead to it."""
        source = self.metadata("data")
        return Path(str(source)).name if source else "data not recorded"

    @property
    def seeds(self) -> str:
        """The number of seeds of a group, as text: ``2 to 5 seeds``."""
        counts = sorted({len(group.seeds) for group in self.groups}) or [0]
        number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"{number} seed{'s' if counts[-1] != 1 else ''}"

    @property
    def compared(self) -> str:
        """What is compared, as a title has it: the data set, the epoch, the seeds."""
        return f"{self.data}, after epoch {self.epoch}, {self.seeds}"

    @cached_property
    def objectives(self) -> tuple[Objective, Objective]:
        """The recorded objectives of the run; else MSE down and perplexity up."""
        return recorded(self.metadata("objectives"))

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
    def means(self) -> list[Point]:
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
        """The group where the front of the means bends most (``fronts.knee``)."""
        index = fronts.knee(self.means, self.directions)
        return None if index is None else self.groups[index]

    @property
    def repeated(self) -> bool:
        """Whether any configuration has several seeds: without one nothing bounds the error of a number."""
        return any(len(group.seeds) > 1 for group in self.groups)

    @cached_property
    def on_front(self) -> list[float]:
        """The probability of each group's true mean to be on the front; NaN unless ``repeated``."""
        return fronts.probability_on_front([group.points(*self.columns) for group in self.groups], self.directions)

    @cached_property
    def pictures(self) -> Pictures:
        """Of each featured group the first trial's that has any; damaged files and a lost storage become problems."""
        return _read_pictures(self)

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
    swept = tuple(dict.fromkeys([*(record.sweep.get("swept") or ()), *_varying(trials)]))
    left_out = tuple((trial, _reason(trial)) for trial in trials if trial.key not in chosen)
    epoch = max(shared, default=0)
    return Results(run_folder, record, swept, _grouped(compared, epoch, swept), epoch, left_out)


def seed_of(trial: TrialRecord) -> int:
    """The seed of a trial; 0 where none is recorded."""
    return int(trial.config.get("seed", 0))


def described(config: dict[str, Any], names: Iterable[str], exact: bool = False) -> str:
    """The named fields as text: ``rotation, beta 0.25``; numbers with four digits unless ``exact``."""
    return ", ".join(_field_text(name, config[name], exact) for name in names if name in config)


def estimator_first(swept: Sequence[str]) -> list[str]:
    """The fields that tell configurations apart, the estimator before the others."""
    return sorted((name for name in swept if name not in _NOT_COMPARED), key=lambda name: name != "estimator")


def _field_text(name: str, value: Any, exact: bool) -> str:
    if name == "estimator":
        return str(value)
    return f"{SHORT.get(name, name)} {f'{value:.4g}' if isinstance(value, float) and not exact else value}"


def _grouped(trials: Iterable[TrialRecord], epoch: int, swept: Sequence[str]) -> tuple[Group, ...]:
    """The trials as groups, ordered by the values of the swept fields, the estimator first."""
    members: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        members[json.dumps(_compared(trial.config), sort_keys=True)].append(trial)
    configs = [_compared(group[0].config) for group in members.values()]
    names = estimator_first(swept)
    shown = names or ["estimator", "commitment_weight"]
    labels = [described(config, shown) for config in configs]
    if len(set(labels)) < len(labels):
        labels = [described(config, shown, exact=True) for config in configs]
    groups = [
        Group(label or "the configuration", config, tuple(sorted(group, key=seed_of)), epoch)
        for label, config, group in zip(labels, configs, members.values(), strict=True)
    ]
    return tuple(sorted(groups, key=lambda group: [_sort_key(group.config.get(name)) for name in names]))


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    # 1 and 1.0 are one value, and one configuration.
    kept = {name: value for name, value in config.items() if name not in _NOT_COMPARED}
    return {name: float(value) if name == "commitment_weight" else value for name, value in kept.items()}


def _sort_key(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _varying(trials: Sequence[TrialRecord]) -> list[str]:
    """The fields besides seed and epochs that are not the same in all trials."""
    names = dict.fromkeys(name for trial in trials for name in _compared(trial.config))
    return [name for name in names if len({repr(trial.config.get(name)) for trial in trials}) > 1]


def _sound(config: dict[str, Any]) -> bool:
    """Whether each field has a value of its type: a record of anything else is damaged."""
    kinds = {name: (int, float) if type(usual) is float else (type(usual),) for name, usual in _USUAL.items()}
    return all(type(value) in kinds.get(name, (type(value),)) for name, value in config.items())


def _reason(trial: TrialRecord) -> str:
    if trial.status == "completed":
        return "completed, but shares no reported epoch with the others"
    if trial.status == "running":
        return f"not finished: {trial.last_epoch} epochs so far"
    return f"{trial.status} after epoch {trial.last_epoch}" + (f": {trial.reason}" if trial.reason else "")


def _read_pictures(results: Results) -> Pictures:
    storage = results.record.sweep.get("storage")
    in_bucket = isinstance(storage, str) and is_bucket(storage)
    location = str(storage) if in_bucket else str(results.folder / "trials")
    rows: list[tuple[Group, TrialRecord, Images]] = []
    problems: list[str] = []
    for group in results.featured(MOST_IMAGES):
        for trial in group.trials:
            try:
                content = Store(join(location, trial.key), patient=False).read(PICTURES)
                rows.append((group, trial, images_of(content)))
                break
            except FileNotFoundError:
                continue
            except (StorageError, ConfigError) as error:  # the next would wait as long for the same
                return Pictures(tuple(rows), (*problems, f"Reconstructions cannot be read: {error}"))
            except (OSError, ValueError) as error:
                problems.append(f"Reconstructions of trial {trial.key} are damaged and not shown: {error}")
    return Pictures(tuple(rows), tuple(problems))


def images_of(content: bytes) -> Images:
    """The (2, n, H, W, 3) images of a trial's ``.npy`` file, never unpickled. ``ValueError`` if it is another file."""
    try:
        pixels: Any = np.load(BytesIO(content))  # which unpickles nothing unless it is asked to
    except Exception as error:  # numpy reads the header as Python's literals, which can be wrong in many ways
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    right = isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 5 and pixels.size
    if not right or (pixels.shape[0], pixels.shape[4]) != (2, 3):
        raise ValueError("it holds no bytes of shape (2, n, H, W, 3)")
    images: Images = pixels
    return images
