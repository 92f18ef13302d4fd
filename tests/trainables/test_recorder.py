"""Each event of a trial is recorded once; what a journal lost is taken from checkpoints that can be believed."""

from pathlib import Path
from typing import Any

import pytest

from trainables.checkpoint import save_checkpoint
from trainables.data import DataSet
from trainables.job import Report, TrialJob
from trainables.journal import Event, Journal, JournalReader, read
from trainables.recorder import JournalWriter, fill_gaps
from trainables.runs import JOURNAL
from trainables.storage import Store
from vqcore.config import TrialConfig

KEY = "0123456789ab"
CONFIG = TrialConfig().flat()


@pytest.fixture
def job(data_set: DataSet, tmp_path: Path) -> TrialJob:
    return TrialJob(KEY, 7, TrialConfig(), data_set, str(tmp_path))


def epoch(number: int, **more: Any) -> Report:
    return Report(number, {"mse": 1 / number}, time=1.5, **more)


def events(run: Path) -> list[str]:
    return [event["event"] for event in JournalReader(run / JOURNAL).new()]


def test_a_trial_is_recorded_once_however_often_it_reports(job: TrialJob, tmp_path: Path) -> None:
    seen: list[Event] = []
    for _ in range(2):
        writer = JournalWriter(tmp_path, [seen.append])
        for report in (epoch(1), epoch(1), epoch(2, status="completed")):
            writer.report(job, report)
        writer.ended(job, "failed", "a second end")
        writer.close()
    assert [event["event"] for event in seen] == events(tmp_path) == ["start", "epoch", "epoch", "end"]
    trial = read(tmp_path / JOURNAL).trials[KEY]
    assert (trial.number, trial.config, trial.status, trial.times) == (7, CONFIG, "completed", {1: 1.5, 2: 1.5})


@pytest.mark.parametrize("changed", ["host", "pid", "process_started", None])
def test_a_restart_is_recorded_with_where_and_what_it_runs_on(
    job: TrialJob, tmp_path: Path, changed: str | None
) -> None:
    """Process ids repeat: on another node, and on the same one in time."""
    info = {"host": "node1", "pid": 41, "process_started": 10.0, "device": "H100"}
    after = info | ({changed: "another", "device": "V100"} if changed else {})
    writer = JournalWriter(tmp_path)
    writer.report(job, epoch(1, info=info))
    writer.report(job, epoch(2, info=after))
    writer.report(job, epoch(3, info=after))
    writer.close()
    assert events(tmp_path) == ["start", "epoch", *(["start"] if changed else []), "epoch", "epoch"]
    assert read(tmp_path / JOURNAL).trials[KEY].info == after


def test_a_trial_that_fails_before_its_first_report_has_a_start(job: TrialJob, tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.ended(job, "failed", "KeyError: 'mse'")
    writer.close()
    trial = read(tmp_path / JOURNAL).trials[KEY]
    assert (trial.number, trial.config, trial.status, trial.reason) == (7, CONFIG, "failed", "KeyError: 'mse'")


def test_after_a_cut_at_any_byte_the_writer_knows_what_is_in_the_journal(job: TrialJob, tmp_path: Path) -> None:
    """The epoch whose line lacks only its end is in it, and is not recorded a second time."""
    writer = JournalWriter(tmp_path)
    writer.report(job, epoch(1))
    writer.report(job, epoch(2))
    writer.close()
    whole = (tmp_path / JOURNAL).read_bytes()
    for end in range(whole.rindex(b"\n", 0, -1) + 1, len(whole) + 1):
        (tmp_path / JOURNAL).write_bytes(whole[:end])
        writer = JournalWriter(tmp_path)
        assert writer.run == read(tmp_path / JOURNAL)
        writer.report(job, epoch(2))
        writer.close()
        assert [event for event in events(tmp_path) if event == "epoch"] == ["epoch"] * 2


# Gaps


def facts(epochs: int, **more: Any) -> dict[str, Any]:
    history = [{"event": "epoch", "epoch": n, "metrics": {"mse": 1 / n}, "time": 1.5} for n in range(1, epochs + 1)]
    return {"trial": KEY, "precision": "fp32", "history": history, **more}


def filled(run: Path) -> str:
    writer = JournalWriter(run)
    note = fill_gaps(writer, str(run / "trials"))
    writer.close()
    return note


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one trial, whose first epoch is lost."""
    journal = Journal(tmp_path / JOURNAL)
    journal.write("sweep", name="run", id="1")
    journal.write("start", trial=KEY, number=7, config=CONFIG)
    journal.write("epoch", trial=KEY, epoch=2, metrics={"mse": 0.5})
    journal.write("end", trial=KEY, status="completed", epoch=2)
    journal.close()
    (tmp_path / "trials").mkdir()
    return tmp_path


def test_a_lost_epoch_is_taken_from_the_checkpoint(run: Path) -> None:
    save_checkpoint(Store(str(run / "trials" / KEY)), 2, {}, facts(2))
    assert filled(run) == "The journal had lost lines: 1 epochs taken again from checkpoints, 0 trials opened again."
    trial = read(run / JOURNAL).trials[KEY]
    assert trial.epochs == {1: {"mse": 1.0}, 2: {"mse": 0.5}}
    assert (trial.whole, trial.status) == (True, "completed")
    assert filled(run) == "", "nothing is left to fill"


def test_a_trial_whose_epochs_nobody_has_is_opened_again(run: Path) -> None:
    assert filled(run) == "The journal had lost lines: 0 epochs taken again from checkpoints, 1 trials opened again."
    trial = read(run / JOURNAL).trials[KEY]
    assert (trial.status, trial.unbroken) == ("running", 0)
