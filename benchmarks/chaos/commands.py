"""What chaos disturbs: a grid, a search, a final training, each as the commands that a person would type."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.data import prepare
from trainables.runs import JOURNAL
from vqcore.config import ConfigError, TrialConfig, write_toml

Sweep = Literal["grid", "search", "final"]

NAME = "chaos"
SMALL = {"codebook_size": 64, "channels": 8, "hidden_channels": 16, "batch_size": 128}
"""A model of which an epoch takes about half a second on one core."""


@dataclass(frozen=True)
class Place:
    """Where a run lies, and whom it tells."""

    out: Path
    """All runs; this one's is below it."""
    storage: Path | None
    """For checkpoints."""
    tracking_uri: str


@dataclass(frozen=True)
class Command:
    """One sweep, small."""

    sweep: Sweep
    trials: int
    epochs: int
    """Of a trial."""
    slots: int
    """Trials at once; a CPU each."""

    def __post_init__(self) -> None:
        problems = []
        if self.trials < 1 or (self.sweep == "grid" and self.trials % 2):
            problems.append(f"trials = {self.trials}: a grid has two seeds of each configuration; use an even number")
        if self.epochs < 2:
            problems.append(f"epochs = {self.epochs}: at least 2, or no checkpoint is ever read")
        if self.sweep == "search" and self.slots != 1:
            problems.append(
                f"slots = {self.slots}: what a search draws and stops depends on the order in which trials end, and "
                "that is the same each time on one slot only; use --slots 1"
            )
        if problems:
            raise ConfigError(problems)

    def folder(self, place: Place) -> Path:
        """The run's."""
        sweep = {"grid": "beta_ablation", "search": "pareto", "final": "final"}[self.sweep]
        return place.out / sweep / NAME

    def trials_folder(self, place: Place) -> Path:
        """Where the trials keep their checkpoints: a folder each."""
        run = self.folder(place)
        return (place.storage / run.parent.name / NAME if place.storage and self.sweep != "final" else run) / "trials"

    def start(self, place: Place) -> list[str]:
        """The words that start it."""
        if self.sweep == "final":
            return self._final(place)
        module = "sweeps.beta_ablation" if self.sweep == "grid" else "sweeps.pareto"
        words = ["-m", module, "--name", NAME, "--out", place.out, "--tracking-uri", place.tracking_uri]
        words += ["--storage", place.storage] if place.storage else []
        words += ["--epochs", self.epochs, "--num-gpus", 0, "--num-cpus", self.slots]
        words += ["--batch-size", SMALL["batch_size"], "--learning-rate", 1e-3]
        words += ["--set", f"channels={SMALL['channels']}", f"hidden_channels={SMALL['hidden_channels']}"]
        if self.sweep == "grid":
            count = self.trials // 2
            betas = [f"{0.1 * 20 ** (i / max(1, count - 1)):.4g}" for i in range(count)]
            words += ["--codebook-size", SMALL["codebook_size"], "--decay", 0.9, "--seeds", 2, "--betas", *betas]
        else:
            words += ["--trials", self.trials, "--seeds", 2, "--codebook-sizes", 32, 64]
        return _python(*words)

    def resume(self, place: Place) -> list[str]:
        """The words that go on with it, wherever it broke off."""
        if self.sweep == "final" or not (self.folder(place) / JOURNAL).exists():
            return self.start(place)
        module = "sweeps.beta_ablation" if self.sweep == "grid" else "sweeps.pareto"
        return _python("-m", module, "--resume", NAME, "--out", place.out)

    def sync(self, place: Place) -> list[str]:
        """The words that tell MLflow what it missed."""
        return _python("-m", "sweeps.sync", self.folder(place), "--tracking-uri", place.tracking_uri)

    def _final(self, place: Place) -> list[str]:
        config = place.out.absolute() / "chosen.toml"
        if not config.exists():
            data = prepare()
            small = TrialConfig().replace(**SMALL, learning_rate=1e-3, decay=0.9)
            facts = {"source": data.source, "hash": data.hash, "image_size": data.image_size}
            config.parent.mkdir(parents=True, exist_ok=True)
            write_toml(config, {**small.toml(), "data": facts})
        words = ["-m", "trainables.final", config, "--epochs", self.epochs, "--name", NAME, "--out", place.out]
        return _python(*words, "--num-gpus", 0, "--num-cpus", self.slots, "--tracking-uri", place.tracking_uri)


def _python(*words: object) -> list[str]:
    return [sys.executable, *map(str, words)]
