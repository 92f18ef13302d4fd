"""Data sets that cannot be prepared: each error names the place, the rule and the step."""

import os
import shutil
import tarfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import a_set, encoded, image_folder, official_set, parquet, pixels, problem
from torchvision.datasets import CIFAR10

from trainables.data import prepare

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("name", ["/no/such/folder", "cifr10"])
def test_a_missing_folder_or_an_unknown_name(name: str) -> None:
    assert f"data = '{name}'" in problem(name)
    assert "cifar10-mini, cifar10" in problem(name)


def test_a_file_an_empty_folder_and_one_of_other_things(tmp_path: Path) -> None:
    assert "is empty; it must hold train*.parquet" in problem(tmp_path)
    (tmp_path / "set.parquet").write_bytes(b"")
    assert "is a file; there are" in problem(tmp_path / "set.parquet")
    assert "nothing in it is known; it must hold train*.parquet" in problem(tmp_path)


def test_a_name_that_no_text_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/set-\xe4"))
    image_folder(folder, pixels(6), pixels(3))
    assert "is no UTF-8; rename it" in problem(folder)
    monkeypatch.chdir(folder)
    assert "is no UTF-8; rename it" in problem(".")
    (tmp_path / "link").symlink_to(folder)
    assert prepare(str(tmp_path / "link")).train_images == 6


def test_a_user_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number."""
    for name in ("VQSWEEP_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert problem("cifar10-mini") == "this user has no home folder for the cache; set VQSWEEP_CACHE to a folder"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Path(prepare(a_set(tmp_path / "set")).folder).is_relative_to(tmp_path / "xdg" / "vqsweep")


def test_half_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_set(tmp_path / "parquet")
    (tmp_path / "parquet/test-0.parquet").unlink()
    assert "has train but no test images" in problem(tmp_path / "parquet")
    image_folder(tmp_path / "images", pixels(1), pixels(1))
    shutil.rmtree(tmp_path / "images/train")
    assert "has test but no train images" in problem(tmp_path / "images")
    official_set(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py/data_batch_5").unlink()
    assert "cifar-10-batches-py/data_batch_5: cannot be read" in problem(tmp_path / "cifar-10-batches-py")
    parquet(tmp_path / "shards/train-00001-of-00003.parquet", [])
    parquet(tmp_path / "shards/test.parquet", [])
    assert "has 1 of the 3 train files" in problem(tmp_path / "shards")


def test_several_data_sets_in_one_folder(tmp_path: Path) -> None:
    a_set(tmp_path / "hub" / "large")
    a_set(tmp_path / "hub" / "small")
    assert "several data sets (large, small); name one" in problem(tmp_path / "hub")


def test_images_that_do_not_decode_are_named_with_their_rows_in_both_splits(tmp_path: Path, cache: Path) -> None:
    good = encoded(pixels(1)[0])
    said = problem(a_set(tmp_path / "set", [good, b"nonsense", None, good[:-30]], [b"", good]))
    for row in ("train row 1 (train-0.parquet)", "train row 2", "train row 3", "test row 0 (test-0.parquet)"):
        assert f"{row}" in said
    assert said.count("does not decode") == 4
    assert not [path for path in (cache / "data").iterdir() if path.is_dir()]
    many = problem(a_set(tmp_path / "many", [b"nonsense"] * 500, [b"nonsense"] * 500)).splitlines()
    assert (len(many), many[-1]) == (6, "... and more images")
    folder = image_folder(tmp_path / "folder", pixels(3), pixels(3))
    (tmp_path / "folder/train/class1/001.png").write_bytes(b"nonsense")
    assert "train/class1/001.png: does not decode" in problem(folder)


def test_columns_without_images(tmp_path: Path) -> None:
    for name in ("train", "test"):
        pq.write_table(pa.table({"label": [1], "text": ["a"]}), tmp_path / f"{name}.parquet")
    assert "no image column; there are label, text" in problem(tmp_path)
    for name in ("train", "test"):
        pq.write_table(pa.table({"left": [b"a"], "right": [b"a"]}), tmp_path / f"{name}.parquet")
    assert "left, right could all be it" in problem(tmp_path)


def test_zero_rows(tmp_path: Path) -> None:
    said = problem(a_set(tmp_path / "set", [], []))
    assert "train has no images" in said
    assert "test has no images" in said


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    folder = a_set(tmp_path / "set")
    (tmp_path / "set/train-0.parquet").write_bytes(b"PAR1 and no more")
    assert "train-0.parquet: is not a readable Parquet file" in problem(folder)


@pytest.mark.parametrize("size", [0, 30, -4, 32.0, True, 10**12])
def test_a_bad_image_size_is_told_together_with_a_bad_folder(size: object) -> None:
    said = problem("/no/such/folder", size)
    assert f"image_size = {size!r}" in said
    assert "/no/such/folder" in said


def test_images_that_the_model_cannot_take_name_the_flag_that_helps(tmp_path: Path) -> None:
    big, wide, odd = (encoded(pixels(1, shape)[0]) for shape in ((12, 12, 3), (8, 16, 3), (30, 30, 3)))
    good = encoded(pixels(1)[0])
    mixed = problem(a_set(tmp_path / "mixed", [good, big], [good, wide]))
    assert "train row 1 (train-0.parquet): is 12 x 12; all must be 8 x 8; --image-size 8" in mixed
    assert "test row 1 (test-0.parquet): is 16 x 8" in mixed
    assert "is 16 x 8; all must be 16 x 16" in problem(a_set(tmp_path / "wide", [wide]))
    odd_one = problem(a_set(tmp_path / "odd", [odd]))
    assert "width of 30 pixels must be divisible by 4, as the encoder divides it; --image-size 32" in odd_one


def test_a_batch_of_another_sum_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a pickle, and could run code."""
    official_set(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(b"cos\nmkdir\n(V" + bytes(tmp_path / "harm") + b"\ntR.")
    assert "cifar-10-batches-py: is not a readable copy of CIFAR-10" in problem(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file")
    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path / "taken"))
    said = problem(a_set(tmp_path / "set"))
    assert "cannot be written" in said
    assert "VQSWEEP_CACHE" in said


# The download


def test_a_download_is_checked_and_unpacked_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, _ = official_set(tmp_path / "home", monkeypatch)
    archive = cache / "downloads" / CIFAR10.filename
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "home" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(CIFAR10, "url", "file:///nowhere")

    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    assert "could not be downloaded" in problem("cifar10")
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.read_bytes()).hexdigest())
    np.testing.assert_array_equal(prepare("cifar10").train(), train)
    assert not archive.exists()
    assert prepare("cifar10").train_images == 10
