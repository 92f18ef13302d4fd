"""What a sweep was asked to do, checked whole before its first trial."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.engine.checks import Problems, check_name, checkpoints_bytes
from sweeps.engine.resources import Available, Booking, book, this_machine
from sweeps.engine.spec import SweepSpec
from trainables.checkpoint import INDEX, check_space
from trainables.data import DataSet, prepare
from trainables.journal import RunRecord, read
from trainables.runs import JOURNAL
from trainables.tracking import accept
from trainables.trial import TrialJob
from vqcore.config import ConfigError, Scalar, TrialConfig

INLINE = "inline"
"""The ``address`` that means this process, without Ray."""

PROBE_SECONDS = 5.0
"""How long an address may take to answer at all."""


@dataclass(frozen=True)
class Request:
    """The meaning of each field is that of the flag of its name."""

    sweep: str
    base: Callable[[], TrialConfig]
    """What the trials share; may raise ``ConfigError``."""
    space: Mapping[str, tuple[Scalar, ...]]
    seeds: int
    data: str
    image_size: int | None
    num_gpus: int | None
    trials_per_gpu: float
    num_cpus: int | None
    address: str | None
    name: str
    out: Path
    storage: Path | None
    tracking_uri: str
    resume: bool
    flags: Mapping[str, Any]
    """What ``sweep.toml`` keeps for a resume."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out / self.sweep / self.name

    @property
    def trials_folder(self) -> Path:
        """Where the trials keep their files."""
        return (self.storage / self.sweep / self.name if self.storage else self.folder) / "trials"


@dataclass(frozen=True)
class Ready:
    """A request in which nothing is wrong."""

    request: Request
    spec: SweepSpec
    configs: tuple[TrialConfig, ...]
    data: DataSet
    booking: Booking

    def jobs(self, known: RunRecord) -> list[TrialJob]:
        """A job for each configuration, in order; those that the run knows keep their numbers."""
        trials, booking = self.request.trials_folder.absolute(), self.booking
        free = iter(range(len(known.trials), len(known.trials) + len(self.configs)))
        jobs = []
        for config in self.configs:
            key = config.key(self.data.hash)
            number = known.trials[key].number if key in known.trials else next(free)
            jobs.append(TrialJob(key, number, config, self.data, trials / key, booking.cpus, booking.gpus))
        return jobs


def check_request(request: Request) -> Ready:
    """Everything that can be wrong, before the first trial. Raises one ``ConfigError`` with all of it."""
    problems = Problems()
    base = problems.of(request.base)
    spec = SweepSpec(request.sweep, base or TrialConfig(), request.space, request.seeds)
    configs = problems.of(spec.configs)
    data = problems.of(lambda: _data(request))
    booking = problems.of(lambda: _booking(request))
    if not request.resume:
        problems.of(lambda: check_name(request.name, request.out / request.sweep))
    problems.of(lambda: accept(request.tracking_uri))
    if booking and configs and data:
        new = [c for c in configs if not (request.trials_folder / c.key(data.hash) / INDEX).exists()]
        needed = checkpoints_bytes(tuple(new), booking.slots)
        problems.of(lambda: check_space(request.trials_folder, needed))
    problems.raise_any()
    assert configs is not None
    assert data is not None
    assert booking is not None
    return Ready(request, spec, configs, data, booking)


def _data(request: Request) -> DataSet:
    data = prepare(request.data, request.image_size)
    before = read(request.folder / JOURNAL).sweep.get("params", {}).get("data_hash") if request.resume else None
    if before not in (None, data.hash):
        raise ConfigError(
            [
                f"--data {request.data}: its images are not those that run {request.name} began with "
                f"(content {data.hash}, then {before}); a run keeps its data: put the images back, or start a new run"
            ]
        )
    return data


def _booking(request: Request) -> Booking:
    joins = request.address not in (None, INLINE)
    available = _join(request) if joins else this_machine()
    booking = book(available, request.num_gpus, request.trials_per_gpu, request.num_cpus)
    return replace(booking, slots=1) if request.address == INLINE else booking


def _join(request: Request) -> Available:
    """Connect to the cluster at ``address``. ``ConfigError`` if none answers, or its nodes share no storage."""
    assert request.address is not None
    _probe(request.address)
    from sweeps.engine.runner import connect, node_count

    try:
        available = connect(request.address, 0, 0)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigError([f"--address {request.address}: no Ray cluster can be joined there ({words})"]) from error
    if node_count() > 1 and request.storage is None:
        raise ConfigError(
            [
                f"--address {request.address}: trials move between its {node_count()} nodes, so their checkpoints "
                "must lie where every node reaches them; add --storage with a shared folder"
            ]
        )
    return available


def _probe(address: str) -> None:
    """``ConfigError`` at once where nothing listens: Ray itself tries for minutes, talking all the while."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        if address == "auto":
            return
        raise ConfigError([f"--address {address}: must be host:port, auto, or {INLINE}"])
    try:
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            [
                f"--address {address}: nothing answers there ({error.strerror or error}); start a cluster with "
                "`ray start --head`, or leave the flag out to run on this machine"
            ]
        ) from error
