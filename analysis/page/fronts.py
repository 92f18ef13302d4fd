"""Configurations as points: the objectives against each other, and MSE against each rate of an image."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from analysis import fronts
from analysis.fronts import Directions, Point
from analysis.layout import Table, counted
from analysis.page.svg import NAMED, Chart, Figure, free_places, mark, path, text
from analysis.page.view import View, axis_label, psnr_ticks
from analysis.rates import entropy_coded, fixed_length, has_learned, learned
from analysis.results import Group
from analysis.stats import Estimate
from analysis.tables import dimension_rates_table, front_table, groups_table, rates_table
from trainables.journal import TrialRecord

Points = Callable[[Group], dict[int, Point]]


def front_figure(view: View) -> Figure | None:
    """The objectives against each other; none if nothing has been reported."""
    results = view.results
    (up, across), (first, second) = results.columns, results.objectives
    stopped = [trial for trial in view.trials if trial.key not in view.group_of and _last(trial, across, up)]
    if not results.groups and not stopped:
        return None
    points: Points = lambda group: group.points(across, up)  # noqa: E731 (a typed name for what three calls need)
    chart = _chart(view, points, stopped, (across, up), axis_label(second), axis_label(first))
    if first.column == "mse":
        chart.right, chart.right_label = psnr_ticks(chart.y), "PSNR, dB"
    _draw_band(chart, view)
    _draw_stopped(chart, view, stopped, (across, up))
    on_front = [chart.place(group.mean(across), group.mean(up)) for group in results.front]
    _draw_staircase(chart, on_front, (second.direction, first.direction))
    _draw_points(chart, view, points)
    for group in results.estimated:
        _draw_bars(chart, results.estimate(group, across), results.estimate(group, up), view.colour(group.estimator))
    _draw_names(chart, view, results.front, points)
    spread = (
        "Small marks are seeds, large ones means with their 95 % intervals, which hold together; one that touches an "
        "edge reaches beyond it."
        if results.several
        else "One seed a configuration: an order, and no claim."
    )
    faint = (
        f" Faint: {counted(len(stopped), 'trial')} that did not reach the end, at the last epoch." if stopped else ""
    )
    legend = [*view.estimator_legend, ("line front", "front of the means" if results.several else "front by one seed")]
    if len(results.several) > 1:
        legend.append(("area band", "95 % band of the front"))
    if results.screening is not None:
        legend.append(("seed ring", f"seed {results.screening}, which screened and is in no mean"))
    name = f"{first.name} against {second.name}"
    title = name[0].upper() + name[1:]
    description = f"{spread}{faint} Numbers name {_named(results.front)}, {first.best} first."
    return Figure(
        "front", title, description, chart.svg("front", title, description),
        front_table(results) or (groups_table(results) if results.groups else None), tuple(legend),
    )  # fmt: skip


def rate_figures(view: View) -> list[Figure]:
    """MSE against the bits of an image: entropy coded, of fixed length, and under learned priors where those were
    trained; none for fewer than two configurations."""
    results = view.results
    if len(results.groups) < 2:
        return []
    an_image, a_dimension = rates_table(results), dimension_rates_table(results) or rates_table(results)
    kinds: list[tuple[str, str, Points, str, Table | None]] = [
        ("rate", "ideal entropy coder", entropy_coded, "the entropy of the codes used", an_image),
        ("fixed-rate", "fixed length", fixed_length, "log2 K a code", a_dimension),
    ]
    if has_learned(results):
        told = "of test codes under a small causal prior of the training set's"
        kinds.append(("learned-rate", "learned prior", learned, told, an_image))
    return [figure for kind in kinds if (figure := _rate_figure(view, *kind))]


def _rate_figure(view: View, name: str, code: str, points: Points, what: str, table: Table | None) -> Figure | None:
    if not any(points(group) for group in view.results.groups):
        return None
    across, up = "bits an image (less is better)", "MSE on [-1, 1] (less is better)"
    chart = _chart(view, points, [], ("bits", "mse"), across, up)
    chart.right, chart.right_label = psnr_ticks(chart.y), "PSNR, dB"
    means = {group.label: _mean(points(group)) for group in view.results.groups}
    groups = [view.results.groups[i] for i in fronts.front(list(means.values()))]
    _draw_staircase(chart, [chart.place(*means[group.label]) for group in groups], ("min", "min"))
    _draw_points(chart, view, points)
    _draw_names(chart, view, groups, points)
    title = f"MSE against rate, {code}"
    marks = f"Large marks are means, small ones seeds. Numbers name {_named(groups, 'this')}, the lowest rate first."
    description = f"Rate: {what}. {marks}"
    return Figure(name, title, description, chart.svg(name, title, description), table, view.estimator_legend)


def _chart(
    view: View, points: Points, stopped: Sequence[TrialRecord], columns: tuple[str, str], across: str, up: str
) -> Chart:
    """Axes that hold all configurations, and those stopped trials that are not far worse than all of them."""
    places = [p for g in view.results.groups for one in (g, g.screening) if one for p in points(one).values()]
    places += [place for trial in stopped if (place := _last(trial, *columns))] if not places else []
    xs, ys = zip(*(place for place in places if all(map(math.isfinite, place))), strict=True)
    logs = tuple(min(values) > 0 and max(values) / min(values) > 3 for values in (xs, ys))
    extra = [p for trial in stopped if (p := _last(trial, *columns)) and _near(p, xs, ys)]
    xs, ys = (*xs, *(x for x, _ in extra)), (*ys, *(y for _, y in extra))
    return Chart.of(xs, ys, across, up, log=(logs[0], logs[1]), right=True)


def _near(place: Point, xs: Sequence[float], ys: Sequence[float]) -> bool:
    """Whether a point lies at most half a range outside."""
    return all(
        min(values) - 0.5 * (max(values) - min(values)) <= value <= max(values) + 0.5 * (max(values) - min(values))
        for value, values in zip(place, (xs, ys), strict=True)
    )


def _last(trial: TrialRecord, across: str, up: str) -> Point | None:
    """Both metrics after the trial's last epoch."""
    report = trial.epochs.get(trial.last_epoch, {})
    return (report[across], report[up]) if across in report and up in report else None


