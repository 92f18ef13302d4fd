"""Class labels of a data set, in the order in which its images are decoded. The image cache is neither read nor made.

Read of Hugging Face Parquet with a column ``label`` (or ``fine_label``, ``coarse_label``), of the official
``cifar-10-batches-py``, and of folders in which every image of a split lies in a folder of its class.
"""

from dataclasses import dataclass

from trainables.data import DataSet, find_splits
from trainables.sources import LABEL_COLUMNS
from trainables.sources import Labels as Array
from vqcore.errors import ConfigError


@dataclass(frozen=True)
class Labels:
    """The class of each image, as a number below ``len(classes)``."""

    train: Array
    """(train images,) int64."""
    test: Array
    """(test images,) int64."""
    classes: tuple[str, ...]
    """The classes' names, by number; the numbers as text where nothing says the names."""


def labels(source: str) -> Labels | None:
    """The labels of the data set ``source``, as ``prepare`` takes it; None if an image of it has none.

    Raises ``ConfigError`` if there is no such data set, or if the classes of its two splits are not the same.
    """
    train, test = (split.labels() for split in find_splits(source))
    if train is None or test is None:
        return None
    if train[1] != test[1]:
        some = ", ".join(sorted({*train[1]} ^ {*test[1]})[:5]) or "their order differs"
        raise ConfigError([f"data = {source!r}: train and test have other classes ({some}); give both the same"])
    count = int(max(train[0].max(), test[0].max())) + 1
    names = train[1] if len(train[1]) >= count else tuple(map(str, range(count)))
    return Labels(train[0], test[0], names)


def required_labels(data: DataSet) -> Labels:
    """The labels of a prepared data set. ``ConfigError`` if it has none, or not as many as images."""
    found = labels(data.source)
    if found is None:
        rule = f"a column {' or '.join(LABEL_COLUMNS)} of whole numbers, or a folder for each class in both splits"
        raise ConfigError([f"data = {data.source!r}: not every image has a label; add {rule}"])
    have, need = (len(found.train), len(found.test)), (data.train_images, data.test_images)
    if have != need:
        raise ConfigError(
            [f"data = {data.source!r}: {have} labels for {need} images; the set has changed, start again"]
        )
    return found
