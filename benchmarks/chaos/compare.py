"""Two outcomes of one sweep: what the disturbed one has lost, repeated, or otherwise."""

from dataclasses import dataclass, field, fields

from benchmarks.chaos.outcome import Outcome


@dataclass
class Differences:
    """Each a list of words, one for every difference; all empty if the outcomes are equal."""

    lost: list[str] = field(default_factory=list)
    """Trials that the undisturbed sweep has and this one has not, or not ended."""
    repeated: list[str] = field(default_factory=list)
    """Trials that it has not, epochs and ends that were recorded twice."""
    different: list[str] = field(default_factory=list)
    """Statuses, reasons, metrics, rows, exports and tables."""
    mlflow_missing: list[str] = field(default_factory=list)
    """Runs and points."""
    mlflow_doubled: list[str] = field(default_factory=list)
    """Runs and points that are there more than once, or should not be."""
    mlflow_different: list[str] = field(default_factory=list)
    """Statuses, parameters and values."""

    @property
    def counts(self) -> dict[str, int]:
        """How many of each."""
        return {item.name: len(getattr(self, item.name)) for item in fields(self)}

    @property
    def none(self) -> bool:
        """Whether the outcomes are equal."""
        return not any(self.counts.values())


def compare(wanted: Outcome, found: Outcome) -> Differences:
    """What sets ``found`` apart from ``wanted``, the undisturbed one."""
    seen = Differences(repeated=[f"{what}: {count} times too often" for what, count in found.repeated.items()])
    _trials(wanted, found, seen)
    _views(wanted, found, seen)
    _mlflow(wanted, found, seen)
    return seen


def _trials(wanted: Outcome, found: Outcome, seen: Differences) -> None:
    seen.lost += [f"trial {key}" for key in wanted.trials.keys() - found.trials.keys()]
    seen.repeated += [f"trial {key} is none of the sweep's" for key in found.trials.keys() - wanted.trials.keys()]
    for key in wanted.trials.keys() & found.trials.keys():
        own, other = wanted.trials[key], found.trials[key]
        seen.lost += [f"epoch {epoch} of {key}" for epoch in own["epochs"].keys() - other["epochs"].keys()]
        seen.repeated += [f"epoch {epoch} of {key}" for epoch in other["epochs"].keys() - own["epochs"].keys()]
        seen.different += [
            f"epoch {epoch} of {key}: {name} is {other['epochs'][epoch].get(name)}, not {value}"
            for epoch in own["epochs"].keys() & other["epochs"].keys()
            for name, value in own["epochs"][epoch].items()
            if other["epochs"][epoch].get(name) != value
        ]
        seen.different += [
            f"{name} of {key}: {other[name]!r}, not {own[name]!r}"
            for name in ("number", "status", "reason", "config")
            if own[name] != other[name]
        ]


def _views(wanted: Outcome, found: Outcome, seen: Differences) -> None:
    if wanted.rows != found.rows:
        apart = sum(row not in found.rows for row in wanted.rows) + sum(row not in wanted.rows for row in found.rows)
        seen.different.append(f"results.parquet: {apart} rows differ, of {len(wanted.rows)} and {len(found.rows)}")
    seen.different += [
        f"{name}: not as undisturbed"
        for name in sorted(wanted.files.keys() | found.files.keys())
        if wanted.files.get(name) != found.files.get(name)
    ]


def _mlflow(wanted: Outcome, found: Outcome, seen: Differences) -> None:
    def named(key: str) -> str:
        return f"run of {key}" if key else "parent run"

    for key in wanted.runs.keys() | found.runs.keys():
        own, other = wanted.runs.get(key, []), found.runs.get(key, [])
        if len(other) < len(own):
            seen.mlflow_missing.append(named(key))
        elif len(other) > len(own):
            seen.mlflow_doubled.append(f"{named(key)}: {len(other)} of it, {', '.join(other)}")
        elif own != other:
            seen.mlflow_different.append(f"{named(key)}: {', '.join(other)}, not {', '.join(own)}")
        if other and found.params.get(key) != wanted.params.get(key):
            seen.mlflow_different.append(f"{named(key)}: other parameters")
    for point in wanted.points.keys() | found.points.keys():
        own, other = wanted.points.get(point, []), found.points.get(point, [])
        if len(other) < len(own):
            seen.mlflow_missing.append(f"point {point}")
        elif len(other) > len(own):
            seen.mlflow_doubled.append(f"point {point}: {len(other)} of it")
        elif own != other:
            seen.mlflow_different.append(f"point {point}: {other[0]}, not {own[0]}")
