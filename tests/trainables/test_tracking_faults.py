"""Whatever happens to MLflow, the driver does not notice, and in the end MLflow holds exactly the journal."""

import os
import random
import re
import shutil
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
    seen,
    start,
    whole_sweep,
)

from sweeps.sync import main as sync_command
from trainables.journal import Journal, JournalReader
from trainables.runs import JOURNAL
from trainables.tracking import Tracker, check, default_uri, sync
from vqcore.config import ConfigError

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, f"sqlite:///{folder}/server.db")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def new_database(tmp_path_factory):
    """A database as the sender makes it: that takes seconds."""
    out = tmp_path_factory.mktemp("new")
    open_sweep(out / "beta_ablation" / "first").close()
    assert sync(out / "beta_ablation" / "first", default_uri(out)) == 1
    return out / "mlflow.db"


@pytest.fixture
def folder(tmp_path, request):
    folder = tmp_path / "beta_ablation" / re.sub(r"\W", "_", request.node.name)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def follow(folder, monkeypatch):
    """Starts a tracker, and leaves no process behind."""
    monkeypatch.setattr("trainables.tracking.RETRY_SECONDS", 2)
    trackers = []

    def begin(uri):
        tracker = Tracker(folder, uri)
        tracker.start()
        trackers.append(tracker)
        return tracker

    yield begin
    for tracker in trackers:
        tracker.close(timeout=0)


def arrived(uri, folder, key, count):
    return lambda: len(seen(uri, folder)[2][key]) == count


def timed(work):
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_server_that_does_not_answer_for_a_while(how, server, folder, follow):
    journal = open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa", "bbb", "ccc")
    report(journal, "aaa", 1, 2)
    finish(journal, "ccc", status="diverged", reason="loss is nan")
    eventually(arrived(server.uri, folder, "aaa", 2))
    server.kill() if how == "killed" else server.signal(signal.SIGSTOP)
    assert timed(lambda: [report(journal, "aaa", 3), report(journal, "bbb", 1, 2)]) < 0.1
    eventually(lambda: tracker.problem, seconds=90)
    assert "Traceback" in (folder / "log.txt").read_text()
    server.start() if how == "killed" else server.signal(signal.SIGCONT)
    report(journal, "bbb", 3)
    finish(journal, "aaa", "bbb")
    journal.write("done")
    assert tracker.close(timeout=90), tracker.problem
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_a_sender_killed_at_any_moment_is_followed_by_another(server, folder, follow):
    rng, journal = random.Random(0), open_sweep(folder)
    tracker = follow(server.uri)
    for key in ("aaa", "bbb", "ccc"):
        start(journal, key)
        report(journal, key, 1, 2, 3)
        finish(journal, key)
        eventually(lambda: tracker._process.poll() is None)
        time.sleep(rng.uniform(0, 4))
        victim = tracker._process
        victim.kill()
        eventually(lambda: "ended, with code -9" in (tracker.problem or ""))
        eventually(lambda victim=victim: tracker._process is not victim)
    journal.write("done")
    assert tracker.close(timeout=90), tracker.problem
    assert_mlflow_holds_the_journal(server.uri, folder)


DRIVER = """
import sys, time
from pathlib import Path
from trainables.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), sys.argv[2])
tracker.start()
while tracker._process is None: time.sleep(0.01)
print(tracker._process.pid, flush=True)
time.sleep(600)
"""


def test_a_driver_killed_in_the_first_seconds_of_a_new_folder_leaves_a_whole_database_or_none(folder, follow):
    """And no process. Two sweeps that start together do not meet, and the next one sends all."""
    uri, database = default_uri(folder.parents[1]), folder.parents[1] / "mlflow.db"
    open_sweep(folder)
    command = [sys.executable, "-c", DRIVER, str(folder), uri]
    for seconds in (1.5, 2.5, 3.5, 4.5):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            follower = int(driver.stdout.readline())
            time.sleep(seconds)
            os.kill(follower, signal.SIGKILL) if seconds > 3 else driver.kill()
            driver.kill()
        eventually(lambda pid=follower: not os.path.exists(f"/proc/{pid}"), seconds=10)  # noqa: PTH110
        assert not database.exists() or b"SQLite format 3" in database.read_bytes()[:16]
        database.unlink(missing_ok=True)  # so that the next one is killed in the making of it, too
    other = folder.parent / "other"
    for run in (folder, other):
        whole_sweep(run, "aaa")
    trackers = [Tracker(run, uri) for run in (folder, other)]
    for tracker in trackers:
        tracker.start()
    assert [tracker.close(timeout=120) for tracker in trackers] == [True, True]
    for run in (folder, other):
        assert_mlflow_holds_the_journal(uri, run)
    assert not list(database.parent.glob("*.broken-*"))
    assert not list(database.parent.glob(".mlflow.db.new*"))


