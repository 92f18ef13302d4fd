"""Tracking URIs: which are taken, the embedded database among them, and how one is shown without its secrets."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vqcore.errors import ConfigError

_DATABASES = ("postgresql", "mysql", "mssql")

_USER = re.compile(r"(:/+)([^:/]*:.*|(?<=://)[^/?][^?]*)@", re.DOTALL)
"""User and password, up to the last @ there is: SQLAlchemy lets a password hold / and ?, servers let it hold @."""
_QUERY = re.compile(
    r"([?&;#][^=&;#?]*(?:pass|pwd|secret|token|key|credential|auth|odbc_connect|%)[^=&;#?]*=)"
    r"((?:[^&]|&(?![^&=]*=))*)",  # an & that begins no parameter belongs to the value
    re.DOTALL | re.IGNORECASE,
)
"""Parameters whose names speak of secrets, or are written with percent signs."""
_MASKED = re.compile(r"(://|=)\*\*\*")


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


def is_server(uri: str) -> bool:
    """Whether MLflow's client speaks HTTP to an accepted URI."""
    return uri.startswith(("http://", "https://"))


def is_database(uri: str) -> bool:
    """Whether an accepted URI is that of a database server."""
    return uri.startswith(_DATABASES)


def accept(uri: str) -> str:
    """A tracking URI, a SQLite path in it made absolute. ``ConfigError`` for what MLflow cannot use."""
    if _MASKED.search(uri):
        raise ConfigError([f"--tracking-uri {uri}: *** stands for what was not written down; give the whole URI again"])
    scheme, separator, rest = uri.partition("://")
    database = scheme.partition("+")[0]  # postgresql+psycopg: the driver is SQLAlchemy's affair
    if (path := sqlite_path(uri)) is not None:
        query = rest.partition("?")[2]
        return sqlite_uri(path).replace("sqlite", scheme, 1) + (f"?{query}" if query else "")
    if scheme in ("http", "https") and rest.strip("/"):
        return _parsed(uri)
    if uri == "databricks" or (separator and database in (*_DATABASES, "databricks")):
        return uri
    shown = without_password(uri if ":/" in uri else f"://{uri}").removeprefix("://")
    raise ConfigError(
        [
            f"--tracking-uri {shown!r}: not a database or server that MLflow still writes to (its file store"
            " has ended); give sqlite:///runs/mlflow.db or http://host:port"
        ]
    )


def _parsed(uri: str) -> str:
    try:
        _ = urlsplit(uri).port
    except ValueError:
        raise ConfigError(
            [
                f"--tracking-uri {without_password(uri)}: names no host and port; give http://host:port, and in a "
                "password write %2F for /, %3F for ?, %23 for # and %40 for @"
            ]
        ) from None
    return uri


def without_password(uri: str) -> str:
    """A URI, or an argument that holds one, with ``***`` for user and password and for secrets among its parameters.

    ``accept`` refuses the result, and asks for the whole.
    """
    user = _USER.search(uri)
    if user and _QUERY.search(user[0]):  # an @ in a parameter, or a parameter in a password: nobody can tell
        return f"{uri[: user.start()]}{user[1]}***"
    return _QUERY.sub(r"\1***", _USER.sub(r"\1***@", uri))


def mask(text: str, uri: str) -> str:
    """``text`` without the secrets of a URI and of the environment, wherever a library repeats them."""
    text = text.replace(uri, without_password(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"\S+:/\S+", lambda match: without_password(match[0]), text)


def _secrets(uri: str) -> set[str]:
    """The secrets of a URI and of the environment, as they are written and as they are meant."""
    user = _USER.search(uri)
    password = user[2].partition(":")[2] if user else ""
    found = [password, password.partition("@")[2]]  # SQLAlchemy takes what follows an @ for the host
    found += [parameter[2] for parameter in _QUERY.finditer(uri)]
    found += [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    return {*found, *map(unquote, found)} - {""}
