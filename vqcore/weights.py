"""Weights from a safetensors file, into the module that the TOML beside it describes."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vqcore.errors import ConfigError

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def load_weights(path: Path, make: Callable[[], ModuleT], numbers: int, what: str) -> ModuleT:
    """What ``make`` makes, with the weights in ``path``, in eval mode. ``ConfigError`` if the file does not hold it.

    ``numbers`` that it has at least are compared with the file's bytes before it is made: a TOML that describes
    terabytes must not get them.
    """
    try:
        if numbers > (most := path.stat().st_size):
            raise RuntimeError(f"{numbers:,} numbers, and it has {most:,} bytes")
        module = make()
        module.load_state_dict(load_file(path))
    except (RuntimeError, OSError, SafetensorError) as error:
        first = "; ".join(line.strip() for line in str(error).splitlines()[:2])  # of a line for each tensor
        raise ConfigError([f"{path}: does not hold the {what} that its TOML describes ({first})"]) from error
    return module.eval()
