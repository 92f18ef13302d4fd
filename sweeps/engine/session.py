"""One run of a sweep: checked whole, run, analysed, its findings said."""

import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.text import Text

from sweeps.engine.checks import Problems, check_name, check_space, checkpoints_bytes
from sweeps.engine.inline import run_inline
from sweeps.engine.progress import Screen, clock
from sweeps.engine.provenance import provenance
from sweeps.engine.resources import Available, Booking, book, this_machine
from sweeps.engine.slices import Slices
from sweeps.engine.spec import SweepSpec
from trainables.recorder import Recorder
from trainables.tracking import Tracker, accept, check, sync_command
from trainables.trial import TrialJob
from vqcore.config import ConfigError, Scalar, TrialConfig, write_toml
from vqcore.data import DataSet, prepare

INTERRUPTED = 130
"""Exit code after Ctrl-C: the run can be resumed."""

INLINE = "inline"
"""The ``address`` that means this process, without Ray."""


@dataclass(frozen=True)
class Request:
    """What a sweep was asked to do; the meaning of each field is that of the flag of its name."""

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

    def jobs(self) -> list[TrialJob]:
        """A job for each configuration, in order."""
        trials, booking = self.request.trials_folder.absolute(), self.booking
        keyed = [(config.key(self.data.hash), config) for config in self.configs]
        return [
            TrialJob(key, number, config, self.data, trials / key, booking.cpus, booking.gpus)
            for number, (key, config) in enumerate(keyed)
        ]


def check_request(request: Request) -> Ready:
    """Everything that can be wrong, before the first trial. Raises one ``ConfigError`` with all of it."""
    problems = Problems()
    base = problems.of(request.base)
    spec = SweepSpec(request.sweep, base or TrialConfig(), request.space, request.seeds)
    configs = problems.of(spec.configs)
    data = problems.of(lambda: prepare(request.data, request.image_size))
    booking = problems.of(lambda: _booking(request))
    if not request.resume:
        problems.of(lambda: check_name(request.name, request.out / request.sweep))
    problems.of(lambda: accept(request.tracking_uri))
    if booking and configs and not request.resume:
        needed = checkpoints_bytes(configs, booking.slots)
        problems.of(lambda: check_space(request.trials_folder, needed))
    problems.raise_any()
    assert configs is not None
    assert data is not None
    assert booking is not None
    return Ready(request, spec, configs, data, booking)


def _booking(request: Request) -> Booking:
    joins = request.address not in (None, INLINE)
    available = _connect(request, None) if joins else this_machine()
    booking = book(available, request.num_gpus, request.trials_per_gpu, request.num_cpus)
    return replace(booking, slots=1) if request.address == INLINE else booking


def _connect(request: Request, booking: Booking | None) -> Available:
    """Join the cluster at ``address``, or start Ray here with what ``booking`` needs."""
    from sweeps.engine.runner import connect

    if booking is None:
        return connect(request.address, 0, 0)
    return connect(None, max(1, round(booking.slots * booking.cpus)), round(booking.slots * booking.gpus))


def run_session(ready: Ready, console: Console) -> int:
    """Run what is not finished yet, analyse, say what was found; the exit code. One driver a run at a time."""
    folder = ready.request.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            return _run(ready, console)
    except Timeout:
        raise ConfigError([f"{folder}: another driver is at work on this run; wait for it, or end it"]) from None


def _run(ready: Ready, console: Console) -> int:
    request, booking, jobs = ready.request, ready.booking, ready.jobs()
    recorder = Recorder(request.folder)
    tracker = Tracker(request.folder, request.tracking_uri)
    if request.address != INLINE:
        # before the tracker's thread imports mlflow: two large imports at once get in each other's way
        import sweeps.engine.runner  # noqa: F401
    slices = Slices(booking.slots)
    slices.add((job, recorder.last_epoch(job.key)) for job in jobs if not _finished(recorder, job))
    if slices.finished:
        console.print(f"{request.folder}: all {len(jobs)} trials have ended already; nothing to train.")
    _record_sweep(ready, recorder)
    tracker.start()
    screen = Screen(console, recorder.run, jobs, ready.spec.swept, booking.slots)
    recorder.listeners.append(screen)
    _greet(ready, console)
    interrupted = False
    try:
        if not slices.finished:
            _train(ready, slices, recorder, screen)
    except KeyboardInterrupt:
        interrupted = True
    return _finish(ready, recorder, tracker, console, interrupted or not slices.finished)


