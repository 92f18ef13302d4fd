"""Which trials repeat each other: groups that are equal in all but the seed, under a name a person can read."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from analysis.columns import least
from analysis.estimates import Estimate
from analysis.fronts import Point
from trainables.journal import TrialRecord
from trainables.runs import SHORT

_NOT_COMPARED = ("seed", "epochs")


@dataclass(frozen=True)
class Group:
    """One configuration: its completed trials, one a seed, all looked at after the same epoch."""

    label: str
    config: dict[str, Any]
    """The flat configuration, without ``seed`` and ``epochs``."""
    trials: tuple[TrialRecord, ...]
    epoch: int

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(seed_of(trial) for trial in self.trials)

    def by_seed(self, metric: str) -> dict[int, float]:
        """The metric of each seed that reported it; ``total`` is mse + (1 + beta) codebook_loss, as in the paper."""
        if metric.endswith("total"):
            twin = metric.removesuffix("total")
            mse, codebook = self.by_seed(f"{twin}mse"), self.by_seed(f"{twin}codebook_loss")
            weight = 1 + self.config.get("commitment_weight", math.nan)
            return {seed: mse[seed] + weight * codebook[seed] for seed in mse.keys() & codebook.keys()}
        return {seed: report[metric] for seed, report in self._reports.items() if metric in report}

    @cached_property
    def _reports(self) -> dict[int, dict[str, float]]:
        return {seed_of(trial): trial.epochs[self.epoch] for trial in self.trials}

    def estimate(self, metric: str) -> Estimate | None:
        """Mean and spread of a metric over seeds; none if no seed reported it."""
        values = list(self.by_seed(metric).values())
        return Estimate.of(values, least(metric)) if values else None

    def mean(self, metric: str) -> float:
        """The mean of a metric over seeds; NaN if no seed reported it."""
        estimate = self.estimate(metric)
        return estimate.mean if estimate else math.nan

    def points(self, first: str, second: str) -> dict[int, Point]:
        """Two metrics of each seed that reported both."""
        xs, ys = self.by_seed(first), self.by_seed(second)
        return {seed: (xs[seed], ys[seed]) for seed in xs if seed in ys}

    def text(self, metric: str) -> str:
        """Mean ± sd of a metric over seeds; a dash if no seed reported it."""
        estimate = self.estimate(metric)
        return estimate.text if estimate else "–"

    def mean_text(self, metric: str) -> str:
        """The mean of a metric with as many decimals as its spread allows; a dash if no seed reported it."""
        estimate = self.estimate(metric)
        return estimate.show(estimate.mean) if estimate else "–"


def seed_of(trial: TrialRecord) -> int:
    """The seed of a trial; 0 where none is recorded."""
    return int(trial.config.get("seed", 0))


def grouped(trials: Iterable[TrialRecord], epoch: int, swept: Sequence[str]) -> tuple[Group, ...]:
    """The trials as groups, ordered by the values of the swept fields, the estimator first."""
    members: dict[str, list[TrialRecord]] = defaultdict(list)
    for trial in trials:
        members[json.dumps(_compared(trial.config), sort_keys=True)].append(trial)
    configs = [_compared(group[0].config) for group in members.values()]
    labels = [_label(config, swept) for config in configs]
    if len(set(labels)) < len(labels):
        labels = [_label(config, swept, exact=True) for config in configs]
    groups = [
        Group(label, config, tuple(sorted(group, key=seed_of)), epoch)
        for label, config, group in zip(labels, configs, members.values(), strict=True)
    ]
    return tuple(sorted(groups, key=lambda group: [_order(group.config.get(name)) for name in estimator_first(swept)]))


def varying(trials: Sequence[TrialRecord]) -> list[str]:
    """The fields besides seed and epochs that are not the same in all trials."""
    names = dict.fromkeys(name for trial in trials for name in _compared(trial.config))
    return [name for name in names if len({repr(trial.config.get(name)) for trial in trials}) > 1]


def described(config: dict[str, Any], names: Iterable[str], exact: bool = False) -> str:
    """The named fields in words: ``rotation, beta 0.25``."""
    return ", ".join(_words(name, config[name], exact) for name in names if name in config)


def estimator_first(swept: Sequence[str]) -> list[str]:
    """The fields that tell configurations apart, in the order in which people say them."""
    return sorted((name for name in swept if name not in _NOT_COMPARED), key=lambda name: name != "estimator")


def _label(config: dict[str, Any], swept: Sequence[str], exact: bool = False) -> str:
    return described(config, estimator_first(swept) or ["estimator", "commitment_weight"], exact) or "the configuration"


def _words(name: str, value: Any, exact: bool) -> str:
    if name == "estimator":
        return str(value)
    number = isinstance(value, int | float) and not isinstance(value, bool) and not exact
    return f"{SHORT.get(name, name)} {f'{value:.4g}' if number and isinstance(value, float) else value}"


def _compared(config: dict[str, Any]) -> dict[str, Any]:
    # 1 and 1.0 are one value, and one configuration.
    kept = {name: value for name, value in config.items() if name not in _NOT_COMPARED}
    return {name: float(value) if name == "commitment_weight" else value for name, value in kept.items()}


def _order(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))
