"""Where a process computes: its threads on the CPU, or its share of a GPU; how much memory it takes there."""

import ctypes
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from trainables.job import CUDA_CONTEXT
from trainables.runs import usable_cpus
from trainables.storage import size
from vqcore.errors import ConfigError


def device_problems(num_cpus: int | None, num_gpus: int | None) -> Iterator[str]:
    """What is wrong with ``--num-cpus`` and ``--num-gpus`` on this machine, a line each; None is a flag not given."""
    gpus, cores = torch.cuda.device_count(), usable_cpus()
    if num_gpus is not None and not 0 <= num_gpus <= min(1, gpus):
        yield f"--num-gpus {num_gpus}: one process uses 0 or 1; this machine has {gpus}"
    if num_cpus is not None and not 1 <= num_cpus <= cores:
        yield f"--num-cpus {num_cpus}: this machine has {cores}; ask for 1 to {cores}"


def open_device(num_cpus: int | None = None, num_gpus: int | None = None) -> torch.device:
    """Set this process's threads, all CPUs unless given; the GPU if there is one and 0 is not asked for, else the CPU.

    Raises ``ConfigError`` for more than the machine has.
    """
    if problems := tuple(device_problems(num_cpus, num_gpus)):
        raise ConfigError(problems)
    gpus = min(1, torch.cuda.device_count()) if num_gpus is None else num_gpus
    return prepare_process(num_cpus or usable_cpus(), gpus)


def memory(device: torch.device) -> int:
    """Bytes of memory that the machine, or its GPU, has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def process_memory() -> tuple[int, int]:
    """Bytes of the machine's memory: this process's at its peak, and those available; 2**62 where it is not known."""
    info = Path("/proc/meminfo")  # of Linux
    available = re.search(r"MemAvailable:\s*(\d+)", info.read_text() if info.exists() else "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, int(available[1]) * 1024 if available else 2**62


def tensor_share(gpus: float, capacity: int) -> float:
    """Of a GPU of ``capacity`` bytes, what the tensors of a process may take that booked the share ``gpus`` of it.

    The rest of the share is left to CUDA's context, which torch's own limit does not count. A process with a whole GPU
    has no limit. ``ConfigError`` where a context alone takes the share.
    """
    if gpus >= 1:
        return 1.0
    if gpus * capacity <= CUDA_CONTEXT:
        each = f"{gpus:g} GPU is {size(round(gpus * capacity))} of its {size(capacity)}"
        rule = f"CUDA alone takes some {size(CUDA_CONTEXT)} of that in each process"
        raise ConfigError([f"{each}, and {rule}: fewer --trials-per-gpu"])
    return gpus - CUDA_CONTEXT / capacity


def prepare_process(cpus: float, gpus: float) -> torch.device:
    """Set what a process carries from one trial to the next: threads, generators, the GPU memory it may take.

    ``ConfigError`` where its share of a GPU holds no CUDA context, ``RuntimeError`` where there is no GPU.
    """
    torch.set_num_threads(max(1, int(cpus)))
    torch.manual_seed(0)
    _keep_freed_memory()
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"{gpus:g} GPU booked for this trial, but torch {torch.__version__} sees none: "
            "install a CUDA build of torch and its driver, or run with --num-gpus 0"
        )
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(tensor_share(gpus, memory(torch.device("cuda"))))
    return torch.device("cuda")


def gpu_is_lost() -> bool:
    """Whether no call to the GPU succeeds any more in this process, as after an access out of bounds."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _keep_freed_memory() -> None:
    """Tell glibc to reuse large blocks instead of returning them; elsewhere than on glibc, do nothing.

    Mapping and zeroing the activations anew at every step costs 10 % of a bf16 step on the CPU, 20 % of an fp32 one.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, 2**31 - 1)
