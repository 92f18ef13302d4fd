"""Data sets and their cache, cut and changed anywhere: the same pixels, or words."""

import io
import json
import struct
import tempfile
import zlib
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

from trainables.data import prepare
from vqcore.config import problems_of

Pixels = np.ndarray


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True, scope="module")
def cache(place: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQSWEEP_CACHE", str(place / "cache"))
        yield


def encoded(pixels: Pixels, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def table(images: list[Any]) -> bytes:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [None if image is None else {"bytes": image, "path": "x"} for image in images]
    file = io.BytesIO()
    pq.write_table(pa.table({"img": pa.array(rows, kind), "label": list(range(len(rows)))}), file)
    return file.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
WHOLE = table([encoded(image) for image in PIXELS])


def data_set(place: Path, train: bytes, test: bytes = WHOLE) -> str:
    folder = Path(tempfile.mkdtemp(dir=place))
    (folder / "train-0.parquet").write_bytes(train)
    (folder / "test-0.parquet").write_bytes(test)
    return str(folder)


def prepared_or_told(source: str) -> Any:
    made: list[Any] = []
    problems = problems_of(lambda: made.append(prepare(source)))
    assert bool(problems) != bool(made)
    assert all(problem.strip() and "Traceback" not in problem for problem in problems)
    return made[0] if made else None


@examples(300)
@given(blows)
def test_parquet_damaged_anywhere(place: Path, blows: list[Any]) -> None:
    data = prepared_or_told(data_set(place, damaged(WHOLE, blows)))
    if data is not None:
        assert data.train().shape[1:] == (8, 8, 3)


@examples(200)
@given(st.sampled_from(["png", "jpeg", "bmp", "webp", "tiff"]), blows)
def test_images_damaged_anywhere(place: Path, kind: str, blows: list[Any]) -> None:
    images = [encoded(PIXELS[0]), damaged(encoded(PIXELS[1], kind), blows)]
    data = prepared_or_told(data_set(place, table(images)))
    if data is not None:
        assert data.train().shape == (2, 8, 8, 3)
        np.testing.assert_array_equal(data.train()[0], PIXELS[0])


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims to be ``side`` x ``side``."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "image", [bomb(100_000), bomb(2**31 - 1), bomb(0), b"", None, b"<svg/>", b"GIF89a", b"BM" + b"\xff" * 60]
)
@pytest.mark.parametrize("first", [True, False])
def test_what_is_no_image_is_named(place: Path, image: bytes | None, first: bool) -> None:
    good = encoded(PIXELS[0])
    source = data_set(place, table([image, good] if first else [good, image]))
    problems = problems_of(lambda: prepare(source))
    assert any(f"train row {0 if first else 1}" in problem for problem in problems), problems
    assert not any("train row" in problem and "does not decode" not in problem for problem in problems)


@examples(60)
@given(
    st.lists(
        st.one_of(st.just("int"), st.just("text"), st.just("list"), st.just("binary"), st.just("none")), max_size=3
    )
)
def test_columns_of_other_kinds(place: Path, kinds: list[str]) -> None:
    values = {"int": [1, 2], "text": ["a", "b"], "list": [[1], [2]], "binary": [b"a", b"b"], "none": [None, None]}
    file = io.BytesIO()
    pq.write_table(pa.table({f"c{number}": values[kind] for number, kind in enumerate(kinds)}), file)
    assert prepared_or_told(data_set(place, file.getvalue())) is None


@examples(150)
@given(st.sampled_from(["train.npy", "test.npy", "meta.json"]), blows)
def test_a_cache_damaged_anywhere_is_made_anew(place: Path, name: str, blows: list[Any]) -> None:
    source = str(place / "kept")
    if not Path(source).is_dir():
        Path(data_set(place, WHOLE)).rename(source)
    path = Path(prepare(source).folder, name)
    path.write_bytes(damaged(path.read_bytes(), blows))
    data = prepare(source)
    np.testing.assert_array_equal(data.train(), PIXELS)
    np.testing.assert_array_equal(data.test(), PIXELS)


@examples(100)
@given(st.sampled_from(["format", "bytes", "crc32", "hash", "image_size", "train_images", "test_images"]), absurd)
def test_a_cache_that_says_something_else_is_made_anew_or_true(place: Path, name: str, value: Any) -> None:
    source = data_set(place, WHOLE)
    path = Path(prepare(source).folder, "meta.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    data = prepare(source)
    np.testing.assert_array_equal(data.train(), PIXELS)
    path.unlink()
