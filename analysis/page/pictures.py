"""Images as data of the page: reconstructions of the front, of the finalists and of a sample of the rest."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from analysis.page.view import View
from analysis.results import Group, Images
from vqcore.psnr import psnr

MOST = 36
"""Configurations whose reconstructions the page holds: some 40 kB each."""

AT_ONCE = 6
"""Those that are seen without a click."""


@dataclass(frozen=True)
class Strip:
    """Images side by side, of one trial."""

    label: str
    below: str
    source: str
    """The images as a ``data:`` address."""
    trial: int | None = None
    """The trial's number on the page; none of the originals."""


@dataclass(frozen=True)
class Picture:
    """Pixels with a title and a description."""

    title: str
    description: str
    source: str
    """The image as a ``data:`` address."""


def strips(view: View) -> tuple[list[Strip], tuple[str, ...]]:
    """The originals and then the reconstructions, the front first; and a sentence for each that cannot be shown."""
    results = view.results
    finalists = [group for group in results.several if group not in results.front]
    rest = [group for group in results.groups if group not in results.front and group not in finalists]
    room = max(MOST - len(results.front) - len(finalists), 0)
    sample = [rest[i] for i in np.unique(np.linspace(0, len(rest) - 1, min(room, len(rest))).astype(int))]
    chosen: list[Group] = [*results.front, *finalists, *sample][:MOST]
    found = results.pictures_of(chosen)
    if not found.rows:
        return [], found.problems
    shown = [Strip("original", "", strip(found.rows[0][2][0]))]
    for group, trial, (_, reconstructed) in found.rows:
        mse = trial.epochs.get(trial.last_epoch, {}).get("mse", float("nan"))
        below = f"MSE {mse:.4f}, {psnr(mse):.1f} dB, seed {trial.config.get('seed', 0)}"
        shown.append(Strip(group.label, below, strip(reconstructed), view.numbers[trial.key]))
    return shown, found.problems


def strip(pictures: Images) -> str:
    """(n, H, W, 3) images side by side, a transparent gap between them."""
    gap = max(1, pictures.shape[2] // 16)
    opaque = np.concatenate([pictures, np.full((*pictures.shape[:3], 1), 255, np.uint8)], axis=3)
    spaced = np.pad(opaque, ((0, 0), (0, 0), (0, gap), (0, 0)))
    return data_address(np.concatenate(spaced, axis=1)[:, :-gap])


def data_address(pixels: np.ndarray) -> str:
    """An image of bytes as a ``data:`` address."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
