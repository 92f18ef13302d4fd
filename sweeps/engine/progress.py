"""What a sweep shows while it runs: a live table on a terminal, a line every few seconds elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.layout import shown
from analysis.objectives import METRICS
from sweeps.engine.trials import TrialPlan
from trainables.job import TrialJob
from trainables.journal import Event, RunRecord
from trainables.runs import SHORT

LINE_SECONDS = 5.0
"""Time between lines where there is no terminal."""

MOST_ROWS = 40
"""Trials shown at once: those running first, then the latest to end."""

RECENT = 500
"""Epochs that the time left is reckoned from."""

_LIVE = [metric for metric in METRICS.values() if metric.live]
_STYLE = {"running": "cyan", "completed": "green", "stopped": "yellow", "diverged": "red", "failed": "red"}


class Screen:
    """A listener of the recorder; use it as a context manager around the run."""

    def __init__(
        self, console: Console, run: RunRecord, plan: TrialPlan, swept: tuple[str, ...], slots: Callable[[], int]
    ):
        self._console, self._run, self._swept, self._slots = console, run, swept, slots
        self._plan, self._booked = plan, slots()
        self._seconds: deque[float] = deque(maxlen=RECENT)
        """Of the latest epochs: after a resume on another machine, those before it say nothing."""
        self._last_line = time.monotonic()
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self._table)

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Take notice of an event: the run's record has it already."""
        if event["event"] == "epoch" and "seconds" in event["metrics"]:
            self._seconds.append(event["metrics"]["seconds"])
        if self._console.is_terminal:
            return
        if event["event"] == "end" and event["status"] in ("diverged", "failed"):
            self._console.print(shown(f"{self._name(event['trial'])}: {event['status']}, {event['reason']}"))
        if time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(shown(self.summary()), soft_wrap=True)

    def summary(self) -> str:
        """Where the sweep stands, in a line."""
        records = [trial for job in self._plan.jobs if (trial := self._run.trials.get(job.key))]
        ended = sum(trial.status != "running" for trial in records)
        done, planned = self._epochs()
        waiting = sum(bool(trial.waits) for trial in list(self._run.trials.values()))
        words = [f"{ended}/{self._plan.planned} trials", f"{done}/{planned} epochs"]
        words += [f"{waiting} wait at a rung"] if waiting else []
        latest = [trial for trial in records if trial.epochs]
        if latest:
            best = min(latest, key=lambda t: t.epochs[t.last_epoch].get("mse", float("inf")))
            metrics = best.epochs[best.last_epoch]
            words.append(
                f"lowest MSE {metrics['mse']:.4f} at perplexity {metrics['perplexity']:.0f} ({self._name(best.key)})"
            )
        if self._slots() < self._booked:  # nodes left, or memory turned out to suffice for fewer
            words.append(f"{self._slots()} at once")
        if (left := self._seconds_left()) is not None:
            words.append(f"{clock(left)} left")
        return "  ".join(words)

    def _table(self) -> RenderableType:
        table = Table(expand=False, pad_edge=False)
        names = (SHORT.get(name, name) for name in self._swept)
        for name in (*names, "seed", "state", "epoch", *(metric.name for metric in _LIVE)):
            table.add_column(name, justify="left" if name in ("state", "estimator") else "right")
        jobs = sorted(self._plan.jobs, key=self._order)[:MOST_ROWS]
        for job in sorted(jobs, key=lambda job: job.number):
            table.add_row(*self._row(job))
        hidden = len(self._plan.jobs) - len(jobs)
        lines = [shown(self.summary(), "bold")]
        lines += [Text(f"{hidden} more trials", style="dim")] if hidden else []
        return Group(table, *lines)

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

    def _name(self, key: str) -> str:
        config = self._run.trials[key].config
        fields = [name for name in (*self._swept, "seed") if name in config]
        return ", ".join(f"{SHORT.get(name, name)} {_text(config[name])}" for name in fields)

    def _epochs(self) -> tuple[int, int]:
        """Epochs done and planned; trials that ended early plan no more."""
        done = planned = 0
        for job in self._plan.jobs:
            trial, budget = self._run.trials.get(job.key), job.config.training.epochs
            epochs = min(trial.last_epoch, budget) if trial else 0
            done += epochs
            planned += epochs if trial and trial.status in ("stopped", "diverged", "failed") else budget
        return done, max(done, self._plan.expected or planned)

    def _seconds_left(self) -> float | None:
        """From the mean time of the latest epochs and the slots; None before the first."""
        done, planned = self._epochs()
        # lists: the screen's own thread reads what the driver's goes on writing
        seconds = list(self._seconds)
        ended = sum(trial.status != "running" for trial in list(self._run.trials.values()))
        at_once = max(1, min(self._slots(), len(self._plan.jobs) - ended))
        return (planned - done) * sum(seconds) / len(seconds) / at_once if seconds else None


def _text(value: object) -> str:
    """A drawn number has more digits than anyone reads."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03."""
    return str(timedelta(seconds=round(seconds)))
