"""What a sweep shows while it runs: a live table on a terminal; elsewhere a line when there is something to say."""

import math
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.layout import shown
from analysis.objectives import DEFAULT, METRICS, metric_of
from sweeps.engine.spec import SweepSpec
from sweeps.engine.trials import TrialPlan
from trainables.commands import duration
from trainables.job import TrialJob
from trainables.journal import Event, RunRecord, TrialRecord
from trainables.runs import SHORT, described

LINE_SECONDS = 5.0
"""Between two lines where there is no terminal, at the least."""

MOST_LINES = 100
"""About so many of those lines in all, however long the sweep takes; failures aside."""

MOST_ROWS = 40
"""Trials shown at once: those running first, then the latest to end; fewer on a terminal that is less high."""

OTHER_LINES = 8
"""Of a terminal, that the head of the table and what stands below it take."""

MOST_FAILURES = 5
"""Failed trials that are named as they fail; more are counted."""

RECENT = 500
"""Epochs that the time left is reckoned from."""

_LIVE = [metric for metric in METRICS.values() if metric.live]
_STYLE = {"running": "cyan", "completed": "green", "stopped": "yellow", "diverged": "red", "failed": "red"}


class Left(NamedTuple):
    """Epochs, or seconds, that are left."""

    least: float
    likely: float
    most: float


def time_left(seconds: Left, of: str = "") -> str:
    """In words: ``about 12 min left (5 to 30 min)``; empty if nothing is left, or nothing is known."""
    if not seconds.most:
        return ""
    between = duration(seconds.least, seconds.most) if seconds.least else f"at most {duration(seconds.most)}"
    sure = seconds.least and duration(seconds.least) == duration(seconds.most)
    return f"about {duration(seconds.likely)} left{of}" + ("" if sure else f" ({between})")


def stage_left(plan: TrialPlan, run: RunRecord) -> Left:
    """Epochs that are left of the stage under way.

    With early stopping at least one of each trial that does not wait at a rung, and at most all of everyone's. Between
    the two is what the rule expects in all, or as many of each as those had that have come to rest, if that is more.
    """
    epochs = plan.jobs[0].config.training.epochs if plan.jobs else 0
    moving, waiting, resting = [0] * (0 if plan.repeats else plan.undrawn), list[int](), list[int]()
    for job in plan.in_stage:
        trial = run.trials.get(job.key)
        if trial is None or (trial.status == "running" and not trial.waits):
            moving.append(min(epochs, trial.last_epoch) if trial else 0)
        else:
            resting.append(trial.last_epoch)
            waiting += [trial.last_epoch] if trial.status == "running" else []
    rest = sum(epochs - epoch for epoch in moving)
    most = rest + sum(epochs - epoch for epoch in waiting)
    if plan.budget_left is not None:  # early stopping leaves none of it
        return Left(*[min(plan.budget_left, most)] * 3)
    if plan.expected is None or plan.repeats:
        return Left(rest, rest, rest)
    least = sum(epoch < epochs for epoch in moving)
    usual = round(mean(resting)) if resting else 0
    likely = max(plan.expected - sum(moving) - sum(resting), sum(max(1, usual - epoch) for epoch in moving))
    return Left(least, min(most, max(least, likely)), most)


