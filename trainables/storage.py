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
import stat
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
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
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 10.0
"""How long a storage may take for a small file, written and read back."""

_OF_A_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of a process or a node that lacks something, whatever the storage."""
_OPTIONS = ("endpoint_override", "scheme", "region")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?")
_S3_FULL = re.compile("StorageFull|QuotaExceeded|InsufficientStorage|HTTP status 507", re.IGNORECASE)
_S3_ERRORS = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NETWORK_CONNECTION|REQUEST_TIMEOUT": "nothing answers at the endpoint",
    "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|"
    "INVALID_SIGNATURE|MISSING_AUTHENTICATION_TOKEN|HTTP status 403|HTTP status 401": (
        "access is denied: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if it is temporary, AWS_SESSION_TOKEN, "
        "here and on every node; they must be allowed to list the bucket, and to put, get and delete objects"
    ),
}
"""Error names of S3, and what to do about them."""


class StorageError(FatalRunError):
    """A storage that no trial can use now; a resume goes on once it can be used again."""

    def __init__(self, location: str, reason: str, number: int = errno.EIO) -> None:
        super().__init__(number, reason, location)
        self.location, self.reason = location, reason

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return StorageError, (self.location, self.reason, self.errno)


class StorageFullError(StorageError):
    """No space is left for ``needed`` bytes; ``free`` is how many there are, None where that cannot be known."""

    def __init__(self, location: str, needed: int, free: int | None = None) -> None:
        self.needed, self.free = needed, free
        short = free is not None and free < needed  # else it is a quota, or others wrote meanwhile
        missing = f", {size(free)} are free, {size(needed - free)} missing" if short and free is not None else ""
        super().__init__(
            location, f"full: the checkpoint needs {size(needed)}{missing}; free them, then --resume", errno.ENOSPC
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
    def write(self, name: str, content: Iterable[bytes | memoryview], durable: bool = True) -> None:
        """Make ``content``, joined, the file's: whole or not at all. ``durable``: also after a power cut."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files there are, also those being written by another process (``PART``); none without the location."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file if it is there."""


