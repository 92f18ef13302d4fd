"""A trial's state on disk: tensors as safetensors, the rest as JSON, replaced as one.

``checkpoint.json`` names the tensor file, with its checksum; it is written last and by renaming, so that at any moment
it names a whole checkpoint, the latest or the one before.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor

from vqcore.config import ConfigError, TrialConfig
from vqcore.vqvae import VQVAE

INDEX = "checkpoint.json"


class Checkpoint(NamedTuple):
    """What was saved."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, epoch: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Make ``tensors`` and ``facts`` (JSON) the checkpoint of ``folder``; the one before is then removed."""
    folder.mkdir(parents=True, exist_ok=True)
    blob = save(tensors)
    name = f"epoch-{epoch:05d}.safetensors"
    replace_file(folder / name, blob)
    index = {"file": name, "sha256": hashlib.sha256(blob).hexdigest(), **facts}
    replace_file(folder / INDEX, json.dumps(index).encode())
    for old in folder.glob("epoch-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint of ``folder``; None if there is none, or its files are damaged: the trial then starts anew."""
    try:
        facts = json.loads((folder / INDEX).read_bytes())
        blob = (folder / Path(facts["file"]).name).read_bytes()
        if hashlib.sha256(blob).hexdigest() != facts["sha256"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Checkpoint(load(blob), facts)


def replace_file(path: Path, content: bytes) -> None:
    """Write beside, force to the disk, rename: a reader sees the old file or the new one, also after a power cut."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def checkpoint_bytes(config: TrialConfig) -> int:
    """Size of one checkpoint: weights, two Adam moments each, and the codebook with its moving averages."""
    with torch.device("meta"):
        model = VQVAE(config.model)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    return 3 * weights + buffers


def check_space(storage: Path, needed: int) -> None:
    """``ConfigError`` if the disk that holds ``storage`` has not ``needed`` bytes free."""
    existing = next(path for path in (storage.absolute(), *storage.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ConfigError(
            [
                f"{storage}: the checkpoints need {megabytes(needed)}, {megabytes(free)} are free there, "
                f"{megabytes(needed - free)} missing; free them, name another --storage, or sweep fewer trials"
            ]
        )


def megabytes(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e6:,.0f} MB"
