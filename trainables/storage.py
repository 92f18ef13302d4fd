"""Where a trial keeps its files: a folder, or a prefix of an S3 bucket, behind four verbs.

A location is text, so that it travels to the trials' processes: an absolute path, or ``s3://bucket/prefix``, where
``endpoint_override``, ``scheme`` and ``region`` may follow a ``?``. It holds no credentials; they come from the
environment of whoever opens it. Names in a location are plain names, so that none read from a file leads out of it.
"""

import errno
import os
import re
import shutil
import socket
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trainables.interruption import HaltError
from vqcore.errors import ConfigError

PLAIN = re.compile(r"\w[\w .-]{0,199}")
"""A name that leads nowhere else."""

PART = ".part"
"""How the name of a file ends that is being written."""

PROBE = "probe"
ATTEMPTS = 8
"""How often an S3 endpoint is asked before it counts as gone: for most of a minute."""
PROBE_SECONDS = 10.0
"""How long a storage may take to take in a small file and give it back."""

_OF_A_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a process or a node that lacks something, whatever the storage."""


class StorageError(HaltError):
    """A storage that no trial can use now, in words; a resume goes on once it can be used again."""

    def __init__(self, location: str, words: str, number: int = errno.EIO) -> None:
        super().__init__(number, words, location)
        self.location, self.words = location, words

    def __str__(self) -> str:
        return f"{self.location}: {self.words}"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return StorageError, (self.location, self.words, self.errno)


class StorageFullError(StorageError):
    """No room is left: ``needed`` bytes were to be written, ``free`` are there; None where that cannot be known."""

    def __init__(self, location: str, needed: int, free: int | None = None) -> None:
        self.needed, self.free = needed, free
        known = free is not None and free < needed  # else it is a quota, or others wrote meanwhile
        room = f", {size(free)} are free, {size(needed - free)} missing" if known and free is not None else ""
        super().__init__(
            location, f"full: the checkpoint needs {size(needed)}{room}; free them, then --resume", errno.ENOSPC
        )

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return StorageFullError, (self.location, self.needed, self.free)


class Store(ABC):
    """The files of one location. ``StorageError`` where no trial could go on; other errors are a file's or a node's."""

    def __init__(self, location: str) -> None:
        self.location = location

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's content. ``FileNotFoundError`` if there is none; ``OSError`` if it alone cannot be read."""

    @abstractmethod
    def write(self, name: str, content: Iterable[bytes | memoryview], lasting: bool = True) -> None:
        """Make ``content``, joined, the file's: whole or not at all. ``lasting``: also after a power cut."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files there are, also those that another process is writing (``PART``); none without the location."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file if it is there."""


