"""A journal of a million lines: what reading it takes, beside the least that any reader of checksummed JSON does."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.durability.made import INFO, ROOT, metrics
from trainables.journal import Journal
from vqcore.config import TrialConfig

EPOCHS_A_TRIAL = 50

OURS = """
from trainables.journal import read
run = read(Path(sys.argv[1]))
count = sum(len(trial.epochs) for trial in run.trials.values())
assert not run.damaged
"""
FLOOR = """
count = 0
with open(sys.argv[1], "rb") as file:
    for line in file:
        zlib.crc32(line)
        count += "metrics" in orjson.loads(line)
"""
READER = """
import json, sys, time, zlib
from pathlib import Path
import orjson
{imports}
def peak():
    # not getrusage: that begins with the peak of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before, wall, cpu = peak(), time.perf_counter(), time.process_time()
{work}
print(json.dumps({{
    "seconds": round(time.perf_counter() - wall, 2), "cpu_seconds": round(time.process_time() - cpu, 2),
    "peak_bytes": peak(), "peak_bytes_before": before, "epochs": count,
}}))
"""


def write(path: Path, lines: int) -> float:
    """A journal as a sweep's driver writes it, of so many lines; microseconds of CPU that a line took."""
    rng, journal, config = random.Random(0), Journal(path), TrialConfig()
    flat = config.flat()
    several = [metrics(config, epoch, rng) for epoch in range(1, EPOCHS_A_TRIAL + 1)]
    started, written, number = time.process_time(), 0, 0
    journal.write("sweep", sweep="benchmark", name=path.parent.name, id="benchmark", swept=["commitment_weight"])
    while (left := lines - 1 - written) > 0:
        key, epochs = f"{number:012x}", min(EPOCHS_A_TRIAL, left - 1)
        beta = 0.05 * 1.001 ** (number % 4000)
        journal.write("start", trial=key, number=number, config={**flat, "commitment_weight": beta}, info=INFO)
        for epoch in range(1, epochs + 1):
            journal.write("epoch", trial=key, epoch=epoch, metrics=several[(number + epoch) % EPOCHS_A_TRIAL])
        whole = left > EPOCHS_A_TRIAL + 1  # the last one is cut off where the lines are enough
        if whole:
            journal.write("end", trial=key, status="completed", reason="", epoch=epochs)
        written, number = written + 1 + epochs + whole, number + 1
    journal.close()
    return (time.process_time() - started) / max(1, written) * 1e6


def _in_a_fresh_process(imports: str, work: str, path: Path) -> dict[str, Any]:
    program = READER.format(imports=imports, work=work)
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, lines: int, repeats: int) -> dict[str, Any]:
    """Writes it once, then reads it ``repeats`` times each way, in turn; medians are of the CPU time."""
    path = folder / "journal" / "journal.jsonl"
    line_us = write(path, lines)
    with path.open("rb") as file:
        counted = sum(1 for _ in file)
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "floor": []}
    for turn in range(repeats):
        ways = [("ours", "from trainables.journal import read", OURS), ("floor", "", FLOOR)]
        for name, imports, work in ways[:: 1 if turn % 2 else -1]:
            rows[name].append(_in_a_fresh_process(imports, work, path))
    best = {name: min(each["cpu_seconds"] for each in own) for name, own in rows.items()}
    wall = min(each["seconds"] for each in rows["ours"])
    size = path.stat().st_size
    return {
        "lines": counted,
        "bytes": size,
        "write_cpu_us_a_line": round(line_us, 2),
        "seconds": wall,
        "cpu_seconds": best["ours"],
        "megabytes_a_second": round(size / 1e6 / max(wall, 1e-3), 1),
        "floor_cpu_seconds": best["floor"],
        "times_floor": round(best["ours"] / max(best["floor"], 1e-3), 2),
        "peak_bytes": max(each["peak_bytes"] for each in rows["ours"]),
        "peak_bytes_above_imports": max(each["peak_bytes"] - each["peak_bytes_before"] for each in rows["ours"]),
        "each": rows,
    }
