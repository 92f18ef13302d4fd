"""The exported graphs beside a model, looked at without torch."""

import zipfile
from pathlib import Path

ENCODER, DECODER = "encoder.pt2", "decoder.pt2"
"""Files beside the model: images (b, 3, h, w) on [-1, 1] to code indices (b, y, x), and these to images."""

MODEL_HASH = "model_hash"
"""Of torch.export's extra files, the one with the hash of the model that a graph was made of."""


def graphs_of(folder: Path) -> set[str]:
    """The hashes of the models that the graphs in ``folder`` were made of; of a file that does not say, an empty one.

    One hash if both are of one model, and none if there are no graphs.
    """
    return {_hash(folder / name) for name in (ENCODER, DECODER) if (folder / name).exists()}


def _hash(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            return file.read(f"{path.stem}/extra/{MODEL_HASH}").decode()
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return ""
