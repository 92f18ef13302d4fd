"""What a driver and a trial's process tell each other: the job, then a report a step. It needs no torch."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from trainables.data import DataSet
from vqcore.config import Scalar, TrialConfig

CUDA_CONTEXT = 768 * 2**20
"""Bytes of a GPU that a process takes beside its tensors, estimated from above: CUDA's context, and the kernels that
torch, cuDNN and cuBLAS load into it. Of contexts alone people report 256 to 616 MiB (torch 2.7 to 2.10, an RTX 3090 to
cards of data centres); ``--trials-per-gpu auto`` shows what it is on a machine."""


@dataclass(frozen=True)
class Collapse:
    """When a codebook counts as collapsed: its usage on the test set was below ``usage`` after ``epochs`` in a row."""

    usage: float
    """Share of the codes, 0 to 1."""
    epochs: int = 3

    def reason(self, history: list[dict[str, Any]]) -> str:
        """Why the trial of these epoch events is stopped, in words; empty if it is not."""
        latest = history[-self.epochs :]
        if len(latest) < self.epochs or any(event["metrics"]["usage"] >= self.usage for event in latest):
            return ""
        used = latest[-1]["metrics"]["usage"]
        return f"collapsed: usage {used:.1%}, under {self.usage:.1%} for {self.epochs} epochs"


Rate = Literal["unigram", "learned"]
"""The last of the rates that a trial reports: of a unigram code, after each epoch; of a learned prior, after the last
one as well, since it takes a training of its own."""


class Described(Protocol):
    """A configuration, of whatever is trained."""

    def flat(self) -> dict[str, Scalar]:
        """Every field under its own name."""


class Job(Protocol):
    """A training to run: what, where its files go, and what was booked for it."""

    @property
    def key(self) -> str:
        """Names it among others."""

    @property
    def number(self) -> int:
        """Its place in the run."""

    @property
    def config(self) -> Described:
        """What is trained, and how."""

    @property
    def folder(self) -> str:
        """Where its checkpoints lie."""

    @property
    def cpus(self) -> float:
        """Threads."""

    @property
    def gpus(self) -> float:
        """Share of a GPU, or number of GPUs; 0 trains on the CPU."""


@dataclass(frozen=True)
class TrialJob:
    """One trial to run: what, on which data, where its files go, and what was booked for it."""

    key: str
    number: int
    config: TrialConfig
    data: DataSet
    folder: str
    """Where its checkpoints and reconstructions lie (``storage``), in a folder that there is; on a cluster, every node
    reaches it."""
    cpus: float = 1.0
    gpus: float = 0.0
    """Share of a GPU, or number of GPUs; 0 trains on the CPU."""
    collapse: Collapse | None = None
    """Whether to stop when the codebook collapses."""
    snapshots: tuple[int, ...] = ()
    """Epochs after which a snapshot is kept (``trainables.snapshots``); 0 is before the training."""
    rate: Rate = "unigram"


@dataclass(frozen=True)
class Report:
    """What a trial reports after a step: an epoch, its end, or both."""

    epoch: int
    """Epochs that it has now; 0 before the first."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of that epoch; empty where none was trained, as in a training that diverged."""
    time: float = 0.0
    """When that epoch ended, in seconds since 1970."""
    status: str = "running"
    """``running``, or how the trial ended: ``completed``, ``stopped``, ``diverged``."""
    reason: str = ""
    """Why it ended, in words."""
    info: dict[str, Any] = field(default_factory=dict)
    """Where and with what it trains: device, precision, host, process, ..."""
    warnings: tuple[str, ...] = ()
    """What its process has logged, where that is another than the driver's."""
