"""Nothing secret of a tracking URI is shown or kept, wherever in it that stands; the rest stays as it is."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sweeps.engine.provenance import provenance
from sweeps.flags import Flags, kept
from trainables.mlflow_sender import noted
from trainables.tracking import Tracker, check, sync_command
from trainables.tracking_uri import accept, mask, without_password
from vqcore.config import ConfigError

SECRET = "S3CR3T"
ODD = st.text("ab1/?#@:;%=' .", max_size=4)

SHOWN = {
    f"postgresql://ann:{SECRET}@host/db": "postgresql://***@host/db",
    f"postgresql+psycopg://ann:pa/{SECRET}@host/db": "postgresql+psycopg://***@host/db",
    f"postgresql://ann:pa?{SECRET}@host/db": "postgresql://***",
    f"postgresql://ann:pa@{SECRET}@host/db": "postgresql://***@host/db",
    f"http://{SECRET}@host:5000": "http://***@host:5000",
    f"postgresql://host/db?user=ann&password={SECRET}&sslmode=require": "postgresql://host/db?***",
    f"postgresql://ann:x@host/db?sslpassword={SECRET}": "postgresql://***@host/db?***",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3DODBC;PWD%3D{SECRET}": "mssql+pyodbc:///?***",
    f"http://host:5000/#access_token={SECRET}": "http://host:5000/?***",
    f"postgresql://host:5432/db?user=ann&password=x@{SECRET}": "postgresql://***",
}
PLAIN = [
    "sqlite:////home/ann@corp/runs/mlflow.db?timeout=9",
    "http://127.0.0.1:5000",
    "databricks",
    "databricks://profile",
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
    assert SECRET not in noted(OSError(f"no way to '{uri}', that is ({uri})"), uri)
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


@pytest.mark.parametrize("uri", [f"ann:{SECRET}@host:5000", f"postgresql:/ann:{SECRET}@host/db"])
def test_what_cannot_be_parsed_is_refused_without_repeating_it(uri: str) -> None:
    with pytest.raises(ConfigError, match="give sqlite:") as refused:
        check(uri)
    assert SECRET not in str(refused.value)
