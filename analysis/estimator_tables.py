"""The estimators' comparison in rows: what each was given, its best, who is told apart, and the tuning curve."""

import math

from analysis.estimators import Contest, budget_words, configuration, contest
from analysis.layout import Table
from analysis.results import Results

Row = tuple[str, ...]


def estimator_tables(results: Results) -> list[Table]:
    """The tables; none unless there are two tuned estimators (``contest``)."""
    made = contest(results)
    return [_best(made), _duels(made), _budget(made), _curves(made)] if made else []


def _best(made: Contest) -> Table:
    rows: list[Row] = []
    for objective in made.results.objectives:
        for one in made.ranked(objective):
            group, told = one.best(objective), one.told(objective)
            chose = group.by_seed(objective.column)[made.seed]
            fresh = len(one.fresh(objective))
            numbers = (told.show(chose), str(fresh), *((told.text, told.interval_text) if fresh else ("–", "–")))
            rows.append((objective.name, one.name, configuration(group, made.results), *numbers))
    columns = ("by", "estimator", "its best", f"seed {made.seed}", "n", "other seeds", "95 % interval")
    notes = (
        f"its best: of what it completed, the best with seed {made.seed}, which is left out of n and of the tests: of "
        "many tried, the best by one seed is in part the luckiest",
        f"tuned for each estimator: {made.searched}; {made.results.data}, after epoch {made.results.epoch}",
    )
    return Table("Each estimator at its best", columns, tuple(rows), notes, left=3)


def _duels(made: Contest) -> Table:
    rows: list[Row] = []
    for duel in made.duels:
        compared = duel.comparison
        difference, interval, effect = compared.difference, compared.interval, compared.effect
        pair = (duel.objective.name, f"{duel.one.name} minus {duel.other.name}", str(difference.n if difference else 0))
        mean = difference.show(difference.mean) if difference else "–"
        ends = "[{}, {}]".format(*map(difference.show, interval)) if difference and interval else "–"
        tested = not math.isnan(compared.adjusted)
        verdict = ("yes" if compared.told_apart else "no") if tested else "too few seeds"
        size = "–" if effect is None else f"{effect:.1f}"
        rows.append((*pair, mean, ends, size, f"{compared.adjusted:.2g}" if tested else "–", verdict))
    columns = ("by", "pair", "n", "difference", "interval", "effect", "p", "told apart")
    notes = (
        "paired over the n seeds that both have besides the one that chose; p: paired t tests, Holm's correction for "
        "all rows; intervals: all rows' together hold with 95 % (Bonferroni; Holm's test tells a little more apart)",
        "effect: the mean difference by its standard deviation over seeds (Hedges' correction), from 3 seeds on",
    )
    return Table("Told apart?", columns, tuple(rows), notes, left=2)


def _budget(made: Contest) -> Table:
    rows = tuple(
        (
            one.name,
            str(len(one.tried)),
            str(one.count("completed")),
            str(one.count("stopped")),
            str(len(one.tried) - one.count("completed", "stopped")),
            f"{one.epochs:,}",
            f"{one.all_epochs:,}",
        )
        for one in made.tuned
    )
    columns = ("estimator", "tried", "completed", "stopped early", "failed", "epochs to tune", "epochs in all")
    notes = (budget_words(made.tuned), f"tried and epochs to tune: of seed {made.seed}; in all: with further seeds")
    return Table("What each was given", columns, rows, notes)


def _curves(made: Contest) -> Table:
    rows: list[Row] = []
    for objective in made.results.objectives:
        for one in made.tuned:
            curve = one.curve(objective)
            for n in _steps(len(curve.expected)):
                numbers = map(_number, (curve.expected[n - 1], curve.median[n - 1]))
                ends = _ends(curve.low[n - 1], curve.high[n - 1])
                rows.append((objective.name, one.name, str(n), *numbers, ends))
    columns = ("best of", "estimator", "trials", "expected", "median", "95 % interval")
    return Table("What tuning is worth", columns, tuple(rows), _curve_notes(made), left=2)


def _curve_notes(made: Contest) -> tuple[str, ...]:
    """How to read the tuning curve."""
    notes = (
        "the best of n of the trials that each estimator tried, drawn at random; a trial stopped early or failed was "
        "tried: it counts in the mean as the worst that completed, in median and interval as worse than all",
        "interval: of the median (Lourie et al. 2024), exact; a dash where so many trials say nothing of it",
    )
    return (*notes, learned(made)) if learned(made) else notes


def learned(made: Contest) -> str:
    """What the curve is of where a sampler chose each trial by those before it; else nothing."""
    sampler = str(made.results.told("sampler") or "grid")
    if sampler in ("grid", "random", "qmc"):
        return ""
    return f"The sampler ({sampler}) learned from earlier trials: this is of its trials in random order."


def _steps(trials: int) -> list[int]:
    doubled = [2**k for k in range(trials.bit_length()) if 2**k < trials]
    return [*doubled, trials] if trials else []


def _ends(low: float, high: float) -> str:
    return f"[{_number(low)}, {_number(high)}]" if math.isfinite(low) or math.isfinite(high) else "–"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"
