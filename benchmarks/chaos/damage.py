"""What a bad disk does to a file, and a full one to all of them."""

import os
import random
import subprocess
from pathlib import Path


def cut(path: Path, chance: random.Random) -> str:
    """Cut a file off somewhere; in words. Its time stays, so that who watches for new files sees none."""
    size, stamp = path.stat().st_size, path.stat()
    kept = chance.randrange(size)
    os.truncate(path, kept)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return f"{path.name} cut to {kept} of {size} bytes"


def flip(path: Path, chance: random.Random, start: int = 0, end: int | None = None) -> str:
    """Flip a bit of a file, between the bytes ``start`` and ``end``; in words. Its time stays."""
    stamp = path.stat()
    place, bit = chance.randrange(start, stamp.st_size if end is None else end), chance.randrange(8)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return f"bit {bit} of byte {place} of {path.name} flipped"


def damage(path: Path, chance: random.Random) -> str:
    """Cut a file off, or flip a bit of it."""
    return cut(path, chance) if chance.random() < 0.5 else flip(path, chance)


class Disk:
    """A small disk of its own (tmpfs) at ``folder``; only root may mount one, and ``missing`` says so."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={megabytes}m"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "chaos", folder], capture_output=True, text=True, check=False
        )
        self.mounted = done.returncode == 0
        self.missing = "" if self.mounted else f"no disk can be mounted here ({done.stderr.strip()})"

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(b"\0" * size):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        """Give back what ``fill`` took."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount; what it held is gone."""
        if self.mounted:
            # lazily: a process that is just ending may still have a file open there
            subprocess.run(["umount", "-l", self.folder], check=False)
            self.mounted = False
