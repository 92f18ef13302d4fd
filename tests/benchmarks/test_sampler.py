"""The benchmark of the samplers refuses what it cannot measure, and keeps what it measured."""

import json
from pathlib import Path

import pytest

from benchmarks.sampler import SamplerBenchmark, main


def test_what_is_asked_wrongly_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SamplerBenchmark(kinds=(), repeats=7, trials=5)) == 2
    told = capsys.readouterr().err
    assert "kinds: none is given" in told
    assert "repeats = 7: must be 1 to the 5 trials" in told


def test_the_file_holds_every_sampler_and_the_peer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "sampler.json"
    assert main(SamplerBenchmark(kinds=("tpe", "random", "gp"), trials=12, repeats=4, out=out)) == 0
    told = json.loads(out.read_text())
    assert list(told["samplers"]) == ["tpe", "random", "gp", "tpe of plain Optuna"]
    assert all(row["trials"] == 12 and len(row["each_ms"]) == 4 for row in told["samplers"].values())
    assert {"optuna", "commit", "hardware"} <= told["provenance"].keys()
    assert "at most 5: " in capsys.readouterr().out
