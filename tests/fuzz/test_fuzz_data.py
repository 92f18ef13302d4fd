"""Data sets and their cache, cut and changed anywhere: the same pixels, or problems in words."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damage import absurd, blows, damaged, examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trainables.data import DataSet, prepare
from vqcore.config import problems_of


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("data")
        patch.setenv("VQSWEEP_CACHE", str(folder / "cache"))
        yield folder


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


def data_set(place: Path, train: bytes) -> str:
    folder = Path(tempfile.mkdtemp(dir=place))
    (folder / "train-0.parquet").write_bytes(train)
    (folder / "test-0.parquet").write_bytes(WHOLE)
    return str(folder)


def prepared(source: str) -> DataSet | None:
    """The data set; None where there were problems."""
    made: list[DataSet] = []
    problems = problems_of(lambda: made.append(prepare(source)))
    assert bool(problems) != bool(made)
    assert all(problem.strip() and "Traceback" not in problem for problem in problems)
    return made[0] if made else None


@examples(200)
@given(blows)
def test_parquet_damaged_anywhere(place: Path, blows: list[Any]) -> None:
    if data := prepared(data_set(place, damaged(WHOLE, blows))):
        assert data.train().shape[1:] == (8, 8, 3)


@examples(150)
@given(st.sampled_from(["png", "jpeg", "bmp", "webp", "tiff"]), blows)
def test_images_damaged_anywhere(place: Path, kind: str, blows: list[Any]) -> None:
    images = [encoded(PIXELS[0]), damaged(encoded(PIXELS[1], kind), blows)]
    if data := prepared(data_set(place, table(images))):
        assert data.train().shape == (2, 8, 8, 3)
        np.testing.assert_array_equal(data.train()[0], PIXELS[0])


_forged = st.dictionaries(st.sampled_from(["format", "hash"]), absurd)


@examples(200)
@given(st.sampled_from(["train.npy", "test.npy", "meta.json"]), blows | _forged)
def test_a_damaged_or_forged_cache_is_made_anew(place: Path, name: str, how: Any) -> None:
    source = str(place / "kept")
    if not Path(source).is_dir():
        Path(data_set(place, WHOLE)).rename(source)
    folder = Path(prepare(source).folder)
    if isinstance(how, dict):
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps({**meta, **how}))
    else:
        (folder / name).write_bytes(damaged((folder / name).read_bytes(), how))
    data = prepare(source)
    np.testing.assert_array_equal(data.train(), PIXELS)
    np.testing.assert_array_equal(data.test(), PIXELS)
