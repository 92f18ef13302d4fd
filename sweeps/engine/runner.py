"""The sweep on Ray Tune: slices of trials on fractional GPUs, over one machine or a cluster.

Tune places and restarts; what runs next is decided by ``slices``, what happened is in the journal. A slice is a trial
to Tune. Actors are reused, so that torch is imported and a CUDA context made once a slot and not once a slice. Tune's
own state is not kept: a sweep is resumed from its journal and the trials' checkpoints.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeps.engine.cluster import node_count  # first: it sets what Ray and Tune read as they are imported

# isort: split

import ray
from ray import tune
from ray.air.execution._internal import actor_manager
from ray.air.execution._internal.event_manager import RayEventManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.engine.inline import describe, slice_over
from sweeps.engine.resources import Booking
from sweeps.engine.slices import Slice, Slices
from trainables.data import ensure_local
from trainables.errors import FatalRunError, one_line
from trainables.recorder import Recorder
from trainables.storage import check_seen
from trainables.trial import TrialJob, run_trial
from vqcore.config import Scalar
from vqcore.estimators import ESTIMATORS

MOST_DEATHS = 3
"""Times in a row that a trial is started again, from its checkpoint, without an epoch more than the time before."""

MOST_SLOTS = 100_000
"""Tune's own limit is out of the way: how many trials run at once is decided in ``_Bookkeeper.suggest``."""

ROOM_SECONDS = 1.0
"""Between two looks at how many trials fit on the nodes that there are."""

OUT_OF_MEMORY, HALT, AGAIN = "out of memory", "halt", "again"
"""What an actor tells beside a trial's own events: why its slice ends here."""

TrialFunction = Callable[[TrialJob, int, int], Iterator[dict[str, Any]]]


def run_on_ray(
    slices: Slices,
    recorder: Recorder,
    booking: Booking,
    trial: TrialFunction = run_trial,
    asked: Callable[[], bool] = lambda: False,
    room: Callable[[], int] | None = None,
) -> None:
    """Run until every trial has ended, or until Ctrl-C, after which trials are simply left open.

    ``trial`` is what runs in an actor; it yields events as ``run_trial`` does. Once ``asked`` to stop, each goes to the
    end of its epoch. ``room`` is how many trials fit now, where nodes join and leave; else as many as there are slots.
    Raises what ends the run and no single trial: a full disk, damaged data.
    """
    share = _share_data if node_count() > 1 or room is not None else None
    bookkeeper = _Bookkeeper(slices, recorder, share, asked, room)

    def trainable(config: dict[str, Any]) -> None:
        run_slice(trial, config)

    with tempfile.TemporaryDirectory(prefix="vqsweep-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, _share_of),
            tune_config=tune.TuneConfig(
                search_alg=_Bridge(bookkeeper),
                scheduler=_Ears(bookkeeper),
                num_samples=-1,
                max_concurrent_trials=MOST_SLOTS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=0),  # who is tried again is decided here, not there
                progress_reporter=_Silence(),
                verbose=1,
            ),
        ).fit()
    if bookkeeper.trouble is not None:
        raise bookkeeper.trouble


def run_slice(trial: TrialFunction, config: dict[str, Any]) -> None:
    """In an actor: what ``_Bookkeeper.suggest`` handed out."""
    job: TrialJob = config["job"]
    ESTIMATORS.update(config["estimators"])
    try:
        if config["arrays"] is not None:
            check_seen(job.folder)
            job = replace(job, data=ensure_local(job.data, lambda: ray.get(config["arrays"])))
        for event in trial(job, config["until"], config["known"]):
            tune.report({"told": [event]})  # in a list: Tune flattens dictionaries
    except FatalRunError as error:
        tune.report({"told": [{"event": HALT, "reason": one_line(error)}]})
    except OSError as error:  # what another process, or another node, may have
        tune.report({"told": [{"event": AGAIN, "reason": describe(error)}]})
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which a process without a GPU need not import
            raise
        tune.report({"told": [{"event": OUT_OF_MEMORY}]})


