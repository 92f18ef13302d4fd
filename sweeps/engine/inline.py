"""The runner's contract in process, one trial at a time: what tests use, and machines without Ray."""

import traceback
from collections.abc import Callable

from sweeps.engine.slices import Slice, Slices
from trainables.errors import FatalRunError
from trainables.recorder import Recorder
from trainables.trial import run_trial


def run_inline(slices: Slices, recorder: Recorder, asked: Callable[[], bool] = lambda: False) -> None:
    """Run until every trial has ended, or to the end of the epoch in which it is ``asked`` to stop.

    An error ends its trial as ``failed``. ``KeyboardInterrupt``, and what no other trial could do better with (a full
    disk), pass through.
    """
    while (piece := slices.next()) is not None:
        job, error = piece.job, None
        events = None
        while True:
            try:
                events = events or run_trial(job, piece.until, recorder.run.known(job.key))
                event = next(events, None)
            except FatalRunError:
                raise
            except Exception as problem:
                error, event = describe(problem), None
            if event is None:
                break
            recorder.told(job, event)
            if asked():
                slices.halted = True
                return
        slice_over(slices, recorder, piece, error)


def slice_over(slices: Slices, recorder: Recorder, piece: Slice, error: str | None) -> None:
    """Record how a slice ended, and where its trial waits if it now does."""
    job = piece.job
    recorder.slice_over(job, piece.until, error)
    trial = recorder.run.trials[job.key]
    metrics = trial.epochs.get(trial.last_epoch, {})
    if slices.returned(job.key, trial.last_epoch, trial.status != "running", metrics):
        recorder.waits(job)


def describe(error: BaseException) -> str:
    """An error in one line: type, words, and the line of code that raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({frame[0].filename.rsplit('/', 1)[-1]}:{frame[0].lineno})" if frame else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
