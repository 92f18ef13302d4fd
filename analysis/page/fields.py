"""What the fields of the configuration do: parallel coordinates, slices, effects, importance, tuning curves."""

from collections.abc import Sequence

from markupsafe import Markup

from analysis.layout import Row, Table
from analysis.objectives import Objective
from analysis.page.axes import axes, axis, value
from analysis.page.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    TOP,
    WIDE,
    WIDTH,
    Chart,
    Figure,
    Scale,
    element,
    mark,
    path,
    svg,
    text,
)
from analysis.page.view import View, axis_label
from analysis.results import seed_of
from trainables.journal import TrialRecord
from trainables.runs import value_text


def parallel_figure(view: View) -> Figure | None:
    """Each trial as a line through its fields and what it reached; none unless fields were swept and trials told."""
    results = view.results
    trials = [trial for trial in view.trials if trial.epochs]
    if not trials or not results.swept:
        return None
    height = 330
    scales = axes(view, height - 24, 44)
    xs = [60 + (WIDE - 130) / max(len(scales) - 1, 1) * i for i in range(len(scales))]
    parts: list[Markup] = []
    for trial in trials:
        ys = [one(value(trial, one.name)) for one in scales]
        places = [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None]
        group = view.group_of.get(trial.key)
        weight = "faint " if group is None else "" if group in results.front else "minor "
        classes = f"curve {weight}{view.colour(trial.config.get('estimator'))}"
        parts.append(path(places, classes, data_t=view.numbers[trial.key]))
    for index, (x, one) in enumerate(zip(xs, scales, strict=True)):
        parts.append(path([(x, 40), (x, height - 20)], "axis"))
        for tick, label in one.ticks:
            parts.append(text(x + 5, one.scale(tick) + 4, label, "tick halo"))
        parts.append(text(x, 22, one.label, "label halo", "middle"))
        parts.append(
            element("rect", x=x - 12, y=44.0, width=24.0, height=height - 68.0, class_="brush", data_axis=index)
        )
    title = "Parallel coordinates"
    description = "A line a trial: strong on the front, faint if it did not reach the end. Drag on an axis to filter."
    drawing = svg("parallel", title, description, WIDE, height, parts)
    return Figure("parallel", title, description, drawing, legend=view.estimator_legend, wide=True)


def slice_figures(view: View) -> list[Figure]:
    """What each swept field was against each objective, a mark a trial of the lowest seed; none before one is done."""
    results = view.results
    compared = [trial for trial in view.trials if trial.key in view.group_of]
    seeds = {seed_of(trial) for trial in compared}
    trials = [trial for trial in compared if seed_of(trial) == min(seeds)]
    if len(trials) < 2:
        return []
    return [_slice(view, trials, name, objective) for name in results.swept for objective in results.objectives]


def _slice(view: View, trials: Sequence[TrialRecord], name: str, objective: Objective) -> Figure:
    epoch, column = view.results.epoch, objective.column
    values = [trial.epochs[epoch][column] for trial in trials]
    across = axis(name, [trial.config.get(name) for trial in trials], LEFT, WIDTH - 16)
    log = min(values) > 0 and max(values) / min(values) > 8
    up = Scale.over(values, HEIGHT - BOTTOM, TOP, log=log)
    chart = Chart(across.scale, up, across.label, axis_label(objective))
    chart.x_ticks = across.ticks
    for trial, reached in zip(trials, values, strict=True):
        x = across(trial.config.get(name))
        if x is not None:
            estimator = trial.config.get("estimator")
            # equal values of a field would hide each other
            x += 9 * (view.numbers[trial.key] % 7 - 3) / 3 if across.values else 0
            look = f"seed {view.colour(estimator)}"
            chart.add(mark(x, up(reached), view.shape(estimator), look, data_t=view.numbers[trial.key]))
    title = f"{objective.name[0].upper()}{objective.name[1:]} by {across.label}"
    description = f"A mark a trial of seed {seed_of(trials[0])}, after epoch {epoch}; all other fields vary too."
    drawn = f"slice-{name}-{column}"
    rows: list[Row] = [
        (view.label(trial), value_text(trial.config.get(name)), f"{reached:.4g}")
        for trial, reached in zip(trials, values, strict=True)
    ]
    table = Table(title, ("configuration", across.label, objective.name), tuple(rows))
    return Figure(drawn, title, description, chart.svg(drawn, title, description), table, view.estimator_legend)
