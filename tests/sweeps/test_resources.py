"""What a machine has, and how trials are packed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.engine import resources
from sweeps.engine.resources import Available, Booking, Gpu, book
from vqcore.config import problems_of

NODE = Available(cpus=64, gpus=8)


@pytest.mark.parametrize(
    ("available", "flags", "booking"),
    [
        (NODE, (8, 4, None), Booking(slots=32, cpus=1.0, gpus=0.25)),
        (NODE, (0, 4, 3), Booking(slots=3, cpus=1.0, gpus=0.0)),
        (NODE, (None, 1, None), Booking(slots=8, cpus=1.0, gpus=1.0)),
        (Available(2, 0), (None, 1, None), Booking(slots=2, cpus=1.0, gpus=0.0)),
        (Available(4, 2), (2, 4, None), Booking(slots=8, cpus=0.5, gpus=0.25)),
    ],
)
def test_a_trial_books_a_part_of_a_gpu_and_of_the_cpus_and_all_are_used_unless_fewer_are_wanted(
    available: Available, flags: tuple[int | None, float, int | None], booking: Booking
) -> None:
    assert book(available, *flags) == booking


@given(st.integers(1, 100), st.integers(1, 16))
def test_every_whole_number_of_trials_packs_in_rays_own_rounding(per_gpu: int, gpus: int) -> None:
    booking = book(Available(64, gpus), gpus, per_gpu, None)
    units = round(booking.gpus * 10_000)
    assert units >= 1
    assert units * per_gpu <= 10_000
    assert units == pytest.approx(booking.gpus * 10_000), "Ray would round it, and up for some"


@pytest.mark.parametrize("share", [0, 0.5, 1.5, 101, float("nan"), float("inf")])
def test_all_problems_at_once_with_what_fits(share: float) -> None:
    gpus, cpus, packing = problems_of(lambda: book(Available(2, 0), 8, share, 9))
    assert gpus == "--num-gpus 8: this machine has none; ask for 0 (--num-gpus 0 trains on the CPU)"
    assert cpus == "--num-cpus 9: this machine has 2; ask for 1 to 2"
    assert packing.startswith(f"--trials-per-gpu {share:g}: a GPU packs a whole number of trials")


def test_shares_that_cuda_alone_would_fill_are_refused_before_the_first_trial() -> None:
    there = Available(64, 1, gpu=Gpu("Tesla T4", 16 * 10**9))
    assert book(there, None, 16, None).slots == 16
    (problem,) = problems_of(lambda: book(there, None, 20, None))
    shares = "shares of 800 MB, and CUDA alone takes some 805 MB in each process"
    assert problem == f"--trials-per-gpu 20: {shares}; Tesla T4 has 16 GB, room for fewer"
    assert book(there, 0, 20, None).gpus == 0


GPUS = (Gpu("NVIDIA H200", 141 * 10**9), Gpu("NVIDIA L4", 24 * 10**9))


@pytest.mark.parametrize(("file", "found"), [("null", GPUS), ("no-such-file", ())])
def test_gpus_are_those_that_torch_finds_where_there_may_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, found: tuple[Gpu, ...]
) -> None:
    """A torch of the test's own in the process that is asked."""
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as Gpu\nclass cuda:\n    device_count = lambda: 2\n"
        "    def get_device_properties(n):\n"
        f"        name, total_memory = {[tuple(gpu) for gpu in GPUS]!r}[n]\n"
        "        return Gpu(name=name, total_memory=total_memory)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(resources, "GPU_FILES", (file,))
    assert resources.gpus.__wrapped__() == found
