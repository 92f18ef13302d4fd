"""The benchmark of slots: its arithmetic, by hand; and a short one, for real."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.slots import ActorMemory, SlotsBenchmark, gaps, main, memory, seconds_per_trial, summary
from trainables.journal import Journal
from vqcore.config import ConfigError


def start(trial: str, pid: int) -> dict[str, Any]:
    return {"event": "start", "trial": trial, "info": {"pid": pid}, "time": 0.0}


def epoch(trial: str, began: float, ended: float) -> dict[str, Any]:
    return {"event": "epoch", "trial": trial, "time": ended, "metrics": {"seconds": ended - began}}


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        main(SlotsBenchmark(trials=150, repeats=0, sides=("before",), before=tmp_path))
    assert all(words in str(error.value) for words in ("trials = 150", "repeats = 0", "git worktree add"))


def test_gaps_are_those_of_one_process_between_trials_and_within_one() -> None:
    events = [start("a", 1), start("b", 2), epoch("a", 0, 1), epoch("b", 0, 1.5), epoch("a", 1.25, 2)]
    events += [{"event": "start", "trial": "c", "info": {}}, start("c", 1), epoch("c", 2.5, 4)]
    events += [start("b", 1), epoch("b", 4.125, 5)]  # b moves to the other process
    assert gaps(events) == {"between": [0.5, 0.125], "within": [0.25], "span": [5.0, 1.5]}


def test_a_sweep_in_figures() -> None:
    events = [start("a", 1), epoch("a", 0, 1), epoch("a", 1.25, 2), start("c", 1), epoch("c", 2.5, 4)]
    events += [start("d", 1), epoch("d", 4.5, 5), *({"event": "end", "time": 5.0} for _ in range(3))]
    found = summary("ten", events, peak=0, wall=9.0)
    assert (found["between_ms"], found["within_ms"], found["between_percent"]) == (500, 250, 20)
    assert found["lost_percent"] == 25
    assert found["trial_seconds"] == pytest.approx(3.75 / 3, abs=1e-3)


def test_the_first_hundred_trials_are_compared_with_the_last() -> None:
    ends = [float(number) for number in range(1, 101)] + [100 + 3.0 * number for number in range(1, 101)]
    assert seconds_per_trial(ends, 0.0) == (1.0, 3.0)


def test_memory_is_that_of_actors_that_have_all_that_they_keep() -> None:
    mb = 1_000_000
    young, old = [(1, 300 * mb), (40, 500 * mb)], [(10, 300 * mb), (60, 510 * mb), (300, 512 * mb), (500, 511 * mb)]
    assert memory([young, old]) == {"actor_trials": 500, "actor_mb_after_50": 510, "actor_mb_at_end": 511}
    assert memory([young]) == {}


def test_an_actor_is_found_by_the_journal_and_its_memory_in_proc(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    actors = ActorMemory(journal.path)
    journal.write("start", trial="a", info={"pid": os.getpid()})
    journal.write("end", trial="a", status="completed")
    actors.look()
    ((ended, used),) = actors.samples[os.getpid()]
    assert ended == 1
    assert used > 10_000_000


def test_reports_are_counted_from_the_first_start_to_the_last_end() -> None:
    events = [{"event": kind, "time": time, "trial": "a"} for time in range(201) for kind in ("start", "epoch", "end")]
    found = summary("many", events, peak=0, wall=300)
    assert (found["trials"], found["reports_per_second"], found["growth"]) == (201, 1.0, 1.01)


@pytest.mark.service
def test_a_sweep_is_run_as_its_command_and_the_other_side_stays_in_the_file(tmp_path: Path) -> None:
    out = tmp_path / "slots.json"
    out.write_text('{"before": {"commit": "old", "gap": [{"trials": 60}]}}')
    main(SlotsBenchmark(parts=("gap",), repeats=1, out=out))
    record = json.loads(out.read_text())
    assert record["before"]["commit"] == "old"
    (row,) = record["now"]["gap"]
    assert row["trials"] == 60
    assert 0 < row["files_ms"] < row["between_ms"] < 5000
