"""One run of a sweep, checked before: run, analysed, its findings said."""

import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from filelock import FileLock, Timeout
from rich.console import Console
from rich.text import Text

from analysis.report import analyse
from sweeps.engine.inline import describe, run_inline
from sweeps.engine.progress import Screen
from sweeps.engine.provenance import provenance
from sweeps.engine.request import INLINE, Ready
from sweeps.engine.slices import Slices
from trainables.machine import command_line
from trainables.recorder import Recorder
from trainables.tracking import Tracker, check, default_uri, sync_command
from trainables.trial import TrialJob
from vqcore.config import ConfigError, write_toml

INTERRUPTED = 130
"""Exit code after Ctrl-C: the run can be resumed."""


def run_session(ready: Ready, console: Console) -> int:
    """Run what is not finished yet, analyse, say what was found. One driver a run at a time.

    The exit code: 0; 1 if no trial completed or the machinery failed; 130 after Ctrl-C.
    """
    folder = ready.request.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0), _one_ctrl_c():
            return _run(ready, console)
    except Timeout:
        raise ConfigError([f"{folder}: another driver is at work on this run; wait for it, or end it"]) from None


@contextmanager
def _one_ctrl_c() -> Iterator[None]:
    """The first Ctrl-C raises ``KeyboardInterrupt``; the next ones must not cut off the record of the first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _run(ready: Ready, console: Console) -> int:
    recorder = Recorder(ready.request.folder)
    tracker = Tracker(ready.request.folder, ready.request.tracking_uri)
    slices, problem = Slices(ready.booking.slots), ""
    try:
        _record_sweep(ready, recorder)
        jobs = ready.jobs(recorder.run)
        slices.add((job, recorder.last_epoch(job.key)) for job in jobs if not _finished(recorder, job))
        _greet(ready, console, nothing=slices.finished)
        if not slices.finished:
            _train(ready, jobs, slices, recorder, tracker, console)
    except KeyboardInterrupt:
        console.print("Stopping; everything recorded is kept.")
        return _finish(ready, recorder, tracker, console, INTERRUPTED)
    except Exception as error:  # Ray lost, its folder full: the run can go on later, and must say so
        problem = describe(error)
        console.print(Text(f"The sweep cannot go on: {problem}", style="red"))
    completed = any(trial.status == "completed" for trial in recorder.run.trials.values())
    return _finish(ready, recorder, tracker, console, 1 if problem or not completed else 0)


def _train(
    ready: Ready, jobs: list[TrialJob], slices: Slices, recorder: Recorder, tracker: Tracker, console: Console
) -> None:
    screen = Screen(console, recorder.run, jobs, ready.spec.swept, ready.booking.slots)
    recorder.listeners.append(screen)
    if ready.request.address == INLINE:
        tracker.start()
        with screen:
            run_inline(slices, recorder)
        return
    # before the tracker's thread imports mlflow: two large imports at once get in each other's way
    from sweeps.engine.runner import connect, disconnect, run_on_ray

    tracker.start()
    try:
        if not ready.request.address:
            booking = ready.booking
            connect(None, max(1, round(booking.slots * booking.cpus)), round(booking.slots * booking.gpus))
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
    space = {name: list(values) for name, values in ready.spec.space.items()}
    params = {
        "data": data.source,
        "data_hash": data.hash,
        "image_size": data.image_size,
        "train_images": data.train_images,
        "test_images": data.test_images,
        "seeds": request.seeds,
        "epochs": ready.spec.base.training.epochs,
        **space,
    }
    tables = {
        "sweep": {"sweep": request.sweep, "name": request.name, "id": identity},
        "space": space,
        "base": ready.spec.base.toml(),
        "provenance": facts,
        "flags": dict(request.flags),
    }
    write_toml(request.folder / "sweep.toml", tables, header="This run, as it was last started.")
    link = request.folder / "trials"
    if request.storage is not None and not link.is_symlink():
        request.trials_folder.mkdir(parents=True, exist_ok=True)
        link.symlink_to(request.trials_folder.absolute())
    keys = {config.key(data.hash) for config in ready.configs} | recorder.run.trials.keys()
    recorder.write(
        "sweep",
        sweep=request.sweep,
        name=request.name,
        id=identity,
        swept=list(ready.spec.swept),
        trials=len(keys),
        epochs=ready.spec.base.training.epochs,
        tags=facts,
        params=params,
    )


def _greet(ready: Ready, console: Console, nothing: bool) -> None:
    request, data, booking = ready.request, ready.data, ready.booking
    if nothing:
        console.print(f"{request.folder}: all {len(ready.configs)} trials have ended already; nothing to train.")
        return
    share = f"{booking.gpus:g} GPU" if booking.gpus else f"{booking.cpus:g} CPU"
    epochs, slots = ready.spec.base.training.epochs, min(booking.slots, len(ready.configs))
    console.print(
        f"{request.sweep}: {len(ready.configs)} trials, epochs: {epochs}, on {data.source} "
        f"({data.train_images:,} images), {slots} at once on {share} each. Run {request.folder}"
    )
    if warning := check(request.tracking_uri):
        console.print(Text(f"MLflow: {warning}. The sweep goes on; what is missing is sent later.", style="yellow"))


def _finish(ready: Ready, recorder: Recorder, tracker: Tracker, console: Console, code: int) -> int:
    """Make what is made of a run, record how it ended, say what was found; gives ``code`` back."""
    ended = code != INTERRUPTED and all(trial.status != "running" for trial in recorder.run.trials.values())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        findings = analyse(ready.request.folder)
    finally:  # an error in a picture must not make a finished run look killed
        recorder.write("done" if ended else "pause")
        recorder.close()
    console.print()
    console.print(findings.renderable())
    # nobody waits long for a server that has been failing, or after Ctrl-C: what is missing can be sent later
    sent = tracker.close(timeout=5 if tracker.problem or not ended else 60)
    _say_next(ready, tracker, console, ended, sent)
    return code


def _say_next(ready: Ready, tracker: Tracker, console: Console, ended: bool, sent: bool) -> None:
    request, lines = ready.request, []
    knee = request.folder / "exports" / "knee.toml"
    if not ended:
        again = command_line(f"sweeps.{request.sweep}", "--resume", request.folder)
        lines.append(("go on with", again))
    elif knee.exists():
        lines.append(("train the best", command_line("trainables.final", knee, "--epochs", 100)))
    if not sent:
        console.print(Text(f"MLflow is behind: {tracker.problem or 'it is slow'}", style="yellow"))
        lines.append(("tell MLflow", sync_command(request.folder, request.tracking_uri)))
    elif request.tracking_uri == default_uri(request.out):
        elsewhere = "" if str(request.out) == "runs" else f" RUNS={request.out}"
        lines.append(("browse", f"make ui{elsewhere}"))
    if lines:
        console.print("Next:")
    for what, how in lines:
        # soft_wrap: a command that the terminal breaks cannot be copied
        console.print(Text(f"  {what + ':':<16}{how}"), soft_wrap=True)
