"""Everything that can be wrong with a sweep, found before its first trial and told at once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from trainables.runs import NAME
from vqcore.config import ConfigError, TrialConfig
from vqcore.vqvae import VQVAE

T = TypeVar("T")


class Problems:
    """Collects what several checks complain of."""

    def __init__(self) -> None:
        self._told: list[str] = []

    def of(self, make: Callable[[], T]) -> T | None:
        """What ``make()`` gives; None, and its problems kept, if it raises ``ConfigError``."""
        try:
            return make()
        except ConfigError as error:
            self._told += error.problems
            return None

    def raise_any(self) -> None:
        """Raise one ``ConfigError`` with all that was kept, if anything was."""
        if self._told:
            raise ConfigError(self._told)


def check_name(name: str, folder: Path) -> None:
    """``ConfigError`` unless ``name`` is a plain, new folder name."""
    if not NAME.fullmatch(name) or name == "latest":
        raise ConfigError(
            [
                f"--name {name!r}: must be letters, digits, '.', '_' and '-', starting with a letter or digit, "
                "100 at most, without path separators and not 'latest'; --out chooses the folder"
            ]
        )
    if (folder / name).exists():
        raise ConfigError([f"--name {name}: that run exists; --resume {name} goes on with it, or choose another name"])


def checkpoint_bytes(config: TrialConfig) -> int:
    """Size of one checkpoint: weights, two Adam moments each, and the codebook with its moving averages."""
    with torch.device("meta"):
        model = VQVAE(config.model)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    return 3 * weights + buffers


def checkpoints_bytes(configs: tuple[TrialConfig, ...], slots: int) -> int:
    """Disk that the checkpoints of a sweep take: one a trial, and a second while a running one is replaced."""
    sizes = sorted((checkpoint_bytes(config) for config in configs), reverse=True)
    return sum(sizes) + sum(sizes[:slots])


def check_space(storage: Path, needed: int) -> None:
    """``ConfigError`` if the disk that holds ``storage`` has not ``needed`` bytes free."""
    existing = next(path for path in (storage.absolute(), *storage.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ConfigError(
            [
                f"--storage {storage}: the checkpoints need {megabytes(needed)}, {megabytes(free)} are free, "
                f"{megabytes(needed - free)} missing; free them, name another --storage, or sweep fewer trials"
            ]
        )


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:,.0f} MB"
