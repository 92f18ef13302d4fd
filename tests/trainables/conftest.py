"""What tests of this floor share."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