def _mean(by_seed: dict[int, Point]) -> Point:
    if not by_seed:
        return math.nan, math.nan
    xs, ys = zip(*by_seed.values(), strict=True)
    return Estimate.of(xs).mean, Estimate.of(ys).mean


def _draw_stopped(chart: Chart, view: View, stopped: Sequence[TrialRecord], columns: tuple[str, str]) -> None:
    """Faint marks; those outside the axes lie on their edge."""
    for trial in stopped:
        if place := _last(trial, *columns):
            x = min(max(place[0], chart.x.low), chart.x.high)
            y = min(max(place[1], chart.y.low), chart.y.high)
            estimator = trial.config.get("estimator")
            chart.add(
                mark(
                    *chart.place(x, y), view.shape(estimator), f"stopped {view.colour(estimator)}",
                    data_t=view.numbers[trial.key],
                )
            )  # fmt: skip


def _draw_points(chart: Chart, view: View, points: Points) -> None:
    """Small marks for the seeds, rings for the screening seed, then a large mark for each mean."""
    means: list[Markup] = []
    for group in view.results.groups:
        shape, colour = view.shape(group.estimator), view.colour(group.estimator)
        by_seed = {int(trial.config.get("seed", 0)): trial for trial in group.trials}
        for seed, place in points(group).items():
            chart.add(mark(*chart.place(*place), shape, f"seed {colour}", data_t=view.numbers[by_seed[seed].key]))
        if group.screening and group.screened:
            for place in points(group.screening).values():
                ring = f"seed ring {colour}"
                chart.add(mark(*chart.place(*place), shape, ring, data_t=view.numbers[group.screened.key]))
        if all(map(math.isfinite, mean := _mean(points(group)))):
            number = view.group_numbers[group.label]
            means.append(mark(*chart.place(*mean), shape, f"mean {colour}", data_g=number))
    chart.add(*means)


def _draw_bars(chart: Chart, x: Estimate, y: Estimate, colour: str) -> None:
    """The intervals of a mean, cut off at the axes."""
    if not (math.isfinite(x.mean) and math.isfinite(y.mean)) or x.n < 2:
        return
    centre = chart.place(x.mean, y.mean)
    for estimate, scale, horizontal in ((x, chart.x, True), (y, chart.y, False)):
        if interval := estimate.interval():
            low, high = (scale(min(max(end, scale.low), scale.high)) for end in interval)
            ends = [(low, centre[1]), (high, centre[1])] if horizontal else [(centre[0], low), (centre[0], high)]
            chart.add(path(ends, f"bar {colour}"))


def _draw_staircase(chart: Chart, front: Sequence[Point], directions: Directions) -> None:
    """The border of the region that the front dominates; ``directions`` are those across and up."""
    if not front:
        return
    across, up = directions
    right, top = max(chart.x.start, chart.x.end), min(chart.y.start, chart.y.end)
    start = right if across == "min" else chart.x.start
    end = top if up == "min" else max(chart.y.start, chart.y.end)
    corners = sorted(set(front), reverse=across == "min")
    steps = [(start, corners[0][1])]
    for (x, y), (_, after) in zip(corners, [*corners[1:], (0, end)], strict=True):
        steps += [(x, y), (x, after)]
    chart.add(path(steps, "front"))


def _draw_band(chart: Chart, view: View) -> None:
    """The band of the front of the true means, where several configurations have several seeds."""
    several = [group.points(*view.results.columns) for group in view.results.several]
    if len(several) < 2:
        return
    steps = 120
    at = [chart.y.low + (chart.y.high - chart.y.low) * i / steps for i in range(steps + 1)]
    low, high = fronts.band(several, at, view.results.directions)
    ends = [[min(max(float(v), chart.x.low), chart.x.high) for v in side] for side in (low, high)]
    outline = [chart.place(x, y) for x, y in zip(ends[0], at, strict=True)]
    outline += [chart.place(x, y) for x, y in reversed(list(zip(ends[1], at, strict=True)))]
    chart.add(path(outline, "band", close=True))


def _draw_names(chart: Chart, view: View, groups: Sequence[Group], points: Points) -> None:
    """Beside each mean of these its place in the list, without covering another."""
    places = {group.label: _mean(points(group)) for group in view.results.groups}
    pixels = {label: chart.place(*p) for label, p in places.items() if all(map(math.isfinite, p))}
    named = [group for group in groups if group.label in pixels][:NAMED]
    texts = [str(number) for number in range(1, len(named) + 1)]
    at = free_places([pixels[group.label] for group in named], texts, list(pixels.values()))
    for group, label, (x, y) in zip(named, texts, at, strict=True):
        chart.add(text(x, y, label, f"name {view.colour(group.estimator)}", data_g=view.group_numbers[group.label]))


def _named(front: Sequence[Group], which: str = "the") -> str:
    """More numbers than these could not be read."""
    return f"{NAMED} of the {len(front)} on {which} front" if len(front) > NAMED else f"{which} front"
