"""The sweep on Ray Tune: slices of trials on fractional GPUs, over one machine or a cluster.

Tune places and restarts; what runs next is decided by ``slices``, what happened is in the journal. A slice is a trial
to Tune. Actors are reused, so that torch is imported and a CUDA context made once a slot and not once a slice. Tune's
own state is not kept: a sweep is resumed from its journal and the trials' checkpoints.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "1e9")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.engine.inline import slice_over
from sweeps.engine.resources import Available, Booking
from sweeps.engine.slices import Slice, Slices
from trainables.data import ensure_local
from trainables.recorder import Recorder
from trainables.trial import TrialJob, run_trial
from vqcore.config import Scalar
from vqcore.estimators import ESTIMATORS

MAX_FAILURES = 2
"""Times a trial is started again, from its checkpoint, when its process or node dies."""

OUT_OF_MEMORY = "out of memory"

TrialFunction = Callable[[TrialJob, int, int], Iterator[dict[str, Any]]]


def connect(address: str | None, num_cpus: int, num_gpus: int) -> Available:
    """Start Ray on this machine, or join the cluster at ``address``; what can be booked there."""
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is told by the journal and the screen
    warnings.filterwarnings("ignore", module="ray")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init(address="local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False, **quiet)
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    where = f"the cluster at {address}" if address else "this machine"
    return Available(int(total.get("CPU", 0)), int(total.get("GPU", 0)), where)


def node_count() -> int:
    """Nodes of the cluster that is joined."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return sum(bool(node["Alive"]) for node in nodes)


def disconnect() -> None:
    """Leave Ray, ending it if ``connect`` started it."""
    ray.shutdown()


def run_on_ray(slices: Slices, recorder: Recorder, booking: Booking, trial: TrialFunction = run_trial) -> None:
    """Run until every trial has ended, or until Ctrl-C, after which trials are simply left open.

    ``trial`` is what runs in an actor; it yields events as ``run_trial`` does.
    """
    share = _share_data if node_count() > 1 else None
    bookkeeper = _Bookkeeper(slices, recorder, share)

    def trainable(config: dict[str, Any]) -> None:
        run_slice(trial, config)

    with tempfile.TemporaryDirectory(prefix="vqsweep-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, _share_of),
            tune_config=tune.TuneConfig(
                search_alg=_Bridge(bookkeeper),
                scheduler=_Ears(bookkeeper),
                num_samples=-1,
                max_concurrent_trials=booking.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
                progress_reporter=_Silence(),
                verbose=1,
            ),
        ).fit()


def run_slice(trial: TrialFunction, config: dict[str, Any]) -> None:
    """In an actor: what ``_Bookkeeper.suggest`` handed out."""
    job: TrialJob = config["job"]
    ESTIMATORS.update(config["estimators"])
    if config["arrays"] is not None:
        job = replace(job, data=ensure_local(job.data, lambda: ray.get(config["arrays"])))
    try:
        for event in trial(job, config["until"], config["known"]):
            tune.report({"told": [event]})  # in a list: Tune flattens dictionaries
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

    def __post_init__(self) -> None:
        self._pieces: dict[str, Slice] = {}
        self._arrays: Any = None
        self._hungry: set[str] = set()
        """Tune's trials whose memory was exhausted."""
        self._shares: dict[Shape, float] = {}
        """Of a GPU, that trials of a shape turned out to need."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher and callbacks for a restore of its own, which we never ask for

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self.slices.finished:
            return str(Searcher.FINISHED)
        piece = self.slices.next()
        if piece is None:
            return None
        job = replace(piece.job, gpus=self._shares.get(_shape(piece.job), piece.job.gpus))
        self._pieces[trial_id] = replace(piece, job=job)
        if self.share is not None and self._arrays is None:
            self._arrays = self.share(job)
        known = self.recorder.run.last_epoch(job.key)
        # an estimator that the user's own module registered travels along: no worker imports that module
        return {
            "job": job,
            "until": piece.until,
            "known": known,
            "arrays": self._arrays,
            "estimators": dict(ESTIMATORS),
        }

    def told(self, trial_id: str, result: dict[str, Any]) -> None:
        if "told" not in result or trial_id not in self._pieces:
            return
        event = result["told"][0]
        if event["event"] == OUT_OF_MEMORY:
            self._hungry.add(trial_id)
        else:
            self.recorder.told(self._pieces[trial_id].job, event)

    def over(self, trial_id: str, error: str | None) -> None:
        if (piece := self._pieces.pop(trial_id, None)) is None:
            return
        if trial_id not in self._hungry:
            slice_over(self.slices, self.recorder, piece, error)
        elif piece.job.gpus < self._shares.setdefault(_shape(piece.job), min(1.0, 2 * piece.job.gpus)):
            self.slices.again(piece.job.key, self.recorder.run.last_epoch(piece.job.key))
        else:
            words = f"out of memory with {piece.job.gpus:g} GPU; fewer --trials-per-gpu, or a smaller --batch-size"
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
        self._bookkeeper.told(trial.trial_id, result)
        return str(FIFOScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._bookkeeper.over(trial.trial_id, None)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._bookkeeper.over(trial.trial_id, _last_line(trial.error_file))


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
