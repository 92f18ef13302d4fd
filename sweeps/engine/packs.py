"""The processes of packs on Ray: each holds the share of a GPU, or the CPUs, that its trials train on together.

Ray starts one that died again, on a node that has room; its trials go on from their checkpoints.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import ray

from trainables.job import TrialJob
from trainables.pack_host import PackHost
from trainables.tune_trial import Arrays
from vqcore.sizes import shape

CLIENT_CPUS = 0.001
"""What a trial books beside its pack's process, which does the work."""


Shape = tuple[Any, ...]


def roomiest(taken: Sequence[tuple[int, Shape]], processes: int, size: int, model: Shape) -> int:
    """The process for one more model of this shape: with room, with the fewest others of another shape, and the fewest.

    Models of one shape train as one, those of several one after another. ``taken`` has the process and the shape of
    each model that has a place.
    """
    others, members = Counter[int](), Counter[int]()
    for process, other in taken:
        members[process] += 1
        others[process] += other != model
    free = [process for process in range(processes) if members[process] < size]
    return min(free, key=lambda process: (others[process], members[process]))


class Packs:
    """Which trial is in which pack."""

    def __init__(self, processes: int, size: int, arrays: Arrays | None = None) -> None:
        """At most so many processes, each of ``size`` trials. ``arrays`` as in ``PackHost``."""
        self._processes, self._size = processes, size
        self._arrays = None if arrays is None else ray.put(arrays)
        self._hosts: list[Any] = []
        self._places: dict[str, tuple[int, int, Shape]] = {}
        """Of each trial that has a slot: its process, its visit there, the shape of its model."""
        self._visits = 0

    def place(self, job: TrialJob) -> dict[str, Any]:
        """Give a trial its place: what its configuration says of it."""
        model = shape(job.config)
        taken = [(process, other) for process, _, other in self._places.values()]
        process = roomiest(taken, self._processes, self._size, model)
        self._visits += 1
        self._places[job.key] = process, self._visits, model
        return {"pack": self._host(process, job), "visit": self._visits}

    def leave(self, key: str) -> None:
        """Take a trial that has lost its slot out of its pack."""
        if (place := self._places.pop(key, None)) is not None:
            process, visit, _ = place
            self._hosts[process].leave.remote(key, visit)

    def clear(self) -> None:
        """Take every trial out of its pack."""
        for key in tuple(self._places):
            self.leave(key)

    def _host(self, process: int, job: TrialJob) -> Any:
        while len(self._hosts) <= process:
            cpus = job.cpus - self._size * CLIENT_CPUS
            actor = ray.remote(PackHost).options(num_cpus=cpus, num_gpus=job.gpus, max_restarts=-1)
            self._hosts.append(actor.remote(self._arrays))
        return self._hosts[process]
