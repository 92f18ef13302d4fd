"""Where a command computes: its threads on the CPU, or the GPU, from the flags that every command has for it."""

from collections.abc import Iterator

import torch

from trainables.runs import usable_cpus
from trainables.trial import prepare_process
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
