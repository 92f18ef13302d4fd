"""A clock that can be stepped: of the driver and its workers, while they run. Needs a C compiler (``clock.c``)."""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path


class Clock:
    """The wall clock of the processes that are started with its ``environment``."""

    def __init__(self, folder: Path) -> None:
        self._library, self._file = folder / "clock.so", folder / "clock.offset"
        self.missing = ""
        """Why there is none."""
        self.set(0.0)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            self.missing = "no C compiler"
            return
        source = Path(__file__).with_name("clock.c")
        words = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(source), "-ldl"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            self.missing = f"clock.c does not compile here ({done.stderr.splitlines()[0]})"

    @property
    def environment(self) -> dict[str, str]:
        """What a process has to be started with."""
        if self.missing:
            return {}
        return {"LD_PRELOAD": str(self._library.absolute()), "CHAOS_CLOCK": str(self._file.absolute())}

    def set(self, seconds: float) -> None:
        """Let the clock be so many seconds off from now on."""
        if not self._file.exists():
            self._file.write_bytes(bytes(mmap.PAGESIZE))
        with self._file.open("r+b") as file:  # in place: it is mapped
            file.write(struct.pack("d", seconds))
