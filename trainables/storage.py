"""Where a trial keeps its files: a folder, or a prefix of an S3 bucket, behind four methods.

A location is text, so that it travels to the trials' processes: an absolute path, or ``s3://bucket/prefix``, where
``endpoint_override``, ``scheme`` and ``region`` may follow a ``?``. It holds no credentials: those of a bucket are
found as every AWS tool finds them, in the environment, in ``~/.aws`` or from the machine. Names in a location are
plain names, so that none read from a file leads out of it.
"""

import errno
import functools
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from trainables.errors import FatalRunError
from vqcore.errors import ConfigError

PLAIN = re.compile(r"\w[\w .-]{0,199}")
"""A file name that cannot lead to another folder."""

PART = ".part"
"""The suffix of a file that is being written."""

ATTEMPTS = 8
"""Requests to an S3 endpoint that does not answer, before it counts as gone: most of a minute."""
REQUEST_SECONDS = 10.0
"""How long an S3 endpoint may take to answer one request."""

_S3 = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w=-][\w.=-]*)*/?"
    r"(\?(&?(endpoint_override|scheme|region)=[\w.:/\[\]-]+)+)?",
    re.ASCII,
)
_S3_ERRORS = {
    "StorageFull|QuotaExceeded|InsufficientStorage|HTTP status 507": "is full",
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NETWORK_CONNECTION|REQUEST_TIMEOUT": "nothing answers at the endpoint",
    "ACCESS_DENIED|ACCESS_KEY|SIGNATURE|TOKEN|CLIENT|HTTP status 40[13]": (
        "access is denied: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if it is temporary, AWS_SESSION_TOKEN, "
        "here and on every node; they must be allowed to list the bucket, and to put, get and delete objects"
    ),
}
"""Words in Arrow's errors of S3, and what to do about them."""


