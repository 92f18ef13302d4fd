"""Files of results: published, so they name no place on the machine that measured."""

import re
import sys
from pathlib import Path

import pytest

from benchmarks.processes import ROOT
from benchmarks.record import circumstances, recorded, write


def test_of_a_path_outside_only_its_name_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "orig_argv", ["python", "-m", "benchmarks.slots", "--before", str(tmp_path), "--repeats", "2"]
    )
    settings = {"before": tmp_path, "grid": Path("a/grid.parquet"), "repeats": 2, "out": tmp_path / "slots.json"}
    write(tmp_path / "new" / "slots.json", circumstances(settings))
    record = recorded(tmp_path / "new" / "slots.json")
    assert record["settings"] == {"before": tmp_path.name, "grid": "a/grid.parquet", "repeats": 2}
    assert record["provenance"]["command"] == f"python -m benchmarks.slots --before {tmp_path.name} --repeats 2"


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks/results").glob("*.json")), ids=lambda file: file.stem)
def test_no_published_file_names_a_place(file: Path) -> None:
    assert re.findall(r'(?<=["\s=])/[\w.-]+/', file.read_text(encoding="utf-8")) == []
