"""python -m benchmarks.search: a search beside a grid of as many epochs, live, on the embedded images.

Both look in the same space for the same objectives, MSE and perplexity, with the same model and budget of epochs on the
same slots: ``sweeps.pareto`` draws by TPE and stops early, the grid trains a coarse lattice in full, in an order drawn
by chance. What counts is the hypervolume of the trials that were trained to the end.
"""

import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tyro.conf import OmitArgPrefixes

from analysis.fronts import Point, hypervolume
from benchmarks.record import circumstances, write
from trainables.commands import run_command
from trainables.journal import read

REFERENCE: Point = (0.06, 0.0)
"""MSE and perplexity that dominate nothing: a collapsed codebook reconstructs about as well."""

GRID = """
[space]
codebook_size = [256, 1024]
estimator = ["rotation", "ste"]
decay = [0.9, 0.99]
commitment_weight = [0.1, 0.25, 1.0, 4.0]

[flags]
sampler = "grid"
early_stopping = "none"
"""


@dataclass(frozen=True)
class SearchBenchmark:
    """Measure a search beside a grid that trains as many epochs."""

    repeats: int = 3
    """Pairs of sweeps; each has a seed of its own for what is drawn by chance."""
    epochs: int = 8
    """Of a trial trained to the end."""
    budget: int = 96
    """Epochs of a sweep in all."""
    trials: int = 40
    """Configurations that the search may draw."""
    slots: int = 2
    """Trials at once, a CPU each."""
    out: Path = Path("benchmarks/results/search.json")
    """The JSON file to write."""


@dataclass(frozen=True)
class Outcome:
    """One sweep."""

    seed: int
    hypervolume: float
    """Of MSE (down) against perplexity (up) over the trials trained to the end, up to ``REFERENCE``."""
    lowest_mse: float
    highest_perplexity: float
    completed: int
    trials: int
    epochs: int
    wall: float
    """Seconds from start to exit."""


def run(benchmark: SearchBenchmark, folder: Path, arm: tuple[str, ...], seed: int) -> Outcome:
    """One sweep in a process of its own, and what it found."""
    words = f"--epochs {benchmark.epochs} --budget {benchmark.budget} --num-gpus 0 --num-cpus {benchmark.slots}"
    words += f" --batch-size 32 --learning-rate 1e-3 --search-seed {seed} --set channels=32 hidden_channels=64"
    started = time.perf_counter()
    command = [sys.executable, "-m", *arm, *words.split(), "--out", str(folder), "--name", f"seed-{seed}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = round(time.perf_counter() - started, 1)
    (journal,) = folder.glob(f"*/seed-{seed}/journal.jsonl")
    trials = read(journal).trials.values()
    finals = [trial.epochs[benchmark.epochs] for trial in trials if trial.status == "completed"]
    points = [(final["mse"], final["perplexity"]) for final in finals]
    volume = round(hypervolume(points, REFERENCE, ("min", "max")), 4)
    best = min(mse for mse, _ in points), max(perplexity for _, perplexity in points)
    return Outcome(seed, volume, *best, len(finals), len(trials), sum(trial.last_epoch for trial in trials), wall)


def main(benchmark: OmitArgPrefixes[SearchBenchmark]) -> None:
    """Measure a search beside a grid that trains as many epochs."""
    facts = circumstances(asdict(benchmark))
    outcomes: dict[str, list[Outcome]] = {"search": [], "grid": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "grid.toml").write_text(GRID)
        search = ("sweeps.pareto", "--trials", str(benchmark.trials), "--codebook-sizes", "256", "1024")
        arms = {"search": search, "grid": ("sweeps", "run", str(folder / "grid.toml"))}
        for seed in range(benchmark.repeats):
            for arm, words in arms.items():
                outcomes[arm].append(run(benchmark, folder / arm, words, seed))
                print(f"{arm}: {outcomes[arm][-1]}")
    pairs = zip(outcomes["search"], outcomes["grid"], strict=True)
    ratio = median(search.hypervolume / grid.hypervolume for search, grid in pairs)
    print(f"The search's hypervolume is {ratio:.3f} of the grid's (median of {benchmark.repeats}).")
    record = {
        "ratio": ratio,
        "reference": REFERENCE,
        "outcomes": {arm: [asdict(one) for one in found] for arm, found in outcomes.items()},
        **facts,
    }
    write(benchmark.out, record)


if __name__ == "__main__":
    run_command(main)
