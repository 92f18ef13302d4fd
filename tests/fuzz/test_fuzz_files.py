"""Checkpoints, pictures, data sets and caches cut and changed: never loaded wrongly."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from damage import blows, damaged, examples, made_or_refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from stepping import run_trial

from analysis.results import images_of
from trainables.checkpoint import load_checkpoint, whole_checkpoints
from trainables.data import DataSet, prepare
from trainables.runs import PICTURES
from trainables.storage import Store
from trainables.trial import TrialJob
from vqcore.config import TrialConfig

KEY = "0123456789ab"
SMALL = TrialConfig().replace(
    channels=4, hidden_channels=4, residual_channels=2, residual_blocks=1, codebook_size=8, dim=4, batch_size=32,
    epochs=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def begun(data_set: DataSet, place: Path) -> Path:
    """Two epochs of three, a checkpoint of each, and reconstructions."""
    list(run_trial(TrialJob(KEY, 0, SMALL, data_set, str(place / "begun")), until=2))
    return place / "begun"


@examples(400)
@given(st.tuples(st.booleans(), st.booleans(), st.booleans()), blows)
def test_what_is_loaded_is_what_was_saved(begun: Path, place: Path, which: tuple[bool, ...], blows: list[Any]) -> None:
    saved = {checkpoint.name: checkpoint for checkpoint in whole_checkpoints(Store(str(begun)), KEY, [])}
    assert len(saved) == 2
    folder = Path(tempfile.mkdtemp(dir=place))
    for file, hit in zip(sorted(begun.iterdir()), which, strict=True):
        (folder / file.name).write_bytes(damaged(file.read_bytes(), blows) if hit else file.read_bytes())
    if found := load_checkpoint(Store(str(folder)), KEY):
        assert found.facts == saved[found.name].facts
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in saved[found.name].tensors.items())


@examples(200)
@given(blows)
def test_pictures_damaged_anywhere_are_of_their_kind_or_refused(begun: Path, blows: list[Any]) -> None:
    try:
        pixels = images_of(damaged((begun / PICTURES).read_bytes(), blows))
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


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
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
