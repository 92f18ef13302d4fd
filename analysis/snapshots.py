"""What a run's trials kept of their codebooks: snapshots of chosen epochs, and how often each code was used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainables.errors import one_line
from trainables.journal import TrialRecord
from trainables.runs import SNAPSHOT, USAGE
from trainables.storage import StorageError
from vqcore.config import ConfigError

if TYPE_CHECKING:  # which has the snapshots that are shown
    from analysis.results import Group, Images, Results

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Snapshot:
    """A trial's quantizer after an epoch: n test images, K codes of D dimensions, P sampled encoder outputs."""

    epoch: int
    """0 is before the training."""
    originals: Images
    """(n, H, W, 3), the same at each epoch."""
    reconstructions: Images
    """(n, H, W, 3)."""
    codebook: Floats | None
    """(K, D) as the decoder sees it; none of more codes than a picture can show (``vqcore.training.MOST_CODES``)."""
    counts: Counts
    """(K,) how often each code was used on the whole test set."""
    embeddings: Floats
    """(P, D): what the layer compares with its codes, at the same positions of the test set at each epoch."""
    codes: Counts
    """(P,): the code of each."""
    patches: Images | None
    """(K, p, p, 3): what each code alone decodes to; with ``codebook``."""


class Shown(NamedTuple):
    """The trial whose codebook the pictures of a run show."""

    trial: TrialRecord | None = None
    """None if no trial has snapshots."""
    label: str = ""
    """Its configuration and seed, as a title has them; empty where the run has no other."""
    snapshots: Sequence[Snapshot] = ()
    problems: Sequence[str] = ()
    """One sentence for each file that cannot be shown."""
    lost: bool = False
    """Whether the storage cannot be read."""


def snapshots(results: Results, trial: TrialRecord, problems: list[str] | None = None) -> list[Snapshot]:
    """The snapshots of a trial, by epoch. Nothing is unpickled.

    Damaged files are skipped, as is all of a storage that is lost: a sentence for each is added to ``problems``.
    """
    problems = [] if problems is None else problems
    try:
        return _read(results, trial, problems)
    except (StorageError, ConfigError) as error:
        problems.append(f"Snapshots cannot be read: {error}")
        return []


def _read(results: Results, trial: TrialRecord, problems: list[str]) -> list[Snapshot]:
    """As ``snapshots``; ``StorageError`` or ``ConfigError`` of a storage that is lost."""
    store, found = results.files_of(trial), []
    for name in filter(SNAPSHOT.fullmatch, store.names()):
        epoch = int(SNAPSHOT.sub(r"\1", name))
        try:
            found.append(_snapshot(epoch, store.read(name), trial.config))
        except (StorageError, ConfigError):
            raise
        except (OSError, ValueError) as error:
            problems.append(f"The snapshot of epoch {epoch} of trial {trial.key} cannot be shown: {error}")
    return sorted(found, key=lambda snapshot: snapshot.epoch)


def usage(results: Results, trial: TrialRecord, problems: list[str] | None = None) -> Counts | None:
    """How often each code of a trial was used on the test set in its last epoch, (K,); none if that is not kept.

    Of a file that is damaged, or a storage that is lost, a sentence is added to ``problems``.
    """
    try:
        return _counts(np.load(BytesIO(results.files_of(trial).read(USAGE))))
    except FileNotFoundError:
        return None
    except Exception as error:  # numpy reads the header as Python's literals, which can be wrong in many ways
        if problems is not None:
            problems.append(f"The use of codes of trial {trial.key} cannot be shown: {one_line(error)}")
        return None


def entropy(counts: Counts) -> float:
    """Of the codes, in bits; 0 where none was counted."""
    used = counts[counts > 0] / max(counts.sum(), 1)
    return max(0.0, float(-(used * np.log2(used)).sum()))


def thinned(found: Sequence[Snapshot], most: int) -> list[Snapshot]:
    """So many of the snapshots at most, evenly spread, the first and the last among them."""
    places = np.unique(np.linspace(0, len(found) - 1, min(len(found), most)).round().astype(int))
    return [found[place] for place in places]


def shown(results: Results) -> Shown:
    """The first trial with snapshots: the knee's, then of the front and the other featured configurations; in a run
    where none is completed, of all. ``Results.shown`` keeps it."""
    problems: list[str] = []
    try:
        for trial, label in _candidates(results):
            if found := _read(results, trial, problems):
                return Shown(trial, label, found, problems)
    except (StorageError, ConfigError) as error:  # the next would wait as long for the same
        return Shown(problems=[*problems, f"Snapshots cannot be read: {error}"], lost=True)
    return Shown(problems=problems)


def _candidates(results: Results) -> Iterator[tuple[TrialRecord, str]]:
    groups: list[Group] = [*filter(None, [results.knee]), *results.front, *results.featured()]
    for group in {group.label: group for group in groups}.values():
        for trial in (*group.trials, *filter(None, [group.screened])):
            several = len(results.record.trials) > 1
            yield trial, f"{group.label}, seed {trial.config.get('seed', 0)}" if several else ""
    if not groups:
        yield from ((trial, f"trial {trial.key}" if len(results.trials) > 1 else "") for trial in results.trials)


def _snapshot(epoch: int, content: bytes, config: Mapping[str, Any]) -> Snapshot:
    """``ValueError`` if the file is damaged or of another configuration."""
    try:
        with np.load(BytesIO(content)) as file:  # which unpickles nothing unless it is asked to
            arrays: dict[str, NDArray[Any]] = dict(file)
        counts, codes = _counts(arrays["counts"]), _counts(arrays["codes"])
        size, (sample, dim) = len(counts), arrays["embeddings"].shape
        codebook, patches = arrays.get("codebook"), arrays.get("patches")
        right = (
            _are_images(arrays["images"]) and _are_images(arrays["reconstructions"])
            and arrays["images"].shape == arrays["reconstructions"].shape
            and (size, dim) == (config.get("codebook_size", size), config.get("dim", dim))
            and len(codes) == sample and (codes < size).all()
            and arrays["embeddings"].dtype.kind == "f"
            and (codebook is None or (codebook.dtype.kind == "f" and codebook.shape == (size, dim)))
            and (patches is None or (_are_images(patches) and len(patches) == size))
        )  # fmt: skip
    except Exception as error:  # zip files and numpy's headers can be wrong in many ways
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    if not right:
        raise ValueError("it is of another configuration")
    return Snapshot(
        epoch,
        arrays["images"],
        arrays["reconstructions"],
        None if codebook is None else codebook.astype(np.float64),
        counts,
        arrays["embeddings"].astype(np.float64),
        codes,
        patches,
    )


def _counts(array: NDArray[Any]) -> Counts:
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size or (array < 0).any():
        raise ValueError("it holds no counts")
    return array.astype(np.int64)


def _are_images(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3 and bool(array.size)
