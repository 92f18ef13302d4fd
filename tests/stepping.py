"""A trial driven as a slot drives it."""

from collections.abc import Iterator
from typing import Any

from trainables.job import Report, TrialJob
from trainables.trial import Trial


def reports(job: TrialJob, until: int | None = None, known: int = 0) -> Iterator[Report]:
    """Steps of a trial to epoch ``until``, or to its end; of its ``known`` epochs nothing is reported."""
    return steps(Trial.open(job, known), until, known)


def steps(trial: Trial, until: int | None, known: int) -> Iterator[Report]:
    last = trial.job.config.training.epochs
    until = last if until is None else until
    status = "running"
    while status == "running" and (known < until or until == last):
        report = trial.step()
        known, status = report.epoch, report.status
        yield report


def run_trial(job: TrialJob, until: int | None = None, known: int = 0) -> Iterator[dict[str, Any]]:
    """The reports as the events that they become in the journal."""
    trial = Trial.open(job, known)
    yield {"event": "start", "info": trial.info}
    for report in steps(trial, until, known):
        if report.metrics:
            yield {"event": "epoch", "epoch": report.epoch, "metrics": report.metrics, "time": report.time}
        if report.status != "running":
            yield {"event": "end", "status": report.status, "reason": report.reason}
