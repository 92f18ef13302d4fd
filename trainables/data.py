"""A data set is decoded once, into one uint8 array a split, and memory-mapped by everything that trains on it.

The cache (``VQSWEEP_CACHE``, else ``vqsweep`` in the user's cache folder) holds a folder a data set, named by the
content of its source files and the image size. A folder there is complete: it is built beside its place, under a lock,
forced to the disk, and then renamed.
"""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import FatalRunError
from trainables.images import decoded, natural_size
from trainables.sources import Images, Split, find
from vqcore.config import ConfigError

_FORMAT = 2
"""Of the cache and of what decoding makes of an image: a change of either makes every entry anew."""


class DamagedDataError(FatalRunError):
    """The prepared data set is not what it was: no trial can train on it."""


@dataclass(frozen=True)
class DataSet:
    """A prepared data set on this machine: a few strings and numbers, cheap to send; the pixels stay in files."""

    source: str
    """As the user named it."""
    hash: str
    """16 hex digits over shapes and pixels of both splits: the same however the images were stored."""
    folder: str
    """Where ``train.npy``, ``test.npy`` and ``meta.json`` are."""
    image_size: int
    """Side of the square images, in pixels."""
    train_images: int
    test_images: int

    def check(self) -> None:
        """``DamagedDataError`` unless the files are there, as long as they were made."""
        if _complete(Path(self.folder), self.hash) is None:
            raise DamagedDataError(errno.EIO, "the prepared data set is damaged; --resume makes it anew", self.folder)

    def train(self) -> Images:
        """(N, H, W, 3) uint8, mapped read-only: pages are shared between processes and count as nobody's own."""
        return self._mapped("train")

    def test(self) -> Images:
        """As ``train``."""
        return self._mapped("test")

    def _mapped(self, split: str) -> Images:
        # A plain array over the mapping: indexing np.memmap itself costs more.
        return np.asarray(np.load(Path(self.folder) / f"{split}.npy", mmap_mode="r"))


def prepare(source: str = "cifar10-mini", image_size: int | None = None) -> DataSet:
    """The data set ``source``, from the cache or made now; safe to call from several processes at once.

    ``source``: ``cifar10-mini`` (embedded), ``cifar10`` (downloaded once), or a folder with a Parquet export in the
    Hugging Face layout, the official ``cifar-10-batches-py``, or images in ``train/`` and ``test/``.
    ``image_size``: side in pixels, divisible by 4 as the encoder halves it twice. Every image is resized to that
    square, whole: one that is not square changes its proportions, none is cropped. Without it all images must be
    square and of one size. Raises ``ConfigError`` with every problem found.
    """
    problems = list(_size_problems(image_size))
    try:
        splits = find(source, _cache() / "downloads")
        if not problems:
            return _prepare(source, splits, image_size)
    except ConfigError as error:
        problems += error.problems
    raise ConfigError(problems)


def ensure_local(data: DataSet, fetch: Callable[[], tuple[Images, Images]]) -> DataSet:
    """``data`` as it can be opened on this node, made in its own cache from ``fetch()`` if need be.

    ``fetch`` returns train and test; it is called by one process of the node while the others wait, and
    not at all where the files are complete.
    Raises ``ConfigError`` if what was fetched is not this data set, or has no room.
    """
    own = _cache() / "data" / Path(data.folder).name
    for folder in (Path(data.folder), own):
        if _complete(folder, data.hash):
            return replace(data, folder=str(folder))
    with _lock(own):
        if not _complete(own, data.hash):
            splits = dict(zip(("train", "test"), fetch(), strict=True))
            _need_room(own, sum(images.nbytes for images in splits.values()))
            blocks = {name: (images.shape, [images]) for name, images in splits.items()}
            _build(own, blocks, [], expected=data.hash)
    return replace(data, folder=str(own))


def _size_problems(size: int | None) -> Iterator[str]:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 4 or size % 4):
        yield f"image_size = {size!r}: must be a whole number of pixels, at least 4 and divisible by 4; 32 is usual"


def _prepare(source: str, splits: tuple[Split, Split], image_size: int | None) -> DataSet:
    folder = _cache() / "data" / _key(splits, image_size)
    meta = _intact(folder)
    if meta is None:
        with _lock(folder):
            meta = _intact(folder) or _decode_into(folder, splits, image_size)
    return DataSet(source, meta["hash"], str(folder), meta["image_size"], meta["train_images"], meta["test_images"])


