"""Codebooks: how evenly codes are used, what each decodes to, and how they came about."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from analysis.layout import Row, Table
from analysis.page.pictures import Picture, data_address
from analysis.page.svg import BOTTOM, HEIGHT, LEFT, TOP, WIDE, WIDTH, Chart, Figure, Scale, element, path, svg, text
from analysis.page.view import View
from analysis.projection import pca
from analysis.results import Images
from analysis.snapshots import Shown, Snapshot, entropy, thinned

_PANELS = 5
_CLOUD = 400
"""Encoder outputs behind the codes."""


def usage_figure(view: View) -> Figure | None:
    """Codes by how often they were used; none where no trial has kept that."""
    found = view.used_codes
    if not found:
        return None
    shares = {group.label: np.sort(counts)[::-1] / counts.sum() for group, counts in found}
    least = min(float(share[share > 0].min()) for share in shares.values())
    most = max(float(share.max()) for share in shares.values())
    x = Scale(0.0, 1.02 * max(len(share) for share in shares.values()), LEFT, WIDTH - 16)
    chart = Chart(x, Scale.over([least, most], HEIGHT - BOTTOM, TOP, log=True), "codes, the most used first", "share")
    rows: list[Row] = []
    for group, counts in sorted(found, key=lambda one: one[0] in view.results.front):
        share = shares[group.label][shares[group.label] > 0]
        ranks = np.unique(np.geomspace(1, len(share), min(len(share), 120)).round().astype(int))
        places = [chart.place(float(rank), float(share[rank - 1])) for rank in ranks]
        weight = "" if group in view.results.front else "minor "
        look = f"curve {weight}{view.colour(group.estimator)}"
        chart.add(path(places, look, data_g=view.group_numbers[group.label]))
        bits = entropy(counts)
        rows.append((group.label, str(len(counts)), str(len(share)), f"{2**bits:.1f}", f"{bits:.2f}"))
    title = "How evenly the codes are used"
    description = "The share of the test set's codes that each has, by one seed; after the end of a line all are dead."
    table = Table(title, ("configuration", "codes", "used", "perplexity", "entropy, bits"), tuple(reversed(rows)))
    name = "usage"
    return Figure(name, title, description, chart.svg(name, title, description), table, view.estimator_legend)


def lead(view: View) -> str:
    """What to conclude about the codebooks."""
    if not view.used_codes:
        return "" if view.results.shown.snapshots else "No completed trial has kept how often it used its codes."
    shares = [(group.label, np.count_nonzero(counts) / len(counts)) for group, counts in view.used_codes]
    (worst, low), (best, high) = min(shares, key=lambda one: one[1]), max(shares, key=lambda one: one[1])
    said = f"Of the configurations shown, {best} uses {_share(high)} of its codes, {worst} {_share(low)}."
    if low == high:
        said = f"The configurations shown use {_share(high)} of their codes."
    if not view.results.shown.snapshots:
        said += " Snapshots show how a codebook came about: --snapshots 0 25 50 75 99."
    return said if len(shares) > 1 else f"{best} uses {_share(high)} of its codes."


def _share(share: float) -> str:
    """In per cent; rounding makes neither all nor none of it."""
    return "under 1%" if 0 < share < 0.01 else "over 99%" if 0.99 < share < 1 else f"{share:.0%}"


def snapshot_pictures(view: View) -> list[Picture]:
    """Reconstructions by epoch, and what each code decodes to, of the one trial whose snapshots are shown."""
    shown = view.results.shown
    if not shown.snapshots:
        return []
    last = shown.snapshots[-1]
    made = [_by_epoch(shown)]
    if last.patches is not None:
        order = np.argsort(-last.counts, kind="stable")
        dead = int((last.counts == 0).sum())
        made.append(
            Picture(
                f"What each code decodes to{_of(shown)}",
                f"After epoch {last.epoch}, the most used first, in rows; the last {dead} were never used."
                if dead
                else f"After epoch {last.epoch}, the most used first, in rows; all were used.",
                data_address(_grid(last.patches[order]).repeat(3, axis=0).repeat(3, axis=1)),
            )
        )
    return made


def _of(shown: Shown) -> str:
    return f": {shown.label}" if shown.label else ""


def _by_epoch(shown: Shown) -> Picture:
    found = thinned(shown.snapshots, 6)
    rows = [found[0].originals, *(snapshot.reconstructions for snapshot in found)]
    named = ", ".join(str(snapshot.epoch) for snapshot in found)
    pixels = np.concatenate([np.concatenate(list(_padded(row)), axis=1) for row in rows], axis=0)
    below = f"First the test images, then their reconstructions after epochs {named} (0: before training)."
    return Picture(f"Reconstructions in the course of the training{_of(shown)}", below, data_address(_doubled(pixels)))


def _padded(images: Images) -> Images:
    opaque = np.concatenate([images, np.full((*images.shape[:3], 1), 255, np.uint8)], axis=3)
    return np.pad(opaque, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _doubled(pixels: Images) -> Images:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def _grid(patches: Images) -> Images:
    """Patches in rows, at most 64 a row."""
    columns = min(64, len(patches))
    padded = _padded(patches)
    missing = -len(padded) % columns
    padded = np.concatenate([padded, np.zeros((missing, *padded.shape[1:]), np.uint8)])
    rows = padded.reshape(-1, columns, *padded.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def evolution_figure(view: View) -> Figure | None:
    """The codebook after several epochs, in one projection; none without snapshots of codes."""
    shown = view.results.shown
    found = [snapshot for snapshot in shown.snapshots if snapshot.codebook is not None]
    if not found:
        return None
    found = thinned(found, _PANELS)
    books = [snapshot.codebook for snapshot in found if snapshot.codebook is not None]
    clouds = [snapshot.embeddings[:: max(1, len(snapshot.embeddings) // _CLOUD)] for snapshot in found]
    projection = pca(np.concatenate([*books, *clouds]))
    if projection is None:
        return None
    sizes = [len(rows) for rows in (*books, *clouds)]
    parts = np.split(projection.points, np.cumsum(sizes)[:-1])
    width, height = WIDE / _PANELS, 270
    finite = projection.points[np.isfinite(projection.points).all(axis=1)]
    ends = np.quantile(finite, [0.005, 0.995], axis=0)
    x = Scale.over(ends[:, 0].tolist(), 8.0, width - 8, 0.08)
    y = Scale.over(ends[:, 1].tolist(), height - 8.0, 30.0, 0.08)
    drawn: list[Markup] = []
    for place, snapshot in enumerate(found):
        drawn += _panel(snapshot, parts[place], parts[len(found) + place], x, y, place * width)
    title = f"The codebook in the course of the training{_of(shown)}"
    description = (
        f"{projection.method}, fitted once to all epochs shown, so that movement is real. Dots: used codes; crosses: "
        "codes that were never used on the test set; grey: encoder outputs. t-SNE: python -m analysis.figures."
    )
    rows: list[Row] = [
        (str(s.epoch), str(int((s.counts > 0).sum())), f"{2 ** entropy(s.counts):.1f}") for s in shown.snapshots
    ]
    table = Table(title, ("epoch", "codes used", "perplexity"), tuple(rows), left=0)
    legend = (("seed told", "used code"), ("mark end", "dead code"), ("seed cloud", "encoder output"))
    drawing = svg("evolution", title, description, WIDE, height, drawn)
    return Figure("evolution", title, description, drawing, table, legend, wide=True)


def _panel(
    snapshot: Snapshot, codes: np.ndarray, cloud: np.ndarray, x: Scale, y: Scale, left: float
) -> Sequence[Markup]:
    """One epoch; what lies outside the panel is left out."""
    width = WIDE / _PANELS
    parts = [element("rect", x=left + 4, y=24.0, width=width - 8, height=242.0, class_="axis")]
    parts.append(text(left + 8, 16, f"epoch {snapshot.epoch}", "label"))

    def dots(points: np.ndarray, look: str, radius: float) -> None:
        steps = "".join(
            f"M{a:.1f} {b:.1f}h.01"
            for px, py in points.tolist()
            if x.low <= px <= x.high and y.low <= py <= y.high
            for a, b in [(left + x(px), y(py))]
        )
        if steps:
            parts.append(element("path", d=steps, class_=f"dots {look}", stroke_width=radius))

    dots(cloud, "cloud", 2.0)
    used = snapshot.counts > 0
    dots(codes[used], "told", 4.0)
    crosses = "".join(
        f"M{a - 2:.1f} {b - 2:.1f}l4 4m0-4l-4 4"
        for px, py in codes[~used].tolist()
        if x.low <= px <= x.high and y.low <= py <= y.high
        for a, b in [(left + x(px), y(py))]
    )
    if crosses:
        parts.append(element("path", d=crosses, class_="dead"))
    return parts
