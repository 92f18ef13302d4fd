"""A data set in any layout becomes the same pixels, once, safely."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from image_sets import SHAPE, a_set, encoded, image_folder, official_set, parquet, pixels, problem
from PIL import Image

from trainables.data import ensure_local, prepare

REPO = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("cache")


def test_the_embedded_images_are_the_default() -> None:
    data = prepare()
    assert (data.source, data.image_size, data.train_images, data.test_images) == ("cifar10-mini", 32, 2500, 500)
    assert data.train().shape == (2500, 32, 32, 3)
    assert data.test().dtype == np.uint8
    table = pq.read_table(REPO / "trainables/embedded/cifar10-mini/test-00000-of-00001.parquet")
    last = Image.open(io.BytesIO(table["img"][-1].as_py()["bytes"]))
    np.testing.assert_array_equal(data.test()[-1], np.asarray(last))


def test_every_layout_gives_the_same_pixels_and_the_same_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = official_set(tmp_path / "official", monkeypatch)
    png_train, png_test = [encoded(i) for i in train], [encoded(i) for i in test]
    for place in ("flat", "data/data", "sub/plain_text"):
        parquet(tmp_path / place / "train-00000-of-00002.parquet", png_train[:4], "img")
        parquet(tmp_path / place / "train-00001-of-00002.parquet", png_train[4:], "img")
        parquet(tmp_path / place / "validation.parquet", png_test, "img")
    parquet(tmp_path / "binary" / "train.parquet", png_train, "picture", struct=False)
    parquet(tmp_path / "binary" / "test.parquet", png_test, "picture", struct=False)
    order = [*range(0, 10, 2), *range(1, 10, 2)]  # class folders are read one after the other
    image_folder(tmp_path / "images", train[np.argsort(order)], test[[0, 2, 1]], "val")

    names = ("official", "official/cifar-10-batches-py", "flat", "data", "sub", "binary", "images")
    sets = [prepare(str(tmp_path / name)) for name in names]
    assert len({data.hash for data in sets}) == 1
    for data in sets:
        np.testing.assert_array_equal(data.train(), train)
        np.testing.assert_array_equal(data.test(), test)
    with pytest.raises(ValueError, match="read-only"):
        sets[0].train()[0] = 0


def test_the_hash_depends_on_every_pixel_and_the_order(tmp_path: Path) -> None:
    images = pixels(6)
    changed = images.copy()
    changed[5, 7, 7, 2] ^= 1
    variants = (images, changed, images[::-1], images[:5])
    hashes = {prepare(a_set(tmp_path / str(n), [encoded(i) for i in v])).hash for n, v in enumerate(variants)}
    assert len(hashes) == 4


def test_what_pillow_opens_is_taken_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    """Whatever the files are called: a suffix says nothing, and droppings of a file manager are no images."""
    train = tmp_path / "set" / "train" / "class0"
    image_folder(tmp_path / "set", pixels(1), pixels(1))
    for name, kind in {"a.jfif": "JPEG", "b.gif": "GIF", "c": "PNG", "d.data": "WEBP", "e.JPEG": "JPEG"}.items():
        (train / name).write_bytes(encoded(pixels(1)[0], kind))
    assert prepare(str(tmp_path / "set")).notes == ()
    (train / "._000.png").write_bytes(b"finder")
    (train / "notes.txt").write_text("not an image")
    os.mkfifo(train / "pipe.png")
    (tmp_path / "set" / "val").mkdir()
    data = prepare(str(tmp_path / "set"))
    assert data.train_images == 6
    assert data.notes == (
        "3 left out of the data set: train/class0/notes.txt (no image), train/class0/pipe.png (no image), "
        "val/ (beside test/)",
    )


def test_a_folder_that_is_largely_no_images_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "set", pixels(40), pixels(1))
    for row in range(20):
        (tmp_path / f"set/train/class0/{row}.xml").touch()
    assert "20 of 60 files are no images (train/class0/0.xml (no image)" in problem(folder)


def test_links_are_followed_to_each_folder_once(tmp_path: Path) -> None:
    train, elsewhere = tmp_path / "set" / "train", tmp_path / "elsewhere"
    image_folder(tmp_path / "set", pixels(2), pixels(1))
    image_folder(elsewhere, pixels(3), pixels(3))
    (train / "class2").symlink_to(elsewhere / "train" / "class0")
    (train / "class3").symlink_to(elsewhere / "test")
    (train / "class0" / "again.png").symlink_to(elsewhere / "train" / "class1" / "001.png")
    (train / "class0" / "up").symlink_to(train)
    data = prepare(str(tmp_path / "set"))
    assert data.train_images == 2 + 2 + 3 + 1
    assert data.notes == ("1 left out of the data set: train/class0/up/ (a second way to the same folder)",)
    (train / "class4").symlink_to(tmp_path / "unmounted")
    assert "train/class4 (no image)" in prepare(str(tmp_path / "set")).notes[0]


@pytest.mark.parametrize("base", ["", "default", "data"])
def test_a_folder_a_split_as_the_hub_exports_it(tmp_path: Path, base: str) -> None:
    for split in ("train", "test"):
        for shard in range(2):
            parquet(tmp_path / base / split / f"{shard:04}.parquet", [encoded(i) for i in pixels(3)])
    data = prepare(str(tmp_path))
    assert (data.train_images, data.test_images, data.notes) == (6, 6, ())
    parquet(tmp_path / base / "unsupervised" / "0000.parquet", [])
    parquet(tmp_path / base / "validation.parquet", [encoded(i) for i in pixels(9)])
    assert prepare(str(tmp_path)).test_images == 6, "test comes before validation"
    left_out = "unsupervised/0000.parquet (of neither split), validation.parquet (of neither split)"
    assert prepare(str(tmp_path)).notes == (f"2 left out of the data set: {left_out}",)


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
RED = np.full(SHAPE, (255, 0, 0), np.uint8)
CORNER = pixels(1)[0]


def rgba(alpha: int) -> Image.Image:
    image = Image.fromarray(RED)
    image.putalpha(alpha)
    return image


TURNED = Image.Exif()
TURNED[0x0112] = 6  # a camera's word for: shown turned by 90 degrees clockwise
MODES = {
    "turned": (encoded(CORNER, exif=TURNED), np.rot90(CORNER, -1)),
    "L": (encoded(GREY), np.stack([GREY] * 3, -1)),
    "I;16": (encoded(Image.fromarray(GREY.astype(np.uint16) * 257)), np.stack([GREY] * 3, -1)),
    "I;16 tiff": (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), np.stack([GREY] * 3, -1)),
    "1": (encoded(Image.fromarray(GREY > 99)), np.stack([(GREY > 99) * np.uint8(255)] * 3, -1)),
    "P": (encoded(Image.fromarray(RED).convert("P")), RED),
    "P transparent": (encoded(Image.fromarray(RED).quantize(4), transparency=0), np.full(SHAPE, 255)),
    "opaque": (encoded(rgba(255)), RED),
    "clear": (encoded(rgba(0)), np.full(SHAPE, 255)),
    "half clear": (encoded(rgba(51)), np.full(SHAPE, (255, 204, 204))),
    "LA": (encoded(Image.fromarray(GREY).convert("LA")), np.stack([GREY] * 3, -1)),
    "CMYK": (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), RED),
    "webp": (encoded(RED, "WEBP", lossless=True), RED),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_becomes_rgb_the_right_way_up(tmp_path: Path, mode: str) -> None:
    image, expected = MODES[mode]
    np.testing.assert_array_equal(prepare(a_set(tmp_path / "set", [image])).train()[0], expected)


def test_image_size_resizes_whole_images_of_any_size(tmp_path: Path) -> None:
    half = np.zeros((20, 50, 3), np.uint8)
    half[:, 25:] = 255
    data = prepare(a_set(tmp_path / "set", [encoded(half), encoded(pixels(1)[0])]), image_size=16)
    assert data.image_size == 16
    assert data.train().shape == (2, 16, 16, 3)
    assert data.train()[0, :, :6].max() < 5
    assert data.train()[0, :, 10:].min() > 250


# What is kept


def test_a_second_call_reads_the_cache(tmp_path: Path) -> None:
    folder = a_set(tmp_path / "set")
    first = prepare(folder)
    before = (Path(first.folder) / "train.npy").stat()
    shutil.copytree(folder, tmp_path / "elsewhere")
    again = prepare(str(tmp_path / "elsewhere"))
    assert again == replace(first, source=str(tmp_path / "elsewhere"))
    assert (Path(again.folder) / "train.npy").stat() == before


PREPARE = "import sys; from trainables.data import prepare; print(prepare(sys.argv[1]))"


def preparing(folder: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE, folder], cwd=REPO, env=env, text=True, stdout=subprocess.PIPE
    )


@pytest.fixture
def slow_set(tmp_path: Path) -> str:
    """Takes about a second to decode."""
    images = [encoded(i) for i in pixels(40, (32, 32, 3))]
    return a_set(tmp_path / "slow", images * 400, images)


def test_a_build_that_is_killed_leaves_nothing_that_is_used(slow_set: str, cache: Path) -> None:
    process = preparing(slow_set)
    while not (begun := [path for path in cache.glob("data/*.tmp/train.npy") if path.stat().st_size > 1000]):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert begun[0].exists(), "killed too late: the build was complete"
    assert not list(cache.glob("data/*/meta.json"))

    np.testing.assert_array_equal(prepare(slow_set).test(), pixels(40, (32, 32, 3)))
    assert not list(cache.glob("data/*.tmp"))


def test_sweeps_that_start_at_once_share_one_build(slow_set: str, cache: Path) -> None:
    processes = [preparing(slow_set) for _ in range(2)]
    inodes = set()
    while any(process.poll() is None for process in processes):
        inodes |= {path.stat().st_ino for path in cache.glob("data/*[0-9a-f]/meta.json")}
        time.sleep(0.01)
    said = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert said == {f"{prepare(slow_set)}\n"}
    assert len(inodes) == 1, "the data set was built twice"


def test_a_node_without_the_files_makes_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = prepare(a_set(tmp_path / "set")), []

    def fetch() -> tuple[np.ndarray, np.ndarray]:
        calls.append(1)
        return pixels(6), pixels(3, seed=1)

    assert ensure_local(data, fetch) == data
    assert not calls, "the files were there"
    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path / "node"))
    shutil.rmtree(data.folder)
    local = ensure_local(data, fetch)
    assert Path(local.folder).is_relative_to(tmp_path / "node")
    assert ensure_local(data, fetch) == local == replace(data, folder=local.folder)
    assert len(calls) == 1
    np.testing.assert_array_equal(local.train(), pixels(6))
    np.testing.assert_array_equal(local.test(), pixels(3, seed=1))
    (Path(local.folder) / "train.npy").write_bytes(b"")
    np.testing.assert_array_equal(ensure_local(data, fetch).train(), pixels(6))
