"""Where images come from: a layout on disk, read as two splits of undecoded images in an order that never changes."""

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainables.errors import check_text
from vqcore.errors import ConfigError

Images = npt.NDArray[np.uint8]
"""(rows, height, width, 3)."""
Labels = npt.NDArray[np.int64]
"""(rows,): the number of each image's class."""
Item = tuple[str, bytes | Path | Images | None]
"""Where an image is, for people, and the image: encoded, in a file of its own, or as (height, width, 3) pixels; None
where its row has none."""

EMBEDDED = Path(__file__).parent / "embedded"
KNOWN = ("cifar10-mini", "cifar10")
"""Data sets by name; anything else is a folder."""

LABEL_COLUMNS = ("label", "fine_label", "coarse_label")
"""Columns of a Parquet file that are read as labels, the first that is there."""

_OFFICIAL = "cifar-10-batches-py"
_NAMES = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
_LAYOUTS = (
    "train*.parquet and test*.parquet or train/*.parquet and test/*.parquet (here, in data/ or in one subfolder), "
    "the official cifar-10-batches-py, or folders train/ and test/ of images"
)
_FEW = 10
"""Files that may be left out of a folder of images. More than that, and more than a tenth, are an error."""


@dataclass(frozen=True)
class Split:
    """Half of a data set: one file an image. Nothing is opened before it is needed; problems are ``ConfigError``."""

    name: str
    """``train`` or ``test``."""
    folder: Path
    """What the files are named relative to."""
    files: tuple[Path, ...]
    """In the order in which they are read."""
    left_out: tuple[str, ...] = field(default=(), compare=False)
    """Files beside them that no split takes."""

    def items(self) -> Iterator[Item]:
        """The images, not yet decoded."""
        return ((str(file.relative_to(self.folder)), file) for file in self.files)

    def labels(self) -> tuple[Labels, tuple[str, ...]] | None:
        """A label an image, in the order of ``items``, and the classes' names, empty where nothing says them.

        None if an image has no label. In a folder of images the folders in it are the classes, in the order of names.
        """
        places = [file.relative_to(self.folder).parts[1:-1] for file in self.files]
        if not all(places):
            return None
        names, labels = np.unique([place[0] for place in places], return_inverse=True)
        return labels.astype(np.int64), tuple(map(str, names))


class ParquetSplit(Split):
    """A Hugging Face export: encoded images in a binary column, or in the ``bytes`` of a struct."""

    def items(self) -> Iterator[Item]:
        """Row by row, a thousand in memory at a time."""
        row = itertools.count()
        for file in self.files:
            with _parquet(file) as parquet:
                column = _image_column(file, parquet)
                for batch in parquet.iter_batches(1024, columns=[column]):
                    values = batch.column(0)
                    for image in values.field("bytes") if "." in column else values:
                        yield f"{self.name} row {next(row)} ({file.name})", image.as_py()

    def labels(self) -> tuple[Labels, tuple[str, ...]] | None:
        """Of the first of ``LABEL_COLUMNS`` that each file has with a whole number, not below 0, in each row."""
        import pyarrow as pa

        parts, names = list[Labels](), tuple[str, ...]()
        for file in self.files:
            with _parquet(file) as parquet:
                column = next((name for name in LABEL_COLUMNS if name in parquet.schema_arrow.names), None)
                if column is None or not pa.types.is_integer(parquet.schema_arrow.field(column).type):
                    return None
                values = parquet.read([column])[column]
                if values.null_count:
                    return None
                parts.append(values.to_numpy().astype(np.int64))
                names = _class_names(parquet.schema_arrow.metadata, column)
        labels = np.concatenate(parts)
        return (labels, names) if labels.size and labels.min() >= 0 else None  # -1: Hugging Face's word for none


class BatchSplit(Split):
    """The official ``cifar-10-batches-py``, read by torchvision once every file has the official checksum."""

    def items(self) -> Iterator[Item]:
        """Row by row, the whole split in memory."""
        from torchvision.datasets import CIFAR10

        with _readable(self.folder, "copy of CIFAR-10"):
            images = CIFAR10(self.folder.parent, train=self.name == "train").data
        return ((f"{self.name} row {row}", pixels) for row, pixels in enumerate(images))

    def labels(self) -> tuple[Labels, tuple[str, ...]] | None:
        """As torchvision reads them."""
        from torchvision.datasets import CIFAR10

        with _readable(self.folder, "copy of CIFAR-10"):
            split = CIFAR10(self.folder.parent, train=self.name == "train")
        return np.array(split.targets, np.int64), tuple(split.classes)


