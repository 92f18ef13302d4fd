"""What a machine has, and how trials are packed onto it or onto a cluster."""

import functools
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trainables.job import CUDA_CONTEXT
from trainables.runs import usable_cpus
from trainables.storage import size
from vqcore.config import ConfigError

RAY_UNIT = 10_000
"""Ray counts resources in units of 1/10,000 and rounds to them: seven times 1/7 would be 1.0003 GPUs, and not fit."""


MOST_PACKED = 100
"""Beyond which a pack has long filled its GPU."""

GPU_FILES = ("nvidia*", "nvhost*", "dxg", "kfd")
"""In ``/dev``, where there is a GPU that torch can use: NVIDIA's, of a Jetson, in Windows' Linux, AMD's."""


class Gpu(NamedTuple):
    """One that torch can use."""

    name: str
    memory: int
    """Bytes."""


@dataclass(frozen=True)
class Available:
    """What there is to book."""

    cpus: int
    gpus: int
    where: str = "this machine"
    gpu: Gpu | None = None
    """The smallest of them; None where it is not known, as on a cluster."""


@dataclass(frozen=True)
class Booking:
    """What a process that trains books, how many trials it trains together, and how many trials run at once."""

    slots: int
    cpus: float
    gpus: float
    pack: int = 1

    @property
    def processes(self) -> int:
        """How many train."""
        return self.slots // self.pack


def this_machine() -> Available:
    """CPUs this process may use, and the GPUs that torch can use here."""
    return Available(usable_cpus(), len(gpus()), gpu=min(gpus(), key=lambda gpu: gpu.memory, default=None))


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch can use here, in its order.

    Torch is asked in a process of its own, since this one needs it for nothing else; not at all without a GPU's file.
    """
    if not any(found for name in GPU_FILES for found in Path("/dev").glob(name)):
        return ()
    each = "map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))"
    code = f"import torch\nfor gpu in {each}: print(gpu.total_memory, gpu.name)"
    asked = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    found = (line.split(" ", 1) for line in asked.stdout.splitlines())
    return tuple(Gpu(name, int(memory)) for memory, name in found)


def book(
    available: Available, num_gpus: int | None, trials_per_gpu: float, num_cpus: int | None, pack: int = 1
) -> Booking:
    """The packing of trials. ``None`` takes all there are. Raises ``ConfigError`` for what does not fit or pack.

    With GPUs a trial books 1/``trials_per_gpu`` of one and an equal share of the CPUs, one at most; without, one CPU. A
    share of a GPU must hold more than CUDA's context.
    """
    gpus = available.gpus if num_gpus is None else num_gpus
    cpus = available.cpus if num_cpus is None else num_cpus
    problems = []
    if not 0 <= gpus <= available.gpus:
        there = f"{available.gpus}; ask for 0 to {available.gpus}" if available.gpus else "none; ask for 0"
        problems.append(f"--num-gpus {gpus}: {available.where} has {there} (--num-gpus 0 trains on the CPU)")
    if not 1 <= cpus <= available.cpus:
        problems.append(f"--num-cpus {cpus}: {available.where} has {available.cpus}; ask for 1 to {available.cpus}")
    if not 1 <= trials_per_gpu <= 100 or trials_per_gpu != int(trials_per_gpu):
        problems.append(f"--trials-per-gpu {trials_per_gpu:g}: a GPU packs a whole number of trials, from 1 to 100")
    elif gpus and available.gpu and (part := int(available.gpu.memory / trials_per_gpu)) <= CUDA_CONTEXT:
        shares = f"shares of {size(part)}, and CUDA alone takes some {size(CUDA_CONTEXT)} in each process"
        fewer = f"{available.gpu.name} has {size(available.gpu.memory)}, room for fewer"
        problems.append(f"--trials-per-gpu {trials_per_gpu:g}: {shares}; {fewer}")
    if not 1 <= pack <= MOST_PACKED:
        problems.append(f"--pack {pack}: a process trains 1 to {MOST_PACKED} trials together")
    if problems:
        raise ConfigError(problems)
    if gpus == 0:
        return Booking(cpus * pack, 1.0, 0.0, pack)
    processes = gpus * int(trials_per_gpu)
    return Booking(processes * pack, min(1.0, share(cpus, processes)), share(1, int(trials_per_gpu)), pack)


def fitting(available: Available, booking: Booking) -> int:
    """How many trials with the shares of ``booking`` fit into what is there now; nodes join a cluster, and leave it."""
    by_cpus = int(available.cpus / booking.cpus)
    return booking.pack * (min(by_cpus, int(available.gpus / booking.gpus)) if booking.gpus else by_cpus)


def share(whole: int, parts: int) -> float:
    """One of so many equal parts, rounded down to what Ray counts."""
    return math.floor(RAY_UNIT * whole / parts) / RAY_UNIT
