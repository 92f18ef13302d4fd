"""What an analysis found, in a small file of the run's folder, for who shows a run without analysing it: MLflow."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.fronts import Point, hypervolume
from analysis.layout import write_file
from analysis.objectives import DEFAULT
from analysis.results import Results, ranked
from trainables.runs import SUMMARY

_WORST = {"mse": 1.0, "perplexity": 1.0, "usage": 0.0}
"""Where the hypervolume ends, the same in every run: images that have nothing in common, and one code for all."""


def write_summary(results: Results, findings: Sequence[str]) -> Path:
    """Write ``summary.json``: metrics of the whole run, its findings, the trials on the front, the recommendation."""
    content = json.dumps(summary(results, findings), indent=1, allow_nan=False)
    return write_file(results.folder / SUMMARY, content.encode())


def summary(results: Results, findings: Sequence[str]) -> dict[str, Any]:
    """The content of ``summary.json``; its metrics are of means over the seeds that count."""
    on_front = [trial for group in results.front for trial in (*group.trials, *filter(None, [group.screened]))]
    metrics = {f"best_{column}": value for column, value in _best(results)} | _hypervolume(results)
    return {
        "metrics": {name: value for name, value in metrics.items() if math.isfinite(value)},
        "findings": list(findings),
        "front": [trial.key for trial in on_front],
        "recommended": results.knee.label if results.knee else None,
    }


def _best(results: Results) -> list[tuple[str, float]]:
    found = []
    for one in dict.fromkeys((*DEFAULT, *results.objectives)):
        for group in ranked(results.groups, one)[:1]:
            found.append((one.column, (group if group.trials else group.screening or group).mean(one.column)))
    return found


def _hypervolume(results: Results) -> dict[str, float]:
    """The area that the front dominates, in its objectives' units; none for a metric that has no worst value."""
    if not results.front or not set(results.columns) <= _WORST.keys():
        return {}
    first, second = results.columns
    points: list[Point] = [(group.mean(first), group.mean(second)) for group in results.front]
    return {"hypervolume": hypervolume(points, (_WORST[first], _WORST[second]), results.directions)}
