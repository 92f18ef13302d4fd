"""A run's record, ready to be compared: completed trials in groups, their fronts, rates and images."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from io import BytesIO
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis import fronts
from analysis.fronts import Point
from analysis.objectives import Objective, metric_of, recorded
from analysis.snapshots import Shown, shown
from analysis.stats import Estimate, simultaneous_margins
from trainables.journal import RunRecord, TrialRecord, read
from trainables.runs import JOURNAL, PICTURES, PRIOR_RUN, command_line, described
from trainables.storage import StorageError, Store, is_bucket, join
from vqcore.config import ConfigError

Images = NDArray[np.uint8]

P = ParamSpec("P")
T = TypeVar("T")

MOST = 12
"""The most configurations that a picture has room for, and that can be told apart in it by name or colour."""

_NOT_COMPARED = ("seed", "epochs")
_FOLLOW = {
    "levels": ("codebook_size", "dim"),
    "layer": ("levels", "codebook_size", "dim", "estimator", "commitment_weight"),
}
"""Fields that vary because another is swept: nothing is to be learned of them."""


@dataclass(frozen=True)
class Group:
    """One configuration: its completed trials, one a seed, all compared after the same epoch.

    What is estimated comes from ``trials`` alone, the seeds that count: none of them had a part in choosing.
    """

    label: str
    config: dict[str, Any]
    """The flat configuration, without ``seed`` and ``epochs``."""
    trials: tuple[TrialRecord, ...]
    """The trials that count, by seed; none of a configuration of a search that got no second seed."""
    epoch: int
    screened: TrialRecord | None = None
    """In a search with several seeds, the trial of the screening seed, which chose who got more: in no estimate."""

    @property
    def screening(self) -> "Group | None":
        """The configuration as the screening seed alone has it, to be shown as such; none where no seed chose."""
        return replace(self, trials=(self.screened,), screened=None) if self.screened else None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that count, ascending."""
        return tuple(seed_of(trial) for trial in self.trials)

    @property
    def estimator(self) -> str:
        """The name of its estimator; empty if none is recorded."""
        return str(self.config.get("estimator", ""))

    def by_seed(self, metric: str) -> dict[int, float]:
        """The metric of each seed that counts; ``total`` is mse + (1 + beta) codebook_loss, as in the paper."""
        if metric.endswith("total"):
            prefix = metric.removesuffix("total")
            mse, codebook = self.by_seed(f"{prefix}mse"), self.by_seed(f"{prefix}codebook_loss")
            weight = 1 + self.config.get("commitment_weight", math.nan)
            return {seed: mse[seed] + weight * codebook[seed] for seed in mse.keys() & codebook.keys()}
        reports = {seed_of(trial): trial.epochs[self.epoch] for trial in self.trials}
        return {seed: report[metric] for seed, report in reports.items() if metric in report}

    def estimate(self, metric: str) -> Estimate:
        """Mean and spread of a metric over the seeds that count."""
        return Estimate.of(list(self.by_seed(metric).values()), metric_of(metric).least)

    def text(self, metric: str, spread: bool = True) -> str:
        """Mean, with ± sd if ``spread``; the value of the screening seed in parentheses if there is no other."""
        estimate = (self if self.trials else self.screening or self).estimate(metric)
        text = estimate.text if spread else estimate.mean_text
        return text if self.trials else f"({text})"

    def mean(self, metric: str) -> float:
        """The mean of a metric over the seeds that count; NaN if none reported it."""
        return self.estimate(metric).mean

    def points(self, first: str, second: str) -> dict[int, Point]:
        """Two metrics of each seed that counts and reported both."""
        xs, ys = self.by_seed(first), self.by_seed(second)
        return {seed: (xs[seed], ys[seed]) for seed in xs if seed in ys}


class Pictures(NamedTuple):
    """Test images with their reconstructions, of one trial of each group that has some."""

    rows: tuple[tuple[Group, TrialRecord, Images], ...]
    """The (2, n, H, W, 3) originals and reconstructions of a trial of the group."""
    problems: tuple[str, ...]
    """One sentence for each trial whose images cannot be shown."""