def find(source: str, downloads: Path) -> tuple[Split, Split]:
    """Train and test of a known name (``KNOWN``) or of a folder in any of three layouts.

    ``cifar10`` is downloaded into ``downloads`` unless it is there. A folder that has a known name is ``./NAME``.
    Raises ``ConfigError`` if there is no such data set, or only half of it.
    """
    check_text("data", source)
    if source == "cifar10":
        return _layout(_downloaded(downloads))
    try:
        folder = EMBEDDED / source if source in KNOWN else Path(source).expanduser()
        if folder.is_dir():
            return _layout(folder)
        what = "is a file" if folder.is_file() else "no folder and no data set of that name"
    except (OSError, RuntimeError) as error:  # not readable, a name longer than any file's, a user without a home
        what = f"cannot be read ({error})"
    problem = f"data = {source[:200]!r}: {what[:300]}; there are {', '.join(KNOWN)}, or name a folder of images"
    raise ConfigError([problem])


def plain_folder(folder: Path) -> Split | None:
    """All images below a folder that holds some itself, which no layout of a data set does; None if it holds none."""
    if not folder.is_dir() or not any(map(_is_image, folder.iterdir())):
        return None
    return Split("images", folder, *_images_under(folder))


def _layout(folder: Path) -> tuple[Split, Split]:
    if not any(folder.iterdir()):
        raise ConfigError([f"data folder {folder}: is empty; it must hold {_LAYOUTS}"])
    for look in (_batches, _parquets, _image_folders):
        splits = {split.name: split for split in look(folder) if split.files}
        if len(splits) == 2:
            return splits["train"], splits["test"]
        if splits:
            (have,) = splits
            lack = "test" if have == "train" else "train"
            base, names = splits[have].folder, " or ".join(_NAMES[lack])
            raise ConfigError(
                [f"data folder {base}: has {have} but no {lack} images; add the other half, named {names}"]
            )
    raise ConfigError([f"data folder {folder}: nothing in it is known; it must hold {_LAYOUTS}"])


def _batches(folder: Path) -> list[Split]:
    for base in (folder.absolute(), folder / _OFFICIAL):
        if base.name == _OFFICIAL and base.is_dir():
            from torchvision.datasets import CIFAR10

            files = {"train": CIFAR10.train_list, "test": CIFAR10.test_list}
            return [BatchSplit(split, base, tuple(base / name for name, _ in files[split])) for split in files]
    return []


def _parquets(folder: Path) -> list[Split]:
    for bases in ([folder], [folder / "data"], sorted(path for path in folder.iterdir() if path.is_dir())):
        found = [splits for splits in map(_shards, bases) if any(split.files for split in splits)]
        if len(found) > 1:
            names = ", ".join(splits[0].folder.name for splits in found)
            raise ConfigError([f"data folder {folder}: holds several data sets ({names}); name one of these folders"])
        if found:
            return found[0]
    return []


def _shards(base: Path) -> list[Split]:
    """Parquet files by split; ``ConfigError`` if a file of ``train-00000-of-00005.parquet`` and so on is missing."""
    files: dict[str, tuple[Path, ...]] = {}
    for split, names in _NAMES.items():
        patterns = (f"{name}{rest}" for name in names for rest in ("*.parquet", "/*.parquet"))
        files[split] = next((found for pattern in patterns if (found := tuple(sorted(base.glob(pattern))))), ())
        totals = [int(match[1]) for file in files[split] if (match := re.search(r"-of-(\d+)", file.name))]
        if totals and len(totals) < max(totals):
            problem = f"has {len(totals)} of the {max(totals)} {split} files; copy or download the others too"
            raise ConfigError([f"data folder {base}: {problem}"])
    taken = {path for found in files.values() for path in found}
    others = sorted({*base.glob("*.parquet"), *base.glob("*/*.parquet")} - taken) if taken else []
    left_out = tuple(f"{path.relative_to(base)} (of neither split)" for path in others)
    return [ParquetSplit(split, base, files[split], left_out if split == "train" else ()) for split in _NAMES]


