"""The course of the search: what was found for what was spent, trials over slots, who went on after each epoch."""

from bisect import bisect_right
from collections.abc import Sequence

from analysis.history import Spending, hypervolume_history
from analysis.layout import Row, Table
from analysis.page.svg import BOTTOM, HEIGHT, LEFT, TOP, WIDE, WIDTH, Chart, Figure, Scale, element, path, text
from analysis.page.view import View
from analysis.timeline import Bar, Rung, Timeline, survival, timeline

_UNITS = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def found_over_epochs(view: View) -> Figure | None:
    """What was found over the epochs that were spent; none before two trials have ended."""
    history = hypervolume_history(view.results)
    return None if history is None else _history(history.epochs, history.what, history.sentence, history.note)


def found_over_time(view: View) -> Figure | None:
    """What was found over the seconds of trials; none before two trials have ended, or where none are recorded."""
    history = hypervolume_history(view.results)
    if history is None or history.seconds is None:
        return None
    return _history(history.seconds, history.what, "The same over the seconds that trials took.", history.note)


def _history(spending: Spending, what: str, description: str, note: str) -> Figure:
    top = max(1.0, *spending.high) if spending.high else 1.0
    scale, unit = _in_units(spending.spent[-1]) if "seconds" in spending.unit else (1.0, spending.unit)
    label = spending.unit.replace("seconds", unit) if scale != 1.0 else spending.unit
    x = Scale(0.0, max(spending.spent[-1] / scale, 1e-9), LEFT, WIDTH - 16)
    y = Scale(0.0, 104 * top, HEIGHT - BOTTOM, TOP)
    chart = Chart(x, y, f"{label} spent", "found, % of what the run found in the end")
    at = [value / scale for value in spending.at]
    low = [chart.place(place, 100 * value) for place, value in zip(at, spending.low, strict=True)]
    high = [chart.place(place, 100 * value) for place, value in zip(at, spending.high, strict=True)]
    chart.add(path([*low, *reversed(high)], "area", close=True))
    chart.add(path([chart.place(a, 100 * v) for a, v in zip(at, spending.expected, strict=True)], "compare"))
    chart.add(path(_steps(chart, [value / scale for value in spending.spent], spending.found), "plain"))
    title = f"{what[0].upper()}{what[1:]} over {label}"
    name = "found-" + ("seconds" if "seconds" in spending.unit else "epochs")
    legend = (("line plain", "this run"), ("line compare", "random search, expected"), ("area area", "its 5 to 95 %"))
    shares = (0.1, 0.25, 0.5, 0.75, 1.0)
    rows: list[Row] = []
    for share in shares:
        place = min(int(share * (len(spending.at) - 1)), len(spending.at) - 1)
        found = spending.found[bisect_right(spending.spent, spending.at[place]) - 1]
        rows.append((f"{share:.0%}", f"{found:.1%}", f"{spending.expected[place]:.1%}"))
    table = Table(title, (f"of the {label}", "this run found", "random search, expected"), tuple(rows), (note,))
    return Figure(name, title, description, chart.svg(name, title, description), table, legend)


def _steps(chart: Chart, spent: Sequence[float], found: Sequence[float]) -> list[tuple[float, float]]:
    places = [chart.place(spent[0], 100 * found[0])]
    for before, now, value in zip(found, spent[1:], found[1:], strict=False):
        places += [chart.place(now, 100 * before), chart.place(now, 100 * value)]
    return places


def _in_units(seconds: float) -> tuple[float, str]:
    """The largest unit of which there are at least two."""
    return next(((size, name) for size, name in _UNITS if seconds >= 2 * size), (1.0, "seconds"))


