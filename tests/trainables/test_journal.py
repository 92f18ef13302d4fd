"""The journal survives a crash at any byte, and is read as it grows."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trainables.data import DataSet
from trainables.journal import Epochs, Journal, JournalReader, RunRecord, latest_sweep, read
from trainables.recorder import Recorder
from trainables.trial import TrialJob
from vqcore.config import TrialConfig


def story(path: Path) -> list[dict[str, Any]]:
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


def told(path: Path) -> list[dict[str, Any]]:
    return list(JournalReader(path).new())


def folded(events: list[dict[str, Any]]) -> RunRecord:
    run = RunRecord()
    for event in events:
        run.apply(event)
    return run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.jsonl"


def test_what_is_written_is_read(path: Path) -> None:
    events = story(path)
    assert told(path) == events
    run = read(path)
    assert run.done
    assert run.sweep["name"] == "β-ablation"
    assert run.trials["a"].epochs == {1: {"mse": 0.1}, 2: {"mse": 1 / 3}}
    assert run.trials["a"].last_epoch == 2
    assert (run.trials["b"].status, run.trials["b"].reason) == ("diverged", "loss is nan\nin step 1")


def test_every_line_is_json_as_others_read_it(path: Path) -> None:
    story(path)
    for line in path.read_text(encoding="utf-8").splitlines():
        assert isinstance(json.loads(line, parse_constant=lambda name: pytest.fail(name)), dict)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_json_has_not_is_refused_and_leaves_no_trace(path: Path, value: float) -> None:
    journal = Journal(path)
    with pytest.raises(ValueError, match="Out of range"):
        journal.write("epoch", trial="a", epoch=1, metrics={"mse": value})
    journal.write("done")
    journal.close()
    assert [event["event"] for event in told(path)] == ["done"]


def test_a_journal_cut_at_any_byte_holds_its_whole_lines(path: Path) -> None:
    events, cut = story(path), path.with_name("cut.jsonl")
    whole = path.read_bytes()
    for end in range(len(whole) + 1):
        cut.write_bytes(whole[:end])
        expected = events[: whole[:end].count(b"\n")]
        assert told(cut) == expected
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
        assert told(cut) == [*events[:kept], new]


def test_who_goes_on_knows_what_is_in_it_after_a_cut_at_any_byte(path: Path, data_set: DataSet) -> None:
    """The epoch whose line lacks only its end is in it, and is not recorded a second time."""
    story(path)
    lines = path.read_bytes().splitlines(keepends=True)
    before, last = b"".join(lines[:5]), lines[5]
    job = TrialJob("a", 0, TrialConfig(), data_set, str(path.parent))
    for end in range(len(last) + 1):
        path.write_bytes(before + last[:end])
        recorder = Recorder(path.parent)
        assert recorder.run == read(path)
        for epoch in (1, 2):
            recorder.told(job, {"event": "epoch", "epoch": epoch, "metrics": {"mse": 1 / 3}})
        recorder.close()
        assert [event["epoch"] for event in told(path) if event["event"] == "epoch"] == [1, 2]


def test_a_line_damaged_in_the_middle_costs_only_itself(path: Path) -> None:
    events = story(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (
        b"\x00" * 40 + b"\n",
        b"\xff\xfe{\n",
        b"null\n",
        b"[1]\n",
        b'{"epoch": 1}\n',
        b'{"event": 3}\n',
        b"\n",
    ):
        path.write_bytes(b"".join([*lines[:3], damage, *lines[4:]]))
        assert told(path) == [*events[:3], *events[4:]]


def test_a_reader_follows_the_writer_byte_by_byte(path: Path) -> None:
    events, growing = story(path), path.with_name("growing.jsonl")
    reader = JournalReader(growing)
    seen: list[dict[str, Any]] = []
    assert list(reader.new()) == []  # not there yet
    with growing.open("wb") as file:
        for byte in path.read_bytes():
            file.write(bytes([byte]))
            file.flush()
            seen += reader.new()
            assert seen == events[: len(seen)]
    assert seen == events
    assert list(reader.new()) == []


def test_each_event_is_there_as_soon_as_it_is_written(path: Path) -> None:
    journal, reader = Journal(path), JournalReader(path)
    event = journal.write("epoch", trial="a", epoch=1, metrics={})
    assert list(reader.new()) == [event]
    journal.close()


def test_an_epoch_told_twice_counts_once_and_as_first_told(path: Path) -> None:
    events = story(path)
    again = {**events[3], "metrics": {"mse": 9.0}, "time": 0.0}
    assert folded([*events, again]) == folded(events)


def test_events_of_unknown_kinds_and_trials_are_passed_over(path: Path) -> None:
    events = story(path)
    strange = [
        {"event": "later version", "time": 0.0},
        {"event": "epoch", "trial": "z", "epoch": 1, "metrics": {}, "time": 0.0},
        {"event": "end", "trial": "z", "status": "completed", "time": 0.0},
    ]
    assert folded([*strange, *events, *strange]) == folded(events)


def test_what_is_left_to_do(path: Path) -> None:
    run = folded(story(path))
    assert run.trials["a"].finished(2)
    assert not run.trials["a"].finished(3), "a larger budget extends a trial"
    assert run.trials["b"].finished(50), "a diverged trial would diverge again"
    run.apply({"event": "end", "trial": "b", "status": "failed", "time": 0.0})
    assert not run.trials["b"].finished(50), "a failed trial is tried again"
    run.apply({"event": "sweep", "time": 0.0, "id": "1"})
    assert not run.done, "a resume opens the run again"
    run.apply({"event": "start", "trial": "b", "number": 1, "config": {}, "time": 9.0, "info": {"device": "gpu"}})
    assert (run.trials["b"].status, run.trials["b"].reason) == ("running", "")
    assert run.trials["b"].info == {"device": "gpu"}


def test_no_journal_is_an_empty_run(tmp_path: Path) -> None:
    assert read(tmp_path / "journal.jsonl") == RunRecord()
    (tmp_path / "journal.jsonl").write_bytes(b"")
    assert read(tmp_path / "journal.jsonl") == RunRecord()


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10**6), flipped=st.integers(1, 255))
@example(position=-1, flipped=191)
def test_a_byte_changed_anywhere_loses_its_line_and_falsifies_none(
    tmp_path_factory: pytest.TempPathFactory, position: int, flipped: int
) -> None:
    path = tmp_path_factory.mktemp("flipped") / "journal.jsonl"
    events = story(path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= flipped
    path.write_bytes(content)
    left = told(path)
    assert len(events) - 2 <= len(left) < len(events), "a line, or two where the end between them went"
    assert [event for event in events if event in left] == left
    unended = position % len(content) == len(content) - 1
    assert (read(path).damaged == 0) == unended, "a last line without its end may still be being written"


def test_a_trial_whose_start_is_lost_waits_for_it(path: Path) -> None:
    events = story(path)
    run, mended = folded(events), folded([event for event in events if event != events[1]])
    assert set(mended.trials) == {"b"}
    assert set(mended.orphans) == {"a"}
    mended.apply(events[1])  # as a resume writes it again
    assert mended.trials["a"] == run.trials["a"]
    assert not mended.orphans


def test_an_epoch_that_is_missing_is_noticed(path: Path) -> None:
    events = story(path)
    run = folded([event for event in events if event != events[3]])
    assert run.known("a") == 0, "nothing after the gap is known for sure"
    assert not run.trials["a"].whole
    assert folded(events).known("a") == 2
    assert folded(events).trials["a"].whole
    assert not folded([event for event in events if event != events[5]]).trials["a"].whole, "its end tells of two"


def test_an_epoch_without_metrics_is_read_back_beside_others() -> None:
    epochs = Epochs()
    told_of: list[dict[str, float]] = [{}, {"mse": 0.5}, {"mse": 0.25, "bits": 1.0}, {}]
    for number, metrics in enumerate(told_of, 1):
        epochs.add(number, metrics, 0.0, number)
    assert list(epochs.values()) == told_of


def test_order_is_that_of_the_lines_whatever_the_clocks_say(path: Path) -> None:
    events = story(path)
    back = [{**event, "time": -float(number)} for number, event in enumerate(events)]
    trial = folded(back).trials["a"]
    assert trial.epochs.arrival(1) < trial.epochs.arrival(2)
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
    assert told(disk / "journal.jsonl") == written
    assert read(disk / "journal.jsonl").damaged == 0
    journal.close()


def test_the_last_word_on_what_the_sweep_is(path: Path) -> None:
    assert latest_sweep(path) == {}
    story(path)
    journal = Journal(path)
    again = journal.write("sweep", name="later", id="1")
    journal.close()
    assert latest_sweep(path) == again
    path.write_bytes(path.read_bytes()[:-20] + b"\n")
    assert latest_sweep(path)["name"] == "β-ablation", "a damaged one does not count"


@pytest.mark.parametrize(
    "event",
    [
        {"event": "start", "trial": "../../x", "number": 0, "config": {}, "time": 1.0},
        {"event": "start", "trial": "a", "number": "0", "config": {}, "time": 1.0},
        {"event": "epoch", "trial": "a", "epoch": 1, "metrics": {"mse": "low"}, "time": 1.0},
        {"event": "epoch", "trial": "a", "epoch": "1", "metrics": {}, "time": 1.0},
        {"event": "end", "trial": ["a"], "status": "completed", "time": 1.0},
    ],
)
def test_what_nobody_here_wrote_is_passed_over(path: Path, event: dict[str, Any]) -> None:
    journal = Journal(path)
    name = event.pop("event")
    journal.write(name, **event)
    journal.close()
    run = read(path)
    assert all(not trial.epochs for trial in run.trials.values())
    assert run.trials == {} or name == "epoch"


def test_text_that_is_none_is_kept_as_far_as_it_goes(path: Path) -> None:
    journal = Journal(path)
    journal.write("start", trial="a", number=0, config={})
    journal.write("end", trial="a", status="failed", reason="no file named \udce4.png", epoch=0)
    journal.close()
    assert read(path).trials["a"].reason == "no file named ?.png"
