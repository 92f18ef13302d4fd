"""What a sweep was asked to do, checked whole before its first trial: every problem at once."""

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sweeps.engine.resources import Available, Booking, book, this_machine
from sweeps.engine.space import check_space
from sweeps.engine.spec import SweepSpec
from trainables.checkpoint import check_disk, checkpoint_bytes
from trainables.data import DataSet, prepare
from trainables.journal import latest_sweep
from trainables.runs import JOURNAL, NAME
from trainables.storage import check_storage, join
from trainables.tracking import accept
from trainables.trial import TrialJob
from vqcore.config import ConfigError, TrialConfig
from vqcore.errors import Problems

INLINE = "inline"
"""The ``address`` that means this process, without Ray."""

_SOCKET = "/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.1"
"""Of a session of Ray, below the folder for temporary files; the last number is a process id."""

PROBE_SECONDS = 5.0
"""How long an address may take to answer at all."""


@dataclass(frozen=True)
class Request:
    """The meaning of each field is that of the flag of its name."""

    sweep: str
    words: tuple[str, ...]
    """How it is started, for ``command_line``."""
    spec: Callable[[], SweepSpec]
    """What varies and how; may raise ``ConfigError``."""
    base: Callable[[], TrialConfig]
    """What the trials share; may raise ``ConfigError``."""
    data: str
    image_size: int | None
    num_gpus: int | None
    trials_per_gpu: float
    num_cpus: int | None
    address: str | None
    name: str
    out: Path
    storage: str | None
    tracking_uri: str
    resume: bool
    flags: Mapping[str, Any]
    """What ``sweep.toml`` keeps for a resume."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out / self.sweep / self.name

    @cached_property
    def trials_folder(self) -> str:
        """The location (``trainables.storage``) of the trials' files."""
        if self.storage is None:
            return str((self.folder / "trials").absolute())
        return join(self.storage, self.sweep, self.name, "trials")


@dataclass(frozen=True)
class Ready:
    """A request in which nothing is wrong."""

    request: Request
    spec: SweepSpec
    configs: tuple[TrialConfig, ...]
    data: DataSet
    booking: Booking

    def job(self, config: TrialConfig, number: int) -> TrialJob:
        """``config`` as trial ``number`` of this run."""
        key = config.key(self.data.hash)
        folder = join(self.request.trials_folder, key)
        collapse = self.spec.search.collapse if self.spec.search else None
        return TrialJob(key, number, config, self.data, folder, self.booking.cpus, self.booking.gpus, collapse)


def check_request(request: Request) -> Ready:
    """Everything that can be wrong, before the first trial. Raises one ``ConfigError`` with all of it."""
    problems = Problems()
    base = problems.of(request.base)
    spec = replace(problems.of(request.spec) or SweepSpec(), sweep=request.sweep, base=base or TrialConfig())
    begun = (problems.of(lambda: latest_sweep(request.folder / JOURNAL)) if request.resume else None) or {}
    configs = problems.of(spec.configs)
    if spec.search is not None:
        problems.of(lambda: check_space(spec.space, spec.base))
    if spec.drawn:
        problems.of(lambda: [stratum.sampler() for stratum in spec.strata.values()])
    data = problems.of(lambda: prepare(request.data, request.image_size))
    if data is not None:
        models = dict.fromkeys(config.model for config in (spec.base, *(configs or ())))
        problems.add(*(line for model in models for line in model.size_problems(data.image_size)))
    booking = problems.of(lambda: _booking(request))
    problems.of(lambda: accept(request.tracking_uri))
    if request.storage is not None:
        problems.of(partial(check_storage, request.storage))
    if booking and configs is not None:
        problems.of(lambda: _check_room(request, spec, configs, booking.slots))
    problems.add(*_name_problems(request), *_changes(request, spec, data, begun))
    problems.raise_any()
    assert configs is not None
    assert data is not None
    assert booking is not None
    return Ready(request, spec, configs, data, booking)


