"""CPU time of a sweep by the kind of its processes: on a machine that others use too, it says more than the clock."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping

from benchmarks.processes import Command, cpu_seconds

KINDS = {
    "VQTrial": "the trials' processes",
    "ResourceTrainable": "the trials' processes",  # what Tune makes of it
    "sweeps.": "the driver",
    "trainables.mlflow_sender": "MLflow's sender",
    "analysis.page": "the report while it runs",
}
"""Words of a command line; all others are Ray's own."""


class CpuTimes:
    """Of a command's processes, as last seen; to be looked at often."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, float]] = {}
        self._looked = 0.0

    def look(self, command: Command) -> None:
        """Once a second at most: to find all processes takes milliseconds."""
        if time.monotonic() - self._looked < 1:
            return
        self._looked = time.monotonic()
        for pid, words in command.members().items():
            if words and (seconds := cpu_seconds(pid)):
                self._seen[pid] = words, seconds

    @property
    def by_kind(self) -> dict[str, float]:
        """Seconds of all processes of a kind, those that have ended among them."""
        return by_kind(self._seen.values())


def by_kind(seen: Iterable[tuple[str, float]], kinds: Mapping[str, str] = KINDS) -> dict[str, float]:
    """The sums of seconds, by what each command line is."""
    found: dict[str, float] = defaultdict(float)
    for words, seconds in seen:
        found[next((kind for word, kind in kinds.items() if word in words), "Ray's own processes")] += seconds
    return {kind: round(seconds, 2) for kind, seconds in sorted(found.items())}
