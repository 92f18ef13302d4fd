"""The pictures of a run. Import late: nothing else imports matplotlib."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures.curves import curves
from analysis.figures.front import front, rate
from analysis.figures.images import images
from analysis.figures.tuning import tuning
from analysis.layout import write_file
from analysis.results import Results

__all__ = ["curves", "front", "images", "rate", "tuning", "write_figures"]


FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "pareto": front,
    "rate": rate,
    "tuning": tuning,
    "reconstructions": images,
    "curves": curves,
}
"""By the name of the file; a function gives none where there is nothing to show."""


def write_figures(results: Results) -> list[Path]:
    """Write the figures of a run, ``figures/pareto.png`` first, those that have something to show."""
    paths = []
    for name, draw in FIGURES.items():
        if figure := draw(results):
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=160)
            paths.append(write_file(results.folder / "figures" / f"{name}.png", buffer.getvalue()))
    return paths