def _share_of(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([{"CPU": config["job"].cpus, "GPU": config["job"].gpus}])


def _share_data(job: TrialJob) -> Any:
    return ray.put((job.data.train(), job.data.test()))


@dataclass
class _Bookkeeper:
    """Between Tune's trial ids and our trials."""

    slices: Slices
    recorder: Recorder
    share: Callable[[TrialJob], Any] | None
    asked: Callable[[], bool]
    room: Callable[[], int] | None

    def __post_init__(self) -> None:
        self.trouble: Exception | None = None
        """Why the run, and no single trial, cannot go on."""
        self._measured = -math.inf
        self._most = MOST_SLOTS
        """Trials at once that memory has turned out to suffice for."""
        self._pieces: dict[str, Slice] = {}
        self._arrays: Any = None
        self._hungry: set[str] = set()
        """Tune's trials whose memory was exhausted."""
        self._shares: dict[Shape, float] = {}
        """Of a GPU, that trials of a shape turned out to need."""
        self._broken: dict[str, str] = {}
        """Tune's trials that broke off and may be tried again, with the reason."""
        self._deaths: dict[str, tuple[int, int]] = {}
        """By trial: the epochs it had when it last broke off, and how often it did so there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher and callbacks for a restore of its own, which we never ask for

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.halting or self.slices.finished:
            return str(Searcher.FINISHED)
        self.measure_room()
        if len(self._pieces) >= self.slices.slots:
            return None
        piece = self.slices.next()
        if piece is None:
            return None
        job = replace(piece.job, gpus=self._shares.get(_shape(piece.job), piece.job.gpus))
        self._pieces[trial_id] = replace(piece, job=job)
        if self.share is not None and self._arrays is None:
            self._arrays = self.share(job)
        known = self.recorder.run.known(job.key)
        # an estimator that the user's own module registered travels along: no worker imports that module
        return {
            "job": job,
            "until": piece.until,
            "known": known,
            "arrays": self._arrays,
            "estimators": dict(ESTIMATORS),
        }

    def measure_room(self) -> None:
        """Have as many slots as there now is room for."""
        if self.room is not None and time.monotonic() >= self._measured + ROOM_SECONDS:
            self._measured = time.monotonic()
            self.slices.slots = min(self.room(), self._most)

    @property
    def halting(self) -> bool:
        """Whether the run is to end with the epochs in progress."""
        self.slices.halted = self.slices.halted or self.asked()
        return self.slices.halted

    def told(self, trial_id: str, result: dict[str, Any]) -> None:
        if "told" not in result or trial_id not in self._pieces:
            return
        event = result["told"][0]
        if event["event"] == OUT_OF_MEMORY:
            self._hungry.add(trial_id)
        elif event["event"] == HALT:
            self.halt(FatalRunError(event["reason"]))
        elif event["event"] == AGAIN:
            self._broken[trial_id] = event["reason"]
        else:
            self.recorder.told(self._pieces[trial_id].job, event)

    def halt(self, trouble: Exception) -> None:
        """End the run with the epochs in progress."""
        self.trouble = self.trouble or trouble
        self.slices.halted = True

    def over(self, trial_id: str, error: str | None, cause: Exception | None = None) -> None:
        """A slice has ended; with ``error``, by an error of the trial's own or, as ``cause`` says, with its process."""
        if (piece := self._pieces.pop(trial_id, None)) is None or self.halting:
            return  # of a run that ends, trials are left open
        if isinstance(cause, RayActorError):
            self._broken[trial_id] = error or "the trial's process died"
        broken = self._broken.pop(trial_id, None)
        if isinstance(cause, _NoMemoryError) and self._pieces:
            # Ray ends the youngest, whoever took the memory; fewer at once, else none that begins would ever end
            self.slices.slots = self._most = min(self._most, len(self._pieces))
            self.slices.again(piece.job.key, self.recorder.run.last_epoch(piece.job.key))
        elif broken is not None:
            self._try_again(piece, broken)
        elif trial_id not in self._hungry:
            slice_over(self.slices, self.recorder, piece, error)
        elif piece.job.gpus < self._shares.setdefault(_shape(piece.job), min(1.0, 2 * piece.job.gpus)):
            self.slices.again(piece.job.key, self.recorder.run.last_epoch(piece.job.key))
        else:
            words = f"out of memory with {piece.job.gpus:g} GPU; fewer --trials-per-gpu, or a smaller --batch-size"
            slice_over(self.slices, self.recorder, piece, words)

    def _try_again(self, piece: Slice, why: str) -> None:
        """Machines die, and a trial whose machine died is not to blame; unless it kills each that it gets."""
        key, epoch = piece.job.key, self.recorder.run.last_epoch(piece.job.key)
        before, deaths = self._deaths.get(key, (epoch, 0))
        deaths = deaths + 1 if before == epoch else 1
        self._deaths[key] = (epoch, deaths)
        if deaths <= MOST_DEATHS:
            self.slices.again(key, epoch)
        else:
            words = f"broke off {deaths} times after epoch {epoch}, the last time with: {why}"
            slice_over(self.slices, self.recorder, piece, words)


Shape = tuple[Scalar, ...]


def _shape(job: TrialJob) -> Shape:
    """What a trial's memory depends on."""
    flat = job.config.flat()
    return tuple(value for name, value in flat.items() if name not in ("seed", "commitment_weight", "decay", "epochs"))


class _Bridge(Searcher):
    """Tune asks here for its next trial: gets the next slice."""

    def __init__(self, bookkeeper: _Bookkeeper) -> None:
        super().__init__()
        self._bookkeeper = bookkeeper

    def suggest(self, trial_id: str) -> Any:
        return self._bookkeeper.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: ``_Ears`` hears it too, with the error's words."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the state."""


class _Ears(FIFOScheduler):
    """Hears what happens to Tune's trials.

    A scheduler and no callback: for a callback Tune imports every logger it knows, mlflow's among them, and waits.
    """

    def __init__(self, bookkeeper: _Bookkeeper) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bookkeeper = bookkeeper

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._hear(lambda: self._bookkeeper.told(trial.trial_id, result))
        return str(FIFOScheduler.STOP if self._bookkeeper.halting else FIFOScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._hear(lambda: self._bookkeeper.over(trial.trial_id, None))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._hear(lambda: self._bookkeeper.over(trial.trial_id, _last_line(trial.error_file), _cause(trial)))

    def _hear(self, take_notice: Callable[[], None]) -> None:
        """Tune would hold the trial to blame for an error of our own: a journal that cannot be written."""
        try:
            take_notice()
        except Exception as error:
            self._bookkeeper.halt(error)


class _NoMemoryError(RayActorError):
    """Ray ended an actor's process, since its node had hardly any memory left."""

    def __init__(self) -> None:
        super().__init__(
            error_msg="its node was out of memory; fewer trials at once (--num-cpus, --trials-per-gpu), or a smaller "
            "--batch-size"
        )

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return _NoMemoryError, ()


class _Events(RayEventManager):
    """Tells Tune of such an end as of an actor's death: Ray's own error for it ends the whole of Tune."""

    def track_future(self, future: Any, on_result: Any = None, on_error: Any = None) -> None:
        def failed(error: Exception) -> None:
            on_error(_NoMemoryError() if isinstance(error, OutOfMemoryError) else error)

        super().track_future(future, on_result, on_error and failed)


actor_manager.RayEventManager = _Events  # type: ignore[attr-defined]


def _cause(trial: Any) -> Exception | None:
    """What ended a trial of Tune; a ``RayActorError`` if that was its process's end, or its node's."""
    # Tune has just written it to its own temporary folder; it is no file of the run
    path = trial.pickled_error_file
    return ray.cloudpickle.loads(Path(path).read_bytes()) if path else None


def _last_line(error_file: str | None) -> str:
    """What an error says in the end: Tune's file has the whole remote traceback before it."""
    text = Path(error_file).read_text(encoding="utf-8") if error_file and Path(error_file).exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "the trial's process died"


class _Silence(tune.ProgressReporter):
    """Tune prints nothing: the screen is ours."""

    def should_report(self, trials: list[Any], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Any], done: bool, *sys_info: Any) -> None:
        """Nothing."""
