"""A sweep as a program of Ray Tune: a trial of the sweep is a trial of Tune, a rung is a pause.

Tune places trials on fractional GPUs, reuses their processes and notices dead ones. The queue decides who trains next,
behind two questions of Tune's: the searcher is asked for trials that Tune does not hold yet, the scheduler for one of
those that it has paused. A callback keeps the journal. Tune's own state is not kept: a sweep is resumed from its
journal and the trials' checkpoints.
"""

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.engine.driver import Driver
from sweeps.engine.packs import CLIENT_CPUS, Packs
from sweeps.engine.ray_cluster import last_errors
from trainables.job import Report
from trainables.pack_host import PackDiedError
from trainables.tune_trial import Arrays, VQTrial
from vqcore.registry import ARCHITECTURES, ESTIMATORS

WORKER_SECONDS = 180.0
"""How long Ray may take to start a first process: minutes, on a busy machine or from a slow network folder."""

logger = logging.getLogger(__name__)


def run_on_ray(
    driver: Driver, arrays: Arrays | None = None, trainable: type[VQTrial] = VQTrial, packs: Packs | None = None
) -> None:
    """Train on the Ray that this process is connected to, until no trial is left or the run is asked to halt.

    ``arrays`` go to nodes that lack the prepared data set; ``packs`` are to train the trials, unless each trains in a
    process of its own. Raises what ends the run and no single trial: a full disk,
    damaged data. When a node runs out of memory Ray ends the youngest trial and Tune ends with it; it is started again
    with a slot less, and each trial goes on from its checkpoint.
    """
    while not driver.finished:
        try:
            _fit(SweepScheduler(driver, packs), tune.with_parameters(trainable, arrays=arrays))
            break
        except (tune.TuneError, RuntimeError) as error:
            cause = _cause(error)
            if not isinstance(cause, OutOfMemoryError) or not driver.fewer_slots():
                raise cause from error
            logger.warning("a node is out of memory: %d trials at once from now on", driver.queue.slots)
    if driver.trouble is not None:
        raise driver.trouble


def _fit(scheduler: "SweepScheduler", trainable: type[tune.Trainable]) -> None:
    with tempfile.TemporaryDirectory(prefix="vqsweep-tune-") as scratch:
        tune.Tuner(
            tune.with_resources(trainable, _resources),
            tune_config=tune.TuneConfig(
                scheduler=scheduler,
                search_alg=SweepSearcher(scheduler),
                num_samples=-1,
                max_concurrent_trials=scheduler.driver.queue.slots,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                callbacks=[JournalCallback(scheduler)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),  # the driver decides which trial starts again
                verbose=0,
            ),
        ).fit()


def _cause(error: BaseException) -> BaseException:
    """Why ``fit`` ended: Tune wraps the error that it met, and may meet others as it cleans up."""
    chain = [error]
    while (behind := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(behind)
    return next((one for one in chain if isinstance(one, OSError | OutOfMemoryError)), chain[-1])


def _resources(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    if "pack" in config:
        return tune.PlacementGroupFactory([{"CPU": CLIENT_CPUS}])
    return tune.PlacementGroupFactory([{"CPU": config["job"].cpus, "GPU": config["job"].gpus}])


class SweepScheduler(FIFOScheduler):
    """Asked after each epoch whether a trial goes on, and then which of the paused trials runs next."""

    def __init__(self, driver: Driver, packs: Packs | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.driver, self._packs = driver, packs
        if packs is not None:
            packs.clear()
        # a task that shows that Ray starts processes; by its name, which a lambda lacks, that process would import Tune
        self._first = ray.remote(lambda: None).options(num_cpus=0).remote()
        self._late = time.monotonic() + WORKER_SECONDS
        self.paused: dict[str, Any] = {}
        """Tune's trials that have no slot, by the keys of ours. In a resumed sweep those that wait at a rung are no
        trials of Tune until they are promoted."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A result with ``done`` comes here alone, after the callback had it."""
        self.driver.decide(trial.config["job"].key, result["report"])
        self.gives_up(trial.config["job"].key)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Let a trial go on, or pause it: without a checkpoint of Tune's, since it has written its own."""
        key = trial.config["job"].key
        if self.driver.decide(key, result["report"]):
            return str(self.CONTINUE)
        self.gives_up(key)
        self.paused[key] = trial
        tune_controller.pause_trial(trial, should_checkpoint=False)
        return str(self.NOOP)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The paused trial that the queue names, if it names one; at the end, stop those that are left."""
        if time.monotonic() > self._late and not ray.wait([self._first], timeout=0)[0]:  # Tune would wait for ever
            message = f"Ray started no process within {WORKER_SECONDS:.0f} s; its last errors: {last_errors()}"
            raise ConnectionError(message)
        while self.driver.finished and self.paused:
            tune_controller.stop_trial(self.paused.popitem()[1])
        key = self.driver.next()
        if key is None or key not in self.paused:
            return None
        trial = self.paused.pop(key)
        trial.set_config(self.config_of(key))
        return trial

    def config_of(self, key: str) -> dict[str, Any]:
        """What a trial's process needs, beside the fields, which Ray's own tools show."""
        job, recorded = self.driver.begin(key)
        # what the user's own module registered travels along: no process of a trial imports that module
        registered = {"estimators": dict(ESTIMATORS), "architectures": dict(ARCHITECTURES)}
        place = self._packs.place(job, self.driver.queue.slots) if self._packs is not None else {}
        return {"job": job, "recorded": recorded, **registered, **place, **job.config.flat()}

    def gives_up(self, key: str, error: BaseException | None = None) -> None:
        """A trial has lost its slot, perhaps by an error, and its place in a pack if it has one."""
        if self._packs is not None and isinstance(error, PackDiedError):
            self._packs.died(key)
        elif self._packs is not None:
            self._packs.leave(key)

    def __reduce__(self) -> tuple[type[FIFOScheduler], tuple[()]]:
        """Tune pickles it for a restore, which nobody asks for: a sweep is resumed from its journal."""
        return FIFOScheduler, ()


class SweepSearcher(Searcher):
    """Asked for trials that Tune does not hold: new ones, and those that go on after an accident or a resume."""

    def __init__(self, scheduler: SweepScheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the trial that the queue names, unless the scheduler runs it."""
        driver = self._scheduler.driver
        if driver.finished:
            return str(Searcher.FINISHED)  # not before: Tune would keep no process for the trials that are paused
        key = driver.next()
        return None if key is None or key in self._scheduler.paused else self._scheduler.config_of(key)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The queue keeps count: Tune would count the paused trials too."""
        return True

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing: the callback hears of it, with the error."""


class JournalCallback(tune.Callback):
    """Writes the journal, and tells the driver of trials that broke off."""

    def __init__(self, scheduler: SweepScheduler) -> None:
        self._scheduler = scheduler

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record a report."""
        report: Report = result["report"]
        self._scheduler.driver.record(trial.config["job"].key, report)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Find out why a trial broke off. Tune has no error of a process that ran out of memory as it started."""
        path = trial.pickled_error_file
        # Tune has just written it, into the temporary folder of this process; it is no file of the run
        error = ray.cloudpickle.loads(Path(path).read_bytes()) if path else None
        died = error is None or isinstance(error, RayActorError)
        cause = error.cause if isinstance(error, RayTaskError) else error
        self._scheduler.gives_up(trial.config["job"].key, cause)
        self._scheduler.driver.broke_off(trial.config["job"].key, cause, died, str(error or ""))
