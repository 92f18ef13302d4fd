"""The pictures of a run. Import late: this is where matplotlib comes in."""

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from analysis.figures.curves import curves
from analysis.figures.front import front, rate
from analysis.figures.images import images
from analysis.figures.style import DPI
from analysis.figures.tuning import tuning
from analysis.layout import write_file
from analysis.results import Results

__all__ = ["curves", "front", "images", "rate", "tuning", "write_figures"]


def write_figures(results: Results) -> list[Path]:
    """Write ``figures/pareto.png``, ``rate.png``, ``tuning.png``, ``reconstructions.png`` and ``curves.png``.

    Each only where there is something to show.
    """
    makers = {"pareto": front, "rate": rate, "tuning": tuning, "reconstructions": images, "curves": curves}
    drawn = {name: make(results) for name, make in makers.items()}
    return [_save(figure, results.folder / "figures" / f"{name}.png") for name, figure in drawn.items() if figure]


def _save(figure: Figure, path: Path) -> Path:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return write_file(path, buffer.getvalue())
