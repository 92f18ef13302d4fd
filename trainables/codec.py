"""Images as a file of entropy-coded codes, and back: ``python -m trainables.codec compress PRIOR IMAGES FILE``.

Proves a prior's bits: the file is as long as they say, and its codes come back exactly. ``docs/codec.md`` says more.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.text import Text

from trainables.code_file import unpack
from trainables.code_stream import range_coder
from trainables.commands import Terminal, exit_code
from trainables.data import decode, prepare
from trainables.prior_codec import Codec, open_codec
from trainables.runs import command_line
from trainables.sources import KNOWN, Images, plain_folder
from trainables.storage import PART, replace_file, size, sync_folder
from vqcore.errors import ConfigError, Problems
from vqcore.psnr import psnr

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PRIOR")]
"""A prior's name, or its folder."""


@dataclass(frozen=True)
class Compress:
    """Write the codes of images as one file."""

    name: Name
    """A prior's name, or its folder."""
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """A data set, as --data of a sweep takes it, or a plain folder of images."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file to write."""
    split: Literal["train", "test"] | None = None
    """Of a data set; test unless given."""
    prior: Literal["unigram", "learned"] | None = None
    """Probabilities from the counts of codes alone, or from the network; what the prior is unless given."""
    out: Path = Path("runs")
    """Folder of all runs."""

    def run(self) -> None:
        """Compress, and say what came of it."""
        problems, terminal = Problems(), Terminal()
        problems.of(lambda: _check_free(self.file))
        problems.of(range_coder)
        if codec := problems.of(lambda: open_codec(self.name, self.out, self.prior)):
            problems.of(codec.check_kind)
            images = problems.of(lambda: _images(codec, self.images, self.split))
        problems.raise_any()
        assert codec is not None
        assert images is not None
        codes = codec.encode(images)
        content = codec.pack(codes, terminal)
        mse = _squared_error(images, codec.pictures(codes)) / images.size
        bits = codec.bits(codes)
        replace_file(self.file, content)
        each, computed = 8 * len(content) / len(images), bits / len(images)
        terminal.print(
            f"{self.file}: {len(images):,} images at {psnr(mse):.2f} dB PSNR in {size(len(content))}: "
            f"{each:.1f} bits an image, or {each / 8:.1f} bytes\n"
            f"computed by the {codec.kind} prior: {computed:.1f} bits an image; the file: {each / computed - 1:+.2%}",
            soft_wrap=True,
        )
        to = self.file.with_name(f"{self.file.stem}-restored")
        restore = command_line("trainables.codec", "restore", self.name, self.file, to)
        terminal.print(Text(f"restore it: {restore}"), soft_wrap=True)


@dataclass(frozen=True)
class Restore:
    """Write the images of a file's codes, exactly those that were compressed: what the model makes of them."""

    name: Name
    """The prior that compressed it, by its name or its folder."""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """What compress wrote."""
    to: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """A folder for PNG files, in the order of the images; or an array of all, if it ends in .npy."""
    out: Path = Path("runs")
    """Folder of all runs."""

    def run(self) -> None:
        """Restore all, or nothing."""
        terminal = Terminal()
        _check_free(self.to)
        content = self.file.read_bytes()
        codec = open_codec(self.name, self.out, unpack(content, self.file).kind)
        codes = codec.unpack(content, self.file, terminal)
        write = _write_array if self.to.suffix == ".npy" else _write_pngs
        part = self.to.with_name(f"{self.to.name}.{os.urandom(4).hex()}{PART}")
        try:
            write(part, codec.pictures(codes), (len(codes), *codec.image_size, 3))
            part.replace(self.to)
        finally:
            shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
        sync_folder(self.to.parent)
        terminal.print(f"{self.to}: {len(codes):,} images", soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code: 0; 2 for a wrong flag or file; 130 after Ctrl-C."""
    command = tyro.cli(Compress | Restore, prog="python -m trainables.codec", args=arguments)
    return exit_code(command.run, "; nothing was written")


def _check_free(path: Path) -> None:
    """``ConfigError`` unless something new can be put there."""
    if path.exists() or path.is_symlink():
        raise ConfigError([f"{path}: is there already; remove it, or name another place"])
    if not path.absolute().parent.is_dir():
        raise ConfigError([f"{path}: there is no folder {path.parent}; make it, or name another place"])


def _images(codec: Codec, source: str, split: Literal["train", "test"] | None) -> Images:
    """(N, H, W, 3), of the size that the model was trained on."""
    height, width = codec.image_size
    if source not in KNOWN and (folder := plain_folder(Path(source))):
        if split is not None:
            raise ConfigError([f"--split {split}: {source} is a plain folder of images; leave the flag out"])
        return decode(folder, height)
    # as the training resized its own; another set's images are never resized unasked
    data = prepare(source, codec.found.image_size if source == codec.found.source else None)
    images = data.train() if split == "train" else data.test()
    if images.shape[1:3] != (height, width):
        rule = f"{codec.found.folder} codes {height} x {width}, cropping and resizing none; resize them first"
        raise ConfigError([f"{source}: its images are {images.shape[1]} x {images.shape[2]} pixels, and {rule}"])
    return images


def _squared_error(images: Images, restored: Iterator[Images]) -> float:
    """The sum of squares of what a restored image's numbers are off, on [-1, 1]."""
    total, at = 0, 0
    for block in restored:
        total += int(np.square(images[at : at + len(block)].astype(np.int64) - block).sum())
        at += len(block)
    return total / 127.5**2


def _write_pngs(folder: Path, blocks: Iterator[Images], shape: tuple[int, ...]) -> None:
    from PIL import Image

    folder.mkdir()
    digits = max(5, len(str(shape[0] - 1)))
    for number, picture in enumerate(picture for block in blocks for picture in block):
        Image.fromarray(picture).save(folder / f"{number:0{digits}}.png")


def _write_array(path: Path, blocks: Iterator[Images], shape: tuple[int, ...]) -> None:
    with path.open("xb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block).data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