class StorageError(FatalRunError):
    """A storage that no trial can use now; a resume goes on once it can be used again.

    Made of ``errno``, the reason and the location, as every error of the operating system is.
    """

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class Store:
    """The files of one location. ``StorageError`` where no trial could go on; other errors are a file's or a node's.

    A folder is made when something is first written to it, in one that exists. A bucket whose endpoint does not answer
    is tried for longer if ``patient``.
    """

    def __init__(self, location: str, patient: bool = True) -> None:
        from pyarrow.fs import LocalFileSystem

        self.location, self._root = location, location
        with self._storage_errors():
            if is_bucket(location):
                check_s3(location)
                path, _, options = location.removeprefix("s3://").partition("?")
                self._root = path.rstrip("/")
                self._files: Any = _bucket(path.partition("/")[0], options, ATTEMPTS if patient else 2)
            else:
                self._files = LocalFileSystem()

    def read(self, name: str) -> bytes:
        """A file's content. ``FileNotFoundError`` if there is none; ``OSError`` if it alone cannot be read."""
        try:
            with self._files.open_input_file(self._path(name)) as file:
                content: bytes = file.read()
                return content
        except FileNotFoundError:
            raise
        except OSError:
            with self._storage_errors():
                if is_bucket(self.location):
                    raise
            self.names()  # fails too, as a ``StorageError``, unless it is this file alone
            raise

    def write(self, name: str, content: bytes, durable: bool = True) -> None:
        """Make ``content`` the file's: whole or not at all. ``durable``: also after a power cut."""
        path = self._path(name)
        with self._storage_errors():
            if is_bucket(self.location):  # an object is put whole or not at all, and is durable in any case
                with self._files.open_output_stream(path) as file:
                    file.write(content)
                return
            if not Path(self.location).exists():
                # not what is above: that may be a mount, gone, and its disk another one
                Path(self.location).mkdir(exist_ok=True)
                sync_folder(Path(self.location).parent)
            replace_file(Path(path), content, durable)

    def names(self) -> list[str]:
        """The files there are, also those being written by another process (``PART``); none without the location."""
        from pyarrow.fs import FileSelector, FileType

        with self._storage_errors():
            found = self._files.get_file_info(FileSelector(self._root, allow_not_found=True))
        return [info.base_name for info in found if info.type == FileType.File]

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        with self._storage_errors(), suppress(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{plain(name)}"

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Raise the operating system's and Arrow's errors about the location as ``StorageError``."""
        try:
            yield
        except OSError as error:
            text = " ".join(str(error).split())
            reasons = [reason for words, reason in _S3_ERRORS.items() if re.search(words, text)]
            if not is_bucket(self.location) and error.errno:
                reasons = [f"{os.strerror(error.errno)} (node {socket.gethostname()})"]
            raise StorageError(error.errno or errno.EIO, [*reasons, text[:300]][0], self.location) from error


@functools.lru_cache(maxsize=8)
def _bucket(bucket: str, options: str, attempts: int) -> Any:
    """One for all trials of a process: it keeps its connections."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    chosen = dict(parse_qsl(options))
    by_environment = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if not chosen.keys() & {"region", "endpoint_override"} and not any(map(os.environ.get, by_environment)):
        chosen["region"] = resolve_s3_region(bucket)
    return S3FileSystem(
        **chosen,
        connect_timeout=REQUEST_SECONDS / 2,
        request_timeout=REQUEST_SECONDS,
        allow_delayed_open=True,  # a small object is then put by one request, not by three
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


def replace_file(path: Path, content: bytes, durable: bool = True) -> None:
    """Write a file beside its place and rename it into it: a reader sees the old file or the new one, whole.

    ``durable``: also after a power cut, by forcing file and folder to the disk; without, the file may then be damaged.
    Neither what another process writes at the same time nor a link in the way is written through.
    """
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


@contextmanager
def locked(folder: Path, step: str) -> Iterator[None]:
    """One process at a time makes ``folder``; the lock dies with its holder.

    ``ConfigError``, with the ``step`` to take, if nothing can be written there.
    """
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            yield
    except OSError as error:
        raise ConfigError([f"{folder.parent}: cannot be written ({error.strerror or error}); {step}"]) from error


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a file that was renamed into it is there after a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
    """``ConfigError`` unless files can be written, listed, read back and removed there; nothing is left there."""
    if is_bucket(location):
        check_s3(location)
    elif not location or re.match(r"[A-Za-z0-9+.-]+:/", location):
        raise ConfigError([f"--storage {location.partition(':')[0]}:...: must be a folder, or s3://bucket/prefix"])
    there = is_bucket(location) or Path(location).is_dir()
    name, content = f"probe-{os.urandom(4).hex()}", b"probe"
    try:
        store = Store(location if there else str(existing(location)), patient=False)
        store.write(name, content)
        if name not in store.names() or store.read(name) != content:
            raise StorageError(errno.EIO, "does not give back what was written to it", location)
        store.delete(name)
    except OSError as error:
        step = "put that right, or name another --storage"
        raise ConfigError([f"--storage {location}: {error.strerror or error}; {step}"]) from error


def check_s3(location: str) -> None:
    """``ConfigError`` unless the text is a location in a bucket. It is not repeated, as it may hold a secret."""
    if not _S3.fullmatch(location):
        raise ConfigError(
            [
                "--storage s3://...: must be s3://bucket/prefix, of letters, digits and . _ = -, after which "
                "endpoint_override=, scheme= and region= may come, with a ? before and & between; it must hold no "
                "credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
            ]
        )


def existing(folder: str) -> Path:
    """The folder, or the nearest above it that exists."""
    path = Path(folder).absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def free_bytes(location: str) -> int | None:
    """Bytes that can still be written to a location; None for a bucket, which has no limit."""
    return None if is_bucket(location) else shutil.disk_usage(existing(location)).free


def size(count: int) -> str:
    """Bytes for people: two digits or more, in the unit that fits."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}" if count < 10 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count} bytes"


def check_disk(location: str, needed: int) -> None:
    """``ConfigError`` if the disk of the trials in ``location`` has less than ``needed``, with what they hold."""
    free = free_bytes(location)
    if free is None:  # a bucket has no end
        return
    needed -= sum(file.stat().st_size for file in Path(location).glob("*/epoch-*.safetensors"))
    if free < needed:
        raise ConfigError(
            [
                f"{location}: the checkpoints need {size(needed)}, {size(free)} are free there, "
                f"{size(needed - free)} missing; free them, name another --storage, or sweep fewer trials"
            ]
        )
