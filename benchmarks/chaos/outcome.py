"""The results of a run as its user finds them, and how two runs of one sweep differ. Numbers as hex: every bit."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from trainables.journal import FINAL, JournalReader, read
from trainables.runs import JOURNAL

TIMES = frozenset({"seconds"})
"""Metrics that no two runs share."""
TRIAL_TAG = "vqsweep.trial"
"""The tag of an MLflow run that holds its trial's key; the parent run has none."""


@dataclass
class Outcome:
    """What is compared: dictionaries from a readable name to a value, equal in equal runs."""

    trials: dict[str, str] = field(default_factory=dict)
    """``TRIAL: FIELD`` -> value, from the journal: number, status, reason and each field of the configuration."""
    epochs: dict[str, str] = field(default_factory=dict)
    """``TRIAL epoch EPOCH: METRIC`` -> value, from the journal."""
    files: dict[str, str] = field(default_factory=dict)
    """Rows of ``results.parquet``, and the lines of exports and tables that tell neither time nor commit."""
    runs: dict[str, list[str]] = field(default_factory=dict)
    """MLflow's runs: trial (the parent's is ``parent``) -> the status of each run that has its tag."""
    params: dict[str, str] = field(default_factory=dict)
    """``TRIAL: PARAM`` -> value, in MLflow."""
    points: dict[str, list[str]] = field(default_factory=dict)
    """``TRIAL epoch EPOCH: METRIC`` -> the value of each point there, in MLflow."""
    recorded_twice: list[str] = field(default_factory=list)
    """Epochs and ends that the journal has more than once."""


def outcome(run: Path, tracking_uri: str) -> Outcome:
    """The results in a run's folder and in an MLflow store that holds this run alone."""
    found = Outcome(files=dict(_files(run)), recorded_twice=_recorded_twice(run / JOURNAL))
    for key, trial in read(run / JOURNAL).trials.items():
        facts = {"number": trial.number, "status": trial.status, "reason": trial.reason, **trial.config}
        found.trials |= {f"{key}: {name}": repr(value) for name, value in facts.items()}
        for epoch, metrics in trial.epochs.items():
            found.epochs |= {f"{key} epoch {epoch}: {name}": _shown(name, value) for name, value in metrics.items()}
    _read_mlflow(tracking_uri, found)
    return found


def _shown(name: str, value: float) -> str:
    return "a time" if name in TIMES else (value + 0.0).hex()  # SQLite, and so MLflow, keeps -0.0 as 0.0


def _recorded_twice(journal: Path) -> list[str]:
    """A trial that failed may come to another end later; an end that is final is recorded once."""
    seen: Counter[str] = Counter()
    for event in JournalReader(journal).new():
        if event["event"] == "epoch":
            seen[f"epoch {event['epoch']} of {event['trial']}"] += 1
        elif event["event"] == "end" and event["status"] in FINAL:
            seen[f"end of {event['trial']}"] += 1
    return [name for name, count in seen.items() if count > 1]


def _files(run: Path) -> Iterator[tuple[str, str]]:
    if (run / "results.parquet").exists():
        for row in pq.read_table(run / "results.parquet").to_pylist():
            values = {name: value for name, value in row.items() if name not in TIMES}
            yield f"results.parquet: {row['trial']} epoch {row['epoch']}", repr(values)
    for path in [*run.glob("exports/*.toml"), *run.glob("tables/*.md")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        yield str(path.relative_to(run)), "\n".join(line for line in lines if "commit" not in line)


def _read_mlflow(uri: str, found: Outcome) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, max_results=10_000):
        key = run.data.tags.get(TRIAL_TAG, "parent")
        found.runs.setdefault(key, []).append(run.info.status)
        found.params |= {f"{key}: {name}": value for name, value in run.data.params.items()}
        if key == "parent":  # a summary, which a run that was interrupted had before: the last one counts
            shown = {name: _shown(name, value) for name, value in run.data.metrics.items()}
            found.points |= {f"parent: {name}": [value] for name, value in shown.items()}
            continue
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                value = _shown(name, point.value)
                found.points.setdefault(f"{key} epoch {point.step}: {name}", []).append(value)


def compare(wanted: Outcome, found: Outcome) -> dict[str, list[str]]:
    """By kind, a line for each way in which ``found`` differs from the undisturbed run ``wanted``."""
    seen: dict[str, list[str]] = {"lost": [], "repeated": list(found.recorded_twice), "different": []}
    seen |= {"mlflow_missing": [], "mlflow_doubled": [], "mlflow_different": []}
    for name in ("trials", "epochs", "files"):
        _compare_values(getattr(wanted, name), getattr(found, name), seen, ("lost", "repeated", "different"))
    mlflow = ("mlflow_missing", "mlflow_doubled", "mlflow_different")
    _compare_values(wanted.params, found.params, seen, mlflow)
    for name in ("runs", "points"):
        _compare_values(getattr(wanted, name), getattr(found, name), seen, mlflow)
        doubled = {key: values for key, values in getattr(found, name).items() if len(values) > 1}
        seen["mlflow_doubled"] += [f"{key}: {len(values)} {name}" for key, values in doubled.items()]
    return {kind: sorted(lines) for kind, lines in seen.items()}


def _compare_values(
    wanted: dict[str, Any], found: dict[str, Any], seen: dict[str, list[str]], kinds: tuple[str, str, str]
) -> None:
    missing, surplus, different = kinds
    seen[missing] += wanted.keys() - found.keys()
    seen[surplus] += found.keys() - wanted.keys()
    both = wanted.keys() & found.keys()
    seen[different] += [f"{k}: {found[k]}, not {wanted[k]}"[:300] for k in both if found[k] != wanted[k]]


def incomplete(found: Outcome) -> list[str]:
    """What MLflow lacks, has twice or has otherwise of what the journal has: its epochs, and a run for each trial."""
    keys = {name.partition(":")[0] for name in found.trials} | {"parent"}
    counts = {key: len(found.runs.get(key, [])) for key in keys | found.runs.keys()}
    return [f"{key}: {count} runs" for key, count in counts.items() if count != (key in keys)] + [
        f"{name}: {found.points.get(name, [])} in MLflow, {value} in the journal"
        for name, value in found.epochs.items()
        if found.points.get(name) != [value]
    ]
