"""Counts the epochs that were really trained, from the checkpoints that appear: those trained twice were lost once."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOK = 0.1
"""Seconds between two looks; an epoch takes longer, and two checkpoints are kept."""


class Watch:
    """Looks at the trials' folders, in a thread of its own, while it is used as a context manager."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials
        self._seen: set[tuple[str, int, int, int]] = set()
        self._over, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    @contextmanager
    def blind(self) -> Iterator[None]:
        """See nothing meanwhile: whoever damages a file puts its time back."""
        with self._looking:
            yield

    @property
    def trained(self) -> int:
        """Epochs trained so far, each as often as it was."""
        return len(self._seen)

    @property
    def twice(self) -> int:
        """How many of them were trained before."""
        return len(self._seen) - len({(trial, epoch) for trial, epoch, _, _ in self._seen})

    def _follow(self) -> None:
        while not self._over.wait(LOOK):
            self._look()

    def _look(self) -> None:
        with self._looking, suppress(OSError):
            for folder in self._trials.iterdir():
                for file in folder.glob("epoch-*.safetensors"):
                    with suppress(OSError):
                        stamp = file.stat()
                        if match := re.match(r"epoch-(\d+)", file.name):
                            self._seen.add((folder.name, int(match[1]), stamp.st_ino, stamp.st_mtime_ns))
