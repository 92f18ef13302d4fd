"""What a machine has, and how trials are packed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.engine import resources
from sweeps.engine.resources import Available, Booking, book
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


@pytest.mark.parametrize(("file", "names"), [("null", ("H200", "L4")), ("no-such-file", ())])
def test_gpus_are_those_that_torch_names_where_there_may_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, names: tuple[str, ...]
) -> None:
    """A torch of the test's own in the process that is asked."""
    (tmp_path / "torch.py").write_text(
        "class cuda:\n    get_device_name, device_count = ['H200', 'L4'].__getitem__, lambda: 2\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(resources, "GPU_FILES", (file,))
    assert resources.gpu_names.__wrapped__() == names
