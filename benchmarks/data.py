"""What a trial pays for its data: time to open the prepared set, memory of its own after an epoch of random batches.

python -m benchmarks.data --data DIR     # writes benchmarks/results/data.json

Needs all of CIFAR-10 to say what the README quotes; measures any other set as well.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from sweeps.engine.provenance import provenance
from trainables.data import prepare
from vqcore.config import ConfigError

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


@dataclass(frozen=True)
class DataBenchmark:
    """Measure what a trial pays for its data."""

    data: str = "cifar10-mini"
    """As for a sweep."""
    repeats: int = 5
    """Processes measured; the worst counts."""
    out: Path = Path("benchmarks/results/data.json")
    """Where the figures go."""


def main(flags: DataBenchmark) -> int:
    """Measure, print, write."""
    try:
        started = time.perf_counter()
        data = prepare(flags.data)
        prepared = time.perf_counter() - started
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    words = json.dumps(vars(data))
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", PROBE, words], check=True, capture_output=True).stdout)
        for _ in range(flags.repeats)
    ]
    result = {
        "images": runs[0]["images"],
        "open_ms": max(run["open_ms"] for run in runs),
        "private_mb": max(run["private_mb"] for run in runs),
        "prepare_s": prepared,
        "repeats": flags.repeats,
        "provenance": provenance(),
    }
    print(
        f"{data.source}: {result['images']:,} images opened in {result['open_ms']:.1f} ms, "
        f"{result['private_mb']:.1f} MB of the trial's own after an epoch (worst of {flags.repeats}); "
        f"prepared or found in {prepared:.2f} s"
    )
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    flags.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(DataBenchmark, prog="python -m benchmarks.data")))
