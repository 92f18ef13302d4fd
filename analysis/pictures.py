"""The test images that trials kept, with what they made of them: read from wherever the run keeps its trials' files."""

from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.groups import Group
from trainables.journal import RunRecord, TrialRecord
from trainables.storage import StorageError, is_bucket, join, open_store
from trainables.trial import PICTURES
from vqcore.config import ConfigError

Images = NDArray[np.uint8]

MOST = 12
"""Configurations that a picture has room for."""


@dataclass(frozen=True)
class Pictures:
    """What there is to show of some groups, a trial each."""

    rows: tuple[tuple[Group, TrialRecord, Images], ...]
    """The (2, n, H, W, 3) originals and reconstructions of a trial of the group."""
    problems: tuple[str, ...]
    """What should be there and cannot be shown, in words."""


def read_pictures(run_folder: Path, record: RunRecord, groups: tuple[Group, ...]) -> Pictures:
    """Of each group the first trial's that has any. What is damaged, or cannot be reached, is told and passed over."""
    told = record.sweep.get("storage")
    location = told if isinstance(told, str) and is_bucket(told) else str(run_folder / "trials")
    rows: list[tuple[Group, TrialRecord, Images]] = []
    problems: list[str] = []
    for group in groups:
        for trial in group.trials:
            try:
                rows.append((group, trial, _read(location, trial.key)))
                break
            except FileNotFoundError:
                continue
            except (StorageError, ConfigError) as error:  # the next would wait as long for the same
                return Pictures(tuple(rows), (*problems, f"Reconstructions cannot be read: {error}"))
            except (OSError, ValueError) as error:
                problems.append(f"Reconstructions of trial {trial.key} are damaged and not shown: {error}")
    return Pictures(tuple(rows), tuple(problems))


def _read(location: str, key: str) -> Images:
    content = open_store(join(location, key), patient=False).read(PICTURES)
    file = BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("it is of another version")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except Exception as error:  # numpy reads it as Python's own words, which can be wrong in many ways
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from error
    # a header may promise more than there is, or objects that would have to be unpickled
    if dtype != np.uint8 or len(shape) != 5 or (shape[0], shape[4]) != (2, 3) or not prod(shape):
        raise ValueError(f"it holds {dtype} of shape {shape}")
    pixels: NDArray[Any] = np.frombuffer(content, np.uint8, offset=file.tell())
    if pixels.size != prod(shape):
        raise ValueError(f"{pixels.size} bytes of {prod(shape)}")
    return pixels.reshape(shape)
