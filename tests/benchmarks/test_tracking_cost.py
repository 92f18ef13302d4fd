"""The benchmark of tracking keeps what it measured."""

import json
from pathlib import Path

import pytest

from benchmarks.tracking import TrackingBenchmark, main


@pytest.mark.service
def test_the_file_holds_both_sides(tmp_path: Path) -> None:
    out = tmp_path / "new" / "tracking.json"
    main(TrackingBenchmark(runs=2, epochs=3, by_hand=1, reports=100, out=out))
    record = json.loads(out.read_text())
    assert {turn: len(found) for turn, found in record["driver_ms"].items()} == {"off": 2, "on": 2}
    assert [row.keys() for row in record["catch_up"].values()] == [{"seconds", "by_hand_seconds"}] * 2
    assert {"mlflow", "commit", "hardware"} <= record["provenance"].keys()
    assert str(tmp_path) not in json.dumps({name: value for name, value in record.items() if name != "provenance"})