def _cache() -> Path:
    own = os.environ.get("VQSWEEP_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "vqsweep"


def _key(splits: Iterable[Split], image_size: int | None) -> str:
    """Names what ``_decode_into`` would make: content and order of the files, not their names or place."""
    parts: list[object] = [_FORMAT, image_size]
    for split in splits:
        parts += [type(split).__name__, split.name]
        for path in split.files:
            try:
                with path.open("rb") as file:
                    parts.append(hashlib.file_digest(file, "sha256").hexdigest())
            except OSError as error:
                raise ConfigError([f"{path}: cannot be read ({error.strerror}); check its permissions"]) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _complete(folder: Path, expected: str | None = None) -> dict[str, Any] | None:
    """What ``meta.json`` says, if the files are as long as it says; a damaged folder counts as none."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        whole = all((folder / name).stat().st_size == size for name, size in meta["bytes"].items())
        return meta if whole and meta["format"] == _FORMAT and expected in (None, meta["hash"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _intact(folder: Path) -> dict[str, Any] | None:
    """What ``meta.json`` says, if every byte is as it was written. Reads all: once a run, before its first trial."""
    meta = _complete(folder)
    if meta is None or meta.get("sum") != _sum(meta):
        return None
    try:
        return meta if all(_crc(folder / name) == crc for name, crc in meta["crc32"].items()) else None
    except OSError:
        return None


def _sum(meta: Mapping[str, Any]) -> int:
    """The CRC-32 of what ``meta.json`` says."""
    return zlib.crc32(json.dumps({**meta, "sum": None}, sort_keys=True).encode())


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process at a time makes ``folder``. The lock dies with its holder, and what the dead left is removed."""
    from filelock import FileLock, Timeout

    with _writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{folder}.lock").acquire()
    with held:
        for debris in folder.parent.glob("*.tmp"):
            if debris == _beside(folder):
                shutil.rmtree(debris, ignore_errors=True)
                continue
            with suppress(Timeout), FileLock(debris.with_suffix(".lock"), timeout=0):
                shutil.rmtree(debris, ignore_errors=True)  # its builder is dead, or it would hold this lock
        yield


@contextmanager
def _writing(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        step = "make room, or set VQSWEEP_CACHE to a folder that can be written"
        raise ConfigError([f"cache {cache}: cannot be written ({error.strerror or error}); {step}"]) from error


def _beside(folder: Path) -> Path:
    return folder.with_name(folder.name + ".tmp")


def _decode_into(folder: Path, splits: Iterable[Split], image_size: int | None) -> dict[str, Any]:
    rows = {split: split.rows() for split in splits}
    if empty := [split for split, count in rows.items() if not count]:
        raise ConfigError([f"data folder {split.folder}: {split.name} has no images (zero rows)" for split in empty])
    size = image_size or natural_size(splits)
    _need_room(folder, sum(rows.values()) * size * size * 3)
    problems: list[str] = []
    blocks = {
        split.name: ((count, size, size, 3), decoded(split, size, image_size is not None, problems))
        for split, count in rows.items()
    }
    return _build(folder, blocks, problems)


def _need_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        lacks = f"needs {_megabytes(needed)}, {_megabytes(free)} are free, {_megabytes(needed - free)} are missing"
        raise ConfigError(
            [f"cache {folder.parent}: the data set {lacks}; make room or set VQSWEEP_CACHE to a larger disk"]
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


_Blocks = Mapping[str, tuple[tuple[int, ...], Iterable[Images]]]
"""By split: the shape, and the pixels in order."""


def _build(folder: Path, splits: _Blocks, problems: list[str], expected: str | None = None) -> dict[str, Any]:
    """Write ``folder``, whole or not at all; the lock is held. ``problems`` may grow while ``splits`` are read."""
    building = _beside(folder)
    meta: dict[str, Any] = {"format": _FORMAT, "bytes": {}, "crc32": {}}
    digest = hashlib.sha256()
    try:
        with _writing(folder.parent):
            building.mkdir()
            for name, (shape, blocks) in splits.items():
                meta["bytes"][f"{name}.npy"] = _write_array(building / f"{name}.npy", shape, blocks, digest)
                meta["crc32"][f"{name}.npy"] = _crc(building / f"{name}.npy")
                meta |= {"image_size": shape[1], f"{name}_images": shape[0]}
            meta["hash"] = digest.hexdigest()[:16]
            if expected not in (None, meta["hash"]):
                problems.append(f"data set {expected}: other images came ({meta['hash']}); prepare the data set again")
            if problems:
                raise ConfigError(problems)
            meta["sum"] = _sum(meta)
            _write_meta(building / "meta.json", meta)
            shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would not be built
            building.rename(folder)
            _sync(folder.parent)
        return meta
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_array(path: Path, shape: tuple[int, ...], blocks: Iterable[Images], digest: Any) -> int:
    """Stream ``blocks`` into an ``.npy``; returns its bytes."""
    # Written, not mapped: a full disk is then an error that can be told, not a bus error.
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    digest.update(repr(shape).encode())
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            pixels = np.ascontiguousarray(block)
            digest.update(pixels)
            file.write(pixels.data)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _write_meta(path: Path, meta: dict[str, Any]) -> None:
    with path.open("w") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
