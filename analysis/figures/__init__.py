"""The pictures of a run. Import late: nothing else imports matplotlib."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.curves import curves
from analysis.figures.epochs import epochs
from analysis.figures.evolution import evolution
from analysis.figures.front import front, rate
from analysis.figures.images import images
from analysis.figures.patches import patches
from analysis.figures.projection import projection
from analysis.figures.tuning import tuning
from analysis.figures.usage import usage
from analysis.layout import markdown_text, write_file
from analysis.results import Results

__all__ = [
    "curves", "epochs", "evolution", "front", "images", "patches", "projection", "rate", "tuning", "usage",
    "write_figures",
]  # fmt: skip

Draw = Callable[[Results], Figure | None]

FIGURES: dict[str, Draw] = {
    "pareto": front,
    "rate": rate,
    "tuning": tuning,
    "reconstructions": images,
    "curves": curves,
    "usage": usage,
    "epochs": epochs,
    "patches": patches,
}
"""By the name of the file; a function gives none where there is nothing to show."""

FITTED: dict[str, Draw] = {"evolution": evolution, "projection": projection}
"""Those that fit a t-SNE first: minutes for a thousand codes."""

_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_figures(results: Results, fitted: bool = False, paper: bool = False) -> list[Path]:
    """Write the figures of a run that have something to show; with those of ``FITTED`` if ``fitted``.

    ``figures/pareto.png`` and so on; or, for a ``paper``, SVG and PDF of a column's width in ``figures/paper/``, with
    their captions.
    """
    paths, captions = [], []
    for name, draw in {**FIGURES, **(FITTED if fitted else {})}.items():
        with rc_context(style.PAPER if paper else {}):
            if figure := draw(results):
                title, _, below = str(figure.get_label()).partition("\n")
                captions.append(f"## {name}\n\n{markdown_text(title)}. {markdown_text(below)}\n")
                path = results.folder / "figures" / ("paper" if paper else "") / name
                paths += [write_file(path.with_suffix(f".{kind}"), content) for kind, content in _files(figure, paper)]
    if paper and captions:
        paths.append(write_file(results.folder / "figures" / "paper" / "captions.md", "\n".join(captions).encode()))
    return paths


def _files(figure: Figure, paper: bool) -> list[tuple[str, bytes]]:
    """Equal figures give equal bytes: no file holds the time of its making."""
    if not paper:
        return [("png", _saved(figure, "png", dpi=160))]
    title, _, below = str(figure.get_label()).partition("\n")
    svg = _saved(figure, "svg", dpi=600, metadata={"Title": title, "Description": below, "Date": None})
    pdf = _saved(figure, "pdf", dpi=600, metadata={"Title": title, "Subject": below, "CreationDate": None})
    return [("svg", _NO_XML.sub("\ufffd", svg.decode()).encode()), ("pdf", pdf)]


def _saved(figure: Figure, kind: str, **settings: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format=kind, **settings)
    return buffer.getvalue()
