"""Every trial as a row of the table and as the record that the page's script shows on hover and filters by."""

import math
from typing import Any

from analysis.objectives import METRICS
from analysis.page.axes import Axis, axes, value
from analysis.page.view import View
from analysis.results import seed_of
from trainables.journal import TrialRecord
from trainables.runs import SHORT, value_text
from vqcore.psnr import psnr

SHOWN = ("mse", "perplexity", "usage", "bits", "bits_learned")

_BECAME = {"completed": "completed", "stopped": "stopped early", "running": "not finished"}


def records(view: View, runs: dict[str, str]) -> list[dict[str, Any]]:
    """What the page's script knows of each trial, in their order. ``runs`` are the addresses in MLflow, by key."""
    scales = axes(view)
    return [_record(view, trial, scales, runs.get(trial.key)) for trial in view.trials]


def _record(view: View, trial: TrialRecord, scales: list[Axis], run: str | None) -> dict[str, Any]:
    group = view.group_of.get(trial.key)
    swept = [name for name in view.results.swept if name in trial.config]
    seconds = cost(trial)
    last = trial.epochs.get(trial.last_epoch, {})
    metrics = [(METRICS[name].name, f"{last[name]:.5g}") for name in dict.fromkeys((*SHOWN, *view.results.columns))
               if name in last and name in METRICS]  # fmt: skip
    if "mse" in last:
        metrics.insert(1, ("PSNR", f"{psnr(last['mse']):.2f} dB"))
    places = [one(value(trial, one.name)) for one in scales]
    return {
        "name": view.label(trial),
        "seed": seed_of(trial),
        "key": trial.key,
        "g": None if group is None else view.group_numbers[group.label],
        "state": _BECAME.get(trial.status, trial.status),
        "why": trial.reason,
        "facts": [
            *((SHORT.get(name, name), value_text(trial.config[name])) for name in swept),
            ("epochs", f"{trial.last_epoch} of {trial.config.get('epochs', '?')}"),
            *([("cost", f"{seconds:,.0f} s")] if seconds else []),
            *metrics,
        ],
        "at": [None if place is None else round(place, 4) for place in places],
        **({"run": run} if run else {}),
    }


def cost(trial: TrialRecord) -> float:
    """Seconds that the trial's epochs took."""
    return sum(report.get("seconds", 0.0) for report in trial.epochs.values())


def columns(view: View) -> list[str]:
    """The heads of the table of every trial."""
    fields = [SHORT.get(name, name) for name in view.results.swept]
    metrics = [METRICS[name].name for name in shown_metrics(view)]
    return ["trial", *fields, "seed", "status", "epochs", "seconds", *metrics, "why it ended"]


def shown_metrics(view: View) -> list[str]:
    """The metrics of the table: of those that only some runs have, the ones that this one has."""
    told = {name for trial in view.trials for name in trial.epochs.get(trial.last_epoch, {})}
    names = dict.fromkeys((*view.results.columns, *SHOWN))
    return [name for name in names if name in METRICS and (name in told or not METRICS[name].at_end)]


def rows(view: View) -> list[dict[str, Any]]:
    """The table of every trial: cells as texts, each with what it is sorted by where that is another."""
    return [_row(view, number, trial) for number, trial in enumerate(view.trials)]


def _row(view: View, number: int, trial: TrialRecord) -> dict[str, Any]:
    last = trial.epochs.get(trial.last_epoch, {})
    metrics = [last.get(name, math.nan) for name in shown_metrics(view)]
    fields = [trial.config.get(name, "") for name in view.results.swept]
    cells: list[tuple[str, Any]] = [(value_text(content), content) for content in fields]
    cells += [(str(seed_of(trial)), seed_of(trial)), (_BECAME.get(trial.status, trial.status), trial.status)]
    cells += [(str(trial.last_epoch), trial.last_epoch), (f"{cost(trial):,.0f}", round(cost(trial), 1))]
    cells += [(f"{v:.5g}" if math.isfinite(v) else "–", v if math.isfinite(v) else "") for v in metrics]
    cells.append((trial.reason, trial.reason))
    return {"number": number, "name": f"{trial.number}", "cells": cells}
