"""How much each field decides who is among the best: PED-ANOVA, as Optuna has it. Pure.

Watanabe, Bansal and Hutter 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces":
how far the values of the best trials are from those of all. Shares add up to 1 whatever the data, so beside each stands
what chance gives: the same of trials whose results were shuffled.
"""

import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.ends import screened_ends
from analysis.layout import counted, enumerated
from analysis.results import Results, estimator_first

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEAST = 12
"""Trials below which there is no importance."""

_BEST, _FEWEST = 0.1, 5
"""The best are this share of the trials, and at least so many, as Optuna's documentation advises."""

_SHUFFLES = 20
"""Of the results: the largest share that chance gave a field in so many is exceeded by chance in 1 of 21."""


@dataclass(frozen=True)
class Importance:
    """Of the swept fields, by the seed that screens."""

    shares: Mapping[str, Mapping[str, float]]
    """By the objective's column, then by field, the most important first; they add up to 1."""
    chance: Mapping[str, Mapping[str, float]]
    """The most that each had in 20 shuffles of the results, as a share of the same whole: less than that is no news."""
    sentences: Mapping[str, str]
    """What to conclude, by the objective's column."""
    missing: str
    """Why there are none, or not of all objectives or fields; empty where nothing is missing."""
    note: str
    """How they were found, and what they do not say."""


def importance(results: Results) -> Importance:
    """Of each swept field for each objective.

    Of the trials that have an end; those that were stopped or are not finished have one by forecast, since among
    the trials that were left whatever the others were stopped for seems to decide nothing.
    """
    ends = screened_ends(results, results.objectives)
    trials = (*ends.recorded, *ends.forecast)
    points = [*ends.values.tolist(), *ends.ends.means.tolist()]
    fields = estimator_first(results.swept)
    varied = [name for name in fields if len({str(trial.config.get(name)) for trial in trials}) > 1]
    missing = []
    if len(trials) < LEAST:
        missing.append(f"{counted(len(trials), 'trial')} with an end: importance takes {LEAST}.")
        varied = []
    elif alone := [name for name in fields if name not in varied]:
        missing.append(f"Tried with one value only: {enumerated([name.replace('_', ' ') for name in alone])}.")
    space = _space(results)
    columns = {name: _column(space.get(name), [trial.config.get(name) for trial in trials]) for name in varied}
    shares, chance, said = {}, {}, {}
    measured = _Measured(columns, len(trials)) if varied else None
    for place, aim in enumerate(results.objectives):
        values = [point[place] for point in points]
        if measured is None or len(set(values)) == 1:
            missing += [f"All trials have the same {aim.name}."] if measured else []
            continue
        shares[aim.column], chance[aim.column] = _with_chance(measured, values)
        said[aim.column] = _sentence(aim.name, shares[aim.column], chance[aim.column])
    best = max(_FEWEST, math.ceil(_BEST * len(trials)))
    note = (
        f"PED-ANOVA (Optuna): how far the values of the best {best} of {counted(len(trials), 'trial')} are from those "
        f"of all. It does not tell in which direction. Chance: the most in {_SHUFFLES} shuffles of the results."
    )
    if ends.forecast:
        note += f" {len(ends.forecast)} of the trials were not trained in full and count as forecast."
    return Importance(shares, chance, said, " ".join(missing), note)


_Column = tuple["BaseDistribution", list[Any]]
"""A field as Optuna has it: its distribution, and the parameter of each trial."""


def _space(results: Results) -> Mapping[str, Any]:
    """As the run recorded it, by field."""
    sweep = results.record.sweep
    return (sweep.get("toml") or {}).get("space") or sweep.get("params") or {}


def _column(choice: Any, values: Sequence[Any]) -> _Column:
    """Numbers that are named one by one keep their order: the parameter is the place in it. Of what is not recorded, or
    does not hold the values, they themselves tell."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numeric and isinstance(choice, Mapping):
        low, high = choice.get("low", math.inf), choice.get("high", -math.inf)
        if low < high and all(low <= value <= high for value in values):
            return FloatDistribution(low, high, log=bool(choice.get("log")) and low > 0), [float(v) for v in values]
    named = choice if isinstance(choice, list) and all(value in choice for value in values) else values
    if numeric and len(set(values)) > LEAST:
        return FloatDistribution(float(min(values)), float(max(values))), [float(value) for value in values]
    if numeric:
        places = {value: place for place, value in enumerate(sorted(set(named)))}
        return IntDistribution(0, len(places) - 1), [places[value] for value in values]
    words = list(dict.fromkeys(map(str, named)))
    return CategoricalDistribution(words), [str(value) for value in values]


class _Measured:
    """Trials as a study of Optuna's, whose results may be shuffled."""

    def __init__(self, columns: Mapping[str, _Column], trials: int) -> None:
        import optuna

        distributions = {name: distribution for name, (distribution, _) in columns.items()}
        with _quiet():
            self.study = optuna.create_study()
            for place in range(trials):
                params = {name: column[place] for name, (_, column) in columns.items()}
                self.study.add_trial(optuna.create_trial(value=0.0, params=params, distributions=distributions))
        quantile = max(_BEST, _FEWEST / trials)
        self.evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)

    def importances(self, values: Sequence[float]) -> dict[str, float]:
        """By field, where trials come to these values, the less the better; they do not add up to 1."""
        import optuna

        with _quiet():
            return optuna.importance.get_param_importances(
                self.study, evaluator=self.evaluator, target=lambda trial: values[trial.number], normalize=False
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from reporting each new study, and from saying each time that the less is the better."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _with_chance(measured: _Measured, values: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
    """The shares, and the most that chance gave, as a share of the same whole."""
    found = measured.importances(values)
    shuffles = [measured.importances(random.Random(seed).sample(values, len(values))) for seed in range(_SHUFFLES)]
    whole = sum(found.values()) or 1.0
    ordered = sorted(found, key=lambda name: (-found[name], name))
    most = {name: max(shuffled[name] for shuffled in shuffles) for name in ordered}
    return {name: found[name] / whole for name in ordered}, {name: most[name] / whole for name in ordered}


def _sentence(objective: str, shares: Mapping[str, float], chance: Mapping[str, float]) -> str:
    more = [f"{name.replace('_', ' ')} ({share:.0%})" for name, share in shares.items() if share > chance[name]]
    if not more:
        return f"{objective}: no field is more important than by chance."
    return f"Who is best by {objective} is decided by {enumerated(more, most=4)}; no other is beyond chance."
