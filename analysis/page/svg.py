"""Charts as inline SVG: scales, axes, and marks that say which trial or configuration they are of.

Colours, lines and dark mode are the page's style sheet's: an element has classes and no colours. Numbers are pixels of
a chart ``WIDTH`` wide.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from analysis.layout import Table

WIDTH, HEIGHT = 560, 360
WIDE = 1160
"""Width of a figure that takes a whole row of the page."""
LEFT, TOP, BOTTOM = 78, 30, 58
"""Margins wide enough for the larger letters that a phone gets."""
MOST_TICKS = 6
NAMED = 12
"""The most configurations of a front that get a number."""

Place = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """A map from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, margin: float = 0.05, log: bool = False
    ) -> "Scale":
        """The scale that holds all finite values with a margin, a share of their range, at both ends."""
        finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
        low, high = ((math.log(limit) if log else limit) for limit in (min(finite), max(finite)))
        pad = margin * (high - low) or 0.05 * abs(high) or 1.0
        low, high = ((math.exp(limit) if log else limit) for limit in (low - pad, high + pad))
        return cls(low, high, start, end, log)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = MOST_TICKS) -> list[tuple[float, str]]:
        """Round values within the limits, each with its text."""
        if self.log and self.high / self.low > 8:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                values = [step * 10.0**decade for decade in decades for step in steps]
                inside = [value for value in values if self.low <= value <= self.high]
                if len(inside) <= most:
                    break
            return [(value, f"{value:,.10g}") for value in inside]
        step = _step((self.high - self.low) / most)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(number * step, f"{number * step:,.{decimals}f}") for number in range(first, last + 1)]


def _step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, ... times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


@dataclass(frozen=True)
class Figure:
    """A chart with what it needs to be read without seeing it."""

    name: str
    """The id of its element."""
    title: str
    description: str
    """What is drawn, and how to read it: one or two sentences, also shown below."""
    svg: Markup
    table: Table | None = None
    """The numbers that are drawn."""
    legend: tuple[tuple[str, str], ...] = ()
    """A mark's classes and what it stands for."""
    wide: bool = False


def number(value: float) -> str:
    """A pixel, to a tenth."""
    return f"{value:.1f}".removesuffix(".0")


def element(name: str, /, content: object = "", **attributes: object) -> Markup:
    """An SVG element. ``class_`` is class, ``data_t`` is data-t; what is None is left out, all else is escaped."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    pairs = "".join(
        f' {key}="{number(value) if isinstance(value, float) else escape(str(value))}"' for key, value in given.items()
    )
    return Markup(f"<{name}{pairs}>{escape(content)}</{name}>" if content else f"<{name}{pairs}/>")


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start", **attributes: object) -> Markup:
    """A line of text; ``anchor`` is start, middle or end."""
    return element("text", content, x=float(x), y=float(y), class_=class_ or None, text_anchor=anchor, **attributes)


def path(places: Sequence[Place], class_: str, close: bool = False, **attributes: object) -> Markup:
    """A line through pixels."""
    steps = "L".join(f"{number(x)} {number(y)}" for x, y in places)
    return element("path", d=f"M{steps}{'Z' if close else ''}", class_=class_, **attributes)


def mark(x: float, y: float, shape: int, class_: str, **attributes: object) -> Markup:
    """A marker, centred; ``shape`` is one of the page's, which has each large, for means, and small."""
    return element(
        "use",
        href=f"#{'m' if class_.startswith('mean') else 's'}{shape}",
        x=float(x),
        y=float(y),
        class_=class_,
        **attributes,
    )


def joined(parts: Iterable[Markup]) -> Markup:
    """The elements as one."""
    return Markup("").join(parts)


