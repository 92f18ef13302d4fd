"""Labels in every layout, aligned with the images that are decoded."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import encoded, image_folder, official_set, pixels

from trainables.data import prepare
from trainables.labels import labels, required_labels
from vqcore.errors import ConfigError

CLASSES = ("ant", "bee", "cat")


def shard(path: Path, values: list[object], column: str = "label", names: object = None) -> None:
    """Images whose first pixel's red is their label, where there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pixels(len(values))
    for image, value in zip(images, values, strict=True):
        image[0, 0, 0] = value if isinstance(value, int) and value >= 0 else 0
    table = pa.table({"img": pa.array([encoded(image) for image in images]), column: pa.array(values)})
    if names is not None:
        features = {column: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path)


def test_the_embedded_set_has_the_labels_of_cifar10(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path / "untouched"))
    found = labels("cifar10-mini")
    assert found is not None
    assert np.bincount(found.train).tolist() == [250] * 10
    assert np.bincount(found.test).tolist() == [50] * 10
    assert found.classes == tuple("0123456789"), "the file does not name them"
    assert not (tmp_path / "untouched").exists()


@pytest.mark.parametrize("column", ["label", "fine_label", "coarse_label"])
def test_of_parquet_shard_by_shard_with_their_names(tmp_path: Path, cache: Path, column: str) -> None:
    shard(tmp_path / "train-00000-of-00002.parquet", [2, 0, 1, 1], column, CLASSES)
    shard(tmp_path / "train-00001-of-00002.parquet", [0, 2], column, CLASSES)
    shard(tmp_path / "test.parquet", [1, 2], column, CLASSES)
    data = prepare(str(tmp_path))
    found = required_labels(data)
    assert found.classes == CLASSES
    for split, images in ((found.train, data.train()), (found.test, data.test())):
        assert split.tolist() == images[:, 0, 0, 0].tolist()


def test_of_the_official_batches(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official_set(tmp_path, monkeypatch)
    found = required_labels(prepare(str(tmp_path)))
    assert (found.train.tolist(), found.test.tolist()) == ([0, 1] * 5, [0, 1, 0])
    assert found.classes == ("even", "odd")


def test_of_folders_of_images(tmp_path: Path, cache: Path) -> None:
    train, test = pixels(7), pixels(4, seed=1)
    for images in (train, test):
        images[:, 0, 0, 0] = np.arange(len(images)) % 2
    data = prepare(image_folder(tmp_path, train, test, "val"))
    found = required_labels(data)
    assert found.classes == ("class0", "class1")
    for split, images in ((found.train, data.train()), (found.test, data.test())):
        assert split.tolist() == images[:, 0, 0, 0].tolist()


def test_an_image_outside_the_folders_of_classes_leaves_none(tmp_path: Path, cache: Path) -> None:
    source = image_folder(tmp_path, pixels(4), pixels(2))
    (tmp_path / "train" / "stray.png").write_bytes(encoded(pixels(1)[0]))
    assert labels(source) is None
    with pytest.raises(ConfigError, match="not every image has a label; add a column label or"):
        required_labels(prepare(source))


def test_folders_of_other_classes_are_an_error(tmp_path: Path) -> None:
    source = image_folder(tmp_path, pixels(4), pixels(2))
    (tmp_path / "test" / "class1").rename(tmp_path / "test" / "clazz1")
    with pytest.raises(ConfigError, match=r"train and test have other classes \(class1, clazz1\)"):
        labels(source)


@pytest.mark.parametrize("values", [[1, None], [0, -1], [0.5, 1.0], ["ant", "bee"]])
def test_rows_without_a_whole_number_leave_none(tmp_path: Path, values: list[object]) -> None:
    shard(tmp_path / "train.parquet", [0, 1])
    shard(tmp_path / "test.parquet", values)
    assert labels(str(tmp_path)) is None


@pytest.mark.parametrize("names", [7, [1, 2], ["ant"], None])
def test_names_that_do_not_fit_are_numbers(tmp_path: Path, names: object) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 1], names=names)
    found = labels(str(tmp_path))
    assert found is not None
    assert found.classes == ("0", "1")


def test_a_set_that_grew_after_it_was_prepared(tmp_path: Path, cache: Path) -> None:
    for split in ("train", "test"):
        shard(tmp_path / f"{split}.parquet", [0, 1])
    data = prepare(str(tmp_path))
    shard(tmp_path / "test.parquet", [0, 1, 1])
    with pytest.raises(ConfigError, match=r"\(2, 3\) labels for \(2, 2\) images; the set has changed"):
        required_labels(data)
