"""The figures of durability are of what they say they are."""

from pathlib import Path

from benchmarks.durability import journal
from trainables.journal import read


def test_the_journal_measured_is_one_that_the_product_reads_whole(tmp_path: Path) -> None:
    journal.write(tmp_path / "journal.jsonl", 1020)
    run = read(tmp_path / "journal.jsonl")
    assert run.damaged == 0
    assert len(run.trials) == 10
    assert {len(trial.epochs) for trial in run.trials.values()} == {journal.EPOCHS}


def test_reading_is_measured_beside_its_floor_in_processes_of_their_own() -> None:
    found = journal.measured(5100)
    assert found["ours_cpu_seconds"] >= 0
    assert found["ours_megabytes"] > found["imports_megabytes"]
    assert 0 < found["megabytes"] < 10
