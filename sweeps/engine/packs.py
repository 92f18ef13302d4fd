"""The processes of packs on Ray: each holds the share of a GPU, or the CPUs, that its trials train on together.

One that died is followed by another, on a node that has room; its trials go on from their checkpoints. Ray itself does
not start it again: calls would fail until it has, and where no node has room they would for ever.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import ray

from trainables.job import TrialJob
from trainables.pack_host import PackHost
from trainables.tune_trial import Arrays
from vqcore.sizes import shape

CLIENT_CPUS = 0.001
"""What a trial books beside its pack's process, which does the work."""


Shape = tuple[Any, ...]


def roomiest(taken: Sequence[tuple[int, Shape]], processes: Iterable[int], size: int, model: Shape) -> int:
    """The process for one more model of this shape: with room, with the fewest others of another shape, and the fewest.

    Models of one shape train as one, those of several one after another. ``taken`` has the process and the shape of
    each model that has a place.
    """
    others, members = Counter[int](), Counter[int]()
    for process, other in taken:
        members[process] += 1
        others[process] += other != model
    free = [process for process in processes if members[process] < size]
    return min(free, key=lambda process: (others[process], members[process]))


class Packs:
    """Which trial is in which pack."""

    def __init__(self, size: int, arrays: Arrays | None = None) -> None:
        """Packs of so many trials at most. ``arrays`` as in ``PackHost``."""
        self._size = size
        self._arrays = None if arrays is None else ray.put(arrays)
        self._hosts: dict[int, Any] = {}
        """The processes, as Ray knows them, by numbers of ours."""
        self._numbers = itertools.count()
        self._places: dict[str, tuple[int, int, Shape]] = {}
        """Of each trial that has a slot: its process, its visit there, the shape of its model."""
        self._visits = 0

    def place(self, job: TrialJob, slots: int) -> dict[str, Any]:
        """Give a trial its place, of so many that there are now: what its configuration says of it."""
        if len(self._hosts) < math.ceil(slots / self._size):  # of those that it has room for, one by one
            self._hosts[next(self._numbers)] = self._start(job)
        model = shape(job.config)
        taken = [(process, other) for process, _, other in self._places.values()]
        process = roomiest(taken, self._hosts, self._size, model)
        self._visits += 1
        self._places[job.key] = process, self._visits, model
        return {"pack": self._hosts[process], "visit": self._visits}

    def leave(self, key: str) -> None:
        """Take a trial that has lost its slot out of its pack."""
        if (place := self._places.pop(key, None)) is not None and (host := self._hosts.get(place[0])) is not None:
            host.leave.remote(key, place[1])

    def died(self, key: str) -> None:
        """Give up the process of a trial: it has died, or is not to be reached."""
        if (place := self._places.pop(key, None)) is not None and (host := self._hosts.pop(place[0], None)) is not None:
            ray.kill(host)

    def clear(self) -> None:
        """Take every trial out of its pack."""
        for key in tuple(self._places):
            self.leave(key)

    def _start(self, job: TrialJob) -> Any:
        cpus = max(0.0, job.cpus - self._size * CLIENT_CPUS)
        return ray.remote(PackHost).options(num_cpus=cpus, num_gpus=job.gpus).remote(self._arrays)
