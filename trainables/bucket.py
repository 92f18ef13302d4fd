"""A prefix of an S3 bucket as a store, through Arrow; its errors in words.

An object is put whole or not at all. Credentials are found as every AWS tool finds them: in the environment, in
``~/.aws``, or from the machine.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl

from trainables.storage import StorageError, StorageFullError, Store, plain
from vqcore.config import ConfigError

OPTIONS = ("endpoint_override", "scheme", "region")
CONNECT_SECONDS = 5.0

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PATH = re.compile(r"(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?")
_ENDPOINT = re.compile(r"(https?://)?[A-Za-z0-9.-]+(:\d{1,5})?|(https?://)?\[[0-9A-Fa-f:]+\](:\d{1,5})?")

_FULL = re.compile("StorageFull|QuotaExceeded|InsufficientStorage|HTTP status 507", re.IGNORECASE)
_WORDS = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "NETWORK_CONNECTION|REQUEST_TIMEOUT": "nothing answers at the endpoint",
    "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|"
    "INVALID_SIGNATURE|MISSING_AUTHENTICATION_TOKEN|HTTP status 403|HTTP status 401": (
        "access is denied: set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if it is temporary, AWS_SESSION_TOKEN, "
        "here and on every node; they must be allowed to list the bucket, and to put, get and delete objects"
    ),
}
"""What the service says, and what to do about it."""


class Bucket(Store):
    """The objects under one prefix."""

    def __init__(self, location: str, attempts: int) -> None:
        super().__init__(location)
        check_location(location)
        path, _, options = location.removeprefix("s3://").partition("?")
        self._prefix, chosen = path.rstrip("/"), dict(parse_qsl(options))
        with self._in_words():
            region = chosen.get("region") or _region(path.partition("/")[0], chosen.get("endpoint_override", ""))
            self._files = _filesystem(chosen.get("endpoint_override"), chosen.get("scheme"), region, attempts)

    def read(self, name: str) -> bytes:
        """As ``Store`` says."""
        with self._in_words(), self._files.open_input_file(self._object(name)) as file:
            content: bytes = file.read()
            return content

    def write(self, name: str, content: Iterable[bytes | memoryview], lasting: bool = True) -> None:
        """As ``Store`` says; an object lasts in any case."""
        whole = b"".join(content)
        with self._in_words(len(whole)), self._files.open_output_stream(self._object(name)) as file:
            file.write(whole)

    def names(self) -> list[str]:
        """As ``Store`` says; objects that are being written do not show."""
        from pyarrow.fs import FileSelector, FileType

        with self._in_words():
            found = self._files.get_file_info(FileSelector(self._prefix, allow_not_found=True))
            return [info.base_name for info in found if info.type == FileType.File]

    def delete(self, name: str) -> None:
        """As ``Store`` says."""
        with suppress(FileNotFoundError), self._in_words():
            self._files.delete_file(self._object(name))

    def _object(self, name: str) -> str:
        return f"{self._prefix}/{plain(name)}"

    @contextmanager
    def _in_words(self, needed: int = 0) -> Iterator[None]:
        """What Arrow raises, as the storage's errors."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            said = " ".join(str(error).split())
            if _FULL.search(said):
                raise StorageFullError(self.location, needed) from error
            known = [words for names, words in _WORDS.items() if re.search(names, said)]
            raise StorageError(self.location, known[0] if known else said[:300]) from error


@functools.lru_cache(maxsize=8)
def _filesystem(endpoint: str | None, scheme: str | None, region: str | None, attempts: int) -> Any:
    """One for all trials of a process: it keeps its connections."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        endpoint_override=endpoint,
        scheme=scheme,
        region=region,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=4 * CONNECT_SECONDS,
        allow_delayed_open=True,  # a small object is then put by one request, not by three
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


@functools.cache
def _region(bucket: str, endpoint: str) -> str | None:
    """Where the bucket is; None where the environment says it, or another service than Amazon's does not care."""
    said = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    if endpoint or any(os.environ.get(name) for name in said):
        return None
    from pyarrow.fs import resolve_s3_region

    region: str = resolve_s3_region(bucket)
    return region


def check_location(location: str) -> None:
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
    if not _PATH.fullmatch(slash + prefix):
        problems.append(
            f"--storage s3://{path}: the prefix must be of letters, digits and . _ = -, without empty steps"
        )
    try:
        chosen = parse_qsl(options, keep_blank_values=True, strict_parsing=bool(options))
    except ValueError:
        problems.append(
            f"--storage s3://{path}?...: after the ? come {', '.join(OPTIONS)}, as name=value, with & between"
        )
        chosen = []
    for name, value in chosen:
        if name not in OPTIONS:  # its value may be a secret
            problems.append(f"--storage s3://{path}?{name}=...: only {', '.join(OPTIONS)} may be set")
        elif name == "scheme" and value not in ("http", "https"):
            problems.append(f"--storage s3://{path}?scheme={value}: must be http or https")
        elif name == "endpoint_override" and not _ENDPOINT.fullmatch(value):
            problems.append(f"--storage s3://{path}?endpoint_override={value}: must be host:port")
        elif name == "region" and not re.fullmatch(r"[a-z0-9-]+", value):
            problems.append(f"--storage s3://{path}?region={value}: must be a region's name, such as eu-central-1")
    if problems:
        raise ConfigError(problems)
