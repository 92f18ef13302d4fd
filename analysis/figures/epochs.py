"""The same test images as the model has them after chosen epochs, in rows (the paper's figures 1 to 5)."""

from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.images import in_rows
from analysis.results import MOST, Results
from analysis.snapshots import Snapshot, thinned
from trainables.journal import TrialRecord
from vqcore.psnr import psnr


def epochs(results: Results) -> Figure | None:
    """First the originals, then a row a snapshot; none if no trial has any."""
    found = results.shown
    if found.trial is None:
        return None
    chosen = thinned(found.snapshots, MOST)
    strips = [("original", chosen[0].originals)]
    strips += [(_label(found.trial, snapshot), snapshot.reconstructions) for snapshot in chosen]
    title = f"The same test images by epoch: {results.data}{style.of(found)}"
    return in_rows(strips, title, "MSE on [-1, 1] and PSNR: on the whole test set, not on these images.")


def _label(trial: TrialRecord, snapshot: Snapshot) -> str:
    mse = trial.epochs.get(snapshot.epoch, {}).get("mse")
    return style.at(snapshot) + ("" if mse is None else f"\nMSE {mse:.4f} · {psnr(mse):.1f} dB")
