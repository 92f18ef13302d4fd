"""A trial's reconstructions by epoch, and what a prior draws, as MLflow's image grid shows them."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.journal import RunRecord, TrialRecord
from trainables.runs import PICTURES, PRIOR_RUN, SNAPSHOT
from trainables.storage import Store, is_bucket, join

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8]
"""(count, height, width, 3)."""

KEY = "reconstructions"
"""The name of the images in MLflow, whose step is the epoch."""

PRIOR_KEYS = ("samples", "completions", "interpolations")
"""Of the pictures of a prior, whose files in ``figures`` have these names."""

KEYS = (KEY, *PRIOR_KEYS)

_ACROSS, _SIDE = 4, 256
"""Images side by side, and the pixels across of the copy that MLflow's grid shows."""


def new_pictures(
    folder: Path, record: RunRecord, trial: TrialRecord, known: set[tuple[str, int]]
) -> Iterator[tuple[str, int, Image.Image]]:
    """Key, epoch and picture of those that are not ``known``; a prior's once its run is done, before which it may draw
    them anew."""
    last = trial.last_epoch
    if record.sweep["sweep"] == PRIOR_RUN:
        drawn = prior_pictures(folder) if record.done else ()
        yield from ((key, last, picture) for key, picture in drawn if (key, last) not in known)
    elif (KEY, last) not in known:
        storage = str(record.sweep.get("storage") or "")
        location = join(storage if is_bucket(storage) else str(folder / "trials"), trial.key)
        found = pictures(location, last, {epoch for key, epoch in known if key == KEY})
        yield from ((KEY, epoch, picture) for epoch, picture in found)


def pictures(location: str, last_epoch: int, known: set[int]) -> Iterator[tuple[int, Image.Image]]:
    """Each epoch whose reconstructions are kept and not ``known`` yet: the snapshots', and the last one's.

    What cannot be read is logged and left out: it must hold up nothing else.
    """
    try:
        store = Store(location, patient=False)
        files = {int(match[1]): name for name in store.names() if (match := SNAPSHOT.fullmatch(name))}
        for epoch, name in sorted({**files, last_epoch: PICTURES}.items()):
            if epoch not in known:
                yield epoch, side_by_side(*_read(store, name))
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError) as error:
        logger.warning("reconstructions in %s are not sent to MLflow: %s", location, error)


def prior_pictures(folder: Path) -> Iterator[tuple[str, Image.Image]]:
    """The pictures in the folder of a prior's run, by their keys; what cannot be read is logged and left out."""
    for key in PRIOR_KEYS:
        path = folder / "figures" / f"{key}.png"
        try:
            picture = Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]).convert("RGB")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, SyntaxError) as error:  # which Pillow raises of a damaged PNG
            logger.warning("%s is not sent to MLflow: %s", path, error)
            continue
        yield key, picture


def _read(store: Store, name: str) -> tuple[Images, Images]:
    """Images and their reconstructions, of a snapshot or of ``PICTURES``. ``ValueError`` if it holds anything else."""
    content: Any = np.load(io.BytesIO(store.read(name)))
    images, reconstructions = content if name == PICTURES else (content["images"], content["reconstructions"])
    for array in (images, reconstructions):
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or array.shape != images.shape:
            raise ValueError(f"{name}: holds {array.dtype} of shape {array.shape}, and no uint8 images in pairs")
    return images, reconstructions


def side_by_side(images: Images, reconstructions: Images) -> Image.Image:
    """Rows of images, each with the row of their reconstructions below it."""
    count, height, width, _ = images.shape
    rows = []
    for first in range(0, count, _ACROSS):
        for part in (images[first : first + _ACROSS], reconstructions[first : first + _ACROSS]):
            row = np.full((height, width * min(_ACROSS, count), 3), 255, np.uint8)
            row[:, : width * len(part)] = np.concatenate(list(part), axis=1)
            rows.append(row)
    picture = Image.fromarray(np.concatenate(rows))
    scale = max(1, _SIDE // picture.width)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
