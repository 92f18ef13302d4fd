"""The JSON file of a benchmark: its figures, and the circumstances in which they were measured."""

import json
import os
import shlex
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from sweeps.engine.provenance import provenance


def circumstances(settings: dict[str, Any], *peers: str) -> dict[str, Any]:
    """Settings but for ``out``, the time, the machine's load, the code, and the versions of the packages ``peers``.

    To be asked before anything is measured. Of an absolute path only the last name is kept: the file is published.
    """
    facts = provenance()
    command = shlex.join(map(_published, shlex.split(facts["command"])))
    return {
        "settings": {name: _published(value) for name, value in settings.items() if name != "out"},
        "measured": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "load_at_start": round(os.getloadavg()[0], 1),
        "provenance": {**facts, "command": command, **{peer: metadata.version(peer) for peer in peers}},
    }


def _published(value: Any) -> Any:
    return Path(value).name if isinstance(value, str | Path) and Path(value).is_absolute() else value


def recorded(out: Path) -> dict[str, Any]:
    """What an earlier measurement wrote; empty if there is none."""
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    return found


def write(out: Path, record: dict[str, Any]) -> None:
    """Write the file, and the folder that it lies in; paths become text."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
