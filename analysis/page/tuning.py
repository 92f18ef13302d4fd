"""Tuning curves: the best after n trials, a line and an interval an estimator."""

import math

from analysis.estimators import EstimatorComparison, TunedEstimator, estimator_comparison
from analysis.layout import Row, Table
from analysis.objectives import Objective
from analysis.page.svg import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Chart, Figure, Scale, path
from analysis.page.view import View
from analysis.stats import TuningCurve


def tuning_figures(view: View) -> list[Figure]:
    """One for each objective; none unless two estimators were tuned."""
    made = estimator_comparison(view.results)
    return [_figure(view, made, objective) for objective in view.results.objectives] if made else []


def _figure(view: View, made: EstimatorComparison, objective: Objective) -> Figure:
    curves = [(one, one.curve(objective)) for one in made.tuned]
    values = [v for _, curve in curves for line in (curve.median, curve.expected) for v in line if math.isfinite(v)]
    most = max(len(curve.median) for _, curve in curves)
    ratio = min(values) > 0 and max(values) / min(values) > 3
    x = Scale.over([1.0, max(most, 2)], LEFT, WIDTH - 16, log=True)
    y = Scale.over(values, HEIGHT - BOTTOM, TOP, log=ratio)
    chart = Chart(x, y, "trials", f"best {objective.name} after so many")
    powers = [2**power for power in range(most.bit_length()) if 2**power <= most]
    chart.x_ticks = [(count, str(count)) for count in powers[:: max(1, len(powers) // 6)]]
    for one, curve in curves:
        _draw(chart, view, one, curve)
    title = f"Best {objective.name} after n trials of each estimator"
    description = (
        f"Lines: the median over random orders of the trials of seed {made.seed}; bands: its 95 % interval, where so "
        f"many trials tell it. A trial stopped early or failed was tried, and is worse than all. {made.sampler_note}"
    ).strip()
    name = f"tuning-{objective.column}"
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64, 128, 256) if count <= most]
    rows: list[Row] = []
    for one, curve in curves:
        medians = [curve.median[n - 1] if n <= len(curve.median) else math.nan for n in counts]
        cells = (f"{v:.4g}" if math.isfinite(v) else "–" for v in medians)  # not finite: most were stopped or failed
        rows.append((one.name, str(len(one.tried)), f"{one.epochs:,}", *cells))
    table = Table(
        title, ("estimator", "trials", "epochs", *(f"after {n}" for n in counts)), tuple(rows), (made.budget,)
    )
    legend = tuple((f"mean {view.colour(one.name)}", one.name) for one in made.tuned)
    return Figure(name, title, description, chart.svg(name, title, description), table, legend)


def _draw(chart: Chart, view: View, one: TunedEstimator, curve: TuningCurve) -> None:
    colour = view.colour(one.name)

    def cut(value: float) -> float:
        return min(max(value, chart.y.low), chart.y.high)

    bounds = list(enumerate(zip(curve.low, curve.high, strict=True), 1))
    told = [(n, low, high) for n, (low, high) in bounds if math.isfinite(low) and math.isfinite(high)]
    if len(told) > 1:
        low = [chart.place(n, cut(value)) for n, value, _ in told]
        high = [chart.place(n, cut(value)) for n, _, value in told]
        chart.add(path([*low, *reversed(high)], f"spread {colour}", close=True))
    middle = [chart.place(n, cut(value)) for n, value in enumerate(curve.median, 1) if math.isfinite(value)]
    if len(middle) > 1:
        chart.add(path(middle, f"curve {colour}"))
