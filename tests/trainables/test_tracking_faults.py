"""Whatever happens to MLflow, the driver does not notice, and in the end MLflow holds exactly the journal."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from tracked import Server, assert_mlflow_holds_the_journal, eventually, find, finish, open_sweep, report, seen, start

from sweeps.sync import main as sync_command
from trainables import bulk_server, bulk_store
from trainables.bulk_server import PATH
from trainables.journal import Journal, JournalReader
from trainables.runs import JOURNAL
from trainables.sender import Sender
from trainables.tracking import Tracker, check, default_uri, sync
from vqcore.config import ConfigError

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """As docs/tracking.md says to start it; one as it comes with MLflow is in test_tracking.py."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder, f"sqlite:///{folder}/server.db", "--app-name", "vqsweep")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def folder(tmp_path, request):
    folder = tmp_path / "beta_ablation" / re.sub(r"\W", "_", request.node.name)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def new_database(tmp_path_factory):
    """A database as MLflow makes it: that takes seconds, and a test that reads one meanwhile would make it too."""
    out = tmp_path_factory.mktemp("new")
    open_sweep(out / "beta_ablation" / "first").close()
    assert sync(out / "beta_ablation" / "first", default_uri(out)) == 1
    return out / "mlflow.db"


@pytest.fixture
def follow(folder):
    """Starts a tracker, and leaves no process behind."""
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


def test_a_server_that_is_killed_and_comes_back(server, folder, follow):
    journal = open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa", "bbb", "ccc")
    report(journal, "aaa", 1, 2)
    finish(journal, "ccc", status="diverged", reason="loss is nan")
    eventually(arrived(server.uri, folder, "aaa", 2))
    server.kill()
    assert timed(lambda: [report(journal, "aaa", 3), report(journal, "bbb", 1, 2)]) < 0.1
    eventually(lambda: tracker.problem)
    server.start()
    report(journal, "bbb", 3)
    finish(journal, "aaa", "bbb")
    journal.write("done")
    assert tracker.close(timeout=60)
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_a_server_that_comes_back_as_mlflows_own_is_told_in_its_way(tmp_path, folder, follow):
    server = Server(tmp_path, f"sqlite:///{tmp_path}/server.db", "--app-name", "vqsweep")
    server.start()
    try:
        journal = open_sweep(folder)
        tracker = follow(server.uri)
        start(journal, "aaa")
        report(journal, "aaa", 1, 2)
        eventually(arrived(server.uri, folder, "aaa", 2))
        server.kill()
        start(journal, "bbb", "ccc")
        report(journal, "bbb", 1)
        server.options = ()
        server.start()
        finish(journal, "aaa", "bbb", "ccc")
        journal.write("done")
        assert tracker.close(timeout=60)
        assert_mlflow_holds_the_journal(server.uri, folder)
    finally:
        server.kill()


def test_a_server_that_stands_still_does_late_what_it_was_asked_twice(server, folder, follow):
    """It accepts, never answers, and when it goes on it carries out what nobody waits for any more."""
    journal = open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa")
    report(journal, "aaa", 1)
    eventually(arrived(server.uri, folder, "aaa", 1))
    server.signal(signal.SIGSTOP)
    try:
        assert timed(lambda: start(journal, "bbb", "ccc")) < 0.1
        report(journal, "bbb", 1)
        report(journal, "aaa", 2)
        eventually(lambda: tracker.problem, seconds=90)
        time.sleep(3)
    finally:
        server.signal(signal.SIGCONT)
    finish(journal, "aaa", "bbb", "ccc")
    journal.write("done")
    assert tracker.close(timeout=90)
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_what_a_server_missed_is_made_at_once_not_run_by_run(server, folder, monkeypatch):
    from mlflow import MlflowClient

    journal = open_sweep(folder)
    keys = [f"trial{number:02}" for number in range(20)]
    start(journal, *keys)
    for key in keys:
        report(journal, key, *range(1, 4))
    journal.write("epoch", trial=keys[0], epoch=4, metrics={"mse": 1e300, "perplexity": -0.0})
    finish(journal, *keys[1:])
    finish(journal, keys[0], status="diverged", reason="loss is nan")
    journal.write("done")
    asked = []
    for name in ("create_run", "log_batch", "set_terminated"):
        own = getattr(MlflowClient, name)

        def counted(*args, own=own, name=name):
            asked.append(name)
            return own(*args)

        monkeypatch.setattr(MlflowClient, name, counted)
    assert sync(folder, server.uri) == 21
    assert sorted(asked) == ["create_run", "log_batch", "set_terminated"]  # of the parent
    assert_mlflow_holds_the_journal(server.uri, folder)


def catching_up(folder, count, spoilt=()):
    """The journal of a finished sweep of so many trials, some with a metric that MLflow refuses."""
    journal = open_sweep(folder)
    keys = [f"trial{number:02}" for number in range(count)]
    start(journal, *keys)
    for key in keys:
        if key in spoilt:
            journal.write("epoch", trial=key, epoch=1, metrics={"no such name!?": 1.0})
        else:
            report(journal, key, 1, 2)
    finish(journal, *keys)
    journal.write("done")
    return keys


