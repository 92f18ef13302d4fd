"""The trials that a sweep wants: those of a grid, those a sampler draws, then more seeds of what is near the front.

All of it is rebuilt from the journal, so that a resumed sweep takes up the decisions that were taken.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping

from analysis.fronts import Point, near_front, probability_on_front
from sweeps.engine.queue import TrialQueue
from sweeps.engine.request import CheckedSweep
from sweeps.engine.searcher import samplers
from sweeps.engine.spec import Search
from sweeps.engine.stopping import EarlyStopping, Rule
from trainables.job import TrialJob
from trainables.journal import Event, RunRecord, TrialRecord, read
from trainables.recorder import JournalWriter
from trainables.runs import JOURNAL
from trainables.snapshots import snapshot_epochs
from trainables.storage import join
from vqcore.config import Scalar, TrialConfig

MOST_FINALISTS = 8
"""Configurations at most that get more seeds at a time."""


class TrialPlan:
    """The trials of one run, in the order in which they are wanted."""

    def __init__(self, ready: CheckedSweep, writer: JournalWriter) -> None:
        self._ready, self._writer, self._run, self._spec = ready, writer, writer.run, ready.spec
        self._search = ready.spec.search or Search()
        self.jobs: list[TrialJob] = []
        """Every trial so far; grows as more are drawn."""
        taken = {trial.number for trial in self._run.trials.values()}
        self._numbers = (number for number in itertools.count() if number not in taken)
        self._samplers = samplers(ready.spec)
        self._tried: set[str] = set()
        """More seeds that this process has begun: one that failed is tried again by the next."""
        self.repeats: list[TrialJob] = []
        """The more seeds that are under way."""
        self._drawn = dict.fromkeys(self._samplers, 0)
        self._configs: dict[str, TrialConfig] = {}
        """Those of recorded trials, by key: each is wanted several times, and to check it takes time."""
        self._learn()
        self.jobs += map(self._job, self._planned_configs())
        writer.listeners.append(self._on_event)

    @property
    def planned(self) -> int:
        """Trials there will be, as far as can be told; more seeds of the best may come."""
        return max(len(self.jobs), self._spec.drawn_trials)

    @property
    def expected(self) -> int | None:
        """Epochs there will be, where early stopping or a budget makes them fewer than trials times epochs."""
        limited = self._search.rule is not None or self._search.budget is not None
        return self._spec.expected_epochs(self.planned) if limited else None

    @property
    def stage(self) -> str:
        """What is under way, for the screen."""
        if self.repeats:
            number = len({job.config.replace(seed=0) for job in self.repeats})
            return f"more seeds of {number} configuration{'' if number == 1 else 's'}"
        return "screening" if self._spec.search is not None and self._spec.seeds > 1 else "training"

    @property
    def in_stage(self) -> list[TrialJob]:
        """The trials of this stage so far; of drawn ones there will be more."""
        return self.repeats or [job for job in self.jobs if not self._repeats(job)]

    @property
    def undrawn(self) -> int:
        """Trials that are still to be drawn."""
        return sum(max(0, self._search.trials - drawn) for drawn in self._drawn.values())

    @property
    def seeds_to_come(self) -> tuple[int, int]:
        """Trainings with more seeds that may yet be decided on, likely and at most: who is near the front turns out
        later, and each round may bring others there."""
        if self._spec.search is None:
            return 0, 0
        out = {key for key, trial in self._run.trials.items() if trial.status in ("stopped", "diverged", "failed")}
        screened = sum(job.key not in out and not self._repeats(job) for job in self.jobs) + self.undrawn
        more, decided = self._spec.seeds - 1, sum(map(self._repeats, self.jobs))
        likely = min(screened, MOST_FINALISTS * len(self._spec.strata)) * more // 2
        return max(0, likely - decided), max(0, screened * more - decided)

    @property
    def budget_left(self) -> int | None:
        """Epochs that may still be trained; None without a budget."""
        return None if self._search.budget is None else max(0, self._search.budget - self._spent)

    def queues(self) -> Iterator[TrialQueue]:
        """What is to be trained, one queue after the other: everything but more seeds, then those.

        Once a queue is finished, it is recorded which of its trials go no further.
        """
        rule = self._search.rule
        stopping = replayed(rule, self._run, self._epochs) if rule is not None else None
        queue = self._queue([job for job in self.jobs if not self._repeats(job)], stopping, draws=bool(self._behind()))
        while True:
            if not queue.finished:
                yield queue
            for job, reason in queue.stopped():
                if job.key in self._run.trials:  # else it never began
                    self._writer.ended(job, "stopped", reason)
            if not (jobs := self._more_seeds()):
                return
            self.repeats = jobs
            queue = self._queue(jobs, None, draws=False)

    def _more_seeds(self) -> list[TrialJob]:
        """New seeds of what may be on the front, twice as many as before; none when no more are wanted.

        Successive doubling as in SMAC's racing (Lindauer et al. 2022, section 3.2), by the probability to be on the
        front instead of a single incumbent's mean. The decision is recorded; what was decided before an interruption
        comes first, since the half of it that was trained by then might tell otherwise.
        """
        if self._spec.search is None or self._spec.seeds < 2:
            return []
        if self._search.budget is not None and self._spent >= self._search.budget:
            return []
        jobs = [job for job in self.jobs if self._repeats(job) and job.key not in self._tried and not self._ended(job)]
        if not jobs and (jobs := self._finalists()):
            self._writer.decided(jobs)
            self.jobs += jobs
        self._tried |= {job.key for job in jobs}
        return jobs

    def _on_event(self, event: Event) -> None:
        """The sampler learns from the end of each trial."""
        if event["event"] == "end":
            trial = self._run.trials[event["trial"]]
            self._tell(trial, trial.status)

    def _repeats(self, job: TrialJob) -> bool:
        """Whether it is one of the seeds that only configurations near the front get."""
        return self._spec.search is not None and job.config.training.seed != self._spec.base.training.seed

    def _ended(self, job: TrialJob) -> bool:
        return self._run.finished(job.key, self._epochs)

    def _finalists(self) -> list[TrialJob]:
        """For what is near the front as many seeds more as it had; one that diverged or failed was one of them."""
        seeds_of: dict[TrialConfig, set[int]] = {}
        for job in self.jobs:
            seeds_of.setdefault(job.config.replace(seed=0), set()).add(job.config.training.seed)
        return [
            self._job(config.replace(seed=seed))
            for screened in self._screened().values()
            for config in self._near(screened)
            for seeds in [seeds_of[config]]
            for seed in [seed for seed in range(self._spec.seeds) if seed not in seeds][: len(seeds)]
        ]

    def _screened(self) -> dict[Scalar, dict[TrialConfig, dict[int, Point]]]:
        """Of each stratum, the configurations (with seed 0) with a full training, and their objectives by seed."""
        found: dict[Scalar, dict[TrialConfig, dict[int, Point]]] = {stratum: {} for stratum in self._spec.strata}
        columns = {objective.column for objective in self._search.objectives}
        for trial in self._run.trials.values():
            metrics = trial.epochs.get(self._epochs, {})
            if trial.status == "completed" and columns <= metrics.keys():  # a longer one has no learned rate there
                config = self._config(trial.key, trial.config)
                first, *rest = (metrics[objective.column] for objective in self._search.objectives)
                points = found[self._stratum(trial.config)].setdefault(config.replace(seed=0), {})
                points[config.training.seed] = (first, rest[0] if rest else first)
        return found

    def _near(self, screened: Mapping[TrialConfig, Mapping[int, Point]]) -> list[TrialConfig]:
        """Those whose place on or off the front more seeds would settle."""
        first, *rest = (objective.direction for objective in self._search.objectives)
        directions = first, rest[0] if rest else first
        configs, values = list(screened), list(screened.values())
        probabilities = probability_on_front(values, directions)
        return [configs[index] for index in near_front(values, probabilities, MOST_FINALISTS, directions)]

    def _learn(self) -> None:
        """Tell the samplers of earlier trials, of the run to start from and of this one."""
        if self._search.warm_start is not None:
            for trial in read(self._search.warm_start / JOURNAL).trials.values():
                if trial.status != "running":  # in the other run, which nobody resumes here
                    self._tell(trial, trial.status)
        for trial in sorted(self._run.trials.values(), key=lambda trial: trial.number):
            if self._tell(trial, "running"):
                self._drawn[self._stratum(trial.config)] += 1
        for trial in sorted(self._run.trials.values(), key=lambda trial: trial.end_arrival):
            if trial.status != "running":  # some samplers learn from the order of ends, which is another one
                self._tell(trial, trial.status)

    def _planned_configs(self) -> list[TrialConfig]:
        configs = list(self._ready.configs)
        if self._spec.search is not None:
            random.Random(self._search.seed).shuffle(configs)  # a rung should have seen some of everything
            keys = {config.key(self._ready.data.hash) for config in configs}
            recorded = {**{key: trial.config for key, trial in self._run.trials.items()}, **self._run.decided}
            configs += [self._config(key, flat) for key, flat in recorded.items() if key not in keys]
        return configs

    def _config(self, key: str, flat: Mapping[str, Scalar]) -> TrialConfig:
        if key not in self._configs:
            self._configs[key] = TrialConfig.from_flat({**flat, "epochs": self._epochs})
        return self._configs[key]

    def _job(self, config: TrialConfig) -> TrialJob:
        ready, key = self._ready, config.key(self._ready.data.hash)
        number = self._run.trials[key].number if key in self._run.trials else next(self._numbers)
        folder, booking, flags = join(ready.request.trials_folder, key), ready.booking, ready.request.flags
        snapshots = snapshot_epochs(flags.snapshots, flags.snapshot_epochs, flags.epochs)
        collapse, rate = self._search.collapse, flags.rate
        return TrialJob(key, number, config, ready.data, folder, booking.cpus, booking.gpus, collapse, snapshots, rate)

    def _queue(self, jobs: list[TrialJob], stopping: EarlyStopping | None, draws: bool) -> TrialQueue:
        draw = self._draw if draws else None
        queue = TrialQueue(self._ready.booking.slots, stopping, draw, self._search.budget, self._spent)
        queue.add((job, self._run.last_epoch(job.key)) for job in jobs if not self._ended(job))
        return queue

    def _draw(self) -> TrialJob | None:
        """A new configuration, of the stratum that has the fewest."""
        for stratum in self._behind():
            if (config := self._samplers[stratum].ask()) is not None:
                self.jobs.append(self._job(config))
                self._drawn[stratum] += 1
                return self.jobs[-1]
        return None

    def _behind(self) -> list[Scalar]:
        """Strata that have not all their trials, the one with the fewest first."""
        behind = [stratum for stratum, drawn in self._drawn.items() if drawn < self._search.trials]
        return sorted(behind, key=self._drawn.__getitem__)

    def _tell(self, trial: TrialRecord, status: str) -> bool:
        """Let the sampler of a trial's stratum know its status; whether that was new to it."""
        sampler = self._samplers.get(self._stratum(trial.config))
        if sampler is None or trial.config.get("seed") != self._spec.base.training.seed:
            return False
        config = self._config(trial.key, trial.config)
        return sampler.tell(config, status, trial.epochs.get(trial.last_epoch, {}))

    def _stratum(self, config: Mapping[str, Scalar]) -> Scalar:
        return config.get(self._spec.stratify_by, "") if self._spec.stratify_by else ""

    @property
    def _epochs(self) -> int:
        return self._spec.base.training.epochs

    @property
    def _spent(self) -> int:
        """Epochs of all trials so far."""
        return sum(trial.last_epoch for trial in self._run.trials.values())


def replayed(rule: Rule, run: RunRecord, max_epochs: int) -> EarlyStopping:
    """The rungs as they stood when a run was interrupted: its results taken in again, in the order of the journal."""
    stopping = rule.start(max_epochs)
    trials = [trial for trial in run.trials.values() if trial.config.get("seed") == 0]
    for _, epoch, key in sorted(result for trial in trials for result in _results(trial)):
        if epoch < math.inf:
            stopping.on_result(key, run.trials[key].config, int(epoch), run.trials[key].epochs[int(epoch)])
        elif run.trials[key].status == "stopped":
            stopping.drop(key)
        else:
            stopping.promote(key)  # it broke off above the rung, if it stood at one
    return stopping


def _results(trial: TrialRecord) -> Iterator[tuple[float, float, str]]:
    """When each epoch arrived, and then the end (epoch infinity). An epoch whose line was lost and is written again
    later had arrived before those that follow it."""
    arrived = math.inf
    if trial.status != "running":
        arrived = trial.end_arrival
        yield arrived, math.inf, trial.key
    for epoch in sorted(trial.epochs, reverse=True):
        arrived = min(arrived, trial.arrivals[epoch], trial.rungs.get(epoch, math.inf))
        yield arrived, epoch, trial.key
