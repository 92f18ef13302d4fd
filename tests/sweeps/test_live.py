"""The report while a sweep runs."""

import time

import pytest

from sweeps.engine import live
from trainables.journal import Journal
from vqcore.config import TrialConfig


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run under way, whose report is written as soon as it can be."""
    monkeypatch.setattr(live, "SECONDS", 1.0)
    journal = Journal(tmp_path / "beta_ablation" / "run" / "journal.jsonl")
    journal.write("sweep", sweep="beta_ablation", name="run", id="1", swept=["commitment_weight"], trials=2)
    journal.write("start", trial="aaa", number=0, config=TrialConfig().flat(), info={})
    journal.write("epoch", trial="aaa", epoch=1, metrics={"mse": 0.1, "perplexity": 20.0, "seconds": 1.0})
    journal.close()
    return tmp_path / "beta_ablation" / "run"


def test_the_report_is_there_while_trials_run_and_loads_itself_anew(folder):
    page, until = folder / "report.html", time.monotonic() + 60
    with live.LiveReport(folder):
        while not page.exists() and time.monotonic() < until:
            time.sleep(0.05)
    assert '"refresh":1,' in page.read_text()
    assert "1 trial had not ended" in page.read_text()


def test_nothing_writes_once_it_is_left(folder):
    with live.LiveReport(folder):
        time.sleep(1.3)  # long enough to begin
    (folder / "report.html").unlink(missing_ok=True)
    time.sleep(1.0)
    assert not (folder / "report.html").exists()


def test_a_report_that_cannot_be_written_hurts_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "SECONDS", 0.05)
    with live.LiveReport(tmp_path / "gone"):
        time.sleep(0.3)


def test_a_report_that_says_much_before_it_fails_is_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(live, "SECONDS", 0.05)
    monkeypatch.setattr(live, "SHARE", 1.0)
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "__init__.py").touch()
    (tmp_path / "analysis" / "page.py").write_text("import sys; sys.exit('said' * 100_000)")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    until = time.monotonic() + 30
    with live.LiveReport(tmp_path):
        while len(caplog.records) < 2 and time.monotonic() < until:
            time.sleep(0.05)
    assert len(caplog.records) >= 2
