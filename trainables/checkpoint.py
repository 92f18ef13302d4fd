"""A trial's state as one file an epoch: tensors and, as JSON in the safetensors metadata, the facts beside them.

The file's name ends in the checksum of its content, so that a name proves what it names. Two are kept while a trial
runs: whichever way the newest is damaged, the one before is there.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from trainables.storage import PART, StorageError, Store, free_bytes, size
from vqcore.config import ConfigError, TrialConfig, problems_of
from vqcore.vqvae import VQVAE

AT_MOST = 3
"""Files of a running trial: the newest, the one before, and the one being written."""

_NAME = re.compile(r"epoch-(\d{5,9})-([0-9a-f]{16})\.safetensors")
_PART = re.compile(rf"\w[\w.-]{{0,150}}\.[0-9a-f]{{8}}{re.escape(PART)}")
"""Of a file that a killed process had begun; any other name is somebody else's file."""
_METADATA = "__metadata__"
_FACTS = "facts"


class Checkpoint(NamedTuple):
    """A checkpoint that was read back whole."""

    name: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    """``trial`` (its key), ``epoch``, ``precision``, ``history`` (the event of each epoch); ``number`` and ``config``,
    which an early version did not write."""


class Found(NamedTuple):
    """The checkpoints at a location."""

    checkpoint: Checkpoint | None
    """The newest that is whole; None if there is none."""
    damaged: tuple[str, ...]
    """Newer ones that were skipped, each with the reason."""


def save_checkpoint(store: Store, epoch: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> str:
    """Make ``tensors`` and ``facts`` (JSON) a checkpoint, and keep the one before; its name.

    ``StorageFullError`` if there is no room; what was there is then as it was.
    """
    words = json.dumps({**facts, "epoch": epoch}, separators=(",", ":"), allow_nan=False)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {_FACTS: words})
    name = f"epoch-{epoch:05d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    store.write(name, [content])
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


def load_checkpoint(store: Store, key: str | None) -> Found:
    """The newest whole checkpoint of trial ``key``, or of any trial if that is None; and the damaged ones.

    ``StorageError`` if nothing can be read.
    """
    damaged: list[str] = []
    return Found(next(whole_checkpoints(store, key, damaged), None), tuple(damaged))


def whole_checkpoints(store: Store, key: str | None, damaged: list[str]) -> Iterator[Checkpoint]:
    """The whole checkpoints of trial ``key``, the newest first; those that are skipped are added to ``damaged``."""
    names = [name for name in store.names() if name.startswith("epoch-") and not name.endswith(PART)]
    for name in sorted(names, key=lambda name: (_epoch(name), name), reverse=True):
        try:
            yield _read(store, name, key)
        except FileNotFoundError:
            continue  # removed meanwhile by a process that its killed driver left behind
        except StorageError:
            raise
        except OSError as error:
            damaged.append(f"{name}: cannot be read ({error.strerror or error})")
        except MemoryError:
            damaged.append(f"{name}: is larger than the memory")
        except _DamagedError as error:
            damaged.append(f"{name}: {error}")


def remove_parts(store: Store) -> None:
    """Remove what killed processes had begun to write."""
    for name in store.names():
        if _PART.fullmatch(name):
            with suppress(OSError):
                store.delete(name)


class _DamagedError(ValueError):
    """Why a file is not the checkpoint that it should be."""


def _epoch(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else 0  # a copy, or of a version that named them otherwise: older than any


def _read(store: Store, name: str, key: str | None) -> Checkpoint:
    named = _NAME.fullmatch(name)
    if named is None:
        raise _DamagedError("its name has no checksum")
    content = store.read(name)
    if hashlib.sha256(content).hexdigest()[:16] != named[2]:
        raise _DamagedError("its content does not match its name")
    try:
        tensors, facts = load(content), _facts(content)
    except Exception as error:  # whatever a parser says of a file that was made to deceive it
        raise _DamagedError(f"is no checkpoint ({type(error).__name__})") from error
    if key is not None and facts.get("trial") != key:
        raise _DamagedError("is of another trial")
    if not _consistent(facts, int(named[1])):
        raise _DamagedError("its facts contradict each other")
    return Checkpoint(name, tensors, facts)


def _facts(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    facts = json.loads(json.loads(content[8 : 8 + length])[_METADATA][_FACTS])
    if not isinstance(facts, dict):
        raise TypeError("facts are a table")
    return facts


def _consistent(facts: dict[str, Any], epoch: int) -> bool:
    """Whether the facts are of ``epoch``, and tell of each epoch up to it."""
    history = facts.get("history")
    return (
        facts.get("epoch") == epoch
        and facts.get("precision") in ("fp32", "bf16")
        and isinstance(history, list)
        and len(history) == epoch
        and all(_is_epoch(event, number) for number, event in enumerate(history, 1))
        and type(facts.get("number", 0)) is int
        and _is_config(facts.get("config", {}))
    )


def _is_config(values: object) -> bool:
    return isinstance(values, dict) and not problems_of(lambda: TrialConfig.from_flat(values))


_EVENT = {"event", "epoch", "metrics", "time"}


def _is_epoch(event: object, number: int) -> bool:
    if not isinstance(event, dict) or event.keys() != _EVENT or (event["event"], event["epoch"]) != ("epoch", number):
        return False
    metrics = event.get("metrics")
    return isinstance(metrics, dict) and all(map(_finite, [*metrics.values(), event.get("time")]))


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def checkpoint_bytes(config: TrialConfig) -> int:
    """Size of one checkpoint: weights, two Adam moments each, and the codebook with its moving averages."""
    # whether a rate is zero may decide which tensors there are, but its value no size: ten thousand betas are one model
    fields = {name: bool(value) if isinstance(value, float) else value for name, value in config.flat().items()}
    shape = tuple(value for name, value in fields.items() if name not in ("seed", "epochs"))
    if shape not in _SIZES:
        with torch.device("meta"):
            model = VQVAE(config.model)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        buffers = sum(b.numel() * b.element_size() for b in model.buffers())
        _SIZES[shape] = 3 * weights + buffers
    return _SIZES[shape]


_SIZES: dict[tuple[object, ...], int] = {}


def check_disk(location: str, needed: int) -> None:
    """``ConfigError`` if the disk of the trials in ``location`` has less than ``needed``, with what they hold."""
    free = free_bytes(location)
    if free is None:  # a bucket has no end
        return
    needed -= sum(file.stat().st_size for file in Path(location).glob("*/epoch-*.safetensors"))
    if free < needed:
        raise ConfigError(
            [
                f"{location}: the checkpoints need {size(needed)}, {size(free)} are free there, "
                f"{size(needed - free)} missing; free them, name another --storage, or sweep fewer trials"
            ]
        )