class Folder(Store):
    """A folder in one that there is, made when something is first written to it. Links in it are not followed."""

    def read(self, name: str) -> bytes:
        """As ``Store`` says."""
        # a link would lead out of the folder, and a pipe that nobody writes to would hold the reader for ever
        flags, path = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, self._path(name)
        try:
            with os.fdopen(os.open(path, flags), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError(errno.EINVAL, "is not a plain file", str(path))
                return file.read()
        except OSError:
            self.names()  # fails too, as a ``StorageError``, unless it is this file alone
            raise

    def write(self, name: str, content: Iterable[bytes | memoryview], lasting: bool = True) -> None:
        """As ``Store`` says. ``StorageFullError`` on a full disk, or when a quota is used up."""
        path, parts = self._path(name), list(content)
        with self._in_words(sum(map(len, parts))):
            path.parent.mkdir(exist_ok=True)  # not what is above: that may be a mount, gone, and its disk another one
            replace_file(path, parts, lasting)

    def names(self) -> list[str]:
        """As ``Store`` says."""
        with self._in_words():
            try:
                with os.scandir(self.location) as entries:
                    return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        """As ``Store`` says."""
        path = self._path(name)
        with self._in_words():
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return Path(self.location, plain(name))

    @contextmanager
    def _in_words(self, needed: int = 0) -> Iterator[None]:
        """What the system says of a folder in which no trial could keep anything, as the storage's errors."""
        try:
            yield
        except OSError as error:
            if error.errno in _OF_A_PROCESS:
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = free_bytes(self.location) if error.errno == errno.ENOSPC else None
                raise StorageFullError(self.location, needed, free) from error
            raise StorageError(self.location, error.strerror or str(error), error.errno or errno.EIO) from error


def replace_file(path: Path, content: Iterable[bytes | memoryview], lasting: bool = True) -> None:
    """Write beside, force to the disk, rename: a reader sees the old file or the new one.

    After a power cut too if it is ``lasting``; else the file may then be damaged. What another process writes at the
    same time, or a link that lies in the way, is not written through.
    """
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        with part.open("xb") as file:
            file.writelines(content)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_store(location: str, patient: bool = True) -> Store:
    """The store at a location; one in a bucket whose endpoint does not answer is asked again if ``patient``."""
    if is_bucket(location):
        from trainables.bucket import Bucket  # pyarrow, which other trials do without

        return Bucket(location, attempts=ATTEMPTS if patient else 2)
    return Folder(location)


def is_bucket(location: str) -> bool:
    """Whether a location is in an S3 bucket."""
    return location.startswith("s3://")


def join(location: str, *names: str) -> str:
    """The location that plain ``names`` lead to from ``location``. ``ConfigError`` if one is not plain."""
    steps = [plain(name) for name in names]
    if not is_bucket(location):
        return str(Path(location, *steps).absolute())
    path, mark, options = location.partition("?")
    return "/".join([path.rstrip("/"), *steps]) + mark + options


def plain(name: str) -> str:
    """``name`` if it is a plain name, which cannot lead to another folder. ``ConfigError`` else."""
    if not PLAIN.fullmatch(name):
        raise ConfigError([f"{name!r}: must be a plain name, of letters, digits and . _ -, without path separators"])
    return name


def check_storage(location: str) -> None:
    """``ConfigError`` unless files can be written, listed, read back and removed there, within seconds."""
    if is_bucket(location):
        from trainables.bucket import check_location

        check_location(location)
    elif not location or re.match(r"[A-Za-z0-9+.-]+:/", location):
        raise ConfigError([f"--storage {location.partition(':')[0]}:...: must be a folder, or s3://bucket/prefix"])
    told: list[str] = []

    def probe() -> None:
        try:
            _probe(location)
            told.append("")
        except OSError as error:
            told.append(error.strerror or str(error))

    # a network storage that is gone may hold whoever asks for minutes
    asking = threading.Thread(target=probe, name="storage-probe", daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    problem = told[0] if told else f"does not answer within {PROBE_SECONDS:.0f} s"
    if problem:
        raise ConfigError([f"--storage {location}: {problem}; put that right, or name another --storage"])


def _probe(location: str) -> None:
    if not is_bucket(location) and not Path(location).is_dir():
        above = existing(location)
        if not above.is_dir():
            raise StorageError(location, f"{above} is not a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise StorageError(location, f"no folder can be made in {above}: Permission denied")
        return
    store, name, content = open_store(location, patient=False), f"{PROBE}-{os.urandom(4).hex()}", os.urandom(16)
    store.write(name, [content])
    try:
        if name not in store.names() or store.read(name) != content:
            raise StorageError(location, "does not give back what was written to it")
    finally:
        store.delete(name)


def check_seen(location: str) -> None:
    """``StorageError`` unless this node sees what the driver made above ``location``: else a trial would write, unread
    by anybody, to the node's own disk."""
    above = Path(location).parent
    if not is_bucket(location) and not above.is_dir():
        raise StorageError(
            str(above), f"not seen by node {socket.gethostname()}; mount it there as elsewhere, then --resume"
        )


def existing(folder: str) -> Path:
    """The folder, or the nearest above it that exists."""
    path = Path(folder).absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def free_bytes(location: str) -> int | None:
    """Bytes that can still be written to a location; None where nobody knows."""
    return None if is_bucket(location) else shutil.disk_usage(existing(location)).free


def size(count: int) -> str:
    """Bytes for people, without a zero that hides something."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}" if count < 10 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count} bytes"
