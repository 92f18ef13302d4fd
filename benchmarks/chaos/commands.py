"""The runs that chaos disturbs: a grid, a search, a final training, each as the commands that a person would type."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.runs import JOURNAL

Sweep = Literal["grid", "search", "final"]

MODULES: dict[Sweep, str] = {"grid": "sweeps.beta_ablation", "search": "sweeps.pareto", "final": "trainables.final"}
NAME = "chaos"
SMALL_FINAL = """[model]
channels = 8
hidden_channels = 16

[model.quantizer]
codebook_size = 64
decay = 0.9

[training]
learning_rate = 1e-3
"""


@dataclass(frozen=True)
class Run:
    """One run of a small model, of which an epoch takes about half a second of a core."""

    sweep: Sweep
    trials: int
    """Of a grid, two seeds of each configuration; a search draws so many configurations."""
    epochs: int
    """Of a trial."""
    out: Path
    tracking_uri: str | None = None
    """MLflow; a database in ``out`` unless given."""

    @property
    def folder(self) -> Path:
        """The run's own."""
        return self.out / MODULES[self.sweep].rpartition(".")[2] / NAME

    @property
    def started(self) -> bool:
        """Whether it has a journal."""
        return (self.folder / JOURNAL).exists()

    def command(self) -> list[object]:
        """The words that start it, or that go on with it where it has a journal."""
        words: list[object] = [sys.executable, "-m", MODULES[self.sweep]]
        if self.sweep == "final":  # the same words go on
            return [*words, self._config(), *self._common()]
        if self.started:
            return [*words, "--resume", NAME, "--out", self.out]
        words += [*self._common(), "--batch-size", 128, "--learning-rate", 1e-3]
        words += ["--set", "channels=8", "hidden_channels=16", "--seeds", 2]
        if self.sweep == "search":
            return [*words, "--trials", self.trials, "--codebook-sizes", 32, 64]
        count = self.trials // 2
        betas = [f"{0.1 * 20 ** (place / max(1, count - 1)):.4g}" for place in range(count)]
        return [*words, "--codebook-size", 64, "--decay", 0.9, "--betas", *betas]

    def sync(self) -> list[object]:
        """The words that send MLflow what it missed."""
        tracking: list[object] = ["--tracking-uri", self.tracking_uri] if self.tracking_uri else []
        return [sys.executable, "-m", "sweeps.sync", self.folder, *tracking]

    def _common(self) -> list[object]:
        words: list[object] = ["--epochs", self.epochs, "--name", NAME, "--out", self.out]
        # what a search draws depends on the order in which trials end, which is given on one slot only
        words += ["--data", "cifar10-mini", "--num-gpus", 0, "--num-cpus", 2 if self.sweep == "grid" else 1]
        return [*words, *(["--tracking-uri", self.tracking_uri] if self.tracking_uri else [])]

    def _config(self) -> Path:
        path = self.out / "chosen.toml"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SMALL_FINAL, encoding="utf-8")
        return path
