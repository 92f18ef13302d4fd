"""The process of a pack: trials ask it for their steps, and it takes those of all of them together.

A method call a step and trial, in one thread (asyncio), so that nothing here is called by two at once. An epoch begins
when every member has asked for its next step; one that keeps the others waiting is left out of it.
"""

import asyncio
from dataclasses import replace
from typing import Any

from trainables.carried_log import CarriedLog
from trainables.data import ensure_local
from trainables.errors import one_line
from trainables.job import Report, TrialJob
from vqcore.registry import ARCHITECTURES, ESTIMATORS

PATIENCE_SECONDS = 1.0
"""How long members wait for one that has not asked: longer than a driver takes to answer all reports of an epoch."""


class PackDiedError(OSError):
    """The process that trained a trial has died, or cannot go on; the trial does, from its checkpoint in another."""


class PackHost:
    """Members, and who of them waits for the next step."""

    def __init__(self, arrays: Any = None) -> None:
        """``arrays`` are the images of a sweep on a cluster, for nodes that do not have the prepared data set."""
        from trainables.pack import TrialGroup  # and torch, which the driver does not need

        self._arrays, self._log = arrays, CarriedLog()
        self._trials = TrialGroup()
        self._visits: dict[str, int] = {}
        """Which of its visits a trial is on: a word that it leaves may come after its return."""
        self._waiting: dict[str, asyncio.Future[Report | Exception]] = {}
        self._began = 0
        """How many steps have begun."""

    async def step(
        self, job: TrialJob, recorded: int, visit: int, estimators: dict[str, Any], architectures: dict[str, Any]
    ) -> Report:
        """The report of a trial's next step, ``recorded`` epochs of which are known. Raises the trial's own error."""
        if self._visits.get(job.key) != visit:  # it has come back before the word that it left
            self._forget(job.key)
        self._visits[job.key] = visit
        if job.key not in self._trials:
            ESTIMATORS.update(estimators)
            ARCHITECTURES.update(architectures)
            data = job.data if self._arrays is None else ensure_local(job.data, lambda: self._arrays)
            self._trials.open(replace(job, data=data), recorded)
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[Report | Exception] = loop.create_future()
        self._waiting[job.key] = asked
        self._begin_if_all_wait()
        loop.call_later(PATIENCE_SECONDS, self._begin, self._began)
        answer = await asked
        if isinstance(answer, Exception):
            raise answer
        return replace(answer, warnings=self._log.take())

    async def leave(self, key: str, visit: int) -> None:
        """Let a trial go that has lost its slot: the one of that visit."""
        if self._visits.get(key) != visit:
            return
        self._forget(key)
        self._begin_if_all_wait()

    def _forget(self, key: str) -> None:
        self._visits.pop(key, None)
        self._trials.leave(key)
        if (asked := self._waiting.pop(key, None)) is not None:
            asked.cancel()

    def _begin_if_all_wait(self) -> None:
        # not at once: calls that have arrived meanwhile are still to be seen
        if self._waiting and len(self._waiting) == len(self._trials):
            asyncio.get_running_loop().call_soon(self._begin, self._began)

    def _begin(self, begun: int) -> None:
        """Take the step of those that wait, unless it has begun since."""
        from trainables.device import gpu_is_lost

        if begun != self._began or not self._waiting:
            return
        self._began += 1
        waiting, self._waiting = self._waiting, {}
        try:
            found: dict[str, Report | Exception] = self._trials.step(waiting)
        except Exception as error:
            found = dict.fromkeys(waiting, error)
        errors = [one for one in found.values() if isinstance(one, Exception)]
        if errors and gpu_is_lost():  # by one of them, and for whoever comes
            found = dict.fromkeys(
                waiting, PackDiedError(f"the process of its pack lost its GPU: {one_line(errors[0])}")
            )
        for key, asked in waiting.items():
            if not asked.done():  # a caller may have cancelled it
                asked.set_result(found[key])
