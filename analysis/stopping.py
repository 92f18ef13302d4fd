"""What early stopping has saved, and what it is estimated to have cost. Pure.

The trials that were trained to the end tell how the others would have ended (``analysis.forecast``), those among them
that no rule could stop without the bias of having been chosen. The ends of the stopped trials are drawn from their
forecasts, and what they would add to what was found is measured in every draw.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from analysis.forecast import LEAST_FITTED, Config, Fields, Floats, Forecast, thinned, told_by
from analysis.fronts import Point, hypervolume
from analysis.improvement import Ends, scaled, unscaled
from analysis.layout import counted
from analysis.objectives import Objective
from analysis.results import Results, once, seed_of

# Shape suffixes: N trials that are through, M stopped trials, D draws, E epochs, O objectives.

EARLY = ("forecast: ", "rung ")
"""The beginnings of the reasons of early stopping; a collapse and a budget that is spent have others."""

DRAWS = 400
"""Of the ends of the stopped trials."""


class Curve(Protocol):
    """A trial: its configuration, and its metrics by epoch."""

    @property
    def config(self) -> Config:
        """Flat."""

    @property
    def epochs(self) -> Mapping[int, Mapping[str, float]]:
        """Metrics by epoch."""


class Cost(NamedTuple):
    """Of stopping, as a share of what was found: of the best value, or of the front's hypervolume."""

    likely: float
    """In half of the draws it is less."""
    most: float
    """In 95 % of the draws it is less."""


@once
def stopping_sentence(results: Results) -> str | None:
    """What stopping saved and is estimated to have cost, of the trials that screen; None where nobody was stopped."""
    screens = min(map(seed_of, results.trials), default=0)
    trials = [trial for trial in results.trials if seed_of(trial) == screens]
    through = [trial for trial in trials if trial.status == "completed"]
    stopped = [trial for trial in trials if trial.status == "stopped" and trial.reason.startswith(EARLY)]
    if not stopped or not through:
        return None
    epochs = max(trial.last_epoch for trial in through)
    saved = sum(epochs - trial.last_epoch for trial in stopped)
    whole = epochs * (len(stopped) + len(through))
    said = (
        f"Early stopping of {counted(len(stopped), 'trial')} saved {saved:,} of {whole:,} epochs ({saved / whole:.0%})."
    )
    cost = estimated_cost(results.aims, through, stopped, epochs)
    if cost is None:
        return f"{said} What it cost cannot be estimated: too few trials are through."
    one = len(results.aims) == 1
    what, better = (results.aims[0].best, "better") if one else ("hypervolume of the front", "larger")
    return (
        f"{said} Had none been stopped, the {what} would be {cost.most:.1%} {better} at most, likely {cost.likely:.1%} "
        f"(95 %, by forecasts from the {len(through)} that were trained to the end)."
    )


def estimated_cost(
    aims: Sequence[Objective], through: Sequence[Curve], stopped: Sequence[Curve], epochs: int
) -> Cost | None:
    """How much better the best value, or larger the hypervolume of the front, would be had nobody been stopped.

    ``through`` have had all ``epochs``. None where there are too few of them, or nobody was stopped.
    """
    known = [curve for curve in through if np.isfinite(_scaled(aims, curve, epochs)).all()]
    known = [known[place] for place in thinned(len(known))] if known else []
    cut = [curve for curve in stopped if curve.epochs and np.isfinite(_scaled(aims, curve, max(curve.epochs))).all()]
    ends = forecast_ends(aims, known, cut, epochs)
    if ends is None:
        return None
    found_NO = np.array([_scaled(aims, curve, epochs) for curve in known])
    best_O, worst_O = found_NO.min(axis=0), found_NO.max(axis=0)
    drawn_DMO = np.maximum(
        _draws(ends), best_O - (worst_O - best_O)
    )  # no further beyond the best than the worst is behind
    gains = [gain(aims, unscaled(aims, found_NO), unscaled(aims, end_MO)) for end_MO in drawn_DMO]
    likely, most = np.quantile(gains, (0.5, 0.95))
    return Cost(float(likely), float(most))


def _scaled(aims: Sequence[Objective], curve: Curve, epoch: int) -> Floats:
    """Objectives at an epoch; NaN where it was not recorded."""
    metrics = curve.epochs.get(epoch, {})
    row_O: Floats = scaled(aims, np.array([[aim.minimised(metrics) for aim in aims]]))[0]
    return row_O


def forecast_ends(
    aims: Sequence[Objective], through: Sequence[Curve], stopped: Sequence[Curve], epochs: int
) -> Ends | None:
    """How the stopped trials would have ended, those of one epoch together, in the order in which the epochs come.

    ``through`` have had all ``epochs``, and all objectives are finite there, and at the last epoch of each that was
    stopped. None where none was, or too few are through.
    """
    fields = Fields([curve.config for curve in (*through, *stopped)])
    by_epoch: dict[int, list[Curve]] = defaultdict(list)
    for curve in stopped:
        by_epoch[max(curve.epochs)].append(curve)
    parts = []
    for epoch, cut in by_epoch.items():
        told = [curve for curve in through if np.isfinite(_scaled(aims, curve, epoch)).all()]  # a line may be lost
        if len(told) < LEAST_FITTED:
            return None
        ends_NO = np.array([_scaled(aims, curve, epochs) for curve in told])
        fit = Forecast(fields, [curve.config for curve in told], _reached(aims, told, epoch), ends_NO)
        parts.append(fit.ends([curve.config for curve in cut], _reached(aims, cut, epoch)))
    return Ends.joined(parts) if parts else None


def _reached(aims: Sequence[Objective], curves: Sequence[Curve], epoch: int) -> Floats:
    rows = [[_scaled(aims, curve, before) for before in told_by(epoch)] for curve in curves]
    reached_NEO = np.array(rows)
    now_N1O = reached_NEO[:, -1:]
    filled: Floats = np.where(np.isfinite(reached_NEO), reached_NEO, now_N1O)
    return filled


def _draws(ends: Ends) -> Floats:
    """(draws, stopped trials, objectives)."""
    trials, objectives = ends.means.shape
    z_DMO = np.random.default_rng(0).normal(size=(DRAWS, trials, objectives))
    if objectives > 1:
        both_M = ends.correlations
        z_DMO[..., 1] = both_M * z_DMO[..., 0] + np.sqrt(1 - both_M**2) * z_DMO[..., 1]
    drawn: Floats = ends.means + ends.deviations * z_DMO
    return drawn


def gain(aims: Sequence[Objective], found_NO: Floats, added_MO: Floats) -> float:
    """How much better the best is, or larger the front's hypervolume, with more ends; as a share of what it is without.

    Ends are objectives to be small. The reference point is as far beyond the worst found as the best is before it.
    """
    worst_O, best_O = found_NO.max(axis=0), found_NO.min(axis=0)
    if len(aims) == 1:
        whole = abs(best_O[0]) if aims[0].metric.ratio else worst_O[0] - best_O[0]
        return max(0.0, float(best_O[0] - added_MO.min())) / float(whole) if whole > 0 else 0.0
    edge_O = worst_O + (worst_O - best_O)
    reference = float(edge_O[0]), float(edge_O[1])
    found: list[Point] = [(float(x), float(y)) for x, y in found_NO]
    added: list[Point] = [(float(x), float(y)) for x, y in added_MO]
    before = hypervolume(found, reference)
    return hypervolume([*found, *added], reference) / before - 1 if before > 0 else 0.0
