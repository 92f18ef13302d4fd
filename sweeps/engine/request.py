"""The request for a sweep, checked whole before its first trial: every problem at once."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from analysis.layout import counted
from sweeps.engine.resources import Available, Booking, book, this_machine
from sweeps.engine.searcher import samplers
from sweeps.engine.sharing import Sharing, most_useful, share_gpu
from sweeps.engine.space import check_space, corners, resolve
from sweeps.engine.spec import SweepSpec
from sweeps.engine.stopping import LEAST_TRIALS, FreezeThaw
from sweeps.flags import Flags, base_config, search_of
from trainables.data import DataSet, prepare
from trainables.journal import read
from trainables.runs import JOURNAL, NAME
from trainables.snapshots import snapshot_epochs
from trainables.storage import check_disk, check_storage, join
from trainables.tracking import accept, default_uri
from vqcore.config import ConfigError, TrialConfig
from vqcore.errors import Problems
from vqcore.sizes import state_bytes

INLINE = "inline"
"""The ``address`` that means this process, without Ray."""

MOST_TMPDIR = 103 - len("/ray/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")
"""Bytes of the folder for temporary files, for Ray makes sockets below it and their path may have 103 (on macOS)."""


@dataclass(frozen=True)
class SweepRequest:
    """A sweep as its command line describes it."""

    sweep: str
    """Its name, and that of the folder of its runs."""
    argv: tuple[str, ...]
    """How it is started, for ``command_line``."""
    flags: Flags
    varied: SweepSpec
    """The space of the sweep; the flags say the rest of its specification."""

    @cached_property
    def name(self) -> str:
        """The run's name."""
        return time.strftime("%Y%m%d-%H%M%S") if self.flags.name is None else self.flags.name

    @property
    def tracking_uri(self) -> str:
        """Where MLflow keeps the run."""
        return self.flags.tracking_uri or default_uri(self.flags.out)

    @property
    def on_cluster(self) -> bool:
        """Whether it runs on a Ray that is somebody else's."""
        return self.flags.address not in (None, INLINE)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.flags.out / self.sweep / self.name

    @cached_property
    def trials_folder(self) -> str:
        """The location (``trainables.storage``) of the trials' files."""
        if self.flags.storage is None:
            return str((self.folder / "trials").absolute())
        return join(self.flags.storage, self.sweep, self.name, "trials")


@dataclass(frozen=True)
class CheckedSweep:
    """A request in which nothing is wrong."""

    request: SweepRequest
    spec: SweepSpec
    configs: tuple[TrialConfig, ...]
    data: DataSet
    booking: Booking
    notes: tuple[str, ...] = ()
    """What the user is to know before the training."""
    sharing: Sharing | None = None
    """What was measured for ``--trials-per-gpu auto``."""


def check_request(request: SweepRequest, tell: Callable[[str], object]) -> CheckedSweep:
    """Everything that can be wrong, before the first trial. Raises one ``ConfigError`` with all of it.

    ``tell`` is told what then takes time: how many trials share a GPU, if that is to be measured.
    """
    problems, flags = Problems(), request.flags
    base = problems.of(lambda: base_config(flags, request.varied.space)) or TrialConfig()
    varied, seeds = request.varied, flags.seeds
    spec = problems.of(lambda: replace(varied, seeds=seeds, search=search_of(flags, varied.stratify_by))) or SweepSpec()
    spec = replace(spec, base=base)
    begun = (problems.of(lambda: read(request.folder / JOURNAL).sweep) if flags.resume else None) or {}
    configs = problems.of(spec.configs)
    if spec.drawn:
        problems.of(lambda: samplers(spec))
    elif spec.search is not None:
        problems.of(lambda: check_space(spec.space, spec.base))
    data = problems.of(lambda: prepare(flags.data, flags.image_size))
    if data is not None:
        models = dict.fromkeys(config.model for config in (spec.base, *(configs or ())))
        problems.add(*(line for model in models for line in model.size_problems(data.image_size)))
    available = problems.of(lambda: _available(request))
    booking = problems.of(lambda: _booking(request, available)) if available else None
    problems.of(lambda: accept(request.tracking_uri))
    problems.of(lambda: snapshot_epochs(flags.snapshots, flags.snapshot_epochs, flags.epochs))
    if flags.storage is not None:
        problems.of(partial(check_storage, flags.storage))
    if booking and configs is not None:
        problems.of(lambda: check_disk(request.trials_folder, checkpoints_bytes(spec, configs, booking.slots)))
    problems.add(*_name_problems(request), *_changes(request, spec, data, begun))
    problems.raise_any()
    assert configs is not None
    assert data is not None
    assert available is not None
    assert booking is not None
    spec, notes = _unstopped_if_small(spec, spec.drawn_trials or len(configs))
    checked = CheckedSweep(request, spec, configs, data, booking, (*data.notes, *notes))
    if flags.trials_per_gpu != "auto":
        return checked
    return _shared(checked, available, begun.get("toml", {}).get("sharing", {}), tell)


def _unstopped_if_small(spec: SweepSpec, trials: int) -> tuple[SweepSpec, tuple[str, ...]]:
    """Without forecasts where a sweep has too few trials to learn them from, and what to say of it."""
    if spec.search is None or not isinstance(spec.search.rule, FreezeThaw) or trials >= LEAST_TRIALS:
        return spec, ()
    few = f"{counted(trials, 'trial')}: too few to forecast from (it takes {LEAST_TRIALS}), so none is stopped early."
    return replace(spec, search=replace(spec.search, rule=None)), (few,)


