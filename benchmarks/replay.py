"""python -m benchmarks.replay: what early stopping costs the driver, at 10,000 trials on 1,000 simulated GPUs.

Curves are made, not trained: MSE and perplexity that end where they may, and approach it as trials do. Reports are the
epochs of all trials; what is timed is the replay, which asks the same code as a sweep does.
"""

import random
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import OmitArgPrefixes

from analysis.objectives import objectives
from benchmarks.curves import Curve, replay, shuffled
from benchmarks.record import circumstances, write
from sweeps.engine.queue import TrialQueue
from sweeps.engine.stopping import FreezeThaw
from trainables.commands import run_command

QUESTIONS = (("mse", "perplexity"), ("mse", "bits"), ("mse",))
SIZES = (256, 512, 1024, 2048)


@dataclass(frozen=True)
class ReplayBenchmark:
    """Time the scheduler of each question."""

    trials: int = 10_000
    """Trials that are known beforehand."""
    epochs: int = 20
    """Of a trial."""
    slots: int = 1000
    """Trials at once."""
    out: Path = Path("benchmarks/results/replay.json")
    """The JSON file to write."""


def made(count: int, epochs: int, dice: random.Random) -> list[Curve]:
    """``count`` curves."""
    curves = []
    for number in range(count):
        size, mse, share = dice.choice(SIZES), dice.uniform(0.01, 0.05), dice.random()
        reports = tuple(
            {
                "mse": mse * (1 + dice.uniform(0.9, 1.1) / epoch),
                "perplexity": 1 + size * share * epoch / epochs * dice.uniform(0.9, 1.0),
                "bits": 64 * share * epoch / epochs,
            }
            for epoch in range(1, epochs + 1)
        )
        curves.append(Curve(f"trial{number}", {"seed": number, "codebook_size": size}, reports))
    return curves


def main(benchmark: OmitArgPrefixes[ReplayBenchmark]) -> None:
    """Time the scheduler of each question."""
    facts = circumstances(asdict(benchmark))
    curves = made(benchmark.trials, benchmark.epochs, random.Random(0))
    jobs = shuffled(curves, seed=0)
    table = Table("objectives", "reports", "s", "reports/s")
    found = {}
    for words in QUESTIONS:
        queue = TrialQueue(benchmark.slots, FreezeThaw(objectives(words)).start(benchmark.epochs))
        started = time.process_time()
        queue.add((job, 0) for job in jobs)
        reports = replay(curves, queue)[-1].spent
        seconds = time.process_time() - started
        found[" ".join(words)] = {
            "reports": reports,
            "seconds": round(seconds, 2),
            "per_second": round(reports / seconds),
        }
        table.add_row(" ".join(words), f"{reports:,}", f"{seconds:.1f}", f"{reports / seconds:,.0f}")
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{benchmark.trials:,} trials of {benchmark.epochs} epochs on {benchmark.slots:,} slots: {mib} MiB at most"
    )
    write(benchmark.out, {"questions": found, "peak_mib": mib, **facts})


if __name__ == "__main__":
    run_command(main)
