"""The benchmark of tracking refuses what it cannot measure, and keeps what it measured."""

import json
from pathlib import Path

import pytest

from benchmarks.tracking import TrackingBenchmark, main


def test_what_is_asked_wrongly_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TrackingBenchmark(runs=0, a_second=-1, uri="http://ann:s3cret@127.0.0.1:9")) == 2
    told = capsys.readouterr().err
    assert "runs = 0: must be 1 or more" in told
    assert "a_second = -1" in told
    assert "no answer" in told
    assert "s3cret" not in told


@pytest.mark.service
def test_the_file_holds_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "tracking.json"
    small = TrackingBenchmark(stores=("sqlite",), runs=2, epochs=3, client_runs=1, trials=4, reports=5, out=out)
    assert main(small) == 0
    told = json.loads(out.read_text())
    assert told["driver"]["added_ms"]["recorded_ms"] < 1
    assert told["catch_up"]["sqlite"].keys() == {"seconds", "client_seconds"}
    assert {"mlflow", "commit", "hardware"} <= told["provenance"].keys()
    assert str(tmp_path) not in out.read_text()
    assert "at most 60: met" in capsys.readouterr().out
