"""A small sweep, run once, that every test may spoil a copy of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import figures
from sweeps.beta_ablation import BetaAblation, spec
from sweeps.cli import command
from sweeps.engine import plan
from trainables import session

SMALL = (
    "--address inline --betas 0.1 1 --seeds 2 --epochs 2 --codebook-size 8 --batch-size 16 "
    "--set channels=4 hidden_channels=4 residual_channels=2 residual_blocks=1 dim=4"
)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[[int, int], np.ndarray]) -> Path:
    """A folder of 32 train and 8 test images of 16 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for split, pixels in (("train", pictures(32, 0)), ("test", pictures(8, 1))):
        (folder / split).mkdir()
        for number, image in enumerate(pixels):
            Image.fromarray(image).save(folder / split / f"{number:02}.png")
    return folder


Sweep = Callable[..., int]


class NoTracker:
    """Instead of MLflow's ``Tracker``, which would cost each of hundreds of sweeps a process and seconds."""

    problem = None

    def __init__(self, run_folder: Path, uri: str) -> None:
        pass

    def start(self) -> None:
        pass

    def close(self, timeout: float = 0) -> bool:
        return True


@contextmanager
def _without() -> Iterator[None]:
    """MLflow, pictures and probes are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "Tracker", NoTracker)
        patch.setattr(figures, "write_figures", lambda results: [])
        patch.setattr(plan, "print_plan", lambda console, ready: None)  # its probe trains for seconds
        yield


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A module's folder, where it also runs; for a module, so that later tests have MLflow and the rest again."""
    with _without(), pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("fuzz")
        patch.chdir(folder)
        patch.setenv("VQSWEEP_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def sweep(images: Path) -> Sweep:
    """``beta_ablation`` inline under a folder of runs, with these words; its exit code. It draws no pictures."""

    def run(out: Path, *words: str) -> int:
        small = [] if "--resume" in words else [*SMALL.split(), "--data", str(images)]
        start = "beta_ablation", ("sweeps.beta_ablation",)
        with _without():
            return command(*start, BetaAblation, spec, [*small, "--address", "inline", "--out", str(out), *words])

    return run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, sweep: Sweep) -> Path:
    """The folder of a run of four trials, two epochs each."""
    out = tmp_path_factory.mktemp("undisturbed")
    assert sweep(out, "--name", "run") == 0
    return out / "beta_ablation" / "run"
