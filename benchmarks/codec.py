"""python -m benchmarks.codec RUN --data DIR: our bytes an image beside JPEG and WebP at the same error, and PNG.

All test images are coded and decoded, with the counts of codes and with the learned prior, and every code is compared.
JPEG and WebP get the quality at which the mean squared error over all images is ours, between two qualities by
interpolation: as a file an image; without what every file repeats; and as one picture of all images, a mosaic, in
which nothing is repeated. The model that ours needs at both ends is told apart: it is counted in no row.
"""

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import tyro
from PIL import Image
from rich.table import Table

from benchmarks.record import circumstances, write
from trainables.code_stream import Codes
from trainables.commands import Terminal, run_command
from trainables.models import PRIOR
from trainables.prior_codec import Codec, open_codec
from trainables.sources import Images
from trainables.storage import size
from vqcore.errors import ConfigError
from vqcore.psnr import psnr

JPEG_BEST = 95
"""Pillow's documentation advises against more."""
WEBP_HEADERS = 30
"""Bytes: of RIFF and of its chunk 20 (WebP Container Specification), of a VP8 frame 10 (RFC 6386, section 9.1)."""


class Coded(TypedDict):
    """Our file, and what it took."""

    bytes: int
    computed_bits_an_image: float
    over_computed: float
    """The file's bits over the computed, less one."""
    compress_images_a_second: float
    restore_images_a_second: float
    """Of the entropy coding with its probabilities, without encoder and decoder: a second of one core."""
    codes_equal: bool


class Found(TypedDict):
    """What a way to store all images takes."""

    bytes_an_image: float
    psnr: float | None
    """None for lossless."""
    quality: str
    """At which the error is ours, or the two around it."""


class Row(Found):
    """As the table shows it."""

    name: str


@dataclass(frozen=True)
class Lossy:
    """A format with a quality."""

    best: int
    save: Callable[[Images, int], bytes]
    """A picture (H, W, 3) at a quality from 1 to ``best``, as a file."""
    length: Callable[[bytes], int]
    """Bytes of a file that count."""


def jpeg(subsampling: str, picture: Images, quality: int, shared: bool) -> bytes:
    """With Huffman tables of its own, or with those of the standard (``shared``), which all files can share."""
    return _saved(picture, "JPEG", quality=quality, subsampling=subsampling, optimize=not shared)


def scan(file: bytes) -> int:
    """Bytes of a JPEG's entropy-coded data; what is before it, tables and sizes, may be the same for all images."""
    at, marker = 2, 0
    while marker != 0xDA:  # start of scan
        marker = file[at + 1]
        at += 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    return len(file) - at - 2  # end of image


def webp(picture: Images, quality: int, shared: bool) -> bytes:
    """At its smallest; a WebP file holds no tables that others could share."""
    return _saved(picture, "WEBP", quality=quality, method=6)


def avif(speed: int, picture: Images, quality: int, shared: bool) -> bytes:
    """Of AV1's frames inside one picture; a file for each image would be headers for the most part."""
    return _saved(picture, "AVIF", quality=quality, speed=speed)


def without_headers(file: bytes) -> int:
    """Bytes of a WebP without its container and the frame's header."""
    return len(file) - WEBP_HEADERS


def at_error(lossy: Lossy, pictures: Images, target: float) -> Found:
    """All ``pictures`` at the quality whose mean squared error, of bytes, is ``target``; at the nearest, if none is."""

    @cache
    def stored(quality: int) -> tuple[float, float]:
        files = [lossy.save(picture, quality) for picture in pictures]
        errors = [_squared_error(picture, file) for picture, file in zip(pictures, files, strict=True)]
        return sum(map(lossy.length, files)) / len(files), sum(errors) / len(errors)

    low, high = 1, lossy.best
    for only, reached in ((low, stored(low)[1] <= target), (high, stored(high)[1] >= target)):
        if reached:
            return Found(bytes_an_image=stored(only)[0], psnr=_psnr(stored(only)[1]), quality=str(only))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if stored(middle)[1] <= target else (middle, high)
    (few, worse), (many, better) = stored(low), stored(high)
    between = few + (many - few) * (worse - target) / (worse - better)
    return Found(bytes_an_image=between, psnr=_psnr(target), quality=f"{low} to {high}")


