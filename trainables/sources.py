"""Where images come from: a layout on disk, read as two splits of undecoded images in an order that never changes."""

import itertools
import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vqcore.config import ConfigError

Images = npt.NDArray[np.uint8]
"""(rows, height, width, 3)."""
Item = tuple[str, bytes | Path | Images | None]
"""Where an image is, for people, and the image: encoded, in a file of its own, or as (height, width, 3) pixels; None
where its row has none."""

EMBEDDED = Path(__file__).parent / "embedded"
KNOWN = ("cifar10-mini", "cifar10")
"""Data sets by name; anything else is a folder."""

_NAMES = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
_LAYOUTS = (
    "train*.parquet and test*.parquet (here, in data/ or in one subfolder), the official cifar-10-batches-py, "
    "or folders train/ and test/ of images"
)


@dataclass(frozen=True)
class Split(ABC):
    """Half of a data set: its files, in the order in which they are read. Nothing is opened before it is asked for."""

    name: str
    """``train`` or ``test``."""
    folder: Path
    """What the files are named relative to."""
    files: tuple[Path, ...]

    @abstractmethod
    def rows(self) -> int:
        """Number of images. Raises ``ConfigError``."""

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """The images, not yet decoded. Raises ``ConfigError``."""


class ParquetSplit(Split):
    """A Hugging Face export: encoded images in a binary column, or in the ``bytes`` of a struct."""

    def rows(self) -> int:
        """Rows of all files, from their footers."""
        count = 0
        for file in self.files:
            with _parquet(file) as parquet:
                count += parquet.metadata.num_rows
        return count

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


class BatchSplit(Split):
    """Files of ``cifar-10-batches-py``: pickles of (rows, 3 x 32 x 32) pixels."""

    def rows(self) -> int:
        """Rows of all batches, counted by loading them one after the other."""
        return sum(len(_load_batch(file)) for file in self.files)

    def items(self) -> Iterator[Item]:
        """Row by row, one batch in memory at a time."""
        for file in self.files:
            for row, pixels in enumerate(_load_batch(file).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)):
                yield f"{file.name} row {row}", pixels


class FolderSplit(Split):
    """One file an image, ordered by path."""

    def rows(self) -> int:
        """Number of files."""
        return len(self.files)

    def items(self) -> Iterator[Item]:
        """File by file."""
        return ((str(file.relative_to(self.folder)), file) for file in self.files)


def find(source: str, downloads: Path) -> tuple[Split, Split]:
    """Train and test of a known name (``KNOWN``) or of a folder in any of three layouts.

    ``cifar10`` is downloaded into ``downloads`` unless it is there. A folder that has a known name is ``./NAME``.
    Raises ``ConfigError`` if there is no such data set, or only half of it.
    """
    if source == "cifar10":
        return _layout(_download(downloads))
    try:
        folder = EMBEDDED / source if source in KNOWN else Path(source).expanduser()
        is_file = folder.is_file()
    except (OSError, RuntimeError) as error:  # a name longer than any file's, a home that nobody has
        words = getattr(error, "strerror", None) or error
        raise ConfigError([f"data = {source[:200]!r}: is no folder ({words}); name one that is there"]) from error
    if is_file:
        raise ConfigError([f"data = {source!r}: is a file; name the folder that holds the data set"])
    if not folder.is_dir():
        known = ", ".join(KNOWN)
        raise ConfigError(
            [f"data = {source!r}: no folder and no data set of that name; there are {known}, or name a folder"]
        )
    try:
        return _layout(folder)
    except OSError as error:
        raise ConfigError([f"data = {source!r}: cannot be read ({error.strerror}); check its permissions"]) from error


def _layout(folder: Path) -> tuple[Split, Split]:
    if not any(folder.iterdir()):
        raise ConfigError([f"data folder {folder}: is empty; it must hold {_LAYOUTS}"])
    for kind, look in ((BatchSplit, _batches), (ParquetSplit, _parquets), (FolderSplit, _image_files)):
        base, files = look(folder)
        if files["train"] and files["test"]:
            return kind("train", base, files["train"]), kind("test", base, files["test"])
        if files["train"] or files["test"]:
            have, lack = ("train", "test") if files["train"] else ("test", "train")
            names = " or ".join(_NAMES[lack])
            raise ConfigError(
                [f"data folder {base}: has {have} but no {lack} images; add the other half, named {names}"]
            )
    raise ConfigError([f"data folder {folder}: nothing in it is known; it must hold {_LAYOUTS}"])


_Files = dict[str, tuple[Path, ...]]
_NOTHING: _Files = {"train": (), "test": ()}


