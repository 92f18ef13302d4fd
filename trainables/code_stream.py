"""Codes as a range-coded stream: probabilities as integers, and the same integers for who writes and who reads.

The range coder is that of the package ``constriction`` (``queue.RangeEncoder``: words of 32 bits, a state of 64,
probabilities of 24). Codes of a block go position by position, in raster order, at each position those of all images
in turn, since a learned prior makes the frequencies of a position from the codes before it.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from trainables.code_file import Block
from vqcore.errors import ConfigError

if TYPE_CHECKING:
    from vqcore.prior import InOrder

TOTAL = 1 << 24
"""What the integer frequencies of a position add up to: the precision of the range coder."""

Codes = npt.NDArray[np.int64]
Frequencies = npt.NDArray[np.int64]
"""(B, K), or (1, K) where they are the same for every image: at least 1 each, ``TOTAL`` together."""
Steps = Callable[[Codes | None], Frequencies]
"""The next position's frequencies, from the codes (B,) of the one before; None before the first."""
Probabilities = Callable[[int], Steps]
"""Begins a block of so many images."""

OTHER = "this machine computes other probabilities than the one that compressed; restore there, or compress with "
OTHER += "--prior unigram, whose probabilities are integers everywhere"

WRONG = "the stream does not hold the codes that their checksum is of, although the file is not damaged; compress the "
WRONG += "images again"


def by_counts(counts: Codes) -> Probabilities:
    """How often each code (K,) stood in the training's codes, plus one. Integers alone: the same on every machine."""
    spare, total = TOTAL - len(counts), int(counts.sum()) + len(counts)
    # Python's own integers: the product may be longer than 64 bits
    shares = [(int(count) + 1) * spare // total for count in counts]
    frequencies = _filled(np.array([shares], dtype=np.int64))
    return lambda batch: lambda previous: frequencies


def learned(prior: "InOrder") -> Probabilities:
    """A prior's own, computed position by position for the whole block as the reader will compute them."""

    def start(batch: int) -> Steps:
        steps = prior.steps(batch)
        return lambda previous: frequencies(steps.logits(None if previous is None else torch.from_numpy(previous)))

    return start


def frequencies(logits_BK: torch.Tensor) -> Frequencies:
    """Logits as integers (B, K): each code's share of what is left of ``TOTAL`` after one for each, rounded down.

    The most frequent code, the first of several, takes the rest. ``ConfigError`` for logits that are not finite.
    """
    shares = torch.softmax(logits_BK.double(), -1) * (TOTAL - logits_BK.shape[-1])
    if not shares.isfinite().all():
        raise ConfigError(["the prior's probabilities are not finite numbers; train it again"])
    return _filled(shares.long().numpy())


def encode(codes_BT: Codes, probabilities: Probabilities) -> Block:
    """The codes (B, T) of a block's images."""
    encoder, check, previous = range_coder().stream.queue.RangeEncoder(), 0, None
    with _reproducible():
        steps = probabilities(len(codes_BT))
        for position in range(codes_BT.shape[1]):
            now = steps(previous)
            check = _crc(now, check)
            previous = np.ascontiguousarray(codes_BT[:, position])
            encoder.encode(previous.astype(np.int32), *_distribution(now))
    return Block(encoder.get_compressed().astype("<u4").tobytes(), check, _crc(codes_BT))


def decode(block: Block, images: int, positions: int, probabilities: Probabilities) -> Codes:
    """The codes (``images``, ``positions``) of ``encode``; ``ConfigError`` if frequencies or codes are others."""
    words = np.frombuffer(block.stream, "<u4").astype(np.uint32)
    decoder, check, previous = range_coder().stream.queue.RangeDecoder(words), 0, None
    codes_BT = np.empty((images, positions), np.int64)
    with _reproducible():
        steps = probabilities(images)
        for position in range(positions):
            now = steps(previous)
            check = _crc(now, check)
            amount = (images,) if len(now) == 1 else ()
            try:
                previous = decoder.decode(*_distribution(now), *amount).astype(np.int64)
            except AssertionError as error:  # constriction's own, for words that no code leads to
                raise ConfigError([OTHER]) from error
            codes_BT[:, position] = previous
    if check != block.frequencies:
        raise ConfigError([OTHER])
    if _crc(codes_BT) != block.codes:
        raise ConfigError([WRONG])
    return codes_BT


def _filled(shares_BK: Codes) -> Frequencies:
    rows = np.arange(len(shares_BK))
    shares_BK[rows, shares_BK.argmax(1)] += TOTAL - shares_BK.shape[1] - shares_BK.sum(1)
    return shares_BK + 1


def _distribution(frequencies: Frequencies) -> tuple[Any, ...]:
    """As ``constriction`` takes it.

    With ``perfect=False`` its frequency of a code is 1 more than the share of ``TOTAL - K`` that the code's weight is
    of all weights. Weights that are whole numbers and add up to ``TOTAL - K`` are therefore taken as they are: float32
    holds each of their sums exactly, so nothing is rounded, and every machine has the same.
    """
    model, weights = range_coder().stream.model.Categorical, (frequencies - 1).astype(np.float32)
    if len(weights) == 1:
        return (model(weights[0], lazy=False, perfect=False),)
    return model(perfect=False), weights


def _crc(numbers: Codes, before: int = 0) -> int:
    return zlib.crc32(numbers.astype("<u4").tobytes(), before)


@contextmanager
def _reproducible() -> Iterator[None]:
    """One thread and no gradients: the order in which a sum is added up may depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)


def range_coder() -> Any:
    """The package ``constriction``. ``ConfigError`` where it is not installed."""
    try:
        import constriction
    except ImportError as error:
        step = "pip install 'constriction>=0.5,<0.6', or vqsweep with its extra [codec]"
        raise ConfigError([f"the codec needs the package constriction, which is not installed; {step}"]) from error
    return constriction
