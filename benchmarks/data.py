"""What a trial pays for its data: time to open the prepared set, memory of its own after an epoch of random batches.

python -m benchmarks.data --data DIR     # writes benchmarks/results/data.json

Needs all of CIFAR-10 for the figures that are quoted; measures any other set as well.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import circumstances, write
from trainables.commands import run_command
from trainables.data import prepare

PROBE = """
import json, sys, time
import numpy as np
from trainables.data import DataSet

def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty"))

data = DataSet(**json.loads(sys.argv[1]))
before, started = private(), time.perf_counter()
train, test = data.train(), data.test()
opened = time.perf_counter() - started
order = np.random.default_rng(0).permutation(len(train))
for start in range(0, len(order), 128):
    train[order[start : start + 128]].astype(np.float32)
print(json.dumps({"images": len(train), "open_ms": opened * 1e3, "private_mb": (private() - before) / 1024}))
"""
"""A fresh process, so that what it has and what it opens is a trial's own."""


def main(data: str = "cifar10-mini", repeats: int = 5, out: Path = Path("benchmarks/results/data.json")) -> None:
    """Measure what a trial pays for its data.

    Args:
        data: Data set, as for a sweep.
        repeats: Processes measured; the worst counts.
        out: Where the figures go.
    """
    facts = circumstances({"data": data, "repeats": repeats})
    started = time.perf_counter()
    prepared = prepare(data)
    seconds = time.perf_counter() - started
    probe = [sys.executable, "-c", PROBE, json.dumps(vars(prepared))]
    runs = [json.loads(subprocess.run(probe, check=True, capture_output=True).stdout) for _ in range(repeats)]
    worst = {name: max(run[name] for run in runs) for name in ("images", "open_ms", "private_mb")}
    print(
        f"{data}: {worst['images']:,} images opened in {worst['open_ms']:.1f} ms, "
        f"{worst['private_mb']:.1f} MB of the trial's own after an epoch (worst of {repeats}); "
        f"prepared or found in {seconds:.2f} s"
    )
    write(out, {**worst, "prepare_s": seconds, **facts})


if __name__ == "__main__":
    run_command(main)
