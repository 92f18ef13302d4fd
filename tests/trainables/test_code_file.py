"""The file of a codec: whole, or refused with words."""

import hashlib
import random
from dataclasses import replace

import pytest

from trainables.code_file import Block, CodeFile, unpack
from vqcore.errors import ConfigError

FILE = CodeFile("learned", 512, 8, 8, 300, 256, "0123456789abcdef", "f" * 16, (Block(b"abcd", 1, 2), Block(b"", 3, 4)))


def sealed(content: bytes) -> bytes:
    """Content whose hash agrees, whatever it says."""
    return content + hashlib.sha256(content).digest()[:8]


def test_a_file_is_read_as_it_was_written() -> None:
    assert unpack(FILE.pack(), "x") == FILE
    assert unpack(replace(FILE, kind="unigram").pack(), "x").kind == "unigram"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "x: is empty"),
        (b"\x89PNG\r\n\x1a\n and so on", "x: is no file of this codec"),
        (FILE.pack()[:8], "x: is damaged or cut off"),
        (FILE.pack()[:40], "x: is damaged or cut off"),
        (FILE.pack()[:-1], "x: is damaged or cut off"),
        (FILE.pack() + b"\n", "x: is damaged or cut off"),
        (FILE.pack()[:8] + b"\x02\x00" + FILE.pack()[10:], "x: is of version 2 of the format"),
        (sealed(FILE.pack()[:-9]), "x: contradicts itself"),
        (sealed(FILE.pack()[:-8] + b"abcd"), "x: contradicts itself"),
        (replace(FILE, images=0, blocks=()).pack(), "x: contradicts itself"),
        (replace(FILE, block_size=0).pack(), "x: contradicts itself"),
        (replace(FILE, block_size=4097, blocks=FILE.blocks[:1]).pack(), "x: contradicts itself"),
        (replace(FILE, block_size=2**32 - 1).pack(), "x: contradicts itself"),
        (replace(FILE, images=2**32 - 1).pack(), "x: contradicts itself"),
        (sealed(FILE.pack()[:10] + b"\x07" + FILE.pack()[11:-8]), "x: contradicts itself"),
    ],
)
def test_what_is_no_whole_file_is_named(content: bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        unpack(content, "x")


def test_no_flipped_bit_and_no_cut_passes() -> None:
    whole, rng = FILE.pack(), random.Random(0)
    for _ in range(500):
        at = rng.randrange(len(whole))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.randrange(8)
        for content in (bytes(flipped), whole[:at], whole[at:] if at else b"", whole[:at] + whole[at + 1 :]):
            with pytest.raises(ConfigError, match=r"^x: "):
                unpack(content, "x")
