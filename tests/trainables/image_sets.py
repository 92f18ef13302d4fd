"""Small sets of images, in every layout that is read."""

import io
import pickle
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from trainables.data import prepare
from vqcore.config import problems_of

SHAPE = (8, 8, 3)


def pixels(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def parquet(path: Path, images: Sequence[bytes | None], column: str = "image", struct: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values: list[Any] = [{"bytes": image, "path": None} for image in images] if struct else list(images)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    pq.write_table(pa.table({column: pa.array(values, kind), "label": pa.array([0] * len(images))}), path)


def a_set(folder: Path, train: Sequence[bytes | None] | None = None, test: Sequence[bytes | None] | None = None) -> str:
    parquet(folder / "train-0.parquet", [encoded(i) for i in pixels(6)] if train is None else train)
    parquet(folder / "test-0.parquet", [encoded(i) for i in pixels(3, seed=1)] if test is None else test)
    return str(folder)


def image_folder(folder: Path, train: np.ndarray, test: np.ndarray, test_name: str = "test") -> str:
    for split, images in (("train", train), (test_name, test)):
        for row, image in enumerate(images):
            path = folder / split / f"class{row % 2}" / f"{row:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(image))
    return str(folder)


def official_set(folder: Path, patch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Ten training and three test images as ``cifar-10-batches-py`` in a folder; torchvision then has its sums."""
    train, test = pixels(10, (32, 32, 3)), pixels(3, (32, 32, 3), 1)
    batches: dict[str, Any] = {f"data_batch_{n + 1}": batch for n, batch in enumerate(np.split(train, 5))}
    sums = []
    for name, batch in {**batches, "test_batch": test}.items():
        rows = np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).reshape(len(batch), -1)
        labels = [row % 2 for row in range(len(batch))]
        sums.append([name, put(folder / "cifar-10-batches-py" / name, {"data": rows, "labels": labels})])
    patch.setattr(CIFAR10, "train_list", sums[:5])
    patch.setattr(CIFAR10, "test_list", sums[5:])
    names = put(folder / "cifar-10-batches-py" / "batches.meta", {"label_names": ["even", "odd"]})
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": names})
    return train, test


def put(path: Path, content: object) -> str:
    """A pickle, and its sum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return md5(path.read_bytes()).hexdigest()


def problem(source: object, image_size: Any = None) -> str:
    return "\n".join(problems_of(lambda: prepare(str(source), image_size)))
