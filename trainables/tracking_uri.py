"""Where MLflow is: which tracking URIs are taken, whether something answers there now, and how one is shown."""

import base64
import json
import os
import re
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vqcore.errors import ConfigError

_DATABASES = ("postgresql", "mysql", "mssql")
_QUESTION = "/api/2.0/mlflow/experiments/search?max_results=1"
"""What only an MLflow server answers, and only to those whom it lets in."""

_USER = re.compile(r"(:/+)([^:/]*:.*|(?<=://)[^/?][^?]*)@", re.DOTALL)
"""User and password, to the last @ there is: SQLAlchemy lets a password hold / and ?, servers let it hold @."""
_QUERY = re.compile(
    r"([?&;#][^=&;#?]*(?:pass|pwd|secret|token|key|credential|auth|odbc_connect|%)[^=&;#?]*=)"
    r"((?:[^&]|&(?![^&=]*=))*)",  # an & that begins no parameter is the value's own
    re.DOTALL | re.IGNORECASE,
)
"""Parameters whose names speak of secrets, or are in disguise."""
_LEFT_OUT = re.compile(r"(://|=)\*\*\*")


def default_uri(out: Path) -> str:
    """The embedded database of all sweeps under ``out``: ``sqlite:///<out>/mlflow.db``, absolute."""
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def accept(uri: str) -> str:
    """A tracking URI, a SQLite path in it made absolute. ``ConfigError`` for what MLflow or we cannot use."""
    if _LEFT_OUT.search(uri):
        raise ConfigError([f"--tracking-uri {uri}: *** stands for what was not written down; give the whole URI again"])
    scheme, separator, rest = uri.partition("://")
    database = scheme.partition("+")[0]  # postgresql+psycopg2: the driver is SQLAlchemy's affair
    if database == "sqlite" and (path := rest.removeprefix("/")) not in ("", ":memory:"):
        return f"{scheme}:///{Path(path).absolute()}"
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


def check(uri: str, timeout: float = 5.0) -> str | None:
    """One line if nothing can be sent to ``uri`` now, else None; within ``timeout`` seconds, without mlflow.

    A warning for a sweep, which goes on, since its journal keeps everything. ``ConfigError`` as ``accept``.
    """
    uri = accept(uri)
    if (why := trouble(uri, timeout)) is None:
        return None
    where = f"--tracking-uri {without_password(uri)}"
    return f"{where}: {why}; put it right, then send with `python -m sweeps.sync NAME {where}`"


def trouble(uri: str, timeout: float = 5.0) -> str | None:
    """Why nothing can be sent to an accepted URI now; None if there is no reason, or without mlflow none is found."""
    if (path := sqlite_path(uri)) is not None:
        return _database_trouble(path)
    return _server_trouble(uri, timeout) if is_server(uri) else None


def sqlite_path(uri: str) -> Path | None:
    """The file of an accepted SQLite URI; None for any other."""
    return Path(uri.partition(":///")[2]) if uri.startswith("sqlite") else None


def is_server(uri: str) -> bool:
    """Whether an accepted URI is spoken to over HTTP."""
    return uri.startswith(("http://", "https://"))


def is_database(uri: str) -> bool:
    """Whether an accepted URI is that of a database server."""
    return uri.startswith(_DATABASES)


def without_password(uri: str) -> str:
    """The URI, or a word with one in it, with ``***`` for its user and password and for secrets among its parameters.

    ``accept`` knows what is left of it, and asks for the whole.
    """
    user = _USER.search(uri)
    if user and _QUERY.search(user[0]):  # an @ in a parameter, or a parameter in a password: nobody can tell
        return f"{uri[: user.start()]}{user[1]}***"
    return _QUERY.sub(r"\1***", _USER.sub(r"\1***@", uri))


def mask(text: str, uri: str) -> str:
    """``text`` without what is secret of a URI, wherever a library repeats it."""
    text = text.replace(uri, without_password(uri))
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"\S+:/\S+", lambda word: without_password(word[0]), text)


def _secrets(uri: str) -> set[str]:
    """What is secret of a URI and of the environment, as it is written and as it is meant."""
    user = _USER.search(uri)
    password = user[2].partition(":")[2] if user else ""
    found = [password, password.partition("@")[2]]  # what follows an @ SQLAlchemy takes for the host
    found += [parameter[2] for parameter in _QUERY.finditer(uri)]
    found += [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    return {*found, *map(unquote, found)} - {""}


def one_line(error: Exception, uri: str) -> str:
    """What an error says, in one line of at most 300 characters, without the URI's password."""
    text = " ".join(str(error).split()) or type(error).__name__
    return mask(text, uri)[:300]


def _database_trouble(path: Path) -> str | None:
    folder = next(parent for parent in path.parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return f"{folder} is not a folder that can be written to"
    if not path.exists():
        return None
    try:
        with path.open("r+b") as file:
            start = file.read(16)
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return None if start in (b"", b"SQLite format 3\0") else "is not a SQLite database"


def _server_trouble(uri: str, timeout: float) -> str | None:
    found: list[str | None] = []
    # In a thread: looking up a name has no timeout of its own.
    thread = threading.Thread(target=lambda: found.append(_asked(uri, timeout)), daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else f"no answer within {timeout:g} s"


def _asked(uri: str, timeout: float) -> str | None:
    parts = urlsplit(uri)
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/") + _QUESTION
    login = _login(uri)
    headers = {} if login is None else {"Authorization": login}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
            said = json.loads(answer.read(1 << 20))
        if isinstance(said, dict) and said.keys() <= {"experiments", "next_page_token"}:
            return None
    except urllib.error.HTTPError as error:
        return _refusal(error.code, login is not None)
    except (ValueError, HTTPException):  # HTML, or whatever else is no JSON, or not even HTTP
        pass
    except OSError as error:
        return f"no answer ({getattr(error, 'reason', error)})"
    return "what answers there is no MLflow server"


def _refusal(code: int, named: bool) -> str | None:
    if code >= 500:
        return f"answers HTTP {code}"
    if code not in (401, 403):
        return f"what answers there (HTTP {code}) is no MLflow server"
    if named:
        return f"does not let in the user that was named (HTTP {code}): wrong user or password"
    if (Path.home() / ".mlflow" / "credentials").exists():
        return None  # MLflow will find them
    return f"asks for a user and password (HTTP {code}): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"


def _login(uri: str) -> str | None:
    """The header that MLflow's client will send; None if nobody is named."""
    user, colon, password = (unquote(part) for part in urlsplit(uri).netloc.rpartition("@")[0].partition(":"))
    if not colon:
        user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
        password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user and password:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None
