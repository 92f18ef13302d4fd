"""Snapshots: what a trial keeps of chosen epochs, for pictures of how its codebook came about.

A file an epoch in the trial's folder, which holds no state of the training: images with their reconstructions, the
codebook, how often each code was used, a sample of encoder outputs, and what each code decodes to. It needs no torch.
"""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from trainables.storage import Store
from vqcore.errors import ConfigError

USUAL = (0, 25, 50, 75, 99)
"""Per cent of the training after which the paper shows its model."""


def snapshot_epochs(percents: Sequence[float], numbers: Sequence[int], epochs: int) -> tuple[int, ...]:
    """The epochs to keep, of a training of so many: at ``percents`` of it, rounded half up, and ``numbers``.

    0 is before the training; what is more is epoch 1 at least. ``ConfigError`` with every value outside.
    """
    problems = [
        f"--snapshots {percent:g}: is per cent of the training, 0 to 100; --snapshot-epochs takes numbers of epochs"
        for percent in percents
        if not 0 <= percent <= 100
    ]
    problems += [
        f"--snapshot-epochs {number}: must be 0 (before the training) to {epochs}, the last epoch; --epochs trains more"
        for number in numbers
        if not 0 <= number <= epochs
    ]
    if problems:
        raise ConfigError(problems)
    rounded = (max(math.floor(percent * epochs / 100 + 0.5), 1 if percent else 0) for percent in percents)
    return tuple(sorted({*rounded, *numbers}))


def write_snapshot(store: Store, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Keep the arrays of an epoch. The same arrays give the same bytes: an epoch that is trained again changes none."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # none is called allow_pickle
    store.write(f"snapshot-{epoch:05d}.npz", content.getvalue())