@dataclass
class Chart:
    """Two axes, and what is drawn between them."""

    x: Scale
    y: Scale
    x_label: str
    y_label: str
    width: int = WIDTH
    height: int = HEIGHT
    x_ticks: Sequence[tuple[float, str]] | None = None
    y_ticks: Sequence[tuple[float, str]] | None = None
    right: Sequence[tuple[float, str]] = ()
    """Ticks of a second vertical axis, by the values of the first."""
    right_label: str = ""
    parts: list[Markup] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        xs: Iterable[float],
        ys: Iterable[float],
        x_label: str,
        y_label: str,
        log: tuple[bool, bool] = (False, False),
        height: int = HEIGHT,
        right: bool = False,
    ) -> "Chart":
        """A chart whose axes hold these values; ``right`` leaves room for a second vertical axis."""
        end = WIDTH - (62 if right else 16)
        x = Scale.over(xs, LEFT, end, log=log[0])
        y = Scale.over(ys, height - BOTTOM, TOP, log=log[1])
        return cls(x, y, x_label, y_label, height=height)

    def add(self, *parts: Markup) -> None:
        """Draw over what is there."""
        self.parts += parts

    def place(self, x: float, y: float) -> Place:
        """The pixel of a point."""
        return self.x(x), self.y(y)

    def svg(self, name: str, title: str, description: str) -> Markup:
        """The finished chart; its marks become reachable by keyboard (``page.js``)."""
        return svg(name, title, description, self.width, self.height, [*self._axes(), *self.parts])

    def _axes(self) -> list[Markup]:
        bottom, left, right = max(self.y.start, self.y.end), self.x.start, self.x.end
        top = min(self.y.start, self.y.end)
        parts: list[Markup] = []
        for value, label in self.y.ticks() if self.y_ticks is None else self.y_ticks:
            y = self.y(value)
            parts += [path([(left, y), (right, y)], "grid"), text(left - 6, y + 4, label, "tick", "end")]
        for value, label in self.x.ticks() if self.x_ticks is None else self.x_ticks:
            x = self.x(value)
            parts += [path([(x, top), (x, bottom)], "grid"), text(x, bottom + 17, label, "tick", "middle")]
        for value, label in self.right:
            parts.append(text(right + 6, self.y(value) + 4, label, "tick"))
        parts += [path([(left, top), (left, bottom), (right, bottom)], "axis")]
        parts += [text(4, 14, self.y_label, "label"), text(right, self.height - 8, self.x_label, "label", "end")]
        if self.right_label:
            parts.append(text(self.width - 2, 14, self.right_label, "label", "end"))
        return parts


def svg(name: str, title: str, description: str, width: int, height: int, parts: Iterable[Markup]) -> Markup:
    """An SVG with title and description for screen readers."""
    named = Markup('<title id="{0}-t">{1}</title><desc id="{0}-d">{2}</desc>').format(name, title, description)
    return Markup(
        '<svg id="{0}" viewBox="0 0 {1} {2}" role="graphics-document" aria-labelledby="{0}-t" '
        'aria-describedby="{0}-d">{3}{4}</svg>'
    ).format(name, width, height, named, joined(parts))


def free_places(anchors: Sequence[Place], texts: Sequence[str], others: Sequence[Place]) -> list[Place]:
    """Where to write each text beside its anchor, so that it covers no other text and few marks.

    The pixel is the start of the text's base line; letters are taken for 8 pixels wide and 12 high.
    """
    taken: list[tuple[float, float, float, float]] = []
    found = []
    for (x, y), label in zip(anchors, texts, strict=True):
        width = 8.0 * len(label)
        offsets = [(dx, dy) for reach in (7, 14, 22) for dx, dy in _around(reach, width)]

        def cost(offset: Place, x: float = x, y: float = y, width: float = width) -> float:
            left, base = x + offset[0], y + offset[1]
            box = (left - 1, base - 11, left + width + 1, base + 2)
            covered = sum(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken)
            hidden = sum(box[0] - 4 < a < box[2] + 4 and box[1] - 4 < b < box[3] + 4 for a, b in others)
            return 100 * covered + 3 * hidden + 0.01 * (abs(offset[0]) + abs(offset[1]))

        dx, dy = min(offsets, key=cost)
        taken.append((x + dx - 1, y + dy - 11, x + dx + width + 1, y + dy + 2))
        found.append((x + dx, y + dy))
    return found


def _around(reach: float, width: float) -> list[Place]:
    right, left = reach, -reach - width
    return [(right, -3), (right, 12), (left, -3), (left, 12), (-width / 2, -reach), (-width / 2, reach + 9)]