def once(make: "Callable[Concatenate[Results, P], T]") -> "Callable[Concatenate[Results, P], T]":
    """A function of a run's results, and of what can be hashed, that is computed once for them: report, tables and
    findings ask for the same."""

    @wraps(make)
    def kept(results: "Results", /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (make, args, *kwargs.items())
        if key not in results.kept:
            results.kept[key] = make(results, *args, **kwargs)
        found: T = results.kept[key]
        return found

    return kept


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
    screening: int | None = None
    """The seed that chose, in a search, which configurations got more; none in a grid, and before there are more."""

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What ``once`` has computed."""
        return {}

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials that were started, in the order of the plan."""
        return tuple(sorted(self.record.trials.values(), key=lambda trial: trial.number))

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.record.sweep.get("name") or self.folder.name)

    @property
    def kind(self) -> str:
        """The module that made the run: a sweep's, ``final`` for a full training, ``prior`` for that of a prior."""
        return str(self.record.sweep.get("sweep") or "")

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
        """The number of seeds that count of a group that has some, as text: ``2 to 5 seeds``."""
        counts = sorted({len(group.seeds) for group in self.estimated}) or [0]
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
    def aims(self) -> tuple[Objective, ...]:
        """The objectives that were asked for: of a run that names one, the other only completes a front."""
        asked = {text.partition(":")[0] for text in str(self.metadata("objectives") or "").split()}
        return tuple(aim for aim in self.objectives if not asked or aim.column in asked)

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
    def searched(self) -> bool:
        """Whether one seed screens, and only what is near the front gets more; in a grid all have the same seeds."""
        return self.metadata("sampler") is not None

    @cached_property
    def estimated(self) -> tuple[Group, ...]:
        """The groups with a seed that counts: in a search, those that got more than the screening seed."""
        return tuple(group for group in self.groups if group.trials)

    @cached_property
    def means(self) -> list[Point]:
        """Each group's mean of both objectives; NaN of a group without a seed that counts."""
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
    def several(self) -> tuple[Group, ...]:
        """The groups with several seeds that count: of one seed nothing bounds the error."""
        return tuple(group for group in self.groups if len(group.seeds) > 1)

    @cached_property
    def on_front(self) -> list[float]:
        """The probability of each of ``estimated`` to have its true mean on their front; NaN unless any has several
        seeds."""
        return fronts.probability_on_front([group.points(*self.columns) for group in self.estimated], self.directions)

    def estimate(self, group: Group, column: str) -> Estimate:
        """Mean and spread of a metric, with the interval that is quoted of it.

        The intervals of all groups hold together with 95 %, so that of whichever is picked does.
        """
        if column not in self._margins:
            means = [mean for group, mean in zip(self.groups, self.means, strict=True) if group.trials]
            margins = simultaneous_margins([group.by_seed(column) for group in self.estimated], means)
            self._margins[column] = dict(zip((group.label for group in self.estimated), margins, strict=True))
        return replace(group.estimate(column), margin=self._margins[column].get(group.label))

    @cached_property
    def _margins(self) -> dict[str, dict[str, float]]:
        """By column, those that were asked for, then by the group's label."""
        return {}

    def files_of(self, trial: TrialRecord) -> Store:
        """The folder, or prefix of a bucket, of a trial. ``ConfigError`` if its key is no plain name."""
        storage = str(self.record.sweep.get("storage") or "")
        location = storage if is_bucket(storage) else str(self.folder / "trials")
        return Store(join(location, trial.key), patient=False)

    @cached_property
    def pictures(self) -> Pictures:
        """Of each featured group."""
        return self.pictures_of(self.featured())

    def pictures_of(self, groups: Iterable[Group]) -> Pictures:
        """Of each group the first trial's that has any; damaged files and a lost storage become problems."""
        rows: list[tuple[Group, TrialRecord, Images]] = []
        problems: list[str] = []
        for group in groups:
            for trial in (*group.trials, *filter(None, [group.screened])):
                try:
                    rows.append((group, trial, images_of(self.files_of(trial).read(PICTURES))))
                    break
                except FileNotFoundError:
                    continue
                except (StorageError, ConfigError) as error:  # the next would wait as long for the same
                    problems.append(f"Reconstructions cannot be read: {error}")
                    return Pictures(tuple(rows), tuple(problems))
                except (OSError, ValueError) as error:
                    problems.append(f"Reconstructions of trial {trial.key} are damaged and not shown: {error}")
        return Pictures(tuple(rows), tuple(problems))

    @cached_property
    def shown(self) -> Shown:
        """The trial whose codebook is shown, with its snapshots."""
        return shown(self)

    def featured(self, most: int = MOST) -> tuple[Group, ...]:
        """All groups if there are at most ``most``; else the front and the best in the first objective, in order."""
        in_order = (*self.front, *ranked(self.groups, self.objectives[0]))
        chosen = list(dict.fromkeys(group.label for group in in_order))[:most]
        return tuple(group for group in self.groups if group.label in chosen)