@pytest.mark.parametrize("tables", ["experiments", "runs"])
def test_a_database_left_half_made_is_set_aside_and_filled_anew(folder, tables):
    """As versions before, and MLflow's own server, leave it when they are killed in the making of it."""
    database = folder.parents[1] / "mlflow.db"
    with sqlite3.connect(database) as half:
        half.execute(
            f"CREATE TABLE {tables} (experiment_id INTEGER PRIMARY KEY, name VARCHAR, lifecycle_stage VARCHAR)"
        )
    whole_sweep(folder, "aaa")
    sync_command(folder.name, folder.parents[1])
    (broken,) = database.parent.glob("mlflow.db.broken-*")
    assert "half made" in (folder / "log.txt").read_text()
    with sqlite3.connect(broken) as kept:
        assert kept.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] >= 1
    assert_mlflow_holds_the_journal(default_uri(folder.parents[1]), folder)


def test_a_database_of_another_version_of_mlflow_is_left_alone(folder, new_database):
    database = folder.parents[1] / "mlflow.db"
    shutil.copy(new_database, database)
    with sqlite3.connect(database) as other:
        other.execute("UPDATE alembic_version SET version_num = '90e64c465722'")
    whole_sweep(folder, "aaa")
    with pytest.raises(ConfigError, match="mlflow db upgrade"):
        sync(folder)
    assert not list(database.parent.glob("*.broken-*"))


def test_a_users_own_run_with_copied_tags_stays_as_it_is(server, folder):
    journal = open_sweep(folder)
    start(journal, "aaa")
    report(journal, "aaa", 1, 2)
    journal.write("pause")
    assert sync(folder, server.uri) == 2
    client, runs = find(server.uri, folder)
    tags = [{name: value for name, value in run.data.tags.items() if name != "mlflow.runName"} for run in runs]
    copies = [client.create_run(runs[0].info.experiment_id, 1000, own, "my evaluation") for own in tags]
    kept = {copy.info.run_id: client.get_run(copy.info.run_id).to_dictionary() for copy in copies}
    open_sweep(folder)
    start(journal, "aaa")
    report(journal, "aaa", 3)
    finish(journal, "aaa")
    journal.write("done")
    assert sync(folder, server.uri) == 2
    assert {run_id: client.get_run(run_id).to_dictionary() for run_id in kept} == kept
    own = {run.info.run_id for run in runs}
    after = [run for run in find(server.uri, folder)[1] if run.info.run_id not in kept]
    assert {run.info.run_id for run in after} == own
    assert {run.info.status for run in after} == {"FINISHED"}


def test_a_database_that_somebody_holds_is_waited_for(folder, follow, new_database):
    uri, file = default_uri(folder.parents[1]), folder.parents[1] / "mlflow.db"
    shutil.copy(new_database, file)
    journal = open_sweep(folder)
    tracker = follow(uri)
    start(journal, "aaa")
    report(journal, "aaa", 1)
    eventually(arrived(uri, folder, "aaa", 1))
    other = sqlite3.connect(file, isolation_level=None)
    eventually(lambda: not other.execute("BEGIN EXCLUSIVE").fetchall())
    assert timed(lambda: [start(journal, "bbb"), report(journal, "aaa", 2)]) < 0.1
    eventually(lambda: tracker.problem, seconds=90)  # SQLite itself waits 20 s
    assert "locked" in tracker.problem
    other.execute("ROLLBACK")
    finish(journal, "aaa", "bbb")
    journal.write("done")
    assert tracker.close(timeout=90), tracker.problem
    assert_mlflow_holds_the_journal(uri, folder)


def test_a_database_that_is_deleted_is_made_again_with_everything(folder, follow, new_database):
    uri, file = default_uri(folder.parents[1]), folder.parents[1] / "mlflow.db"
    shutil.copy(new_database, file)
    journal = open_sweep(folder)
    tracker = follow(uri)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1)
    finish(journal, "bbb")
    eventually(lambda: seen(uri, folder)[1]["bbb"].info.status == "FINISHED")
    file.unlink()
    report(journal, "aaa", 2)
    finish(journal, "aaa")
    journal.write("done")
    assert tracker.close(timeout=90), tracker.problem
    shutil.copy(file, file.with_name("copy.db"))  # what this process has open is the deleted one
    assert_mlflow_holds_the_journal(f"sqlite:///{file.with_name('copy.db')}", folder)


