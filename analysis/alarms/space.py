"""Alarms about the space that was swept: its ends are too near, a field of it does nothing, or it is exhausted."""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from scipy.special import chdtrc

from analysis.alarms.alarm import Alarm
from analysis.alarms.effects import Cell, Fit, additive_fit, mean_level, seed_noise
from analysis.effects import level
from analysis.fronts import Point, hypervolume
from analysis.history import reference_point
from analysis.layout import enumerated
from analysis.objectives import RATES, Objective
from analysis.results import Group, Results, estimator_first, ranked, seed_of
from analysis.stats import LEVEL, POOLED
from trainables.journal import TrialRecord
from trainables.runs import described

_SIZES = ("codebook_size", "dim", "channels", "hidden_channels", "residual_channels", "residual_blocks")
"""Fields that buy quality with size: that the most is best is no news."""

_SHARES = ("decay", "revive_below", "revive_share")
"""Fields that end at 1."""

_EDGE = 0.05
"""The share of a range, at either end, that counts as its end."""

_FREEDOM = 4
"""Degrees of freedom of the noise, below which no field is said to be without effect."""

_ENOUGH = 12
"""Completed trials, below which no search is said to have been too long."""

_FLAT = 0.01
"""The share of what was found that the last third of a search adds at least if it was worth it."""

_ORDERS = 20
"""Random orders of the trials, by which a search that was too long is told from one that was lucky early."""


class _Field(NamedTuple):
    """A numeric field and what of it was swept."""

    name: str
    values: tuple[float, ...]
    """Ascending; of a range its ends."""
    drawn: bool
    """Whether it is a range."""
    log: bool

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; values of a list are equally far apart."""
        if not self.drawn:
            return sum(other < value for other in self.values) / (len(self.values) - 1)
        least, most = self.values
        clipped = min(max(value, least), most)
        low, high, at = (math.log(v) if self.log else v for v in (least, most, clipped))
        return (at - low) / (high - low)

    def end(self, value: float) -> float | None:
        """The end at which a value lies, if there may be better ones beyond it; none of a value that was not swept."""
        low, high = self.values[0], self.values[-1]
        if not (low <= value <= high if self.drawn else value in self.values):
            return None
        if self.place(value) <= _EDGE and low > 0:
            return low
        limit = self.name in _SIZES or (self.name in _SHARES and high >= 1)
        return high if self.place(value) >= 1 - _EDGE and not limit else None


def best_on_bound(results: Results) -> Alarm | None:
    """Fields at whose end the best configuration lies, by each aim: beyond it may be better ones.

    With seeds, where it leads all that do not lie there by more than their noise; without, where the values beside the
    end come next. The lowest rate is no aim to widen a space for: a collapsed codebook has it.
    """
    told: list[str] = []
    wider: dict[str, None] = {}
    for aim in results.aims if results.groups else ():
        best = ranked(results.groups, aim)[0]
        names = []
        for field in _numeric(results) if aim.column not in RATES else ():
            end = field.end(best.config[field.name])
            if end is not None and _leads(results, aim, best, field):
                names.append(field.name)
                wider[f"{field.name} {'below' if end == field.values[0] else 'above'} {end:.4g}"] = None
        told += [f"{aim.best} at {described(best.config, names)}"] if names else []
    if not told:
        return None
    return Alarm(
        "the best lies on a bound of the space",
        f"At an end of what was swept: {'; '.join(told)}.",
        f"Widen the space, since better ones may lie beyond: {enumerated(list(wider), most=3)}.",
    )


def _numeric(results: Results) -> Iterator[_Field]:
    """The swept fields with numbers enough to have ends, as the run recorded them; of two values, each is an end."""
    sweep = results.record.sweep
    space = (sweep.get("toml") or {}).get("space") or sweep.get("params") or {}
    for name in estimator_first(results.swept):
        choice = space.get(name)
        if isinstance(choice, dict) and choice.get("low", 0) < choice.get("high", 0):
            field = _Field(name, (choice["low"], choice["high"]), True, choice.get("log", False) and choice["low"] > 0)
        elif isinstance(choice, list) and all(map(_number, choice)) and len(set(choice)) > 2:
            field = _Field(name, tuple(sorted(set(choice))), False, False)
        else:
            continue
        if all(_number(group.config.get(name)) for group in results.groups):
            yield field


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _leads(results: Results, aim: Objective, best: Group, field: _Field) -> bool:
    """Whether the end's lead is more than luck."""
    at_end = field.end(best.config[field.name])
    others = [group for group in ranked(results.groups, aim) if field.end(group.config[field.name]) != at_end]
    noise = seed_noise(ranked(results.several, aim)[:POOLED], aim.column).sd
    if best in results.several and others and others[0] in results.several and noise > 0:
        fewest = min(len(best.seeds), len(others[0].seeds))
        return mean_level(others[0], aim) - mean_level(best, aim) > 2 * noise * math.sqrt(2 / fewest)
    places = [field.place(group.config[field.name]) for group in ranked(results.groups, aim)]
    away = [abs(place - round(places[0])) for place in places]
    if field.drawn:
        return len(away) > 3 and max(away[:3]) < 1 / 3
    following = next((distance for distance in away if distance > _EDGE), 1.0)
    return len(field.values) > 3 and following < 1.5 / (len(field.values) - 1)


