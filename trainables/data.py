"""A data set is decoded once, into one uint8 array a split, and memory-mapped by everything that trains on it.

The cache (``VQSWEEP_CACHE``, else ``vqsweep`` in the user's cache folder) holds a folder a data set, named by the
content of its source files and the image size. A folder there is complete: it is built beside its place, under a lock,
forced to the disk, and then renamed.
"""

import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.errors import FatalRunError
from trainables.sources import Images, Item, Split, find
from trainables.storage import locked, replace_file, sync_folder
from vqcore.config import ModelConfig
from vqcore.errors import ConfigError
from vqcore.registry import ARCHITECTURES

if TYPE_CHECKING:
    from PIL import Image

_STEP = ARCHITECTURES[ModelConfig().architecture].downsampling
"""Sides of images are multiples of it; another architecture's is checked with its configuration."""

_MOST = 10_000
"""Sides of images are under it."""

_FORMAT = 2
"""Of the cache and of what decoding makes of an image: a change of either makes every entry anew."""

_BLOCK = 256
"""Images that are decoded at a time."""
_ENOUGH = 5
"""Problems after which decoding stops: a set of mixed sizes is refused at once, not after its last image."""


_ROOM = "make room, or set VQSWEEP_CACHE to a folder that can be written"


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
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was left out of the source, a line each, for the screen."""

    def check(self) -> None:
        """``DamagedDataError`` unless the files are there, as long as they were made."""
        if _hash(Path(self.folder)) != self.hash:
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
    ``image_size``: side in pixels, a multiple of the usual downsampling. Every image is resized to that
    square, whole: one that is not square changes its proportions, none is cropped. Without it all images must be
    square and of one size. Raises ``ConfigError`` with every problem found.
    """
    problems = []
    if image_size is not None and (type(image_size) is not int or image_size not in range(_STEP, _MOST, _STEP)):
        rule = f"must be a whole number of pixels, a multiple of {_STEP} under {_MOST}; 32 is usual"
        problems.append(f"image_size = {image_size!r}: {rule}")
    try:
        splits = find_splits(source)
        if not problems:
            folder = _cache() / "data" / _key(splits, image_size)
            if not _intact(folder):
                with locked(folder, _ROOM):
                    if not _intact(folder):
                        _decode_into(folder, splits, image_size)
            sizes = [np.load(folder / f"{split.name}.npy", mmap_mode="r").shape for split in splits]
            return DataSet(source, _hash(folder), str(folder), sizes[0][1], sizes[0][0], sizes[1][0], _notes(splits))
    except ConfigError as error:
        problems += error.problems
    raise ConfigError(problems)


def find_splits(source: str) -> tuple[Split, Split]:
    """Train and test of ``source`` as ``prepare`` reads them, not decoded. Raises ``ConfigError`` if there are none."""
    return find(source, _cache() / "downloads")


def decode(split: Split, side: int) -> Images:
    """The images of a split without the cache, for who needs them once.

    ``ConfigError`` names those that do not decode, or are not of ``side`` x ``side`` pixels.
    """
    problems: list[str] = []
    blocks = list(_decoded(split, side, False, problems))
    if problems:
        raise ConfigError(problems)
    return np.concatenate(blocks)


def ensure_local(data: DataSet, fetch: Callable[[], tuple[Images, Images]]) -> DataSet:
    """``data`` as it can be opened on this node, made in its own cache from ``fetch()`` if need be.

    ``fetch`` returns train and test; it is called by one process of the node while the others wait, and
    not at all where the files are complete.
    Raises ``ConfigError`` if it has no room.
    """
    own = _cache() / "data" / Path(data.folder).name
    for folder in (Path(data.folder), own):
        if _hash(folder) == data.hash:
            return replace(data, folder=str(folder))
    with locked(own, _ROOM):
        if _hash(own) != data.hash:
            train, test = fetch()
            _build(own, {"train": [train], "test": [test]}, [])
    return replace(data, folder=str(own))


def _notes(splits: Iterable[Split]) -> tuple[str, ...]:
    left_out = [name.encode(errors="replace").decode() for split in splits for name in split.left_out]
    some = ", ".join([*left_out[:3], *(["..."] if len(left_out) > 3 else [])])
    return (f"{len(left_out)} left out of the data set: {some}",) if left_out else ()


def _cache() -> Path:
    try:
        if own := os.environ.get("VQSWEEP_CACHE"):
            return Path(own).expanduser().absolute()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "vqsweep"
    except RuntimeError as error:  # HOME unset, and no entry for this user in the system's list
        raise ConfigError(["this user has no home folder for the cache; set VQSWEEP_CACHE to a folder"]) from error


def _key(splits: Iterable[Split], image_size: int | None) -> str:
    """The name of a cache entry, from content and order of the source files, not from their names or place."""
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


