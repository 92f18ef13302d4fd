"""A small real set, and sweeps on it as a user starts them."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from read_back import SMALL, without_mlflow
from reporting import Reporting

from sweeps import beta_ablation, pareto
from sweeps.beta_ablation import BetaAblation
from sweeps.cli import command
from sweeps.engine import inline, session
from sweeps.pareto import Pareto
from trainables.data import prepare
from trainables.job import Report
from trainables.tracking import Tracker
from trainables.trial import Trial


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 96 train and 32 test images of 16 pixels, cut from real ones."""
    folder = tmp_path_factory.mktemp("images")
    mini = prepare("cifar10-mini")
    for split, pixels in (("train", mini.train()[:96]), ("test", mini.test()[:32])):
        (folder / split).mkdir()
        for number, image in enumerate(pixels):
            Image.fromarray(np.ascontiguousarray(image[8:24, 8:24])).save(folder / split / f"{number:03}.png")
    return folder


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of runs for all: a new MLflow database takes seconds to make."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def sweep(images: Path, out: Path) -> Callable[..., int]:
    """Run ``beta_ablation`` inline with these words; its exit code. MLflow has it if ``tracked``."""

    def run(*words: str, tracked: bool = False) -> int:
        small = [] if "--resume" in words else ["--data", str(images), *SMALL]
        arguments = [*small, "--betas", "0.1", "1", "--out", str(out), "--address", "inline", *words]
        with nullcontext() if tracked else without_mlflow():
            return command("beta_ablation", ("sweeps.beta_ablation",), BetaAblation, beta_ablation.spec, arguments)

    return run


@pytest.fixture
def driver(images: Path, out: Path) -> Callable[[str], "subprocess.Popen[str]"]:
    """Start what ``sweep`` runs as a process of its own, under a name."""

    def start(name: str) -> "subprocess.Popen[str]":
        words = ["--data", str(images), *SMALL, "--betas", "0.1", "1", "--out", str(out), "--address", "inline"]
        words += ["--tracking-uri", "http://127.0.0.1:9"]  # where nothing is: a new MLflow database takes seconds
        return subprocess.Popen(
            [sys.executable, "-m", "sweeps.beta_ablation", *words, "--name", name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture
def started(images: Path, out: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start ``python -m sweeps.beta_ablation`` as a process of its own, on Ray; perhaps another checkout's."""

    def start(*words: object, checkout: Path | None = None) -> "subprocess.Popen[str]":
        python = sys.executable if checkout is None else checkout / "bin" / "python"
        command = [python, "-m", "sweeps.beta_ablation", "--out", out, "--num-cpus", "2", *words]
        own = {name: value for name, value in os.environ.items() if checkout is None or name != "PYTHONPATH"}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(list(map(str, command)), cwd=checkout, env=own, **pipes)

    return start


@pytest.fixture
def in_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Let something happen in the n-th epoch of a sweep in this process: after its checkpoint, before its report."""

    def arrange(number: int, happen: Callable[[], None]) -> None:
        real, trained = Trial.step, 0

        def step(trial: Trial) -> Report:
            nonlocal trained
            report = real(trial)
            trained += bool(report.metrics)
            if trained == number and report.metrics:
                happen()
            return report

        monkeypatch.setattr(Trial, "step", step)

    return arrange


@pytest.fixture
def search(images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run ``sweeps.pareto`` inline, with trials that only report; its exit code."""
    monkeypatch.setattr(inline, "Trial", Reporting)
    monkeypatch.setattr(session, "analyse", lambda folder: None)  # a second each time, for what nobody looks at here
    monkeypatch.setattr(Tracker, "start", lambda self: None)

    def go(*words: str) -> int:
        new = ["--data", str(images), "--epochs", "4", "--codebook-sizes", "8", "16", "--set", "channels=8"]
        shared = ["--out", str(out), "--address", "inline"]
        words = words if "--resume" in words else (*new, *words)
        return command("pareto", ("sweeps.pareto",), Pareto, pareto.spec, [*shared, *words])

    return go
