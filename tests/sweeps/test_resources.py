"""How trials are packed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.engine.resources import Available, book
from vqcore.config import ConfigError

NODE = Available(cpus=64, gpus=8)


def test_four_trials_a_gpu_book_a_quarter_each() -> None:
    booking = book(NODE, 8, 4, None)
    assert (booking.slots, booking.gpus, booking.cpus) == (32, 0.25, 1.0)


def test_without_a_gpu_a_trial_books_one_cpu() -> None:
    booking = book(NODE, 0, 4, 3)
    assert (booking.slots, booking.gpus, booking.cpus) == (3, 0.0, 1.0)


def test_all_there_is_unless_told() -> None:
    assert book(NODE, None, 1, None).slots == 8
    assert book(Available(2, 0), None, 1, None).slots == 2


def test_few_cpus_are_shared_equally() -> None:
    assert book(Available(4, 2), 2, 4, None).cpus == 0.5


@given(st.integers(1, 100), st.integers(1, 16))
def test_every_whole_number_of_trials_packs_in_rays_own_rounding(per_gpu: int, gpus: int) -> None:
    booking = book(Available(64, gpus), gpus, per_gpu, None)
    units = round(booking.gpus * 10_000)
    assert units >= 1
    assert units * per_gpu <= 10_000
    assert units == pytest.approx(booking.gpus * 10_000), "Ray would round it, and up for some"


def test_more_gpus_than_there_are_says_how_many_and_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"--num-gpus 8: this machine has 0; .*--num-gpus 0"):
        book(Available(2, 0), 8, 1, None)


@pytest.mark.parametrize("share", [0, -1, 2.5, 0.5, 101, float("nan"), float("inf")])
def test_a_fraction_that_does_not_pack_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="--trials-per-gpu"):
        book(NODE, 8, share, None)


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        book(Available(2, 0), 1, 1.5, 9)
    assert [problem.split()[0] for problem in error.value.problems] == ["--num-gpus", "--num-cpus", "--trials-per-gpu"]
