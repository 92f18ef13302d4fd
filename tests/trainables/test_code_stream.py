"""Range-coded codes come back exactly, take the bits that their frequencies say, and never come back wrong unsaid."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

from trainables.code_file import Block
from trainables.code_stream import TOTAL, Codes, Probabilities, by_counts, decode, encode, frequencies
from vqcore.errors import ConfigError

K, POSITIONS = 64, 16


def table(seed: int, tilt: float = 3.0) -> torch.Tensor:
    """Logits (K + 1, K) of a code after each code, the last row's for the first one."""
    return tilt * torch.randn(K + 1, K, generator=torch.Generator().manual_seed(seed))


def chain(logits_KK: torch.Tensor) -> Probabilities:
    """Each code depends on the one before."""

    def start(batch: int):  # type: ignore[no-untyped-def]
        first = np.full(batch, K)
        return lambda previous: frequencies(logits_KK[first if previous is None else previous])

    return start


def drawn(logits_KK: torch.Tensor, images: int) -> Codes:
    generator = torch.Generator().manual_seed(1)
    codes = [torch.full((images,), K)]
    for _ in range(POSITIONS):
        codes.append(torch.multinomial(logits_KK[codes[-1]].softmax(-1), 1, generator=generator)[:, 0])
    return torch.stack(codes[1:], 1).numpy()


def read_by_the_book(block: Block, images: int, probabilities: Probabilities) -> list[list[int]]:
    """The stream as docs/codec.md describes it, in Python's integers: no constriction, no floating point."""
    words = [*np.frombuffer(block.stream, "<u4").tolist(), 0, 0]
    low, width, point, used, steps = 0, 2**64 - 1, words[0] << 32 | words[1], 2, probabilities(images)
    found: list[list[int]] = []
    for _ in range(POSITIONS):
        now = np.broadcast_to(steps(np.array(found[-1]) if found else None), (images, K)).tolist()
        found.append([])
        for row in now:
            unit = width // TOTAL
            at = (point - low) % 2**64 // unit
            edges = [0]
            for count in row:
                edges.append(edges[-1] + count)
            code, left, right = next((k, a, b) for k, (a, b) in enumerate(pairwise(edges)) if at < b)
            low, width = (low + unit * left) % 2**64, unit * (right - left)
            if width < 2**32:
                low, width = (low << 32) % 2**64, width << 32
                point = (point << 32) % 2**64 | (words[used] if used < len(words) else 0)
                used += 1
            found[-1].append(code)
    return np.array(found).T.tolist()


@pytest.mark.parametrize("images", [1, 2, 50])
@pytest.mark.parametrize("kind", ["chain", "counted"])
def test_what_is_decoded_is_what_was_encoded(kind: str, images: int) -> None:
    counts = np.random.default_rng(0).integers(0, 1000, K)
    probabilities = chain(table(0)) if kind == "chain" else by_counts(counts)
    codes = drawn(table(0), images)
    block = encode(codes, probabilities)
    assert np.array_equal(decode(block, images, POSITIONS, probabilities), codes)
    assert read_by_the_book(block, images, probabilities) == codes.tolist()


def test_a_stream_takes_the_bits_that_the_logits_say() -> None:
    codes = drawn(table(0), 256)
    before = np.concatenate([np.full((256, 1), K), codes[:, :-1]], 1)
    bits = float(-torch.log2(table(0).double().softmax(-1))[before, codes].sum())
    assert 0 <= 8 * len(encode(codes, chain(table(0))).stream) - bits < 64 + 0.001 * bits


def test_frequencies_add_up_and_leave_every_code_possible() -> None:
    logits = torch.cat([table(0), torch.zeros(1, K), torch.full((1, K), -1e30).index_fill(1, torch.tensor(3), 0)])
    found = frequencies(logits)
    assert (found.sum(1) == TOTAL).all()
    assert found.min() == 1
    assert found[-1].tolist() == [1, 1, 1, TOTAL - K + 1] + [1] * (K - 4)
    assert np.abs(found / TOTAL - logits.softmax(-1).numpy()).max() < 2 * K / TOTAL
    assert by_counts(np.array([0, 2**62, 5]))(7)(None).tolist() == [[1, TOTAL - 2, 1]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_prior_that_is_out_of_its_mind(value: float) -> None:
    with pytest.raises(ConfigError, match="not finite numbers"):
        frequencies(torch.tensor([[0.0, value]]))


def test_other_probabilities_are_noticed_however_near_they_are() -> None:
    codes = drawn(table(0), 50)
    block = encode(codes, chain(table(0)))
    nudged = table(0)
    nudged[7, 7] += 1e-5
    for other in (nudged, table(2), table(3, tilt=30)):
        with pytest.raises(ConfigError, match="computes other probabilities"):
            decode(block, 50, POSITIONS, chain(other))
    for damaged in (block._replace(stream=block.stream[:8]), block._replace(stream=b"")):
        with pytest.raises(ConfigError, match="computes other probabilities"):
            decode(damaged, 50, POSITIONS, chain(table(0)))
    with pytest.raises(ConfigError, match="does not hold the codes that their checksum is of"):
        decode(block._replace(codes=block.codes ^ 1), 50, POSITIONS, chain(table(0)))


def test_one_thread_while_a_network_computes_and_as_many_as_before_afterwards() -> None:
    threads, during = torch.get_num_threads(), []

    def start(batch: int):  # type: ignore[no-untyped-def]
        during.append(torch.get_num_threads())
        return lambda previous: frequencies(torch.zeros(batch, K))

    torch.set_num_threads(2)
    try:
        encode(np.zeros((1, 2), np.int64), start)
        assert during == [1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_without_constriction_the_install_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ConfigError, match=r"pip install 'constriction>=0\.5,<0\.6'"):
        encode(np.zeros((1, 1), np.int64), by_counts(np.ones(4, np.int64)))