def _name_problems(request: Request) -> Iterator[str]:
    """The run's name and its folders: what cannot be one, what no record can hold, what Ray cannot use."""
    name, folder = request.name, request.folder
    if not request.resume and (not NAME.fullmatch(name) or name == "latest"):
        yield (
            f"--name {name!r}: must be letters, digits, '.', '_' and '-', starting with a letter or digit, 100 at "
            "most, without path separators and not 'latest'; --out chooses the folder"
        )
    elif not request.resume and (journal := folder / JOURNAL).exists() and journal.stat().st_size:
        yield f"--name {name}: that run exists; --resume {name} goes on with it, or choose another name"
    folders = {"--out": str(request.out.absolute()), "--data": request.data, "--storage": request.storage}
    names = {**folders, "--tracking-uri": request.tracking_uri, "python -m": " ".join(request.words)}
    for flag, value in names.items():
        if value is not None and value != value.encode(errors="ignore").decode():
            yield f"{flag} {value!r}: has a name that is not UTF-8, which no record can hold; rename it"
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    longest = (104 if sys.platform == "darwin" else 108) - 1 - len(_SOCKET)
    if request.address is None and len(os.environ.get(variable, "").encode(errors="ignore")) > longest:
        yield (
            f"{variable}={os.environ[variable]}: is too long for the sockets that Ray makes there, {longest} bytes at "
            "most; set RAY_TMPDIR to a short folder of this machine, such as RAY_TMPDIR=/tmp"
        )


def _changes(request: Request, spec: SweepSpec, data: DataSet | None, begun: Mapping[str, Any]) -> Iterator[str]:
    """What a resumed run has no longer as it began: its checkpoints, its images, the space that it searches."""
    link = request.folder / "trials"
    if request.resume and request.storage and link.is_symlink() and not link.exists():
        yield (
            f"--storage {request.storage}: holds no files of run {request.name} now; mount it as it was, or remove "
            f"{link} if they are gone for good, and what they held is trained again"
        )
    content = begun.get("params", {}).get("data_hash")
    if data is not None and content not in (None, data.hash):
        yield (
            f"--data {request.data}: its images are not those that run {request.name} began with "
            f"(content {data.hash}, then {content}); a run keeps its data: put the images back, or start a new run"
        )
    now = spec.tables()
    before = begun.get("toml", {}).get("space", now) if spec.search is not None else now
    for name in {**before, **now}:
        if before.get(name) != now.get(name):  # what the search learnt and stopped was of the old one
            yield (
                f"{name}: run {request.name} searches {before.get(name, 'nothing')}, now it would be "
                f"{now.get(name, 'nothing')}; put it back, or start a new run with --warm-start {request.name}"
            )


def checkpoints_bytes(configs: tuple[TrialConfig, ...], slots: int, early: bool = False) -> int:
    """Disk that the checkpoints of a sweep take at most.

    One a trial that has ended; two a trial that has not, of which there are twice the slots in a grid's last turns and
    any number with ``early`` stopping; and a third in each slot, while it is written.
    """
    sizes = sorted((checkpoint_bytes(config) for config in configs), reverse=True)
    unended = len(sizes) if early else 2 * slots
    return sum(sizes) + sum(sizes[:unended]) + sum(sizes[:slots])


def _check_room(request: Request, spec: SweepSpec, configs: tuple[TrialConfig, ...], slots: int) -> None:
    if spec.drawn:  # the largest that may be drawn, each time
        configs = (max(spec.corners(), key=checkpoint_bytes, default=spec.base),) * spec.drawn_trials
    early = spec.search is not None and spec.search.rule is not None
    check_disk(request.trials_folder, checkpoints_bytes(configs, slots, early))


def _booking(request: Request) -> Booking:
    joins = request.address not in (None, INLINE)
    available = _join(request) if joins else this_machine()
    booking = book(available, request.num_gpus, request.trials_per_gpu, request.num_cpus)
    return replace(booking, slots=1) if request.address == INLINE else booking


def _join(request: Request) -> Available:
    """Connect to the cluster at ``address``. ``ConfigError`` if none answers, or its nodes share no storage."""
    assert request.address is not None
    _probe(request.address)
    from sweeps.engine.ray_cluster import join

    available = join(request.address)
    if request.storage is None:  # also where there is one node: others may join
        raise ConfigError(
            [
                f"--address {request.address}: trials move between the nodes of a cluster, so their checkpoints must "
                "lie where every node reaches them; add --storage with a shared folder or s3://bucket/prefix"
            ]
        )
    return available


def _probe(address: str) -> None:
    """``ConfigError`` at once where nothing listens: Ray itself tries for minutes, talking all the while."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:  # ray:// would move this very process's work to the cluster
        if address == "auto":
            return
        raise ConfigError([f"--address {address}: must be host:port of a head node (6379 there), auto, or {INLINE}"])
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            [
                f"--address {address}: nothing answers there ({error.strerror or error}); start a cluster with "
                "`ray start --head`, or leave the flag out to run on this machine"
            ]
        ) from error
