"""The journal survives a crash at any byte, and is read as it grows."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.journal import Event, Journal, JournalReader, RunRecord, read


def story(path: Path) -> list[Event]:
    """A small run: two trials, one of which diverges."""
    journal = Journal(path)
    events = [
        journal.write("sweep", name="β-ablation", id="1"),
        journal.write("start", trial="a", number=0, config={"commitment_weight": 0.1}, info={"device": "cpu"}),
        journal.write("start", trial="b", number=1, config={"commitment_weight": 2.0}),
        journal.write("epoch", trial="a", epoch=1, metrics={"mse": 0.1}),
        journal.write("end", trial="b", epoch=0, status="diverged", reason="loss is nan\nin step 1"),
        journal.write("epoch", trial="a", epoch=2, metrics={"mse": 1 / 3}),
        journal.write("end", trial="a", epoch=2, status="completed", reason=""),
        journal.write("done"),
    ]
    journal.close()
    return events


def events_in(path: Path) -> list[Event]:
    return list(JournalReader(path).new())


def folded(events: list[Event]) -> RunRecord:
    run = RunRecord()
    for event in events:
        run.apply(event)
    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.jsonl"


def test_what_is_written_is_read_as_json_and_as_a_run(path: Path) -> None:
    events = story(path)
    assert events_in(path) == events
    for line in path.read_text(encoding="utf-8").splitlines():
        assert isinstance(json.loads(line, parse_constant=lambda name: pytest.fail(name)), dict)
    run = read(path)
    assert run.done
    assert run.sweep["name"] == "β-ablation"
    assert run.trials["a"].epochs == {1: {"mse": 0.1}, 2: {"mse": 1 / 3}}
    assert (run.trials["a"].last_epoch, run.last_epoch("a"), run.last_epoch("z")) == (2, 2, 0)
    assert (run.trials["b"].status, run.trials["b"].reason) == ("diverged", "loss is nan\nin step 1")


def test_no_journal_is_an_empty_run(path: Path) -> None:
    assert read(path) == RunRecord()
    path.parent.mkdir()
    path.touch()
    assert read(path) == RunRecord()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_has_not_is_refused_and_leaves_no_trace(path: Path, value: float) -> None:
    journal = Journal(path)
    with pytest.raises(ValueError, match="Out of range"):
        journal.write("epoch", trial="a", epoch=1, metrics={"mse": value})
    journal.write("done")
    journal.close()
    assert [event["event"] for event in events_in(path)] == ["done"]


def test_a_journal_cut_at_any_byte_holds_its_whole_lines(path: Path) -> None:
    events, cut = story(path), path.with_name("cut.jsonl")
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        cut.write_bytes(whole[:end])
        expected = events[: whole[:end].count(b"\n")]
        assert events_in(cut) == expected
        assert read(cut) == folded(expected)


def test_a_writer_goes_on_after_a_cut_at_any_byte_of_a_line(path: Path) -> None:
    """Half a line is closed and never takes the next event with it. One that lacks only its end is whole."""
    events, cut = story(path), path.with_name("cut.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    before = b"".join(lines[:3])
    for end in range(len(lines[3]) + 1):
        cut.write_bytes(before + lines[3][:end])
        journal = Journal(cut)
        new = journal.write("pause")
        journal.close()
        kept = 4 if end >= len(lines[3]) - 1 else 3
        assert events_in(cut) == [*events[:kept], new]


def test_a_reader_follows_the_writer_byte_by_byte(path: Path) -> None:
    events, growing = story(path), path.with_name("growing.jsonl")
    reader = JournalReader(growing)
    seen: list[Event] = []
    assert list(reader.new()) == []  # not there yet
    with growing.open("wb") as file:
        for byte in path.read_bytes():
            file.write(bytes([byte]))
            file.flush()
            seen += reader.new()
            assert seen == events[: len(seen)]
    assert seen == events
    assert list(reader.new()) == []


def test_an_epoch_recorded_twice_counts_once_and_as_at_first(path: Path) -> None:
    events = story(path)
    assert folded([*events, {**events[3], "metrics": {"mse": 9.0}, "time": 0.0}]) == folded(events)


def test_events_of_unknown_kinds_and_trials_are_ignored(path: Path) -> None:
    events = story(path)
    strange = [
        {"event": "later version", "time": 0.0},
        {"event": "epoch", "trial": "z", "epoch": 1, "metrics": {}, "time": 0.0},
        {"event": "end", "trial": "z", "status": "completed", "time": 0.0},
    ]
    assert folded([*strange, *events, *strange]) == folded(events)


def test_what_is_left_to_do(path: Path) -> None:
    run = folded(story(path))
    assert run.finished("a", 2)
    assert not run.finished("a", 3), "a larger budget extends a trial"
    assert run.finished("b", 50), "a diverged trial would diverge again"
    run.apply({"event": "end", "trial": "b", "status": "failed", "time": 0.0})
    assert not run.finished("b", 50), "a failed trial is tried again"
    run.apply({"event": "sweep", "time": 0.0, "id": "1"})
    assert not run.done, "a resume opens the run again"
    run.apply({"event": "start", "trial": "b", "number": 1, "config": {}, "time": 9.0, "info": {"device": "gpu"}})
    assert (run.trials["b"].status, run.trials["b"].reason) == ("running", "")
    assert run.trials["b"].info == {"device": "gpu"}


@pytest.mark.parametrize("kind", ["epoch", "end"])
def test_the_first_event_of_a_trial_repeats_its_start(kind: str) -> None:
    fields = {"epoch": {"epoch": 1, "metrics": {"mse": 0.5}}, "end": {"epoch": 0, "status": "failed"}}[kind]
    start = {"number": 7, "config": {"decay": 0.9}}
    trial = folded([{"event": kind, "trial": "a", "time": 3.0, "start": start, **fields}]).trials["a"]
    assert (trial.number, trial.config, trial.started) == (7, {"decay": 0.9}, 3.0)
    assert trial.whole


def test_an_epoch_that_is_missing_is_noticed(path: Path) -> None:
    events = story(path)
    run = folded([event for event in events if event != events[3]])
    assert run.known("a") == 0, "nothing after the gap is known for sure"
    assert not run.trials["a"].whole
    assert folded(events).known("a") == 2
    assert folded(events).trials["a"].whole
    assert not folded([event for event in events if event != events[5]]).trials["a"].whole, "its end says two"


def test_order_is_that_of_the_lines_whatever_the_clocks_say(path: Path) -> None:
    trial = folded([{**event, "time": -float(n)} for n, event in enumerate(story(path))]).trials["a"]
    assert trial.arrivals[1] < trial.arrivals[2]
    assert trial.times[1] > trial.times[2]


def test_a_removed_journal_is_an_error_and_not_silence(path: Path) -> None:
    journal = Journal(path)
    journal.write("sweep", name="x", id="1")
    path.unlink()
    with pytest.raises(OSError, match="removed while the run goes on"):
        journal.write("done")
    journal.close()


def test_a_full_disk_leaves_whole_lines(disk_of: Callable[[str], Path]) -> None:
    disk = disk_of("16k")
    journal, written = Journal(disk / "journal.jsonl"), []

    def write_on() -> None:
        while True:
            written.append(journal.write("start", trial="a", number=0, config={"estimator": "x" * 1000}))

    with pytest.raises(OSError, match="No space left") as full:
        write_on()
    assert full.value.filename == disk / "journal.jsonl"
    assert events_in(disk / "journal.jsonl") == written
    assert read(disk / "journal.jsonl").damaged == 0
    journal.close()


def test_a_key_that_could_lead_to_another_folder_is_skipped(path: Path) -> None:
    journal = Journal(path)
    for key in ("../../x", "..", "/etc/passwd", "a/b", "", "a\0b", "~"):
        journal.write("start", trial=key, number=0, config={})
    journal.close()
    assert (read(path), read(path).damaged) == (RunRecord(), 7)


def test_text_that_is_no_utf_8_is_kept_as_far_as_it_goes(path: Path) -> None:
    journal = Journal(path)
    journal.write("start", trial="a", number=0, config={})
    journal.write("end", trial="a", status="failed", reason="no file named \udce4.png", epoch=0)
    journal.close()
    assert read(path).trials["a"].reason == "no file named ?.png"