def _name_problems(request: SweepRequest) -> Iterator[str]:
    """The run's name and its folders: what cannot be one, what no record can hold, what Ray cannot use."""
    name, folder, given = request.name, request.folder, request.flags
    if not given.resume and (not NAME.fullmatch(name) or name == "latest"):
        yield (
            f"--name {name!r}: must be letters, digits, '.', '_' and '-', starting with a letter or digit, 100 at "
            "most, without path separators and not 'latest'; --out chooses the folder"
        )
    elif not given.resume and (journal := folder / JOURNAL).exists() and journal.stat().st_size:
        yield f"--name {name}: that run exists; --resume {name} goes on with it, or choose another name"
    folders = {"--out": str(given.out.absolute()), "--data": given.data, "--storage": given.storage}
    names = {**folders, "--tracking-uri": request.tracking_uri, "python -m": " ".join(request.argv)}
    for flag, value in names.items():
        if value is not None and value != value.encode(errors="ignore").decode():
            yield f"{flag} {value!r}: has a name that is not UTF-8, which no record can hold; rename it"
    if request.on_cluster and given.storage is None:  # also where there is one node: others may join
        yield (
            f"--address {given.address}: trials move between the nodes of a cluster, so their checkpoints must lie "
            "where every node reaches them; add --storage with a shared folder or s3://bucket/prefix"
        )
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "TMPDIR")
    if given.address is None and len(os.environb.get(variable.encode(), b"")) > MOST_TMPDIR:
        yield (
            f"{variable}={os.environ[variable]}: is too long for the sockets that Ray makes there, {MOST_TMPDIR} bytes "
            "at most; set RAY_TMPDIR to a short folder of this machine, such as RAY_TMPDIR=/tmp"
        )


def _changes(request: SweepRequest, spec: SweepSpec, data: DataSet | None, begun: Mapping[str, Any]) -> Iterator[str]:
    """What a resumed run has no longer as it began: its checkpoints, its images, the space that it searches."""
    link, storage = request.folder / "trials", request.flags.storage
    if request.flags.resume and storage and link.is_symlink() and not link.exists():
        yield (
            f"--storage {storage}: holds no files of run {request.name} now; mount it as it was, or remove "
            f"{link} if they are gone for good, and what they held is trained again"
        )
    content = begun.get("params", {}).get("data_hash")
    if data is not None and content not in (None, data.hash):
        yield (
            f"--data {request.flags.data}: its images are not those that run {request.name} began with "
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


def checkpoints_bytes(spec: SweepSpec, configs: tuple[TrialConfig, ...], slots: int) -> int:
    """Disk that the checkpoints of a sweep take at most.

    One a trial that has ended; two a trial that has not, of which there are twice the slots in a grid's last turns and
    any number with early stopping; and a third in each slot, while it is written. All as large as the largest.
    """
    trials = spec.drawn_trials or len(configs)
    early = spec.search is not None and spec.search.rule is not None
    files = trials + (trials if early else min(trials, 2 * slots)) + min(trials, slots)
    return files * state_bytes(largest(spec, configs).model)


def largest(spec: SweepSpec, configs: tuple[TrialConfig, ...]) -> TrialConfig:
    """The configuration with the largest checkpoint, and batch, of those listed or of the corners of the space."""
    found = list(configs)
    for changes in () if configs else corners(spec.space):
        with suppress(ConfigError):
            found.append(resolve(spec.base, changes))
    return max(found, key=lambda config: (state_bytes(config.model), config.training.batch_size), default=spec.base)


def _available(request: SweepRequest) -> Available:
    if not request.on_cluster:
        return this_machine()
    from sweeps.engine.ray_cluster import join

    return join(str(request.flags.address))


def _booking(request: SweepRequest, available: Available, packed: float = 1) -> Booking:
    """With ``--trials-per-gpu auto``, of ``packed`` trials."""
    flags, per_gpu = request.flags, request.flags.trials_per_gpu
    booking = book(available, flags.num_gpus, packed if per_gpu == "auto" else per_gpu, flags.num_cpus, flags.pack)
    if per_gpu == "auto" and booking.gpus and request.on_cluster:
        rule = f"measures a GPU of this machine, and the trials run on {available.where}"
        raise ConfigError([f"--trials-per-gpu auto: {rule}; give a number, such as --trials-per-gpu 4"])
    if per_gpu == "auto" and flags.pack > 1:
        rule = f"measures trials in processes of their own, and --pack {flags.pack} trains them in one"
        raise ConfigError([f"--trials-per-gpu auto: {rule}; give a number, such as --trials-per-gpu 1"])
    return replace(booking, slots=booking.pack) if flags.address == INLINE else booking


def _shared(
    checked: CheckedSweep, available: Available, before: Mapping[str, Any], tell: Callable[[str], object]
) -> CheckedSweep:
    """With as many trials a GPU as a measurement finds best."""
    request, spec, configs, flag = checked.request, checked.spec, checked.configs, "--trials-per-gpu auto"
    if request.flags.address == INLINE or not checked.booking.gpus or available.gpu is None:
        why = "one trial at a time in this process" if request.flags.address == INLINE else "the trials train on CPUs"
        return replace(checked, notes=(*checked.notes, f"{flag}: nothing to measure, {why}."))
    cpus = available.cpus if request.flags.num_cpus is None else request.flags.num_cpus
    limit = most_useful(spec.drawn_trials or len(configs), cpus, checked.booking.slots)
    sharing = share_gpu(largest(spec, configs), checked.data, available.gpu, limit, before, tell)
    booking = _booking(request, available, sharing.trials_per_gpu)
    check_disk(request.trials_folder, checkpoints_bytes(spec, configs, booking.slots))
    note = f"{flag}: {sharing.trials_per_gpu}, since {sharing.reason}."
    return replace(checked, booking=booking, sharing=sharing, notes=(*checked.notes, note))
