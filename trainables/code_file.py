"""The file of a codec: codes of many images in range-coded blocks, and what a reader must have to make images of them.

``docs/codec.md`` has every offset. A file is read whole, and nothing in it is used before its own hash agrees.
"""

import hashlib
import itertools
import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vqcore.errors import ConfigError

Kind = Literal["unigram", "learned"]
"""Where probabilities come from: counts of codes, in integers alone, or a network that has seen the codes before."""

MAGIC = b"VQCODES\x1a"
VERSION = 1
MOST_IMAGES = 4_096
"""In a block, so that a file of a few bytes cannot ask for all memory: a prior keeps what it knows of each image."""

_KINDS: tuple[Kind, ...] = ("unigram", "learned")
_START = struct.Struct("<8sH")
_HEADER = struct.Struct("<8sHBxIHHII8s8s")
_BLOCK = struct.Struct("<III")
_HASH = 8
_WORD = 4
"""Bytes of a word of the range coder."""


class Block(NamedTuple):
    """The codes of some images."""

    stream: bytes
    """Of the range coder, in words of 32 bits."""
    frequencies: int
    """CRC-32 of the integer frequencies that it was coded with."""
    codes: int
    """CRC-32 of the codes."""


@dataclass(frozen=True)
class CodeFile:
    """What a file holds."""

    kind: Kind
    codebook_size: int
    rows: int
    """Of the codes of an image."""
    columns: int
    images: int
    block_size: int
    """Images in a block; the last may have fewer."""
    model: str
    """Hash of the model, 16 hex digits."""
    prior: str
    """Hash of what the probabilities were made from, 16 hex digits."""
    blocks: tuple[Block, ...]

    def pack(self) -> bytes:
        """The file's bytes."""
        numbers = self.codebook_size, self.rows, self.columns, self.images, self.block_size
        hashes = bytes.fromhex(self.model), bytes.fromhex(self.prior)
        parts = [_HEADER.pack(MAGIC, VERSION, _KINDS.index(self.kind), *numbers, *hashes)]
        parts += [_BLOCK.pack(len(block.stream) // _WORD, block.frequencies, block.codes) for block in self.blocks]
        content = b"".join([*parts, *(block.stream for block in self.blocks)])
        return content + _digest(content)


def unpack(content: bytes, name: object) -> CodeFile:
    """The file that ``pack`` made; ``name`` is for people. ``ConfigError`` if it is no such file, or not whole."""
    if not content:
        raise ConfigError([f"{name}: is empty; compress the images again"])
    if not content.startswith(MAGIC):
        raise ConfigError([f"{name}: is no file of this codec; name one that `trainables.codec compress` wrote"])
    damaged = ConfigError([f"{name}: is damaged or cut off: its checksum differs; copy it, or compress, again"])
    if len(content) < _START.size:
        raise damaged
    version = _START.unpack_from(content)[1]
    if version != VERSION:
        rule = f"this program reads version {VERSION}; take the program that wrote it, if the file is not damaged"
        raise ConfigError([f"{name}: is of version {version} of the format, and {rule}"])
    body = content[:-_HASH]
    if len(body) < _HEADER.size or _digest(body) != content[-_HASH:]:
        raise damaged
    _, _, kind, codebook_size, rows, columns, images, block_size, model, prior = _HEADER.unpack_from(body)
    contradictory = ConfigError([f"{name}: contradicts itself, although it is not damaged; compress the images again"])
    streams = _HEADER.size + -(-images // max(1, block_size)) * _BLOCK.size
    if kind >= len(_KINDS) or not images or not 1 <= block_size <= MOST_IMAGES or len(body) < streams:
        raise contradictory
    entries = list(_BLOCK.iter_unpack(body[_HEADER.size : streams]))
    ends = list(itertools.accumulate((words * _WORD for words, _, _ in entries), initial=streams))
    if ends[-1] != len(body):
        raise contradictory
    blocks = tuple(Block(body[a:b], *sums) for a, b, (_, *sums) in zip(ends, ends[1:], entries, strict=False))
    shape = codebook_size, rows, columns
    return CodeFile(_KINDS[kind], *shape, images, block_size, model.hex(), prior.hex(), blocks)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:_HASH]