def test_odd_characters_in_paths_and_a_folder_that_is_moved(tmp_path):
    """MLflow keeps absolute paths of artifacts: none is written to where the runs were, and the way out works."""
    out, moved = tmp_path / "some runs? #1 100%", tmp_path / "moved"
    folder = out / "beta_ablation" / "one"
    whole_sweep(folder, "aaa")
    (folder / "sweep.toml").write_text("[sweep]\n")
    assert sync(folder) == 2
    assert {path.name for path in tmp_path.iterdir()} == {out.name}
    parent = assert_mlflow_holds_the_journal(default_uri(out), folder)
    assert artifacts(default_uri(out), parent) == {"sweep.toml", "trials.json"}

    out.rename(moved)
    with pytest.raises(ConfigError, match="make the old path a link"):
        sync(moved / "beta_ablation" / "one")
    assert not out.exists()
    assert_mlflow_holds_the_journal(default_uri(moved), folder=moved / "beta_ablation" / "one")
    out.symlink_to(moved)
    assert sync(moved / "beta_ablation" / "one") == 2


@contextmanager
def service(kind, body, certificate=None):
    """Something that answers the same to everything: its port."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


WRONG = [
    ("text/html", b"<html><script>alert(1)</script>It works!</html>"),
    ("application/json", b"{}"),
    ("application/json", b'{"runs": 3, "experiment": {"name": "x"}, "run": []}'),
]


@pytest.mark.parametrize("answer", WRONG)
def test_another_service_is_told_nothing_for_good(answer, folder):
    whole_sweep(folder, "aaa")
    with service(*answer) as port, pytest.raises(ConfigError) as refused:
        sync(folder, f"http://127.0.0.1:{port}")
    assert len(str(refused.value).splitlines()) == 1


def test_a_server_behind_tls_of_ones_own_is_reached_as_mlflow_reaches_it(tmp_path, monkeypatch):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    pem = tmp_path / "tls.pem"
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {pem}.key -out {pem} -days 2 -subj /CN=localhost"
    subprocess.run([*words.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_text(pem.read_text() + pem.with_name("tls.pem.key").read_text())
    with service("application/json", b"{}", both) as port:
        assert "CERTIFICATE_VERIFY_FAILED" in check(f"https://localhost:{port}")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(pem))
        assert check(f"https://localhost:{port}") is None


def rewrite(path, monkeypatch, when):
    """The journal again with other times: ``when(number, time)``; each line has its own checksum."""
    events = list(JournalReader(path).new())
    path.unlink()
    journal = Journal(path)
    for number, event in enumerate(events):
        monkeypatch.setattr(time, "time", partial(when, number, event["time"]))
        journal.write(**{name: value for name, value in event.items() if name != "time"})
    monkeypatch.undo()
    return journal


def test_clocks_that_are_set_back_make_no_run_end_before_it_began(server, folder, monkeypatch):
    whole_sweep(folder, "aaa", "bbb")
    rewrite(folder / JOURNAL, monkeypatch, lambda number, _: 1.7e9 - 1000 * number)
    assert sync(folder, server.uri) == 3
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_an_epoch_that_was_written_again_with_another_time_is_one_point(server, folder, monkeypatch):
    """As when its line was damaged after MLflow had it, and it was taken from the checkpoint again."""
    journal = open_sweep(folder)
    start(journal, "aaa")
    report(journal, "aaa", 1, 2)
    assert sync(folder, server.uri) == 2
    before = seen(server.uri, folder)[2]["aaa"]
    journal = rewrite(folder / JOURNAL, monkeypatch, lambda number, then: then + (number == 3))
    report(journal, "aaa", 3)
    finish(journal, "aaa")
    journal.write("done")
    assert sync(folder, server.uri) == 2
    points = seen(server.uri, folder)[2]["aaa"]
    assert [step for step, _, _ in points] == [1, 2, 3]
    assert points[:2] == before


def test_a_server_that_was_never_there_gets_all_later_and_text_that_databases_dislike(server, folder, follow):
    tracker = follow(f"http://127.0.0.1:{free_port()}")
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb")
    journal.write("start", trial="ccc", number=2, config={"commitment_weight": "1" * 400, "seed": 1}, info={})
    report(journal, "aaa", *range(1, 700))
    reason = "<script>alert(1)</script> \0 nul, 'quotes\" -- and; tail"
    finish(journal, "aaa", "ccc", status="failed", reason=reason)
    journal.write("pause")
    eventually(lambda: tracker.problem)
    assert timed(lambda: tracker.close(timeout=1)) < 2
    assert sync(folder, server.uri) == 4
    assert_mlflow_holds_the_journal(server.uri, folder, state="KILLED")
    reason = seen(server.uri, folder)[1]["aaa"].data.tags["reason"]
    assert reason.startswith("<script>alert(1)</script> \ufffd nul, ")
