"""What every way to train has in common: the queue, the journal, and what becomes of a trial that breaks off."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from sweeps.engine.queue import TrialQueue
from trainables.errors import FatalRunError, one_line
from trainables.job import Report, TrialJob
from trainables.recorder import JournalWriter
from vqcore.config import Scalar

MOST_DEATHS = 3
"""Times in a row that a trial is started again, from its checkpoint, without an epoch more than the time before."""

CAPACITY_SECONDS = 1.0
"""Between two looks at how many trials fit on the nodes that there are."""

logger = logging.getLogger(__name__)


class Driver:
    """One part of a sweep under way."""

    def __init__(
        self,
        queue: TrialQueue,
        writer: JournalWriter,
        asked_to_halt: Callable[[], bool] = lambda: False,
        capacity: Callable[[], int] | None = None,
        packed: bool = False,
    ) -> None:
        """``asked_to_halt`` is whether the run is to end with the epochs in progress. ``capacity`` is how many trials
        fit now, on a cluster whose nodes join and leave; else as many as the queue has slots. Of ``packed`` trials the
        GPU's share is that of all, and no trial gets more."""
        self.queue, self.writer, self._asked_to_halt, self._capacity = queue, writer, asked_to_halt, capacity
        self._packed = packed
        self._most_slots, self._measured = math.inf, -math.inf
        self.trouble: Exception | None = None
        """Why the run, and no single trial, cannot go on."""
        self._deaths: dict[tuple[str, int], int] = {}
        """How often a trial broke off at an epoch."""
        self._jobs: dict[str, TrialJob] = {}
        """Every trial that was given a slot here."""
        self._gpu_shares: dict[tuple[Scalar, ...], float] = {}
        """Of a GPU, that models of a shape turned out to need."""

    @property
    def halting(self) -> bool:
        """Whether each trial is to go to the end of its epoch, and no further."""
        return self.trouble is not None or self._asked_to_halt()

    @property
    def finished(self) -> bool:
        """Whether no trial runs and none will."""
        return not self.queue.running and (self.halting or self.queue.finished)

    def next(self) -> str | None:
        """The key of the trial that gets the next slot; None while there is none."""
        if self._capacity is not None and time.monotonic() >= self._measured + CAPACITY_SECONDS:
            self._measured = time.monotonic()
            self.queue.slots = int(min(self._capacity(), self._most_slots))
        return None if self.halting else self.queue.next()

    def begin(self, key: str) -> tuple[TrialJob, int]:
        """Give that trial its slot: the job, and how many of its epochs are recorded."""
        job = self.queue.begin(key)
        job = self._jobs[key] = replace(job, gpus=self._gpu_shares.get(_shape(job), job.gpus))
        record = self.writer.run.trials.get(key)
        if record is None or record.status != "running":
            self.writer.started(job)
        return job, self.writer.run.known(key)

    def record(self, key: str, report: Report) -> None:
        """Write a trial's report into the journal, and that it waits at a rung if it now does."""
        for line in report.warnings:
            logger.warning("the process of trial %s: %s", key, line)
        self.writer.report(self._jobs[key], report)
        if self.queue.waits(key):
            self.writer.waits(self._jobs[key])

    def decide(self, key: str, report: Report) -> bool:
        """Whether a trial keeps its slot after this report."""
        goes_on = self.queue.on_result(key, report.epoch, report.metrics) if report.metrics else False
        if report.status != "running":
            self.queue.ended(key)
            return False
        if goes_on and self.halting:
            self.queue.interrupted(key)
            return False
        return goes_on

    def broke_off(self, key: str, error: BaseException | None, process_died: bool = False, trace: str = "") -> None:
        """Decide what becomes of a trial that broke off with ``error``; of a process that died there may be none.

        Machines die, and their trials start again from their checkpoints. A trial out of GPU memory starts again with
        twice the share of a GPU, once, unless trials are packed. An error that no other trial would escape, such as a
        full disk, halts the run. Any other error is the trial's own, and it has failed. ``trace`` is the traceback of
        another process.
        """
        epoch = self.writer.run.last_epoch(key)
        logger.error("trial %s broke off after epoch %d: %s", key, epoch, trace, exc_info=None if trace else error)
        job = self._jobs[key]
        if isinstance(error, FatalRunError):
            self.trouble = self.trouble or FatalRunError(one_line(error))
        if self.halting:
            self.queue.interrupted(key)
        elif process_died or error is None or isinstance(error, OSError):
            self._start_again(job, one_line(error) if error else "its process died")
        elif type(error).__name__ != "OutOfMemoryError":  # torch's, which a process without a GPU need not import
            self._fail(job, one_line(error))
        elif not self._packed and job.gpus < self._gpu_shares.setdefault(_shape(job), min(1.0, 2 * job.gpus)):
            self.queue.interrupted(key)
        else:
            smaller = "--batch-size or --pack" if self._packed else "--batch-size"
            self._fail(job, f"out of memory with {job.gpus:g} GPU; fewer --trials-per-gpu, or a smaller {smaller}")

    def fewer_slots(self) -> bool:
        """Run one trial fewer at a time from now on, each from its checkpoint; whether any slot is left."""
        left = len(self.queue.running) - 1
        for key in sorted(self.queue.running, key=list(self._jobs).index):
            self.queue.interrupted(key)
        if left > 0:
            self.queue.slots = self._most_slots = left
        return left > 0

    def _start_again(self, job: TrialJob, reason: str) -> None:
        """A trial whose machine died is not to blame, unless it takes down each that it gets."""
        at = (job.key, self.writer.run.last_epoch(job.key))
        self._deaths[at] = self._deaths.get(at, 0) + 1
        self._measured = -math.inf  # its node may be gone
        if self._deaths[at] <= MOST_DEATHS:
            self.queue.interrupted(job.key)
        else:
            self._fail(job, f"broke off {self._deaths[at]} times after epoch {at[1]}, the last time with: {reason}")

    def _fail(self, job: TrialJob, reason: str) -> None:
        self.writer.ended(job, "failed", reason)
        self.queue.ended(job.key)


def _shape(job: TrialJob) -> tuple[Scalar, ...]:
    """The fields that a trial's memory depends on."""
    flat = job.config.flat()
    return tuple(value for name, value in flat.items() if name not in ("seed", "commitment_weight", "decay", "epochs"))
