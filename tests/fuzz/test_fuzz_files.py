"""Pictures, data sets and caches cut and changed: never loaded wrongly."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from damage import blows, damaged, examples, made_or_refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from analysis.results import images_of
from trainables.data import prepare

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)


@examples(200)
@given(blows)
def test_pictures_damaged_anywhere_are_of_their_kind_or_refused(blows: list[Any]) -> None:
    file = io.BytesIO()
    np.save(file, PIXELS.reshape(2, 3, 8, 8, 3))
    try:
        pixels = images_of(damaged(file.getvalue(), blows))
    except ValueError:
        return
    assert (pixels.dtype, pixels.ndim) == (np.uint8, 5)


def encoded(pixels: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def table(images: list[bytes]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"img": [{"bytes": image, "path": "x"} for image in images]}), file)
    return file.getvalue()


WHOLE = table([encoded(image) for image in PIXELS])


def parquet_folder(place: Path, train: bytes) -> str:
    folder = Path(tempfile.mkdtemp(dir=place))
    (folder / "train-0.parquet").write_bytes(train)
    (folder / "test-0.parquet").write_bytes(WHOLE)
    return str(folder)


@examples(200)
@given(blows)
def test_parquet_damaged_anywhere(place: Path, blows: list[Any]) -> None:
    folder = parquet_folder(place, damaged(WHOLE, blows))
    if data := made_or_refused(lambda: prepare(folder)):
        assert data.train().shape[1:] == (8, 8, 3)


@examples(150)
@given(st.sampled_from(["png", "jpeg", "bmp", "webp", "tiff"]), blows)
def test_images_damaged_anywhere(place: Path, kind: str, blows: list[Any]) -> None:
    images = [encoded(PIXELS[0]), damaged(encoded(PIXELS[1], kind), blows)]
    folder = parquet_folder(place, table(images))
    if data := made_or_refused(lambda: prepare(folder)):
        assert data.train().shape == (2, 8, 8, 3)
        np.testing.assert_array_equal(data.train()[0], PIXELS[0])


@examples(200)
@given(st.sampled_from(["train.npy", "test.npy", "meta.json"]), blows)
def test_a_damaged_cache_is_made_anew(place: Path, name: str, blows: list[Any]) -> None:
    source = str(place / "kept")
    if not Path(source).is_dir():
        Path(parquet_folder(place, WHOLE)).rename(source)
    file = Path(prepare(source).folder, name)
    file.write_bytes(damaged(file.read_bytes(), blows))
    data = prepare(source)
    np.testing.assert_array_equal(data.train(), PIXELS)
    np.testing.assert_array_equal(data.test(), PIXELS)