class Speed:
    """The seconds that a slot takes for an epoch, with what lies between two epochs, by the clock."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        """Of the latest epochs: after a resume on another machine, those before it say nothing."""
        self._last = 0.0

    def add(self, event: Event, at_once: int) -> None:
        """Take in an epoch, of a sweep in which so many trials train ``at_once``."""
        first = len(self._recent) < at_once  # of each slot; its process had to start
        own = event["metrics"].get("seconds", 0.0)
        now = time.monotonic()  # of the driver: the nodes' clocks may differ, and that is in the event
        self._recent.append(own if first else (now - self._last) * at_once)
        self._last = now

    @property
    def seconds(self) -> float:
        """NaN before the first epoch."""
        recent = list(self._recent)  # the screen's own thread reads what the driver's goes on writing
        return sum(recent) / len(recent) if recent else math.nan


class Screen:
    """A listener of the recorder; use it as a context manager around the run."""

    def __init__(self, console: Console, run: RunRecord, plan: TrialPlan, spec: SweepSpec, slots: Callable[[], int]):
        self._console, self._run, self._plan, self._slots = console, run, plan, slots
        self._swept, self._booked = spec.swept, slots()
        self._aims = spec.search.objectives if spec.search else DEFAULT
        self._speed, self._over = Speed(), False
        self._ended = sum(trial.status != "running" for trial in run.trials.values())
        self._failures = 0
        self._began = time.monotonic()
        self._whole, self._looked, self._told = 0.0, -math.inf, (plan.stage, "", 0, 0)
        """Without a terminal: how many seconds it may take in all, when it was last looked whether there is something
        to say, and what was said last (``_news``)."""
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._table)

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take notice of an event: the run's record has it already."""
        if self._over:
            return
        if event["event"] == "epoch":
            self._speed.add(event, self._at_once)
        if event["event"] == "end":
            self._ended += 1
            if event["status"] in ("diverged", "failed"):
                self._print_failure(event)
        if not self._console.is_terminal:
            self._print_news(event)

    def summary(self) -> str:
        """Where the sweep stands, in a line."""
        words = [f"{self._plan.stage}: {self._counts()}"]
        if left := time_left(self.seconds_left(), " in all" if any(self._plan.seeds_to_come) else ""):
            words.append(left)
        if self._slots() < self._booked:  # nodes left, or memory turned out to suffice for fewer
            words.append(f"only {self._slots()} at once")
        if best := self._best():
            words.append(best)
        return "; ".join(words)

    def _counts(self) -> str:
        plan = self._plan
        records = [trial for job in plan.in_stage if (trial := self._run.trials.get(job.key))]
        ended = [trial for trial in records if trial.status != "running"]
        planned = len(plan.in_stage) + (0 if plan.repeats else plan.undrawn)
        words = [f"{len(ended)} of {planned} trials ended"]
        if plan.expected is not None and not plan.repeats:
            waiting = sum(trial.waits for trial in records)
            words = [f"{len(records)} of {planned} trials begun", f"{len(ended)} ended", f"{waiting} at a rung"]
        if failed := sum(trial.status in ("diverged", "failed") for trial in ended):
            words.append(f"{failed} of them failed")
        done, left = sum(trial.last_epoch for trial in records), stage_left(plan, self._run)
        about = "" if left.least == left.most else "about "
        return ", ".join([*words, f"{done:,} of {about}{done + left.likely:,} epochs"])

    def _best(self) -> str:
        """The trial that is ahead by the first objective, wherever it stands."""
        if (best := self._leader()) is None:
            return ""
        metrics, (aim, *others) = best.epochs[best.last_epoch], self._aims
        ahead, *rest = (_number(one.column, metrics[one.column]) for one in (aim, *others) if one.column in metrics)
        at = "".join(f" at {one.name} {number}" for one, number in zip(others, rest, strict=False))
        return f"{aim.best} {ahead}{at} ({self._name(best)})"

    def _leader(self) -> TrialRecord | None:
        aim = self._aims[0]
        begun = [(aim.minimised(t.epochs[t.last_epoch]), t) for t in list(self._run.trials.values()) if t.epochs]
        known = [(value, trial) for value, trial in begun if math.isfinite(value)]
        return min(known, key=lambda pair: pair[0])[1] if known else None

    def _print_failure(self, event: Event) -> None:
        self._failures += 1
        if self._failures <= MOST_FAILURES:
            name = self._name(self._run.trials[event["trial"]])
            more = " (those that follow are counted, not named)" if self._failures == MOST_FAILURES else ""
            self._console.print(shown(f"{name}: {event['status']}, {event['reason']}{more}"), soft_wrap=True)

    def _print_news(self, event: Event) -> None:
        """Say where the sweep stands if a stage or a tenth has begun, another trial leads, or one has failed.

        At a first result and a new stage at once; else at most every few seconds, and rarer in a long sweep.
        """
        now = time.monotonic()
        stage, leader, _, _ = self._told
        at_once = stage != self._plan.stage or (event["event"] == "epoch" and not leader)
        if not at_once and now - self._looked < max(LINE_SECONDS, self._whole / MOST_LINES):
            return
        self._looked, self._whole = now, now - self._began + self.seconds_left().likely
        if (news := self._news()) != self._told:
            self._told = news
            elapsed = timedelta(seconds=round(now - self._began))
            self._console.print(shown(f"{elapsed}  {self.summary()}"), soft_wrap=True)

    def _news(self) -> tuple[str, str, int, int]:
        """What is worth a line when it changes: the stage, who leads, failures, the tenths of the way."""
        done = sum(trial.last_epoch for trial in self._run.trials.values())
        whole = done + self._epochs_left().likely
        leader, tenth = self._leader(), int(10 * done / whole) if whole else 0
        return self._plan.stage, leader.key if leader else "", self._failures, max(tenth, self._told[3])

    def _table(self) -> RenderableType:
        table = Table(expand=False, pad_edge=False)
        names = (SHORT.get(name, name) for name in self._swept)
        for name in (*names, "seed", "state", "epoch", *(metric.name for metric in _LIVE)):
            table.add_column(name, justify="left" if name in ("state", "estimator") else "right")
        room = max(1, min(MOST_ROWS, self._console.height - OTHER_LINES))  # what is too high is cut off below
        jobs = sorted(self._plan.jobs, key=self._order)[:room]
        for job in sorted(jobs, key=lambda job: job.number):
            table.add_row(*self._row(job))
        hidden = len(self._plan.jobs) - len(jobs)
        lines = [Text(f"{hidden} more trials", style="dim")] if hidden else []
        return Group(table, *lines, shown(self.summary(), "bold"))

    def _row(self, job: TrialJob) -> list[RenderableType]:
        flat, trial = job.config.flat(), self._run.trials.get(job.key)
        status = (trial.status if not trial.waits else "at a rung") if trial else "waiting"
        cells = [_text(flat[name]) for name in (*self._swept, "seed")]
        metrics: dict[str, Any] = trial.epochs.get(trial.last_epoch, {}) if trial else {}
        cells += [status, f"{trial.last_epoch if trial else 0}/{job.config.training.epochs}"]
        cells += [f"{metrics[one.column]:{one.live}}" if one.column in metrics else "" for one in _LIVE]
        return [shown(cell, _STYLE.get(status, "dim")) for cell in cells]

    def _order(self, job: TrialJob) -> tuple[int, float]:
        trial = self._run.trials.get(job.key)
        if trial is None:
            return (2, job.number)
        return (0, job.number) if trial.status == "running" else (1, -trial.last_time)

    def _name(self, trial: TrialRecord) -> str:
        return described(trial.config, (*self._swept, "seed"))

    def _epochs_left(self) -> Left:
        """Of this stage, and of the more seeds that may come: from none to all of them."""
        left, plan = stage_left(self._plan, self._run), self._plan
        epochs = plan.jobs[0].config.training.epochs if plan.jobs else 0
        likely, most = (number * epochs for number in plan.seeds_to_come)
        bound = math.inf if plan.budget_left is None else plan.budget_left
        return Left(left.least, min(bound, left.likely + likely), min(bound, left.most + most))

    def seconds_left(self) -> Left:
        """From the mean time of the latest epochs and the slots; nothing before the first."""
        seconds = self._speed.seconds
        if self._over or math.isnan(seconds):
            return Left(0, 0, 0)
        return Left(*(epochs * seconds / self._at_once for epochs in self._epochs_left()))

    @property
    def _at_once(self) -> int:
        """How many trials train now."""
        return max(1, min(self._slots(), len(self._plan.jobs) + self._plan.undrawn - self._ended))


def _number(column: str, value: float) -> str:
    return f"{value:{metric_of(column).live or '.4g'}}"


def _text(value: object) -> str:
    """A drawn number has more digits than anyone reads."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
