"""Files that are whole or absent: written beside their place, then renamed into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it becomes ``path`` in one step, on an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process's number keeps two analyses of one run from writing into each other's file.
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