def mosaic(pictures: Images) -> Images:
    """All pictures as one (1, H, W, 3), with as many rows as come nearest to a square without a gap."""
    count, height, width, _ = pictures.shape
    down = next(rows for rows in range(math.isqrt(count), 0, -1) if count % rows == 0)
    grid = pictures.reshape(down, count // down, height, width, 3).swapaxes(1, 2)
    return grid.reshape(1, down * height, count // down * width, 3)


def others(pictures: Images, target: float, show: Callable[[str], None]) -> list[Row]:
    """Rows of the formats that everyone has."""
    whole, rows = mosaic(pictures), list[Row]()
    for name, best, save, bare in (
        ("JPEG 4:2:0", JPEG_BEST, partial(jpeg, "4:2:0"), scan),
        ("JPEG 4:4:4", JPEG_BEST, partial(jpeg, "4:4:4"), scan),
        ("WebP", 100, webp, without_headers),
        ("AVIF, usual speed 6,", 100, partial(avif, 6), None),
        ("AVIF, slow speed 2,", 100, partial(avif, 2), None),
    ):
        ways: list[tuple[str, Images, Callable[[bytes], int], bool]] = [("one mosaic", whole, len, False)]
        if bare is not None:
            ways = [("a file an image", pictures, len, False), ("without headers", pictures, bare, True), *ways]
        for what, of, length, shared in ways:
            found = at_error(Lossy(best, partial(save, shared=shared), length), of, target)
            found["bytes_an_image"] *= len(of) / len(pictures)
            rows.append(Row(name=f"{name.removesuffix(',')}, {what}", **found))
            show(rows[-1]["name"])
    for name, options in (("PNG", {"optimize": True}), ("WebP", {"lossless": True})):
        for what, of in (("a file an image", pictures), ("one mosaic", whole)):
            each = sum(len(_saved(picture, name, **options)) for picture in of) / len(pictures)
            rows.append(Row(name=f"{name} lossless, {what}", bytes_an_image=each, psnr=None, quality=""))
    return rows


def header_shares(rows: list[Row]) -> dict[str, float]:
    """By format, the share of a file of its own that is header."""
    each = {row["name"]: row["bytes_an_image"] for row in rows}
    bare = {name.partition(", ")[0]: size for name, size in each.items() if name.endswith(", without headers")}
    return {name: 1 - size / each[f"{name}, a file an image"] for name, size in bare.items()}


def coded(codec: Codec, codes: Codes, terminal: Terminal) -> Coded:
    """Compressed and restored, each timed, all codes compared."""
    started = time.process_time()  # one thread
    content = codec.pack(codes, terminal)
    packed = time.process_time()
    back = codec.unpack(content, "the file", terminal)
    unpacked = time.process_time()
    bits = codec.bits(codes)
    return Coded(
        bytes=len(content),
        computed_bits_an_image=bits / len(codes),
        over_computed=8 * len(content) / bits - 1,
        compress_images_a_second=len(codes) / (packed - started),
        restore_images_a_second=len(codes) / (unpacked - packed),
        codes_equal=bool(np.array_equal(codes, back)),
    )


def told(kind: str, one: Coded) -> str:
    """A measurement in words."""
    speed = f"{one['compress_images_a_second']:,.0f} and restores {one['restore_images_a_second']:,.0f}"
    return (
        f"{kind}: {size(one['bytes'])}, {one['over_computed']:+.3%} of the computed "
        f"{one['computed_bits_an_image']:.2f} bits an image; all codes back: {one['codes_equal']}; "
        f"compresses {speed} images in a second of one core"
    )


def table(rows: list[Row]) -> Table:
    """For the terminal."""
    shown = Table("", *("bytes an image", "bits", "PSNR, dB", "quality"))
    for row in rows:
        error = "lossless" if row["psnr"] is None else f"{row['psnr']:.2f}"
        each = row["bytes_an_image"]
        shown.add_row(row["name"], f"{each:,.1f}", f"{8 * each:,.0f}", error, row["quality"])
    return shown


def main(
    run: Annotated[str, tyro.conf.Positional],
    data: str | None = None,
    images: int | None = None,
    runs: Path = Path("runs"),
    out: Path = Path("benchmarks/results/codec.json"),
) -> None:
    """Measure our codec beside others.

    Args:
        run: A prior's run, by name or folder; a causal one is measured as a unigram too.
        data: Data set, whose test split is taken; the one of the model's training unless given.
        images: How many of its test images; all unless given.
        runs: The folder of all runs.
        out: Where the figures go.
    """
    if images is not None and images < 1:
        raise ConfigError([f"--images {images}: must be at least 1"])
    facts = circumstances({"run": run, "data": data, "images": images}, "constriction", "pillow")
    terminal, codec = Terminal(), open_codec(run, runs, "unigram")
    causal = codec.prior.config.kind == "causal"
    kinds = [codec, replace(codec, kind="learned")] if causal else [codec]
    pictures = np.array(codec.found.data(data).test()[:images])
    codes = codec.encode(pictures)
    restored = np.concatenate(list(codec.pictures(codes)))
    target = float(np.square(pictures.astype(np.int32) - restored).mean())
    ours = {one.kind: coded(one, codes, terminal) for one in kinds}
    fixed = math.ceil(math.log2(codec.prior.config.codebook_size)) * codec.prior.config.positions / 8
    rows = [Row(name="codes, all of one length", bytes_an_image=fixed, psnr=_psnr(target), quality="")]
    for kind, one in ours.items():
        each = one["bytes"] / len(codes)
        rows.append(Row(name=f"ours, {kind} prior", bytes_an_image=each, psnr=_psnr(target), quality=""))
        terminal.print(told(kind, one), soft_wrap=True)
    rows += others(pictures, target, lambda name: terminal.print(f"measured: {name}"))
    sizes = {path.name: path.stat().st_size for path in (codec.found.path, codec.found.folder / PRIOR)}
    terminal.print(table(rows))
    shares = header_shares(rows)
    named = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    terminal.print(f"Headers and tables, of a file an image: {named}")
    terminal.print("In no row: " + ", ".join(f"{name} {size(count)}" for name, count in sizes.items()))
    measured = {
        "images": len(pictures),
        "mse": target / 127.5**2,
        "rows": rows,
        "header_shares": shares,
        "ours": ours,
        "needed_bytes": sizes,
    }
    write(out, {**measured, **facts})


def _saved(picture: Images, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **options)
    return file.getvalue()


def _squared_error(picture: Images, file: bytes) -> float:
    decoded = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), dtype=np.int32)
    return float(np.square(decoded - picture).mean())


def _psnr(error: float) -> float:
    return psnr(error / 127.5**2)


if __name__ == "__main__":
    run_command(main)
