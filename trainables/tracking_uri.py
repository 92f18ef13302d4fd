"""Tracking URIs: which are taken, the embedded database among them, and how one is shown without its secrets."""

import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import unquote

from vqcore.errors import ConfigError

DATABASES = ("postgresql", "mysql", "mssql")
"""How the URIs of database servers begin."""


def sqlite_uri(path: Path) -> str:
    """``sqlite:///PATH``, absolute, with percent signs for the characters that end a path in a URI."""
    text = str(path.absolute())
    for character in "%?#":
        text = text.replace(character, f"%{ord(character):02X}")
    return f"sqlite:///{text}"


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other URI, and for a database in memory."""
    scheme, _, rest = uri.partition("://")
    path = unquote(rest.removeprefix("/").partition("?")[0])
    return Path(path) if scheme.partition("+")[0] == "sqlite" and path not in ("", ":memory:") else None


def default_uri(out: Path) -> str:
    """The embedded database of all sweeps under ``out``: ``sqlite:///<out>/mlflow.db``, absolute."""
    return sqlite_uri(out / "mlflow.db")


def accept(uri: str) -> str:
    """A tracking URI, a SQLite path in it made absolute. ``ConfigError`` for what MLflow cannot use."""
    if "***" in uri:
        raise ConfigError([f"--tracking-uri {uri}: *** stands for what was not written down; give the whole URI again"])
    if (path := sqlite_path(uri)) is not None:
        scheme, query = uri.partition("://")[0], uri.partition("?")[2]
        return sqlite_uri(path).replace("sqlite", scheme, 1) + (f"?{query}" if query else "")
    if uri == "databricks" or re.match(rf"({'|'.join(DATABASES)}|databricks)(\+\w+)?://", uri):
        return uri
    if re.match("https?://[^/]", uri):
        return uri
    shown = without_password(uri if "://" in uri else f"://{uri}").removeprefix("://")
    rule = "not a database or server that MLflow still writes to (its file store has ended)"
    raise ConfigError([f"--tracking-uri {shown!r}: {rule}; give sqlite:///runs/mlflow.db or http://host:port"])


def without_password(uri: str) -> str:
    """A URI, or an argument that holds one, with ``***`` for user and password, and for its query.

    The path of a SQLite database is no secret. ``accept`` refuses a result with ``***``, and asks for the whole.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or re.search(r"(^|\W)sqlite(\+\w+)?$", scheme):
        return uri
    user, at, address = rest.rpartition("@")
    if re.search("[?#]", user):  # an @ in the query, or one of these in a password: nobody can tell
        return f"{scheme}://***"
    place, *query = re.split("[?#]", address, maxsplit=1)
    return f"{scheme}://{'***@' if at else ''}{place}{'?***' if query else ''}"


def started_with() -> str:
    """The command that started this process, without passwords."""
    return shlex.join(["python", *map(without_password, sys.orig_argv[1:])])


def mask(text: str, uri: str) -> str:
    """``text`` without the secrets of a URI and of the environment, wherever a library repeats them."""
    text = text.replace(uri, without_password(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"\S+://\S+", lambda match: without_password(match[0]), text)


def _secrets(uri: str) -> set[str]:
    """The secrets of a URI and of the environment, as they are written and as they are meant."""
    if sqlite_path(uri) is not None:
        return set()
    user, _, address = uri.partition("://")[2].rpartition("@")
    password = user.partition(":")[2] or user
    query = re.split("[?#]", address, maxsplit=1)[1:]
    found = [password, password.partition("@")[2]]  # SQLAlchemy takes what follows an @ for the host
    found += [value for part in query for value in (part, *re.split("[&;=]", part))]
    found += [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    return {secret for value in found for secret in (value, unquote(value)) if len(secret) > 3}
