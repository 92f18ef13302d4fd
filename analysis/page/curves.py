"""Metrics by epoch: a line and a band a configuration, a faint line for each trial that did not reach the end."""

from collections.abc import Sequence

from analysis.layout import Row, Table, counted
from analysis.objectives import Objective
from analysis.page.svg import NAMED, WIDTH, Chart, Figure, free_places, mark, path, text
from analysis.page.view import View, axis_label, psnr_ticks
from analysis.results import Group
from analysis.stats import Estimate
from trainables.journal import TrialRecord

CROWD = 100
"""From so many other trials on their lines are fainter."""


def curve_figures(view: View) -> list[Figure]:
    """The learning curves in both objectives; none before the first epoch, and of what is known at the end alone."""
    objectives = [one for one in view.results.objectives if not one.metric.at_end]
    return [_figure(view, one) for one in objectives if any(_values(trial, one.column) for trial in view.trials)]


def _figure(view: View, objective: Objective) -> Figure:
    results, column = view.results, objective.column
    featured = results.featured()
    others = [trial for trial in view.trials if view.group_of.get(trial.key) not in featured]
    told = [trial for trial in view.trials if _values(trial, column)]
    # one that diverged must not press all others into one line
    sound = [trial for trial in told if trial.status not in ("diverged", "failed")] or told
    reports = [_values(trial, column) for trial in sound]
    values = [value for epochs in reports for value in epochs.values()]
    log = min(values) > 0 and max(values) / min(values) > 3
    last = max(max(epochs) for epochs in reports)
    x_values = [1, last] if last > 1 else [0.5, 1.5]
    chart = Chart.of(x_values, values, "epoch", axis_label(objective), log=(False, log), right=column == "mse")
    chart.x_ticks = [(epoch, str(epoch)) for epoch in epoch_ticks(last)]
    if column == "mse":
        chart.right, chart.right_label = psnr_ticks(chart.y), "PSNR, dB"
    weight = "fainter" if len(others) > CROWD else "faint"
    for trial in others:
        _draw_trial(chart, view, trial, column, weight)
    for group in sorted(featured, key=lambda group: group in results.front):
        _draw_group(chart, view, group, column)
    _draw_names(chart, view, column)
    means = "lines: means over the seeds that count, bands: ± 1 sd" if results.several else "one seed a line"
    part = f"{NAMED} of the {len(results.front)} on the front" if len(results.front) > NAMED else "the front"
    means += f"; numbers and strong lines: {part}" if results.front else ""
    rest = f"; faint: {counted(len(others), 'other trial')}" if others else ""
    title = f"{objective.name[0].upper()}{objective.name[1:]} by epoch"
    description = f"Whole test set; {means}{rest}."
    name = f"curves-{column}"
    return Figure(
        name, title, description, chart.svg(name, title, description), _table(featured, objective, last),
        view.estimator_legend,
    )  # fmt: skip


def epoch_ticks(last: int) -> list[int]:
    """At most seven round epochs, the first and the last among them."""
    step = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000, 10**9) if last / step <= 6)
    inner = [epoch for epoch in range(step, last, step) if last - epoch > step / 2 and epoch > 1]
    return list(dict.fromkeys([1, *inner, last]))


def _values(trial: TrialRecord, column: str) -> dict[int, float]:
    return {epoch: report[column] for epoch, report in sorted(trial.epochs.items()) if column in report}


def _draw_trial(chart: Chart, view: View, trial: TrialRecord, column: str, weight: str) -> None:
    colour, number = view.colour(trial.config.get("estimator")), view.numbers[trial.key]
    values = _values(trial, column)
    if not any(chart.y.low <= value <= chart.y.high for value in values.values()):
        return  # it diverged
    places = [chart.place(epoch, _cut(chart, value)) for epoch, value in values.items()]
    if len(places) > 1:
        chart.add(path(places, f"curve {weight} {colour}", data_t=number))
    elif places:
        chart.add(mark(*places[0], view.shape(trial.config.get("estimator")), f"stopped {colour}", data_t=number))


def _draw_group(chart: Chart, view: View, group: Group, column: str) -> None:
    shown = group if group.trials else group.screening or group
    colour, number = view.colour(group.estimator), view.group_numbers[group.label]
    estimates = _estimates(shown, column)
    middle = [chart.place(epoch, _cut(chart, one.mean)) for epoch, one in estimates.items()]
    if len(shown.trials) > 1:
        ends = [[one.mean + side * (one.sd or 0.0) for one in estimates.values()] for side in (-1, 1)]
        low, high = ([chart.place(e, _cut(chart, v)) for e, v in zip(estimates, side, strict=True)] for side in ends)
        chart.add(path([*low, *reversed(high)], f"spread {colour}", close=True, data_g=number))
    if len(middle) == 1:
        chart.add(mark(*middle[0], view.shape(group.estimator), f"mean {colour}", data_g=number))
    elif middle:
        weight = "" if group in view.results.front else "minor "
        chart.add(path(middle, f"curve {weight}{colour}", data_g=number))


def _draw_names(chart: Chart, view: View, column: str) -> None:
    """At the end of each line of the front its place in the list of the front."""
    front = [group for group in view.results.front if group.by_seed(column)][:NAMED]
    ends = [chart.place(group.epoch, _cut(chart, group.mean(column))) for group in front]
    texts = [str(number) for number in range(1, len(front) + 1)]
    for group, label, (x, y) in zip(front, texts, free_places(ends, texts, ends), strict=True):
        number = view.group_numbers[group.label]
        chart.add(text(min(x, WIDTH - 12), y, label, f"name {view.colour(group.estimator)}", data_g=number))


def _cut(chart: Chart, value: float) -> float:
    return min(max(value, chart.y.low), chart.y.high)


def _estimates(group: Group, column: str) -> dict[int, Estimate]:
    """The metric after each epoch that all of the configuration's trials reported."""
    by_trial = [_values(trial, column) for trial in group.trials]
    common = sorted(set.intersection(*map(set, by_trial))) if by_trial else []
    return {epoch: Estimate.of([values[epoch] for values in by_trial]) for epoch in common}


def _table(groups: Sequence[Group], objective: Objective, last: int) -> Table:
    epochs = epoch_ticks(last)
    rows: list[Row] = []
    for group in groups:
        estimates = _estimates(group if group.trials else group.screening or group, objective.column)
        rows.append((group.label, *(estimates[e].text if e in estimates else "–" for e in epochs)))
    return Table(f"{objective.name} by epoch", ("configuration", *map(str, epochs)), tuple(rows))