def _hash(folder: Path) -> str:
    """What ``meta.json`` says of the pixels beside it; empty unless both arrays are as long as their headers say."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("train", "test")]
        whole = meta["format"] == _FORMAT and all(array.dtype == np.uint8 for array in arrays)
        return str(meta["hash"]) if whole else ""
    except Exception:  # numpy reads a header as Python's own words, which can be wrong in many ways
        return ""


def _intact(folder: Path) -> bool:
    """Whether every pixel is as it was written. Reads all: once a run, before its first trial."""
    expected = _hash(folder)
    return expected != "" and _digest(folder) == expected


def _digest(folder: Path) -> str:
    """The hash of both splits' shapes and pixels."""
    digest = hashlib.sha256()
    for name in ("train", "test"):
        images = np.load(folder / f"{name}.npy", mmap_mode="r")
        digest.update(repr(images.shape).encode())
        digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()[:16]


def _decode_into(folder: Path, splits: Iterable[Split], image_size: int | None) -> None:
    side = image_size or _natural_size(splits)
    problems: list[str] = []
    _build(folder, {split.name: _decoded(split, side, image_size is not None, problems) for split in splits}, problems)


def _build(folder: Path, splits: Mapping[str, Iterable[Images]], problems: list[str]) -> None:
    """Write blocks of pixels as ``folder``, whole or not at all; the lock is held.

    ``problems`` may grow while ``splits`` are read; all are raised as one ``ConfigError``.
    """
    building = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(building, ignore_errors=True)  # of a process that was killed
    building.mkdir()
    try:
        for name, blocks in splits.items():
            _write_array(building / f"{name}.npy", blocks)
        if problems:
            raise ConfigError(problems)
        meta = {"format": _FORMAT, "hash": _digest(building)}
        replace_file(building / "meta.json", json.dumps(meta).encode())
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would not be built
        building.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write_array(path: Path, blocks: Iterable[Images]) -> None:
    """Stream ``blocks`` into an ``.npy``, whose header is written again at the end: numpy leaves room for the count."""
    # written, not mapped: a full disk is then an error with words, not a bus error
    header, count = {"descr": "|u1", "fortran_order": False}, 0
    with path.open("wb") as file:
        for block in blocks:
            if not count:
                np.lib.format.write_array_header_1_0(file, {**header, "shape": block.shape})
            count += len(block)
            file.write(np.ascontiguousarray(block).data)
        if count:
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *block.shape[1:])})
        file.flush()
        os.fsync(file.fileno())


def _decoded(split: Split, side: int, resize: bool, problems: list[str]) -> Iterator[Images]:
    """Blocks of RGB pixels (rows, ``side``, ``side``, 3), in order, decoded by threads.

    Grey becomes three equal channels, 16 bits are scaled to 8, what is transparent shows white, EXIF orientation is
    applied. With ``resize`` the whole image is resized to the square (bicubic, antialiased; nothing is cropped).
    What is wrong is added to ``problems``, a line an image; after a handful of problems no more is decoded.
    """

    def decode(item: Item) -> Images | str:
        try:
            image = _rgb(item)
        except ConfigError as error:
            return str(error)
        if resize:
            image = image.resize((side, side))  # bicubic, antialiased; a copy where the size is right
        if image.size == (side, side):
            return np.asarray(image)
        rule = f"all must be {side} x {side}; --image-size {side} resizes them, cropping none"
        return f"{item[0]}: is {image.width} x {image.height}; {rule}"

    items, count = split.items(), 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while len(problems) <= _ENOUGH and (block := list(islice(items, _BLOCK))):
            decoded = list(pool.map(decode, block))
            count += len(decoded)
            problems += [one for one in decoded if isinstance(one, str)]
            if images := [one for one in decoded if not isinstance(one, str)]:
                yield np.stack(images)
    if not count and len(problems) <= _ENOUGH:
        problems.append(f"data folder {split.folder}: {split.name} has no images (zero rows)")
    if len(problems) > _ENOUGH:
        problems[_ENOUGH:] = ["... and more images"]


def _natural_size(splits: Iterable[Split]) -> int:
    """Width of the first image that decodes; images of another size are reported when their turn comes.

    Raises ``ConfigError`` if it is no multiple of the usual downsampling.
    """
    for item in (item for split in splits for item in split.items()):
        try:
            width = _rgb(item).width
        except ConfigError:
            continue
        if width % _STEP:
            near = max(_STEP, round(width / _STEP) * _STEP)
            rule = f"must be divisible by {_STEP}, as the encoder divides it; --image-size {near} resizes all images"
            raise ConfigError([f"{item[0]}: its width of {width} pixels {rule}"])
        return width
    return _STEP  # none decodes, so none will be stored


def _rgb(item: Item) -> "Image.Image":
    """One image in mode RGB and its own size. Raises ``ConfigError`` that names it."""
    from PIL import Image, ImageOps

    where, encoded = item
    try:
        if isinstance(encoded, np.ndarray):
            return Image.fromarray(encoded)
        content = encoded.read_bytes() if isinstance(encoded, Path) else encoded or b""
        image: Image.Image = Image.open(io.BytesIO(content))
        if "exif" in image.info:
            image = ImageOps.exif_transpose(image)
        return _to_rgb(image)
    except Exception as error:  # Pillow raises nearly every kind there is
        reason = "no bytes" if encoded is None else str(error) or type(error).__name__
        reason = re.sub(r" <_io.*?>", "", reason)
        raise ConfigError([f"{where}: does not decode ({reason}); repair or remove this image"]) from error


def _to_rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow's own conversion cuts off at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its values exceed 16 bits")
        return Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
