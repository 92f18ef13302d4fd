"""Trained models by name: where one lies, its hash, and the data set that it was trained on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data import DataSet, prepare
from trainables.journal import read
from trainables.runs import JOURNAL, command_line, find_run
from vqcore.errors import ConfigError

if TYPE_CHECKING:
    from vqcore.vqvae import VQVAE

MODEL = "model.safetensors"
"""The file that a full training leaves; its configuration is ``model.toml`` beside it."""


PRIOR = "prior.safetensors"
"""The file of a learned prior, beside a copy of its model; its configuration is ``prior.toml``."""

RATES = "rates.json"
"""The file of a prior that says what codes cost under it."""


@dataclass(frozen=True)
class TrainedModel:
    """A model on the disk. Torch is imported when it is loaded."""

    path: Path
    """Its ``model.safetensors``."""
    hash: str
    """16 hex digits over the bytes of that file: what is made of the model names it by this."""
    source: str | None
    """The data set that it was trained on, as the training named it; None where no journal says so."""
    image_size: int | None
    """Side in pixels of the images that it was trained on; None where no journal says so."""

    @property
    def folder(self) -> Path:
        """Where it lies, and where what is made of it is put."""
        return self.path.parent

    def load(self) -> "VQVAE":
        """The model, in eval mode on the CPU."""
        from vqcore.vqvae import load

        return load(self.path)

    def data(self, source: str | None = None) -> DataSet:
        """The data set ``source``, or the one of the training, at the model's image size.

        ``ConfigError`` if neither is known.
        """
        if source is None and self.source is None:
            raise ConfigError([f"{self.path}: no journal beside it names a data set; add --data"])
        return prepare(source or str(self.source), self.image_size)


def model_hash(path: Path) -> str:
    """Of a model's file: 16 hex digits of its SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def find_model(name: str, out: Path) -> TrainedModel:
    """A model by its file, or by name or folder of its training in ``out``; ``ConfigError`` if there is none."""
    given = Path(name)
    if given.is_file() and given.suffix == ".safetensors":
        path = given
    else:
        path = (given if (given / MODEL).is_file() else find_run(name, out)) / MODEL
    if not path.is_file():
        raise ConfigError([f"{name}: {path.parent} holds no {MODEL}; name a full training that has ended, or the file"])
    params = read(path.parent / JOURNAL).sweep.get("params", {})
    return TrainedModel(path, model_hash(path), params.get("data"), params.get("image_size"))


def find_prior(name: str, out: Path) -> TrainedModel:
    """The model beside a prior, by name or folder of the prior's run; ``ConfigError`` if there is none."""
    found = find_model(name, out)
    if not (found.folder / PRIOR).is_file():
        train = command_line("trainables.prior", name)
        raise ConfigError([f"{name}: {found.folder} holds no {PRIOR}; name a prior's run, or train one with {train}"])
    return found