def load(run_folder: Path) -> Results:
    """Read a run. ``ConfigError`` if the folder holds no journal."""
    path = run_folder / JOURNAL
    if not path.is_file():
        raise ConfigError([f"{run_folder}: holds no {JOURNAL}, so it is no run; name a run, its folder, or latest"])
    record = read(path)
    trials = sorted(record.trials.values(), key=lambda trial: trial.number)
    params = record.sweep.get("params") or {}
    needed = {"mse", "perplexity", *(objective.column for objective in recorded(params.get("objectives")))}
    reported = {
        trial.key: {epoch for epoch, metrics in trial.epochs.items() if needed <= metrics.keys()}
        for trial in trials
        if trial.status == "completed"
    }
    some = list(filter(None, reported.values()))
    epoch = max(set.intersection(*some), default=0) if some else 0
    compared = {trial.key: trial for trial in trials if epoch in reported.get(trial.key, ())}
    named = record.sweep.get("swept") or ()
    follow = {field for name in named for field in _FOLLOW.get(name, ())}
    swept = tuple(dict.fromkeys([*named, *(name for name in _varying(trials) if name not in follow)]))
    left_out = tuple((trial, _reason(trial)) for trial in trials if trial.key not in compared)
    seeds = {seed_of(trial) for trial in compared.values()}
    screening = min(map(seed_of, trials)) if params.get("sampler") and len(seeds) > 1 else None
    groups = _grouped(compared.values(), epoch, swept, screening)
    return Results(run_folder, record, swept, groups, epoch, left_out, screening)


def load_models(run_folder: Path) -> Results:
    """Read a run that trained models. ``ConfigError`` for a prior's run, too: it has no MSE to show or to compare."""
    results = load(run_folder)
    if results.kind == PRIOR_RUN:
        report = command_line("analysis.report", run_folder)
        raise ConfigError([f"{run_folder}: trained a prior, which has no MSE; `{report}` writes what it has"])
    return results


def ranked(groups: Iterable[Group], objective: Objective) -> list[Group]:
    """The groups by their means of an objective, then those without a seed that counts by the screening seed.

    Equals stay in their order.
    """

    def place(group: Group) -> tuple[bool, float]:
        one = group if group.trials else group.screening or group
        return not group.trials, objective.signed(one.mean(objective.column))

    return sorted(groups, key=place)


def seed_of(trial: TrialRecord) -> int:
    """The seed of a trial; 0 where none is recorded."""
    return int(trial.config.get("seed", 0))


def configuration(results: Results, trial: TrialRecord) -> str:
    """A trial's configuration by the fields that are swept: ``rotation, beta 0.25``."""
    return described(trial.config, estimator_first(results.swept)) or "the configuration"


def estimator_first(swept: Sequence[str]) -> list[str]:
    """The fields that tell configurations apart, the estimator before the others."""
    return sorted((name for name in swept if name not in _NOT_COMPARED), key=lambda name: name != "estimator")


def _grouped(
    trials: Iterable[TrialRecord], epoch: int, swept: Sequence[str], screening: int | None
) -> tuple[Group, ...]:
    """The trials as groups, ordered by the values of the swept fields, the estimator first."""
    members: dict[frozenset[tuple[str, Any]], list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        compared = frozenset((name, value) for name, value in trial.config.items() if name not in _NOT_COMPARED)
        members[compared].append(trial)  # 1 and 1.0 are one value
    configs = [dict(compared) for compared in members]
    names = estimator_first(swept)
    shown = names or ["estimator", "commitment_weight"]
    labels = [described(config, shown) for config in configs]
    if len(set(labels)) < len(labels):
        labels = [described(config, shown, exact=True) for config in configs]
    groups = []
    for label, config, group in zip(labels, configs, members.values(), strict=True):
        by_seed = {seed_of(trial): trial for trial in sorted(group, key=seed_of)}
        screened = None if screening is None else by_seed.pop(screening, None)
        groups.append(Group(label or "the configuration", config, tuple(by_seed.values()), epoch, screened))
    return tuple(sorted(groups, key=lambda group: [_sort_key(group.config.get(name)) for name in names]))


def _sort_key(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _varying(trials: Sequence[TrialRecord]) -> list[str]:
    """The fields besides seed and epochs that are not the same in all trials."""
    names = dict.fromkeys(name for trial in trials for name in trial.config if name not in _NOT_COMPARED)
    return [name for name in names if len({trial.config.get(name) for trial in trials}) > 1]


def _reason(trial: TrialRecord) -> str:
    if trial.status == "completed":
        return "completed, but shares no reported epoch with the others"
    if trial.status == "running":
        return f"not finished: {trial.last_epoch} epochs so far"
    return f"{trial.status} after epoch {trial.last_epoch}" + (f": {trial.reason}" if trial.reason else "")


def images_of(content: bytes) -> Images:
    """The (2, n, H, W, 3) images of a trial's ``.npy`` file, never unpickled. ``ValueError`` if it is another file."""
    try:
        pixels: Images = np.load(BytesIO(content))  # which unpickles nothing unless it is asked to
        right = pixels.dtype == np.uint8 and (pixels.shape[:1], pixels.shape[4:]) == ((2,), (3,)) and pixels.size
    except Exception as error:  # numpy reads the header as Python's literals, which can be wrong in many ways
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    if not right:
        raise ValueError("it holds no bytes of shape (2, n, H, W, 3)")
    return pixels
