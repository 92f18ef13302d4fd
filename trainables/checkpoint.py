"""A trial's state as one file an epoch: tensors and, as JSON in the safetensors metadata, the facts beside them.

The file's name ends in the checksum of its content, so that a name proves what it names. Two are kept while a trial
runs: whichever way the newest is damaged, the one before is there.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

from trainables.storage import PART, StorageError, Store

AT_MOST = 3
"""Files of a running trial: the newest, the one before, and the one being written."""

_NAME = re.compile(r"epoch-(\d{5,9})-([0-9a-f]{16})\.safetensors")
_PART = re.compile(rf"\w[\w.-]*\.[0-9a-f]{{8}}{re.escape(PART)}")
"""Of a file that a killed process had begun; any other name is somebody else's file."""


class Checkpoint(NamedTuple):
    """A checkpoint that was read back whole."""

    name: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """``trial`` (its key), ``epoch``, ``precision``, ``history`` (the event of each epoch); ``number`` and ``config``,
    which an early version did not write."""


def save_checkpoint(store: Store, epoch: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Make ``tensors`` and ``facts`` (JSON) a checkpoint, and keep the one before; its name.

    ``StorageError`` if there is no room; what was there is then as it was.
    """
    words = json.dumps({**facts, "epoch": epoch}, separators=(",", ":"), allow_nan=False)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"facts": words})
    name = f"epoch-{epoch:05d}-{_digest(content)}.safetensors"
    store.write(name, content)
    keep_checkpoint(store, name, before=1)
    return name


def keep_checkpoint(store: Store, name: str, before: int = 0) -> None:
    """Remove all but ``name`` and, of the epochs before it, the newest ``before``; newer ones are left alone.

    A newer one may be of a process that its killed driver left behind: it is as good. What is no checkpoint stays.
    """
    there = sorted(other for other in store.names() if _NAME.fullmatch(other))
    older = [other for other in there if _epoch(other) < _epoch(name)]
    kept = {name, *older[len(older) - before :]}
    for other in there:
        if other not in kept and _epoch(other) <= _epoch(name):
            with suppress(OSError):  # it costs room, and goes with the next
                store.delete(other)


def load_checkpoint(store: Store, key: str | None) -> Checkpoint | None:
    """The newest whole checkpoint of trial ``key``, or of any trial if that is None. ``StorageError`` as below."""
    return next(whole_checkpoints(store, key, []), None)


def whole_checkpoints(store: Store, key: str | None, damaged: list[str]) -> Iterator[Checkpoint]:
    """The whole checkpoints of trial ``key``, the newest first; those that are skipped are added to ``damaged``.

    ``StorageError`` if nothing can be read.
    """
    names = [name for name in store.names() if _NAME.fullmatch(name)]
    for name in sorted(names, key=lambda name: (_epoch(name), name), reverse=True):
        try:
            yield _read(store, name, key)
        except FileNotFoundError:
            continue  # removed meanwhile by a process that its killed driver left behind
        except StorageError:
            raise
        except (OSError, ValueError) as error:
            damaged.append(f"{name}: {error}")


def remove_parts(store: Store) -> None:
    """Remove what killed processes had begun to write."""
    for name in store.names():
        if _PART.fullmatch(name):
            with suppress(OSError):
                store.delete(name)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _epoch(name: str) -> int:
    return int(name.split("-")[1])


def _read(store: Store, name: str, key: str | None) -> Checkpoint:
    """The checkpoint of this name. ``ValueError`` says why it is none."""
    content = store.read(name)
    if _digest(content) != name.removesuffix(".safetensors")[-16:]:
        raise ValueError("its content does not match its name")
    try:
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        facts = json.loads(json.loads(header)["__metadata__"]["facts"])
        tensors = load(content)
        whole = facts["epoch"] == len(facts["history"]) == _epoch(name) and facts["precision"] in ("fp32", "bf16")
    except Exception as error:  # whatever a parser says of a file that another program named so
        raise ValueError(f"is no checkpoint ({type(error).__name__})") from error
    if key not in (None, facts.get("trial")) or not whole:
        raise ValueError("is of another trial or epoch")
    return Checkpoint(name, tensors, facts)