class Folder(Store):
    """A folder in one that exists, made when something is first written to it. Links in it are not followed."""

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

    def write(self, name: str, content: Iterable[bytes | memoryview], durable: bool = True) -> None:
        """As ``Store`` says. ``StorageFullError`` on a full disk, or when a quota is used up."""
        path, parts = self._path(name), list(content)
        with self._storage_errors(sum(map(len, parts))):
            if not path.parent.is_dir():
                # not what is above: that may be a mount, gone, and its disk another one
                path.parent.mkdir(exist_ok=True)
                sync_folder(path.parent.parent)
            replace_file(path, parts, durable)

    def names(self) -> list[str]:
        """As ``Store`` says."""
        with self._storage_errors():
            try:
                with os.scandir(self.location) as entries:
                    return [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        """As ``Store`` says."""
        path = self._path(name)
        with self._storage_errors():
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return Path(self.location, plain(name))

    @contextmanager
    def _storage_errors(self, needed: int = 0) -> Iterator[None]:
        """Raise the operating system's errors about the folder as ``StorageError``."""
        try:
            yield
        except OSError as error:
            if error.errno in _OF_A_PROCESS:
                raise
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                free = free_bytes(self.location) if error.errno == errno.ENOSPC else None
                raise StorageFullError(self.location, needed, free) from error
            raise StorageError(self.location, error.strerror or str(error), error.errno or errno.EIO) from error


class Bucket(Store):
    """The objects under one prefix of an S3 bucket, through Arrow. An object is put whole or not at all."""

    def __init__(self, location: str, attempts: int) -> None:
        super().__init__(location)
        check_s3(location)
        path, _, options = location.removeprefix("s3://").partition("?")
        self._prefix = path.rstrip("/")
        with self._storage_errors():
            self._files = _filesystem(path.partition("/")[0], options, attempts)

    def read(self, name: str) -> bytes:
        """As ``Store`` says."""
        with self._storage_errors(), self._files.open_input_file(self._object(name)) as file:
            content: bytes = file.read()
            return content

    def write(self, name: str, content: Iterable[bytes | memoryview], durable: bool = True) -> None:
        """As ``Store`` says; an object is durable in any case."""
        whole = b"".join(content)
        with self._storage_errors(len(whole)), self._files.open_output_stream(self._object(name)) as file:
            file.write(whole)

    def names(self) -> list[str]:
        """As ``Store`` says; objects that are being written do not show."""
        from pyarrow.fs import FileSelector, FileType

        with self._storage_errors():
            found = self._files.get_file_info(FileSelector(self._prefix, allow_not_found=True))
            return [info.base_name for info in found if info.type == FileType.File]

    def delete(self, name: str) -> None:
        """As ``Store`` says."""
        with suppress(FileNotFoundError), self._storage_errors():
            self._files.delete_file(self._object(name))

    def _object(self, name: str) -> str:
        return f"{self._prefix}/{plain(name)}"

    @contextmanager
    def _storage_errors(self, needed: int = 0) -> Iterator[None]:
        """Raise Arrow's errors as ``StorageError``."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            text = " ".join(str(error).split())
            if _S3_FULL.search(text):
                raise StorageFullError(self.location, needed) from error
            reasons = [reason for names, reason in _S3_ERRORS.items() if re.search(names, text)]
            raise StorageError(self.location, [*reasons, text[:300]][0]) from error


@functools.lru_cache(maxsize=8)
def _filesystem(bucket: str, options: str, attempts: int) -> Any:
    """One for all trials of a process: it keeps its connections."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    chosen = dict(parse_qsl(options))
    by_environment = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if not chosen.keys() & {"region", "endpoint_override"} and not any(map(os.environ.get, by_environment)):
        chosen["region"] = resolve_s3_region(bucket)
    return S3FileSystem(
        **chosen,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=4 * CONNECT_SECONDS,
        allow_delayed_open=True,  # a small object is then put by one request, not by three
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


def replace_file(path: Path, content: Iterable[bytes | memoryview], durable: bool = True) -> None:
    """Write a file beside its place and rename it into it: a reader sees the old file or the new one, whole.

    ``durable``: also after a power cut, by forcing file and folder to the disk; without, the file may then be damaged.
    Neither what another process writes at the same time nor a link in the way is written through.
    """
    part = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        with part.open("xb") as file:
            file.writelines(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk: a file that was renamed into it is there after a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_store(location: str, patient: bool = True) -> Store:
    """The store at a location; a bucket whose endpoint does not answer is tried for longer if ``patient``."""
    return Bucket(location, attempts=ATTEMPTS if patient else 2) if is_bucket(location) else Folder(location)


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
        check_s3(location)
    elif not location or re.match(r"[A-Za-z0-9+.-]+:/", location):
        raise ConfigError([f"--storage {location.partition(':')[0]}:...: must be a folder, or s3://bucket/prefix"])
    answers: list[str] = []

    def probe() -> None:
        try:
            _probe(location)
            answers.append("")
        except OSError as error:
            answers.append(error.strerror or str(error))

    # a network storage that is gone may hold its caller for minutes
    thread = threading.Thread(target=probe, name="storage-probe", daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    problem = answers[0] if answers else f"does not answer within {PROBE_SECONDS:.0f} s"
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
    store, name, content = open_store(location, patient=False), f"probe-{os.urandom(4).hex()}", os.urandom(16)
    store.write(name, [content])
    try:
        if name not in store.names() or store.read(name) != content:
            raise StorageError(location, "does not give back what was written to it")
    finally:
        store.delete(name)


def check_s3(location: str) -> None:
    """``ConfigError`` unless the text is a location in a bucket; a secret in it is refused, and not repeated."""
    path, _, options = location.removeprefix("s3://").partition("?")
    bucket, slash, prefix = path.partition("/")
    if "@" in location:
        raise ConfigError(
            [
                "--storage s3://...@...: must hold no credentials, which the journal and the screen would show; "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
            ]
        )
    problems = []
    if not _BUCKET.fullmatch(bucket):
        problems.append(f"--storage s3://{bucket}: must be s3://bucket or s3://bucket/prefix, as S3 names buckets")
    if not _PREFIX.fullmatch(slash + prefix):
        rule = "the prefix must be of letters, digits and . _ = -, without empty steps"
        problems.append(f"--storage s3://{path}: {rule}")
    for name, mark, value in (option.partition("=") for option in options.split("&") if options):
        if name not in _OPTIONS or not mark or not re.fullmatch(r"[\w.:/\[\]-]+", value):  # it may be a secret
            rule = f"after the ? come {', '.join(_OPTIONS)}, as name=value, with & between"
            problems.append(f"--storage s3://{path}?{name}=...: {rule}")
        elif name == "scheme" and value not in ("http", "https"):
            problems.append(f"--storage s3://{path}?scheme={value}: must be http or https")
    if problems:
        raise ConfigError(problems)


def check_seen(location: str) -> None:
    """``StorageError`` unless this node sees the folder that the driver made above ``location``: a trial would write
    to the node's own disk, where nobody reads."""
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
    """Bytes that can still be written to a location; None for a bucket, which has no limit."""
    return None if is_bucket(location) else shutil.disk_usage(existing(location)).free


def size(count: int) -> str:
    """Bytes for people: two digits or more, in the unit that fits."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}" if count < 10 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count} bytes"