def _batches(folder: Path) -> tuple[Path, _Files]:
    names = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
    every = [*names["train"], *names["test"]]
    for base in (folder, folder / "cifar-10-batches-py"):
        missing = [name for name in every if not (base / name).is_file()]
        if not missing:
            return base, {split: tuple(base / name for name in names[split]) for split in names}
        if len(missing) < len(every):
            raise ConfigError(
                [f"data folder {base}: lacks {', '.join(missing)}; unpack all of cifar-10-batches-py again"]
            )
    return folder, _NOTHING


def _parquets(folder: Path) -> tuple[Path, _Files]:
    for bases in ([folder], [folder / "data"], sorted(path for path in folder.iterdir() if path.is_dir())):
        found = [(base, files) for base in bases if any((files := _shards(base)).values())]
        if len(found) > 1:
            names = ", ".join(base.name for base, _ in found)
            raise ConfigError([f"data folder {folder}: holds several data sets ({names}); name one of these folders"])
        if found:
            return found[0]
    return folder, _NOTHING


def _shards(base: Path) -> _Files:
    """Parquet files by split; ``ConfigError`` if a file of ``train-00000-of-00005.parquet`` and so on is missing."""
    files: _Files = {}
    for split, names in _NAMES.items():
        choices = (tuple(sorted(base.glob(f"{name}*.parquet"))) for name in names)
        files[split] = next((found for found in choices if found), ())
        totals = [int(match[1]) for file in files[split] if (match := re.search(r"-of-(\d+)", file.name))]
        if totals and len(totals) < max(totals):
            problem = f"has {len(totals)} of the {max(totals)} {split} files; copy or download the others too"
            raise ConfigError([f"data folder {base}: {problem}"])
    return files


def _image_files(folder: Path) -> tuple[Path, _Files]:
    return folder, {
        split: next((found for name in names if (found := _images_under(folder / name))), ())
        for split, names in _NAMES.items()
    }


def _images_under(folder: Path) -> tuple[Path, ...]:
    # What begins with a dot is a file manager's (._photo.jpg), not an image.
    paths = ((path.relative_to(folder).parts, path) for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return tuple(path for parts, path in sorted(paths) if path.is_file() and not any(p.startswith(".") for p in parts))


def _download(folder: Path) -> Path:
    """CIFAR-10 from its home by torchvision, which checks every file's sum; one process downloads, others wait."""
    from filelock import FileLock
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, download_and_extract_archive

    # Not CIFAR10(download=True) itself: that also holds every image in memory, through the unrestricted pickle.
    sums = dict(CIFAR10.train_list + CIFAR10.test_list)
    batches: Path = folder / CIFAR10.base_folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "cifar10.lock"):
            if not all(check_integrity(batches / name, md5) for name, md5 in sums.items()):
                download_and_extract_archive(CIFAR10.url, folder, filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
                (folder / CIFAR10.filename).unlink(missing_ok=True)
    except (OSError, RuntimeError, EOFError) as error:
        # URLError, no space, or a sum that is wrong: what is half there is replaced the next time.
        step = (
            "try again, or fetch it elsewhere and name its folder: --data DIR (Parquet export or cifar-10-batches-py)"
        )
        raise ConfigError([f"data = 'cifar10': {CIFAR10.url} could not be downloaded ({error}); {step}"]) from error
    return batches


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with _readable(file, "Parquet file"), ParquetFile(file) as parquet:
        yield parquet


def _image_column(file: Path, parquet: Any) -> str:
    """The path of the column with encoded images: ``img`` or ``image``, else the only one that can hold them."""
    import pyarrow as pa

    columns = {}
    for field in parquet.schema_arrow:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            columns[field.name] = f"{field.name}.bytes"
        elif pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            columns[field.name] = field.name
    for name in ("img", "image", *(columns if len(columns) == 1 else ())):
        if name in columns:
            return columns[name]
    have = f"{', '.join(columns)} could all be it" if columns else f"there are {', '.join(parquet.schema_arrow.names)}"
    raise ConfigError([f"{file}: no image column; {have}; name it image (binary, or a struct with bytes)"])


@contextmanager
def _readable(file: Path, kind: str) -> Iterator[None]:
    """Whatever goes wrong inside is told as: ``file`` is not a readable ``kind``."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # pyarrow, pickle and Pillow raise nearly every kind there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError([f"{file}: is not a readable {kind} ({reason}); export or download it again"]) from error


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and nothing else, so that loading a batch cannot run code."""

    _RECONSTRUCT = np.empty(0).__reduce__()[0]  # its module has had three names
    _ALLOWED = {  # noqa: RUF012
        ("numpy", "dtype"): np.dtype,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Only what an array is made of."""
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array: not loaded")
        return self._ALLOWED[module, name]


def _load_batch(file: Path) -> Images:
    with _readable(file, "CIFAR-10 batch"), file.open("rb") as opened:
        # Python 2 wrote the official files: latin1 gives text its letters and arrays their bytes.
        pixels = _ArraysOnly(opened, encoding="latin1").load()["data"]
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
            raise ValueError("its data is not (rows, 3072) uint8")
        return pixels
