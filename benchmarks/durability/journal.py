"""A journal of a million lines: how long a resume reads it, beside what reading and checking the bytes alone takes."""

import json
import random
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import orjson

from trainables.journal import Journal, read

EPOCHS = 100
"""Of a trial."""
METRICS = (
    "mse", "psnr", "perplexity", "usage", "bits", "loss", "codebook_loss", "commitment_loss", "quantization_error",
    "train_mse", "train_loss", "train_perplexity", "train_usage", "train_codebook_loss", "train_commitment_loss",
    "seconds",
)  # fmt: skip


def measured(lines: int) -> dict[str, Any]:
    """Seconds and memory of a fresh process that reads a journal of ``lines`` lines, and of the floor in another."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        written = write(path, lines)
        found = {name: _in_a_process(name, path) for name in ("imports", "floor", "ours")}
        return {
            "lines": lines,
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "write_microseconds_a_line": round(1e6 * written / lines, 1),
            **{f"{name}_{what}": value for name, both in found.items() for what, value in both.items()},
            "ratio": round(found["ours"]["cpu_seconds"] / found["floor"]["cpu_seconds"], 2),
        }


def write(path: Path, lines: int) -> float:
    """A run of trials of ``EPOCHS`` epochs, as the recorder writes it; the seconds it took."""
    chance, journal, started = random.Random(0), Journal(path), time.perf_counter()
    journal.write("sweep", name="long", id="0", swept=["commitment_weight"])
    for number in range(max(1, lines // (EPOCHS + 2))):
        key = f"{number:012x}"
        journal.write("start", trial=key, number=number, config={"commitment_weight": 0.25, "seed": 0})
        for epoch in range(1, EPOCHS + 1):
            journal.write("epoch", trial=key, epoch=epoch, metrics={name: chance.random() for name in METRICS})
        journal.write("rung", trial=key, epoch=EPOCHS)  # an end would be forced to the disk, 10,000 times
    journal.close()
    return time.perf_counter() - started


def reading(what: str, path: Path) -> dict[str, float]:
    """In the process of its own: CPU seconds and the most memory it had."""
    started = time.process_time()
    kept: Any = None
    if what == "ours":
        kept = read(path)
    elif what == "floor":
        with path.open("rb") as file:
            for line in file:
                zlib.crc32(line)
                orjson.loads(line)
    seconds = time.process_time() - started
    del kept
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # not getrusage's: that begins with what the process had that started this one
    return {"cpu_seconds": round(seconds, 2), "megabytes": round(int(status["VmHWM"].split()[0]) / 1000, 1)}


def _in_a_process(what: str, path: Path) -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.durability.journal", what, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(reading(sys.argv[1], Path(sys.argv[2]))))
