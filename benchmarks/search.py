"""python -m benchmarks.search: a search beside a grid of as many epochs, live, on the embedded images.

Both look in the same space for the same objectives, MSE and perplexity, with the same model and budget of epochs on the
same slots: ``sweeps.pareto`` draws by TPE and stops early, the grid trains a coarse lattice in full, in an order drawn
by chance. What counts is the hypervolume of what each trained to the end.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import tyro
from rich.console import Console
from rich.table import Table

from analysis.fronts import Point, hypervolume
from sweeps.engine.provenance import provenance
from trainables.journal import read

REFERENCE: Point = (0.06, 0.0)
"""MSE and perplexity that dominate nothing: a collapsed codebook reconstructs about as well."""

GRID = {"codebook_size": [256, 1024], "estimator": ["rotation", "ste"], "decay": [0.9, 0.99]}
BETAS = [0.1, 0.25, 1.0, 4.0]
MODEL = ["channels=32", "hidden_channels=64"]


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


def run(benchmark: SearchBenchmark, folder: Path, name: str, words: list[str], seed: int) -> Outcome:
    """One command in a process of its own, and what it found."""
    shared = [
        "--epochs",
        benchmark.epochs,
        "--budget",
        benchmark.budget,
        "--num-gpus",
        0,
        "--num-cpus",
        benchmark.slots,
    ]
    shared += ["--batch-size", 32, "--learning-rate", 1e-3, "--search-seed", seed, "--set", *MODEL]
    shared += ["--out", folder, "--name", f"{name}-{seed}"]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *words, *map(str, shared)], check=True, stdout=subprocess.DEVNULL)
    wall = round(time.perf_counter() - started, 1)
    (journal,) = folder.glob(f"*/{name}-{seed}/journal.jsonl")
    trials = read(journal).trials.values()
    finals = [trial.epochs[benchmark.epochs] for trial in trials if trial.status == "completed"]
    points = [(final["mse"], final["perplexity"]) for final in finals]
    return Outcome(
        seed,
        round(hypervolume(points, REFERENCE, ("min", "max")), 4),
        min(mse for mse, _ in points),
        max(perplexity for _, perplexity in points),
        len(finals),
        len(trials),
        sum(trial.last_epoch for trial in trials),
        wall,
    )


def grid_file(folder: Path) -> Path:
    """The grid as a file for ``sweeps run``."""
    lines = [f"{name} = {json.dumps(values)}" for name, values in {**GRID, "commitment_weight": BETAS}.items()]
    path = folder / "grid.toml"
    path.write_text("\n".join(["[space]", *lines, "[flags]", 'sampler = "grid"', 'early_stopping = "none"']) + "\n")
    return path


def main(benchmark: SearchBenchmark) -> None:
    console = Console(highlight=False)
    outcomes: dict[str, list[Outcome]] = {"search": [], "grid": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        search = ["sweeps.pareto", "--trials", str(benchmark.trials), "--codebook-sizes", "256", "1024"]
        arms = {"search": search, "grid": ["sweeps", "run", str(grid_file(folder))]}
        for seed in range(benchmark.repeats):
            for arm, words in arms.items():
                outcomes[arm].append(run(benchmark, folder, arm, words, seed))
                console.print(f"{arm} {seed}: {outcomes[arm][-1]}")
    table = Table("", "hypervolume", "lowest MSE", "highest perplexity", "trained to the end", "tried", "wall, s")
    for arm, found in outcomes.items():
        for one in found:
            cells = (f"{one.hypervolume:.3f}", f"{one.lowest_mse:.4f}", f"{one.highest_perplexity:.0f}")
            table.add_row(f"{arm} {one.seed}", *cells, str(one.completed), str(one.trials), f"{one.wall:.0f}")
    console.print(table)
    pairs = zip(outcomes["search"], outcomes["grid"], strict=True)
    ratio = median(search.hypervolume / grid.hypervolume for search, grid in pairs)
    console.print(f"The search's hypervolume is {ratio:.3f} of the grid's (median of {benchmark.repeats}).")
    record = {
        "ratio": ratio,
        "reference": REFERENCE,
        "outcomes": {arm: [asdict(one) for one in found] for arm, found in outcomes.items()},
        "settings": {**asdict(benchmark), "out": str(benchmark.out)},
        "provenance": provenance(),
    }
    benchmark.out.parent.mkdir(parents=True, exist_ok=True)
    benchmark.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(SearchBenchmark, prog="python -m benchmarks.search"))
