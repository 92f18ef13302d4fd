"""Flags that several commands about one model have, with the same names and meanings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from trainables.device import device_problems
from trainables.runs import NAME, usable_cpus
from trainables.tracking import accept, default_uri
from vqcore.errors import problems_of


@dataclass(frozen=True, kw_only=True)
class CommonFlags:
    """Where runs are, and where the command computes."""

    out: Path = Path("runs")
    """Folder of all runs."""
    num_gpus: int | None = None
    """1 or 0; a GPU if there is one unless given."""
    num_cpus: int | None = None
    """Threads on the CPU; all there are unless given."""


@dataclass(frozen=True, kw_only=True)
class ModelFlags(CommonFlags):
    """Of a command that uses a trained model on a data set."""

    model: Annotated[str, tyro.conf.Positional]
    """A full training by name or folder, or its model.safetensors."""
    data: str | None = None
    """Data set; the one that the model was trained on unless given."""


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(CommonFlags):
    """Of a command that trains one thing, as a run of its own in <out>."""

    name: str | None = None
    """Name of the run, a folder in <out>/<kind>; made from what is trained unless given."""
    tracking_uri: str | None = None
    """MLflow: a server's URL or sqlite:///file; <out>/mlflow.db unless given."""

    @property
    def uri(self) -> str:
        """Of MLflow."""
        return self.tracking_uri or default_uri(self.out)

    @property
    def booking(self) -> tuple[float, float]:
        """CPUs and GPUs."""
        gpus = min(1, torch.cuda.device_count()) if self.num_gpus is None else self.num_gpus
        return float(self.num_cpus or usable_cpus()), float(gpus)

    def problems(self) -> Iterator[str]:
        """What is wrong with them, a line each."""
        yield from device_problems(self.num_cpus, self.num_gpus)
        yield from problems_of(lambda: accept(self.uri))
        if self.name is not None and not NAME.fullmatch(self.name):
            yield f"--name {self.name!r}: must be a plain name, without path separators"