def timeline_figure(view: View) -> Figure | None:
    """Trials over slots; none before the first epoch has ended."""
    course = timeline(view.results)
    if course is None:
        return None
    scale, unit = _in_units(course.seconds)
    row = max(1.5, min(26.0, 520 / course.slots))
    height = round(TOP + row * course.slots + BOTTOM)
    x = Scale(0.0, (course.seconds or 1.0) / scale, LEFT, WIDE - 16)
    y = Scale(0.0, float(course.slots), float(TOP), TOP + row * course.slots)
    chart = Chart(x, y, unit, "slot", width=WIDE, height=height)
    step = max(1, -(-course.slots // 16))
    chart.y_ticks = [(slot + 0.5, str(slot + 1)) for slot in range(0, course.slots, step)]
    for bar in course.bars:
        _draw_bar(chart, view, bar, scale, row)
    for bar in course.bars:  # over all of them, since the next begins where a trial was stopped
        _draw_end(chart, bar, scale, row)
    for pause in course.pauses:
        chart.add(path([(x(pause.at / scale), TOP - 4), (x(pause.at / scale), height - BOTTOM)], "front"))
        chart.add(text(x(pause.at / scale) + 3, TOP - 6, "resumed", "tick"))
    title = "Trials over slots"
    description = (
        "A bar a trial's stay on a slot, faint if the trial did not reach the end; a cross where it was stopped early, "
        "diverged or failed. " + course.sentence
    )
    drawing = chart.svg("timeline", title, description)
    legend = (*view.estimator_legend, ("mark end", "ended before the end"))
    return Figure("timeline", title, description, drawing, _ends(course), legend, wide=True)


def _draw_bar(chart: Chart, view: View, bar: Bar, scale: float, row: float) -> None:
    number = view.numbers[bar.trial]
    trial = view.trials[number]
    left, right = chart.x(bar.start / scale), chart.x(bar.end / scale)
    top, faint = chart.y(bar.slot), "" if trial.key in view.group_of else " stopped"
    chart.add(
        element(
            "rect", x=left, y=top + row * 0.08, width=max(right - left, 0.8), height=row * 0.84,
            class_=f"block{faint} {view.colour(trial.config.get('estimator'))}", data_t=number,
        )
    )  # fmt: skip


def _draw_end(chart: Chart, bar: Bar, scale: float, row: float) -> None:
    if bar.status in ("stopped", "diverged", "failed"):
        x, y, size = chart.x(bar.end / scale), chart.y(bar.slot) + row / 2, min(row * 0.3, 4.0)
        chart.add(path([(x - size, y - size), (x + size, y + size)], "end"))
        chart.add(path([(x - size, y + size), (x + size, y - size)], "end"))


def _ends(course: Timeline) -> Table:
    rows: list[Row] = [
        (bar.label, str(bar.seed), str(bar.slot + 1), f"{bar.end:,.0f}", str(bar.epochs[1]), bar.status, bar.reason)
        for bar in course.bars
        if bar.status and bar.status != "completed"
    ]
    columns = ("configuration", "seed", "slot", "s", "epoch", "status", "why")
    return Table("Trials that did not complete, as they ended", columns, tuple(rows))


def survival_figure(view: View) -> Figure | None:
    """How many trials reached each epoch, and what became of them there; none unless some were stopped."""
    epochs = survival(view.results)
    if not any(one.stopped for one in epochs):
        return None
    most = max(len(one.came) for one in epochs)
    x = Scale(0.4, len(epochs) + 0.6, LEFT, WIDTH - 16)
    y = Scale(0.0, 1.05 * most, HEIGHT - BOTTOM, TOP)
    chart = Chart(x, y, "epoch", "trials")
    step = max(1, -(-len(epochs) // 10))
    chart.x_ticks = [(one.epoch, str(one.epoch)) for one in epochs[::step]]
    for one in epochs:
        _draw_epoch(chart, one)
    title = "Who went on after each epoch"
    description = f"Trials of the screening seed that reached each epoch: {len(epochs[0].came)} had the first."
    kinds = (("area solid", "went on"), ("area halt", "stopped there"), ("area quiet", "waiting, or ended otherwise"))
    rows: list[Row] = [
        (str(one.epoch), *(str(len(part)) for part in (one.came, one.went_on, one.stopped, one.waiting, one.ended)))
        for one in epochs
    ]
    table = Table(title, ("epoch", "came", "went on", "stopped", "waiting", "ended otherwise"), tuple(rows))
    return Figure("survival", title, description, chart.svg("survival", title, description), table, kinds)


def _draw_epoch(chart: Chart, one: Rung) -> None:
    low = 0
    parts = (("solid", one.went_on), ("halt", one.stopped), ("quiet", (*one.waiting, *one.ended)))
    for look, keys in parts:
        if keys:
            top, bottom = chart.y(low + len(keys)), chart.y(low)
            left, right = chart.x(one.epoch - 0.38), chart.x(one.epoch + 0.38)
            chart.add(element("rect", x=left, y=top, width=right - left, height=bottom - top, class_=look))
            low += len(keys)