def test_trials_that_a_server_refuses_hold_up_no_other(server, folder):
    spoilt = {f"trial{number:02}" for number in range(0, 12, 2)}
    keys = catching_up(folder, 12, spoilt)
    with pytest.raises(ConfigError, match="no such name"):
        sync(folder, server.uri)
    parent, children, points = seen(server.uri, folder)
    good = set(keys) - spoilt
    assert {parent.info.status, *(children[key].info.status for key in good)} == {"FINISHED"}
    assert {key: len(told) for key, told in points.items() if told} == dict.fromkeys(good, 2)


def test_a_proxy_that_lets_no_large_request_pass_is_told_run_by_run(server, folder):
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "POST" and self.path == PATH:
                turned_away.append(len(body))
                self.send_error(413)
                return
            kind = {"Content-Type": self.headers.get("Content-Type", "")}
            answer = requests.request(self.command, server.uri + self.path, data=body, headers=kind, timeout=20)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    turned_away = []
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    catching_up(folder, 5)
    assert sync(folder, f"http://127.0.0.1:{proxy.server_port}") == 6
    proxy.shutdown()
    assert len(turned_away) == 1
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_runs_that_another_service_says_yes_to_are_not_made():
    from mlflow.exceptions import MlflowException

    service = wrong(0, *WRONG["an empty object"])
    run = bulk_store.NewRun("0" * 32, "a run", "FINISHED", 1, 2, {}, {}, [])
    with pytest.raises(MlflowException, match="no MLflow server"):
        bulk_server._post(f"http://127.0.0.1:{service.server_port}", "1", [run])
    service.shutdown()


