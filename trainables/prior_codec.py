"""A prior and its model as a codec: images to codes, codes to the bytes of a file, and both ways back."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.progress import track

from trainables.code_file import Block, CodeFile, Kind, unpack
from trainables.code_stream import Codes, Probabilities, by_counts, decode, encode, learned
from trainables.commands import Terminal
from trainables.device import memory
from trainables.generated import encoded
from trainables.models import PRIOR, TrainedModel, find_model
from trainables.sources import Images
from trainables.storage import size
from vqcore.errors import ConfigError
from vqcore.prior import InOrder, Prior
from vqcore.registry import ARCHITECTURES
from vqcore.training import pixels
from vqcore.vqvae import VQVAE

BLOCK = 256
"""Images in a block: one batch of the prior, and one stream of the range coder."""

T = TypeVar("T")


@dataclass(frozen=True)
class Codec:
    """A prior and its model, as they are used on files."""

    found: TrainedModel
    prior: Prior
    kind: Kind

    @cached_property
    def model(self) -> VQVAE:
        """The model, on the CPU."""
        return self.found.load()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images whose codes the prior knows."""
        factor = ARCHITECTURES[self.model.config.architecture].downsampling
        return self.prior.config.rows * factor, self.prior.config.columns * factor

    @property
    def probabilities(self) -> Probabilities:
        """What the range coder codes with."""
        if self.kind == "unigram":
            return by_counts(self.prior.counts.numpy())
        self.check_kind()
        assert isinstance(self.prior, InOrder)
        return learned(self.prior)

    @property
    def prior_hash(self) -> str:
        """Of all that the probabilities are made from, 16 hex digits."""
        counts: bytes = self.prior.counts.numpy().astype("<i8").tobytes()
        source = counts if self.kind == "unigram" else (self.found.folder / PRIOR).read_bytes()
        return hashlib.sha256(source).hexdigest()[:16]

    def check_kind(self) -> None:
        """``ConfigError`` unless the prior has probabilities of this kind."""
        config, name = self.prior.config, self.found.folder
        if self.kind == "learned" and config.kind == "unigram":
            raise ConfigError([f"--prior learned: {name} is a unigram; leave the flag out, or name a causal prior"])
        if self.kind == "learned" and config.kind == "masked":
            raise ConfigError([f"{name}: a masked prior has no order of positions to code in; add --prior unigram"])
        if self.kind == "learned" and config.classes:
            rule = f"asks for the class of each image, of {config.classes}, which no file has"
            raise ConfigError([f"{name}: {rule}; add --prior unigram, or train a prior without classes"])

    def encode(self, images: Images) -> Codes:
        """Images (N, H, W, 3) as the codes (N, rows, columns) of the model."""
        codes: Codes = encoded(self.model, images).numpy()
        return codes

    @torch.inference_mode()
    def pictures(self, codes_NYX: Codes) -> Iterator[Images]:
        """The images of codes, a block at a time."""
        for at in range(0, len(codes_NYX), BLOCK):
            yield pixels(self.model.decode(torch.from_numpy(codes_NYX[at : at + BLOCK]))).numpy()

    def bits(self, codes_NYX: Codes) -> float:
        """What the probabilities say that all codes take, in bits."""
        if self.kind == "learned":
            blocks = [torch.from_numpy(codes_NYX[at : at + BLOCK]) for at in range(0, len(codes_NYX), BLOCK)]
            with torch.inference_mode():
                return sum(float(self.prior.bits(block).sum()) for block in blocks)
        counts = self.prior.counts.numpy() + 1.0
        return float(-np.log2(counts / counts.sum())[codes_NYX].sum())

    def pack(self, codes_NYX: Codes, terminal: Terminal) -> bytes:
        """The file of codes (N, rows, columns)."""
        codes_NT, probabilities = codes_NYX.reshape(len(codes_NYX), -1), self.probabilities
        starts = _shown(range(0, len(codes_NT), BLOCK), "entropy coding", terminal)
        blocks = tuple(encode(codes_NT[at : at + BLOCK], probabilities) for at in starts)
        return self._file(len(codes_NT), blocks).pack()

    def unpack(self, content: bytes, name: object, terminal: Terminal) -> Codes:
        """The codes (N, rows, columns) of a file; ``ConfigError`` unless it is whole and of this model and prior."""
        file = unpack(content, name)
        self._check(file, name)
        probabilities, config = self.probabilities, self.prior.config
        needed = 2 * file.images * config.positions * np.dtype(np.int64).itemsize  # in blocks, and as one array
        if needed > (have := memory(torch.device("cpu"))):
            what = f"{file.images:,} images by its header, whose codes need {size(needed)} of memory"
            raise ConfigError([f"{name}: holds {what}; this machine has {size(have)}: restore it on a larger one"])
        blocks = []
        for number, block in enumerate(_shown(file.blocks, "entropy decoding", terminal)):
            images = min(file.block_size, file.images - number * file.block_size)
            try:
                blocks.append(decode(block, images, config.positions, probabilities))
            except ConfigError as error:
                raise ConfigError(f"{name}, block {number}: {problem}" for problem in error.problems) from error
        return np.concatenate(blocks).reshape(file.images, config.rows, config.columns)

    def _file(self, images: int, blocks: tuple[Block, ...]) -> CodeFile:
        config = self.prior.config
        shape = config.codebook_size, config.rows, config.columns
        return CodeFile(self.kind, *shape, images, BLOCK, self.found.hash, self.prior_hash, blocks)

    def _check(self, file: CodeFile, name: object) -> None:
        own = self._file(file.images, ())
        if file.model != own.model:
            rule = f"{self.found.folder} holds {own.model}; name the prior of that model"
            raise ConfigError([f"{name}: was compressed with model {file.model}, and {rule}"])
        if file.prior != own.prior:
            what = "counts of codes" if file.kind == "unigram" else "weights"
            rule = f"{self.found.folder} holds those of {own.prior}; name the one that compressed it"
            raise ConfigError([f"{name}: was compressed with the {what} of prior {file.prior}, and {rule}"])
        mine, other = ((of.codebook_size, of.rows, of.columns) for of in (own, file))
        if mine != other:
            raise ConfigError([f"{name}: contradicts itself, although it is not damaged; compress the images again"])


def open_codec(name: str, out: Path, kind: Kind | None) -> Codec:
    """The codec of a prior, by name or folder; ``kind`` is what the prior is unless given. ``ConfigError`` if none."""
    found = find_model(name, out)
    prior = found.prior()
    return Codec(found, prior, kind or ("unigram" if prior.config.kind == "unigram" else "learned"))


def _shown(blocks: Sequence[T], what: str, terminal: Terminal) -> Iterable[T]:
    """With a bar of progress on a terminal, where it goes again."""
    return track(blocks, what, console=terminal, transient=True, disable=not terminal.is_terminal)