def _image_folders(folder: Path) -> list[Split]:
    splits: list[Split] = []
    for split, names in _NAMES.items():
        there = [name for name in names if (folder / name).is_dir()]
        images, left_out = _images_under(folder / there[0]) if there else ((), ())
        unused = tuple(f"{name}/ (beside {there[0]}/)" for name in there[1:])
        splits.append(Split(split, folder, images, left_out + unused))
    return splits


def _images_under(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The images below a folder, ordered by path, and what else is there. Links are followed, to each folder once.

    Raises ``ConfigError`` where so much is left out that nobody can want it; ``OSError`` for what cannot be read.
    """
    images, left_out, seen = [], [], set()

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            left_out.append(f"{Path(place).relative_to(folder.parent)}/ (a second way to the same folder)")
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(place, name) for name in names if not name.startswith(".")):  # a file manager's ._photo.jpg
            if _is_image(path):
                images.append(path)
            else:
                left_out.append(f"{path.relative_to(folder.parent)} (no image)")
    left_out.sort()
    if len(left_out) > _FEW and len(left_out) > len(images) / _FEW:
        some = f"{len(left_out)} of {len(left_out) + len(images)} files are no images ({', '.join(left_out[:3])}, ...)"
        raise ConfigError([f"data folder {folder}: {some}; move what is none elsewhere, or name another folder"])
    return tuple(sorted(images, key=lambda path: path.relative_to(folder).parts)), tuple(left_out)


def _is_image(path: Path) -> bool:
    """Whether Pillow knows a file's suffix, or opens it whatever its name."""
    from PIL import Image

    if not path.is_file():
        return False
    if path.suffix.lower() in Image.registered_extensions():
        return True
    try:
        with Image.open(path):
            return True
    except Image.DecompressionBombError:
        return True  # what is wrong with it is said when it is decoded
    except (OSError, SyntaxError, ValueError):
        return False


def _downloaded(folder: Path) -> Path:
    """CIFAR-10 from its home by torchvision, which checks every file's sum; one process downloads, others wait."""
    from filelock import FileLock
    from torchvision.datasets import CIFAR10

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "cifar10.lock"):
            CIFAR10(folder, download=True)
            (folder / CIFAR10.filename).unlink(missing_ok=True)
    except (OSError, RuntimeError, EOFError) as error:  # URLError, no space, or a sum that is wrong
        step = "try again, or fetch it elsewhere and name its folder: --data DIR"
        raise ConfigError([f"data = 'cifar10': {CIFAR10.url} could not be downloaded ({error}); {step}"]) from error
    return folder / _OFFICIAL


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with _readable(file, "Parquet file"), ParquetFile(file) as parquet:
        yield parquet


def _image_column(file: Path, parquet: Any) -> str:
    """The path of the column with encoded images: ``img`` or ``image``, else the only one that can hold them."""
    import pyarrow as pa

    columns = {}
    for column in parquet.schema_arrow:
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            columns[column.name] = f"{column.name}.bytes"
        elif pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            columns[column.name] = column.name
    for name in ("img", "image", *(columns if len(columns) == 1 else ())):
        if name in columns:
            return columns[name]
    have = f"{', '.join(columns)} could all be it" if columns else f"there are {', '.join(parquet.schema_arrow.names)}"
    raise ConfigError([f"{file}: no image column; {have}; name it image (binary, or a struct with bytes)"])


def _class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """The classes' names as Hugging Face's ``datasets`` writes them into a schema; empty if they are not there."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
        return tuple(names) if all(isinstance(name, str) for name in names) else ()
    except (KeyError, TypeError, ValueError):
        return ()


@contextmanager
def _readable(file: Path, kind: str) -> Iterator[None]:
    """Raise whatever goes wrong inside as ``ConfigError``: ``file`` is not a readable ``kind``."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # pyarrow and torchvision raise nearly every kind there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError([f"{file}: is not a readable {kind} ({reason}); export or download it again"]) from error
