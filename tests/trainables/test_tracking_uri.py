"""Nothing secret of a tracking URI is shown or kept, wherever in it that stands; the rest stays as it is."""

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeps.engine.provenance import provenance
from sweeps.flags import Flags, kept
from trainables.mlflow_sender import one_line
from trainables.tracking import Tracker, check, sync_command
from trainables.tracking_uri import accept, mask, without_password
from vqcore.config import ConfigError

SECRET = "S3CR3T"
ODD = st.text("ab1/?#@:;%=' .", max_size=4)

SHOWN = {
    f"postgresql://ann:{SECRET}@host/db": "postgresql://***@host/db",
    f"postgresql+psycopg://ann:pa/{SECRET}@host/db": "postgresql+psycopg://***@host/db",
    f"postgresql://ann:pa?{SECRET}@host/db": "postgresql://***@host/db",
    f"postgresql://ann:pa@{SECRET}@host/db": "postgresql://***@host/db",
    f"http://{SECRET}@host:5000": "http://***@host:5000",
    f"postgresql://host/db?user=ann&password={SECRET}&sslmode=require": (
        "postgresql://host/db?user=ann&password=***&sslmode=require"
    ),
    f"postgresql://ann:x@host/db?sslpassword={SECRET}": "postgresql://***@host/db?sslpassword=***",
    f"postgresql://host/db?password=x&{SECRET}": "postgresql://host/db?password=***",
    f"mysql+pymysql://host/db?PassWd={SECRET}": "mysql+pymysql://host/db?PassWd=***",
    f"postgresql://host/db?pass%77ord={SECRET}": "postgresql://host/db?pass%77ord=***",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3DODBC;PWD%3D{SECRET}": "mssql+pyodbc:///?odbc_connect=***",
    f"http://host:5000/?token={SECRET}": "http://host:5000/?token=***",
    f"http://host:5000/mlflow?api_key={SECRET}": "http://host:5000/mlflow?api_key=***",
    f"http://host:5000/#access_token={SECRET}": "http://host:5000/#access_token=***",
    f"postgresql://host:5432/db?user=ann&password=x@{SECRET}": "postgresql://***",
}
PLAIN = [
    "sqlite:////home/ann@corp/runs/mlflow.db",
    "http://127.0.0.1:5000",
    "postgresql://host:5432/db?sslmode=require&keepalives_idle=30",
    "postgresql://host/db?user=ann@corp",
    "databricks",
    "databricks://profile",
    "s3://bucket/runs?endpoint_override=host:9000&scheme=http&region=eu-central-1",
]


@pytest.mark.parametrize(("uri", "shown"), SHOWN.items())
def test_no_secret_is_shown_or_kept(
    uri: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert without_password(uri) == mask(uri, uri) == shown
    assert kept(Flags(tracking_uri=uri))["tracking_uri"] == shown
    for words in (["--tracking-uri", uri], [f"--tracking-uri={uri}"]):
        monkeypatch.setattr("sys.orig_argv", ["python", "sweep", *words])
        command = provenance()["command"]
        assert SECRET not in command
        assert shown in command
    assert shown in sync_command(tmp_path / "runs" / "sweep" / "run", uri)
    assert SECRET not in one_line(OSError(f"no way to '{uri}', that is ({uri})"), uri)
    if uri.startswith("http"):
        assert SECRET not in (check(uri, timeout=0.2) or "")
    assert SECRET not in "".join(capfd.readouterr())


@pytest.mark.parametrize("uri", PLAIN)
def test_what_is_not_secret_stays(uri: str) -> None:
    assert without_password(uri) == mask(uri, uri) == uri


@given(ODD, ODD)
@example("", "@host:5432/")
@example(";key=", "")
def test_whatever_stands_beside_it(before: str, after: str) -> None:
    password = f"{before}{SECRET}{after}"
    for uri in (
        f"postgresql+psycopg://ann:{password}@host:5432/db?sslmode=require",
        f"postgresql://host/db?user=ann&password={password}",
        f"postgresql://host:5432/db?password={password}&sslmode=require",
        f"http://ann:{password}@host",
    ):
        assert SECRET not in without_password(uri)
        assert SECRET not in mask(f"'{uri}' failed", uri)
        assert SECRET not in mask(f"{password} is wrong", f"postgresql://ann:{password}@host/db")


def test_what_a_database_takes_for_its_host_is_not_shown() -> None:
    """SQLAlchemy ends a password at its first @."""
    uri = f"postgresql://ann:pa@{SECRET}@host/db"
    assert mask(f'could not translate host name "{SECRET}@host"', uri) == 'could not translate host name "***@host"'


@pytest.mark.parametrize("uri", SHOWN)
def test_what_was_not_kept_is_asked_for_again(uri: str, tmp_path: Path) -> None:
    for refuse in (accept, check, lambda uri: Tracker(tmp_path, uri)):
        with pytest.raises(ConfigError, match=r"\*\*\* stands for .* give the whole URI again"):
            refuse(without_password(uri))


@pytest.mark.parametrize(
    "uri",
    [
        f"http://ann:pa/{SECRET}@host",
        f"https://ann:{SECRET}#@host:5000",
        f"ann:{SECRET}@host:5000",
        f"postgresql:/ann:{SECRET}@host/db",
    ],
)
def test_what_cannot_be_parsed_is_refused_without_repeating_it(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        check(uri)
    assert SECRET not in str(refused.value)
    assert "give " in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_service_that_does_not_speak_http_is_told_in_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer(*_: Any) -> None:
            caller, _address = other.accept()
            caller.recv(1000)
            caller.sendall(b"-ERR unknown command\r\n")
            caller.close()

        threading.Thread(target=answer, daemon=True).start()
        said = check(f"http://127.0.0.1:{other.getsockname()[1]}")
    assert said is not None
    assert len(said.splitlines()) == 1
    assert capfd.readouterr() == ("", "")
