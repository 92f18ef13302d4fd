"""The effect of each field as intervals, and how much of the variation each field explains."""

from collections.abc import Sequence

from analysis.effects import FieldEffect, LevelEffect, field_effects
from analysis.importance import Importance, importance
from analysis.layout import Row, Table
from analysis.objectives import Objective
from analysis.page.svg import BOTTOM, TOP, WIDTH, Chart, Figure, Scale, element, path, text
from analysis.page.view import View
from trainables.runs import SHORT

_LABELS = 206
"""Width of the labels on the left."""
_ROW = 21


def effect_figures(view: View) -> list[Figure]:
    """Each objective's effects; none where no field has any."""
    figures = []
    for objective in view.results.objectives:
        if of := [one for one in field_effects(view.results) if one.objective == objective and len(one.levels) > 1]:
            figures.append(_effects(of, objective))
    return figures


def _effects(effects: Sequence[FieldEffect], objective: Objective) -> Figure:
    rows: list[tuple[str, LevelEffect | None]] = []
    for one in effects:
        rows.append((named(one.field), None))
        rows += [(level.label, level) for level in one.levels]
    ends = [0.0]
    for _, level in rows:
        if level is not None:
            ends += [level.difference, *(level.interval or ())]
    height = TOP + _ROW * len(rows) + BOTTOM
    x = Scale.over(ends, _LABELS, WIDTH - 16)
    chart = Chart(x, Scale(0.0, len(rows), TOP, height - BOTTOM), "", "", height=height, y_ticks=())
    better = "less" if objective.direction == "min" else "more"
    chart.x_label = f"{objective.name} beyond the best value's, {effects[0].unit} ({better} is better)"
    chart.add(path([(x(0.0), TOP), (x(0.0), height - BOTTOM)], "front"))
    for place, (label, level) in enumerate(rows):
        y = chart.y(place + 0.5)
        if level is None:
            chart.add(text(8, y + 4, label, "name"))
            continue
        look = "told" if level.told else "untold"
        chart.add(text(_LABELS - 6, y + 4, label, "tick", "end"))
        if level.interval:
            chart.add(path([(x(level.interval[0]), y), (x(level.interval[1]), y)], f"whisker {look}"))
        chart.add(element("circle", cx=x(level.difference), cy=y, r=4.0, class_=f"dot {look}"))
    title = f"Effect of each field on {objective.name}"
    description = (
        "Each value of a field against the field's best, at the dashed line, with the interval of the difference: "
        "filled where it is more than noise. " + effects[0].note
    )
    name = f"effects-{objective.column}"
    return Figure(name, title, description, chart.svg(name, title, description), _table(effects, title))


def importance_figures(view: View) -> list[Figure]:
    """How much each field decides who is among the best, for each objective; none of few trials."""
    told = importance(view.results)
    return [_importance(told, one) for one in view.results.objectives if one.column in told.shares]


def _importance(told: Importance, objective: Objective) -> Figure:
    shares, chance = told.shares[objective.column], told.chance[objective.column]
    height = TOP + _ROW * len(shares) + BOTTOM
    x = Scale(0.0, 1.04, _LABELS, WIDTH - 16)
    chart = Chart(x, Scale(0.0, len(shares), TOP, height - BOTTOM), "share of the importance", "", height=height)
    chart.y_ticks = [(place + 0.5, named(field)) for place, field in enumerate(shares)]
    for place, (field, share) in enumerate(shares.items()):
        top, y = chart.y(place + 0.2), chart.y(place + 0.5)
        look = "solid" if share > chance[field] else "quiet"
        chart.add(element("rect", x=x(0.0), y=top, width=x(share) - x(0.0), height=0.6 * _ROW, class_=look))
        by_chance = x(min(chance[field], 1.04))  # of the same whole, and so perhaps more than it
        chart.add(path([(by_chance, y - 9), (by_chance, y + 9)], "plain"))
    title = f"Importance of each field for {objective.name}"
    name, description = f"importance-{objective.column}", told.sentences[objective.column]
    rows: list[Row] = [(named(field), f"{share:.2f}", f"{chance[field]:.2f}") for field, share in shares.items()]
    notes = tuple(filter(None, (told.note, told.missing)))
    table = Table(title, ("field", "share", "by chance up to"), tuple(rows), notes)
    legend = (("area solid", "share (PED-ANOVA)"), ("line plain", "what chance gives at most"))
    return Figure(name, title, description, chart.svg(name, title, description), table, legend)


def _table(effects: Sequence[FieldEffect], title: str) -> Table:
    def difference(level: LevelEffect) -> str:
        return f"{level.difference:+.3g}" if level.difference else "the best"

    def interval(level: LevelEffect) -> str:
        return "–" if level.interval is None else "[{:.3g}, {:.3g}]".format(*level.interval)

    rows: list[Row] = [
        (named(one.field), level.label, str(level.trials), f"{level.mean:.4g}", difference(level), interval(level))
        for one in effects
        for level in one.levels
    ]
    columns = ("field", "value", "trials", "mean", f"difference, {effects[0].unit}", "95 % interval")
    return Table(title, columns, tuple(rows), left=2)


def named(field: str) -> str:
    """A field as people call it."""
    return SHORT.get(field, field).replace("_", " ")