def _train(ready: Ready, slices: Slices, recorder: Recorder, screen: Screen) -> None:
    if ready.request.address == INLINE:
        with screen:
            run_inline(slices, recorder)
        return
    from sweeps.engine.runner import disconnect, run_on_ray

    try:
        if not ready.request.address:
            _connect(ready.request, ready.booking)
        with screen:
            run_on_ray(slices, recorder, ready.booking)
    finally:
        disconnect()


def _finished(recorder: Recorder, job: TrialJob) -> bool:
    known = recorder.run.trials.get(job.key)
    return known is not None and known.finished(job.config.training.epochs)


def _record_sweep(ready: Ready, recorder: Recorder) -> None:
    """``sweep.toml``, and the ``sweep`` event; a resumed run keeps its id."""
    request, data, facts = ready.request, ready.data, provenance()
    facts |= {"data": data.source, "data_hash": data.hash}
    identity = recorder.run.sweep.get("id") or uuid.uuid4().hex
    params = {
        "data": data.source,
        "data_hash": data.hash,
        "image_size": data.image_size,
        "train_images": data.train_images,
        "test_images": data.test_images,
        "seeds": request.seeds,
        "epochs": ready.spec.base.training.epochs,
        **{name: list(values) for name, values in ready.spec.space.items()},
    }
    tables = {
        "sweep": {"sweep": request.sweep, "name": request.name, "id": identity},
        "space": {name: list(values) for name, values in ready.spec.space.items()},
        "base": ready.spec.base.toml(),
        "provenance": facts,
        "flags": dict(request.flags),
    }
    write_toml(request.folder / "sweep.toml", tables, header="This run, as it was last started.")
    if request.storage is not None and not (request.folder / "trials").exists():
        request.trials_folder.mkdir(parents=True, exist_ok=True)
        (request.folder / "trials").symlink_to(request.trials_folder.absolute())
    recorder.write(
        "sweep",
        sweep=request.sweep,
        name=request.name,
        id=identity,
        swept=list(ready.spec.swept),
        trials=len(ready.configs),
        epochs=ready.spec.base.training.epochs,
        tags=facts,
        params=params,
    )


def _greet(ready: Ready, console: Console) -> None:
    request, data, booking = ready.request, ready.data, ready.booking
    share = f"{booking.gpus:g} GPU" if booking.gpus else f"{booking.cpus:g} CPU"
    console.print(
        f"{request.sweep}: {len(ready.configs)} trials of {ready.spec.base.training.epochs} epochs on {data.source} "
        f"({data.train_images:,} images), {booking.slots} at once on {share} each. Run {request.folder}"
    )
    if warning := check(request.tracking_uri):
        console.print(Text(f"MLflow: {warning}. The sweep goes on; what is missing is sent later.", style="yellow"))


def _finish(ready: Ready, recorder: Recorder, tracker: Tracker, console: Console, interrupted: bool) -> int:
    # a second Ctrl-C must not cut off the record of the first
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        from analysis.report import analyse

        try:
            findings = analyse(ready.request.folder)
        finally:  # an error in a picture must not make a finished run look killed
            recorder.write("pause" if interrupted else "done")
            recorder.close()
        console.print()
        console.print(findings.renderable())
        _say_next(ready, tracker, console, interrupted)
    finally:
        signal.signal(signal.SIGINT, previous)
    return INTERRUPTED if interrupted else 0


def _say_next(ready: Ready, tracker: Tracker, console: Console, interrupted: bool) -> None:
    request, started = ready.request, time.monotonic()
    # nobody waits long for a server that has been failing, or after Ctrl-C: what is missing can be sent later
    sent = tracker.close(timeout=5 if interrupted or tracker.problem else 60)
    lines = []
    if interrupted:
        lines.append(("go on with", f"python -m sweeps.{request.sweep} --resume {request.name}"))
    else:
        lines.append(("train the best", f"python -m trainables.final {request.folder}/exports/knee.toml --epochs 100"))
    if sent:
        lines.append(("browse", "make ui"))
    else:
        waited = clock(time.monotonic() - started)
        console.print(Text(f"MLflow is behind after {waited}: {tracker.problem or 'it is slow'}", style="yellow"))
        lines.append(("tell MLflow", sync_command(request.folder, request.tracking_uri)))
    console.print("Next:")
    for what, how in lines:
        # soft_wrap: a command that the terminal breaks cannot be copied
        console.print(Text(f"  {what + ':':<16}{how}"), soft_wrap=True)