def field_without_effect(results: Results) -> Alarm | None:
    """Fields whose values, all else equal, differ no more than seeds do, in every aim."""
    found = {name: effects for name in estimator_first(results.swept) if (effects := _no_effect(results, name))}
    if not found:
        return None
    told = [f"{name} ({', '.join(effects)})" for name, effects in found.items()]
    return Alarm(
        "a field has no effect that exceeds the noise of the seeds",
        "With all other fields equal, the largest difference between its values' means, in sds of a seed: "
        f"{enumerated(told, most=3)}.",
        f"Fix {' and '.join(found)} in the next sweep; if an effect was expected, check that it reaches the model.",
    )


def _no_effect(results: Results, name: str) -> list[str]:
    """By aim the size of a field's effect, if that is noise in all of them; nothing where seeds do not tell."""
    blocks = _blocks(results, name)
    if not blocks:
        return []
    told = []
    for aim in results.aims:
        fits = [additive_fit(_cells(groups, name, aim)) for groups in blocks]
        freedom, squares = sum(fit.freedom for fit in fits), sum(fit.squares for fit in fits)
        overall = additive_fit([cell for groups in blocks for cell in _cells(groups, name, aim)])
        if freedom < _FREEDOM or not squares > 0:
            return []
        size = overall.range / math.sqrt(squares / freedom)
        if size > 1 or not min(overall.p, _joined(fits)) > LEVEL:
            return []
        told.append(f"{size:.1f} in {aim.name}")
    return told


def _blocks(results: Results, name: str) -> list[list[Group]]:
    """The configurations with several seeds that differ in one field alone, together.

    Nothing if they are not most of what was tried with every value: what was stopped may have been the effect.
    """
    alike: dict[frozenset[tuple[str, Any]], list[Group]] = defaultdict(list)
    for group in results.several:
        alike[frozenset((field, value) for field, value in group.config.items() if field != name)].append(group)
    blocks = [groups for groups in alike.values() if len(groups) > 1]
    members = [group for groups in blocks for group in groups]
    tried = {described(trial.config, results.swept, exact=True) for trial in results.trials}
    values, all_values = {g.config.get(name) for g in members}, {t.config.get(name) for t in results.trials}
    return blocks if values == all_values and 2 * len(members) >= len(tried) else []


def _cells(groups: Sequence[Group], name: str, aim: Objective) -> list[Cell]:
    """Rows are one seed of one block, columns the field's values."""
    block = groups[0].label
    return [
        ((block, seed), group.config.get(name), level(aim.column, value))
        for group in groups
        for seed, value in group.by_seed(aim.column).items()
    ]


def _joined(fits: Sequence[Fit]) -> float:
    """One p of those of several blocks: Fisher's method. A block whose noise is not known says nothing."""
    known = [max(fit.p, 1e-300) for fit in fits if not math.isnan(fit.p)]
    return float(chdtrc(2 * len(known), -2 * math.fsum(map(math.log, known)))) if known else math.nan


def flat_end(results: Results) -> Alarm | None:
    """A search whose last third of epochs found nothing, and of which two thirds in any order would have done.

    Of the seed that screens. The second condition is for luck: the best of any trials that come in random order is
    among the first two thirds of them in two of three sweeps.
    """
    screens = min(map(seed_of, results.trials), default=0)
    ended = [trial for trial in results.trials if seed_of(trial) == screens and trial.status != "running"]
    ended.sort(key=lambda trial: trial.end_arrival)
    runs = [_Run(trial.last_epoch, _point(results, trial)) for trial in ended]
    if sum(run.point is not None for run in runs) < _ENOUGH or _missed(runs, results) > _FLAT / 10:
        return None
    dice = random.Random(0)
    shuffled = [_missed(dice.sample(runs, len(runs)), results) for _ in range(_ORDERS)]
    if sum(shuffled) / _ORDERS > _FLAT:
        return None
    epochs = sum(run.epochs for run in runs)
    what = f"the {results.aims[0].best}" if len(results.aims) == 1 else "the front's hypervolume"
    return Alarm(
        "the last third of the search found nothing",
        f"After {2 * epochs // 3:,} of {epochs:,} epochs {what} was within 0.1 % of what it is at the end, and any two "
        "thirds of the trials come within 1 % of it on average.",
        "Fewer trials would have done: spend the next ones on seeds, or on a wider space.",
    )


class _Run(NamedTuple):
    """A trial that has ended."""

    epochs: int
    point: Point | None
    """Both objectives, less is better; none of a trial that did not complete."""


def _point(results: Results, trial: TrialRecord) -> Point | None:
    metrics = trial.epochs.get(results.epoch, {})
    x, y = (aim.signed(level(aim.column, metrics.get(aim.column, math.nan))) for aim in results.objectives)
    return (x, y) if trial.status == "completed" and math.isfinite(x) and math.isfinite(y) else None


def _missed(runs: Sequence[_Run], results: Results) -> float:
    """The share of what all runs found that is missing after two thirds of their epochs."""
    total, spent, early = sum(run.epochs for run in runs), 0, []
    for run in runs:
        spent += run.epochs
        if 3 * spent <= 2 * total and run.point:
            early.append(run.point)
    all_ = [run.point for run in runs if run.point]
    if not early:
        return 1.0
    if len(results.aims) == 1:
        best, found = min(all_)[0], min(early)[0]
        return (found - best) / (1.0 if results.aims[0].metric.ratio else abs(best) or 1.0)
    reference = reference_point(all_)
    area = hypervolume(all_, reference)
    return 1 - hypervolume(early, reference) / area if area > 0 else 1.0
