"""From whatever an image file holds to RGB pixels of one size."""

import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainables.sources import Images, Item, Split
from vqcore.config import ConfigError

if TYPE_CHECKING:
    from PIL import Image

_BLOCK = 64
"""Images that a thread decodes at a time."""
_ENOUGH = 5
"""Problems after which decoding stops: a set of mixed sizes is told at once, not after its last image."""


def decoded(split: Split, size: int, resize: bool, problems: list[str]) -> Iterator[Images]:
    """Blocks of RGB pixels (rows, ``size``, ``size``, 3), in order, decoded by threads a few blocks ahead.

    Grey becomes three equal channels, 16 bits are scaled to 8, what is transparent shows white, EXIF orientation is
    applied. With ``resize`` the whole image is resized to the square (bicubic, antialiased; nothing is cropped).
    What is wrong is added to ``problems``, a line an image; after a handful of problems no more is decoded.
    """
    items, ahead = split.items(), deque[Future[tuple[Images, list[str]]]]()
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        while len(problems) <= _ENOUGH:
            if block := list(islice(items, _BLOCK)):
                ahead.append(pool.submit(_decode, block, size, resize))
            if len(ahead) > 2 * workers or (ahead and not block):
                images, wrong = ahead.popleft().result()
                problems += wrong
                yield images
            elif not block:
                return
    problems[_ENOUGH:] = ["... and more images"]


def natural_size(splits: Iterable[Split]) -> int:
    """Side of the first image that decodes (those that do not are told when their turn comes).

    Raises ``ConfigError`` if it is not square, or its side not divisible by 4.
    """
    for item in (item for split in splits for item in split.items()):
        try:
            width, height = _rgb(item).size
        except ConfigError:
            continue
        near = max(4, round(min(width, height) / 4) * 4)
        if width != height:
            rule = f"images must be square; --image-size {near} resizes all to {near} x {near}, cropping none"
        elif width % 4:
            rule = f"sides must be divisible by 4, as the encoder halves them twice; --image-size {near} resizes"
        else:
            return width
        raise ConfigError([f"{item[0]}: is {width} x {height}; {rule}"])
    return 4  # none decodes, so none will be stored


def _decode(items: Sequence[Item], size: int, resize: bool) -> tuple[Images, list[str]]:
    images = np.zeros((len(items), size, size, 3), np.uint8)
    problems: list[str] = []
    for row, item in enumerate(items):
        try:
            image = _rgb(item)
        except ConfigError as error:
            problems += error.problems
            continue
        if resize:
            image = image.resize((size, size))  # bicubic, antialiased; a copy where the size is right
        if image.size == (size, size):
            images[row] = np.asarray(image)
        else:
            sizes = f"is {image.width} x {image.height} among images of {size} x {size}"
            problems.append(f"{item[0]}: {sizes}; all must have one size: --image-size {size} resizes")
    return images, problems


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
