"""The benchmark of durability refuses what it cannot measure, and keeps what it measured, part by part."""

import json
from pathlib import Path

import pytest

from benchmarks.durability.__main__ import DurabilityBenchmark, main


def test_what_is_asked_wrongly_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(DurabilityBenchmark(parts=(), lines=1, trials=0, epoch_seconds=-1)) == 2
    told = capsys.readouterr().err
    assert "parts: none is given" in told
    assert "lines = 1: must be 10 or more" in told
    assert "trials = 0: must be 10 or more" in told
    assert "epoch_seconds = -1" in told


def test_a_journal_is_read_beside_the_least_that_a_reader_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "durability.json"
    assert main(DurabilityBenchmark(parts=("journal",), lines=2000, repeats=2, out=out)) == 0
    found = json.loads(out.read_text())["journal"]
    assert found["lines"] == 2000
    assert {row["epochs"] for side in found["each"].values() for row in side} == {found["each"]["floor"][0]["epochs"]}
    assert found["peak_bytes_above_imports"] <= found["peak_bytes"] < 1e9
    assert {"commit", "hardware"} <= found["provenance"].keys()
    assert str(tmp_path) not in out.read_text()
    assert "at most 10: met" in capsys.readouterr().out


@pytest.mark.service
def test_long_sweeps_are_resumed_to_their_report(tmp_path: Path) -> None:
    out = tmp_path / "durability.json"
    out.write_text('{"journal": {"lines": 5}}')
    assert main(DurabilityBenchmark(parts=("resume",), trials=20, kinds=("search-killed",), out=out)) == 0
    told = json.loads(out.read_text())
    assert told["journal"] == {"lines": 5}
    sweeps = told["resume"]["sweeps"]
    assert list(sweeps) == ["search-killed", "a new one"]
    assert sweeps["search-killed"]["trials"] == 20
    assert sweeps["search-killed"]["lines_before"] > 60
    assert sweeps["a new one"]["trials_trained"] == 10
    for row in sweeps.values():
        assert row["first_trial_cpu_seconds"] > 0
        assert row["report_seconds"] >= 0
    assert str(tmp_path) not in out.read_text()


@pytest.mark.service
def test_what_everything_costs_is_measured_on_and_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "durability.json"
    assert main(DurabilityBenchmark(parts=("cost",), pairs=2, epoch_seconds=0.5, out=out)) == 0
    found = json.loads(out.read_text())["cost"]
    assert [len(side) for side in found["each"].values()] == [2, 2]
    assert found["mlflow_sent_all"]
    assert found["parts_ms"]["write and fsync"]["wall"] > 0
    assert "sum of the parts" in capsys.readouterr().out