@pytest.mark.parametrize("late", [False, True])
def test_runs_whose_making_was_not_confirmed_are_made_once(server, folder, monkeypatch, late):
    """The server makes them, and its answer is lost; or makes them later, when they were asked for again."""
    honest, asked = bulk_server._asked, []

    def unconfirmed(*words, **more):
        if words[1] != "POST" or asked:
            return honest(*words, **more)
        asked.append(lambda: honest(*words, **more))
        if not late:
            assert asked[0]().status_code == 200
        raise OSError("no answer")

    monkeypatch.setattr(bulk_server, "_asked", unconfirmed)
    catching_up(folder, 5)
    sender = Sender(folder, server.uri)
    with pytest.raises(OSError, match="no answer"):
        sender.update(nobody_writes=True)
    sender.disconnect()
    sender.update(nobody_writes=True)
    sender.release()
    if late:
        assert asked[0]().json()["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_a_run_that_was_made_twice_is_shown_once(server, folder):
    """As after a request that a slow server carried out though its answer came too late."""
    journal = open_sweep(folder)
    start(journal, "aaa")
    report(journal, "aaa", 1, 2)
    journal.write("pause")
    assert sync(folder, server.uri) == 2
    client, runs = find(server.uri, folder)
    for run in runs:
        client.create_run(run.info.experiment_id, run.info.start_time, run.data.tags, run.info.run_name)
    assert len(find(server.uri, folder)[1]) == 4
    open_sweep(folder)
    start(journal, "aaa")
    report(journal, "aaa", 3)
    finish(journal, "aaa")
    journal.write("done")
    assert sync(folder, server.uri) == 2
    assert_mlflow_holds_the_journal(server.uri, folder)


def wrong(port, code, kind, body):
    """Another service where MLflow was."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    service = ThreadingHTTPServer(("127.0.0.1", port), Answer)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    return service


WRONG = {
    "an error": (500, "text/plain", b"Internal Server Error"),
    "a page": (200, "text/html", b"<html><script>alert(1)</script>It works!</html>"),
    "no object": (200, "application/json", b"[1, 2"),
    "an empty object": (200, "application/json", b"{}"),
    "something else": (200, "application/json", b'{"runs": 3, "experiment": {"name": "x"}, "run": []}'),
    "not there": (404, "text/html", b"<html>404</html>"),
}


def test_another_service_in_its_place_is_told_nothing_for_good(server, folder, follow):
    journal = open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa")
    report(journal, "aaa", 1)
    eventually(arrived(server.uri, folder, "aaa", 1))
    server.kill()
    for number, (name, answer) in enumerate(WRONG.items()):
        service = wrong(server.port, *answer)
        try:
            report(journal, "aaa", 2 + number)
            if name != "an empty object":  # a server that shows this user no experiment answers just that
                assert re.search("answers HTTP 500|no MLflow server", check(server.uri))
            eventually(lambda: tracker.problem)
            assert "\n" not in tracker.problem
            time.sleep(1)
        finally:
            service.shutdown()
            service.server_close()
    server.start()
    finish(journal, "aaa")
    journal.write("done")
    assert tracker.close(timeout=60)
    assert_mlflow_holds_the_journal(server.uri, folder)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_server_from_the_start_is_told_nothing(name, server, folder, follow, capsys):
    journal = open_sweep(folder)
    start(journal, "aaa")
    report(journal, "aaa", 1, 2, 3)
    finish(journal, "aaa")
    journal.write("done")
    service = wrong(0, *WRONG[name])
    uri = f"http://127.0.0.1:{service.server_port}"
    try:
        tracker = follow(uri)
        eventually(lambda: tracker.problem)
        assert tracker.close(timeout=2) is False
        assert sync_command(folder.name, folder.parents[1], uri) == 2
    finally:
        service.shutdown()
        service.server_close()
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "Traceback" not in said


def test_a_server_that_was_never_there_is_told_later(server, folder, follow, capsys):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    tracker = follow(f"http://127.0.0.1:{port}")
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 2, 3)
    finish(journal, "aaa")
    journal.write("done")
    eventually(lambda: tracker.problem)
    assert timed(lambda: tracker.close(timeout=1)) < 2
    assert sync_command(folder.name, folder.parents[1], server.uri) == 0
    assert "trials: 2" in capsys.readouterr().out
    assert_mlflow_holds_the_journal(server.uri, folder)


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
    assert "\n" not in tracker.problem
    report(journal, "aaa", 3)
    other.execute("ROLLBACK")
    finish(journal, "aaa", "bbb")
    journal.write("done")
    assert tracker.close(timeout=90)
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
    assert tracker.close(timeout=90)
    shutil.copy(file, file.with_name("copy.db"))  # what this process has open is the deleted one
    assert_mlflow_holds_the_journal(f"sqlite:///{file.with_name('copy.db')}", folder)


def test_runs_that_somebody_deletes_are_there_again_in_the_end(server, folder, follow):
    journal = open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1)
    report(journal, "bbb", 1, 2, 3)
    finish(journal, "bbb")
    eventually(lambda: seen(server.uri, folder)[1]["bbb"].info.status == "FINISHED")
    eventually(arrived(server.uri, folder, "aaa", 1))
    for epoch in (2, 3):  # the parent, one that runs, and one that is over
        client, runs = find(server.uri, folder)
        for run in runs:
            client.delete_run(run.info.run_id)
        report(journal, "aaa", epoch)
        eventually(lambda: seen(server.uri, folder)[1]["aaa"])
    finish(journal, "aaa")
    journal.write("done")
    assert tracker.close(timeout=60)
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_a_follower_that_is_killed_is_followed_by_another(server, folder, follow):
    journal = open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa")
    report(journal, "aaa", 1)
    eventually(arrived(server.uri, folder, "aaa", 1))
    os.kill(tracker._process.pid, signal.SIGKILL)
    eventually(lambda: "ended, with code -9" in (tracker.problem or ""))
    report(journal, "aaa", 2)
    finish(journal, "aaa")
    journal.write("done")
    assert tracker.close(timeout=60)
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


def test_a_driver_that_is_killed_leaves_no_process_and_a_resume_goes_on(server, folder, follow):
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1)
    command = [sys.executable, "-c", DRIVER, str(folder), server.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        follower = int(driver.stdout.readline())
        eventually(arrived(server.uri, folder, "aaa", 1))
        driver.kill()
    eventually(lambda: not os.path.exists(f"/proc/{follower}"), seconds=10)  # noqa: PTH110
    open_sweep(folder)
    tracker = follow(server.uri)
    start(journal, "aaa")
    report(journal, "aaa", 2)
    finish(journal, "aaa")
    journal.write("done")
    assert tracker.close(timeout=60)
    assert_mlflow_holds_the_journal(server.uri, folder)


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
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 2, 3)
    finish(journal, "aaa", "bbb")
    journal.write("done")
    journal.close()
    rewrite(folder / JOURNAL, monkeypatch, lambda number, _: 1.7e9 - 1000 * number)
    assert sync(folder, server.uri) == 3
    assert_mlflow_holds_the_journal(server.uri, folder)


def test_an_epoch_that_was_written_again_with_another_time_is_one_point(server, folder, monkeypatch):
    """As when its line was damaged after MLflow heard of it, and it was taken from the checkpoint again."""
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


def test_text_that_databases_and_pages_dislike_arrives(server, folder):
    journal = open_sweep(folder)
    start(journal, "aaa")
    reason = "<script>alert(1)</script> \0 nul, 'quotes\" -- and; tail"
    finish(journal, "aaa", status="failed", reason=reason)
    journal.write("done")
    assert sync(folder, server.uri) == 2
    _, children, _ = seen(server.uri, folder)
    told = children["aaa"].data.tags["vqsweep.reason"]
    assert told.startswith("<script>alert(1)</script> \ufffd nul, ")
    assert told.endswith("'quotes\" -- and; tail")
