"""What the commands of ``analysis`` share: how arguments come in and errors leave."""

import sys
from collections.abc import Callable

import tyro

from vqcore.config import ConfigError


def command(main: Callable[..., None]) -> None:
    """Run ``main`` from the command line; ``ConfigError`` and ``OSError`` become a plain message and exit code 2."""
    try:
        tyro.cli(main)
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
