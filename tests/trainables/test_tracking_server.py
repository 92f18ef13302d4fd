"""A team's server: MLflow over PostgreSQL, a sweep that uses it, users and passwords."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tracked import (
    Server,
    artifacts,
    assert_mlflow_holds_the_journal,
    eventually,
    find,
    finish,
    free_port,
    open_sweep,
    report,
    start,
    whole_sweep,
)

from trainables.runs import JOURNAL
from trainables.tracking import Tracker, check, sync
from trainables.tracking import sync_command as command_to_sync
from vqcore.config import ConfigError

pytestmark = pytest.mark.service

PASSWORD = "s3cret-p4ssw0rd"


def programs():
    """Where PostgreSQL's programs are; Debian keeps them off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


@pytest.fixture(scope="module")
def postgres():
    """PostgreSQL on a loopback port, with a password: its URI."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="psycopg is not installed (it comes with .[dev])")
    # it refuses to be run by root, and pytest's folders can be entered by their owner alone
    folder = Path(tempfile.mkdtemp(prefix="vqsweep-postgres-"))
    (folder / "password").write_text(PASSWORD)
    as_user = []
    if os.getuid() == 0:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]
        subprocess.run(["chown", "-R", "postgres:postgres", folder], check=True)
    data, port = folder / "data", free_port()
    made = [programs() / "initdb", "-D", data, "-U", "vq", "-A", "scram-sha-256", "--no-sync"]
    made += [f"--pwfile={folder / 'password'}", "-E", "UTF8", "--locale=C"]
    subprocess.run([*as_user, *made], check=True, capture_output=True, cwd="/")
    run = [programs() / "postgres", "-D", data, "-k", folder, "-p", str(port)]
    run += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log, subprocess.Popen([*as_user, *run], stdout=log, stderr=log, cwd="/") as own:
        ready = [programs() / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        eventually(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        yield f"postgresql+psycopg://vq:{PASSWORD}@127.0.0.1:{port}/postgres"
        own.send_signal(signal.SIGINT)  # at once, also with clients connected
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server that asks for a user and a password; its administrator is ann."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth needs Flask-WTF (it comes with .[dev])")
    folder = tmp_path_factory.mktemp("guarded")
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\n"
        f"database_uri = sqlite:///{folder}/auth.db\nadmin_username = ann\nadmin_password = {PASSWORD}\n"
    )
    environment = {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for this test alone"}
    server = Server(folder, f"sqlite:///{folder}/server.db", "--app-name", "basic-auth", **environment)
    server.start()
    yield server
    server.kill()


def test_postgresql_is_taken_and_its_password_shown_nowhere(postgres, tmp_path):
    folder = tmp_path / "beta_ablation" / "direct"
    journal = open_sweep(folder)
    tracker = Tracker(folder, postgres)
    tracker.start()
    start(journal, "aaa", "bbb")
    journal.write("start", trial="ccc", number=2, config={"commitment_weight": "1" * 400, "seed": 1}, info={})
    report(journal, "aaa", 1, 2, 3)
    report(journal, "bbb", 1)
    finish(journal, "aaa", "ccc")
    finish(journal, "bbb", status="failed", reason="\0 it broke")
    journal.write("done")
    assert tracker.close(timeout=90), tracker.problem
    assert_mlflow_holds_the_journal(postgres, folder)
    assert (tmp_path / "mlartifacts" / "beta_ablation").is_dir()  # beside the runs, not where pytest was started
    assert check(postgres) is None
    with pytest.raises(ConfigError, match="password authentication failed") as refused:
        sync(folder, postgres.replace(PASSWORD, "wr0ng-p4ss"))
    assert "wr0ng" not in str(refused.value) + (folder / "log.txt").read_text().replace(PASSWORD, "wr0ng")


def test_a_wrong_password_is_one_line_and_the_sweep_goes_on(guarded, tmp_path):
    out, uri = tmp_path / "runs", guarded.uri.replace("//", "//ann:wr0ng-p4ss@")
    words = f"--address inline --out {out} --name shut-out --betas 0.1 1 --seeds 1 --epochs 1 --tracking-uri {uri}"
    small = "--codebook-size 8 --image-size 8 --set channels=4 hidden_channels=4 residual_channels=2 residual_blocks=1"
    command = [sys.executable, "-m", "sweeps.beta_ablation", *words.split(), *small.split(), "dim=4"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"}, timeout=250)
    printed = ended.stdout + ended.stderr
    assert ended.returncode == 0, printed
    assert "401" in printed
    assert "The run goes on" in printed
    assert "Traceback" not in printed
    folder = out / "beta_ablation" / "shut-out"
    kept = "".join(path.read_text() for path in (folder / "sweep.toml", folder / JOURNAL, folder / "log.txt"))
    assert "wr0ng" not in printed + kept + command_to_sync(folder, uri)
    with pytest.raises(ConfigError, match="give the whole URI again"):
        sync(folder)  # to where it was tracked, whose password was not written down
    assert sync(folder, guarded.uri.replace("//", f"//ann:{PASSWORD}@")) == 3


@pytest.mark.parametrize("where", ["environment", "netrc"])
def test_a_password_is_found_where_mlflow_looks_for_it(guarded, tmp_path, where, monkeypatch):
    if where == "environment":
        assert "401" in check(guarded.uri)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    else:
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login ann password {PASSWORD}\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    whole_sweep(tmp_path / "beta_ablation" / where, "aaa")
    assert sync(tmp_path / "beta_ablation" / where, guarded.uri) == 2


def test_a_password_in_the_uri_lets_in_and_is_kept_nowhere(guarded, tmp_path):
    folder, uri = tmp_path / "beta_ablation" / "let-in", guarded.uri.replace("//", f"//ann:{PASSWORD}@")
    whole_sweep(folder, "aaa")
    (folder / "sweep.toml").write_text("[sweep]\n")
    tracker = Tracker(folder, uri)
    tracker.start()
    eventually(lambda: tracker._process.pid)
    command = Path(f"/proc/{tracker._process.pid}/cmdline").read_bytes()
    assert tracker.close(timeout=90), tracker.problem
    parent = assert_mlflow_holds_the_journal(uri, folder)
    assert artifacts(uri, parent) == {"sweep.toml", "trials.json"}
    shown = str([run.to_dictionary() for run in find(uri, folder)[1]])
    assert PASSWORD not in shown + command.decode() + (folder / JOURNAL).read_text()
