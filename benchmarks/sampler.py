"""python -m benchmarks.sampler: what a sweep waits for its next configuration, beside plain Optuna.

CPU time of one ask and one tell, of two objectives, six fields and as many trials as a long sweep has; two of the
fields have a meaning only with some values of a third. GP is measured at fewer trials: it costs 50 times as much.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import tyro
from rich.console import Console
from rich.table import Table

from analysis.objectives import objectives
from sweeps.engine.provenance import provenance
from sweeps.engine.searcher import Kind, Sampler
from sweeps.engine.space import Choice, Range, resolve
from vqcore.config import ConfigError, TrialConfig, meaningless

AT_MOST = 5.0
"""Milliseconds a trial that TPE may cost."""
GP_TRIALS = 60
SPACE: dict[str, Choice] = {
    "codebook": ("ema", "gradient"),
    "commitment_weight": Range(0.05, 4.0, log=True),
    "codebook_size": (256, 512, 1024, 2048),
    "decay": Range(0.8, 0.999),
    "codebook_weight": Range(0.1, 4.0, log=True),
    "learning_rate": Range(1e-5, 1e-2, log=True),
}
AIMS = objectives(["mse", "perplexity"])

Trial = Callable[[], object]
"""Asks and tells once."""


@dataclass(frozen=True)
class SamplerBenchmark:
    """Measure what asking for a configuration and telling its result costs."""

    kinds: tuple[Kind, ...] = ("tpe", "nsga2", "random", "qmc", "gp")
    """Samplers."""
    trials: int = 1000
    """Known when the measurement ends."""
    repeats: int = 100
    """Trials measured, the last ones; the median counts."""
    peer: bool = True
    """Measure Optuna's own TPE too, on the same space."""
    out: Path = Path("benchmarks/results/sampler.json")
    """The JSON file to write."""


def metrics(config: TrialConfig) -> dict[str, float]:
    """As if trained: a trade-off, without noise."""
    quantizer, rate = config.model.quantizer, config.training.learning_rate
    off = log(rate / 1e-3) ** 2 / 10 + log(quantizer.commitment_weight) ** 2 / 10 + (quantizer.decay - 0.9) ** 2
    size = quantizer.codebook_size
    return {"mse": off + size**-0.5, "perplexity": size * exp(-off)}


def ours(kind: Kind) -> Trial:
    sampler = Sampler(SPACE, TrialConfig(), AIMS, kind)

    def trial() -> None:
        config = sampler.ask()
        assert config is not None
        sampler.tell(config, "completed", metrics(config))

    return trial


def plain_optuna() -> Trial:
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=optuna.samplers.TPESampler(seed=0))
    usual = TrialConfig().flat()

    def trial() -> None:
        asked, chosen = study.ask(), dict[str, Any]()
        for name, choice in SPACE.items():
            if isinstance(choice, tuple):
                chosen[name] = asked.suggest_categorical(name, choice)
            elif name not in meaningless({**usual, **chosen}):
                chosen[name] = asked.suggest_float(name, choice.low, choice.high, log=choice.log)
        found = metrics(resolve(TrialConfig(), chosen))
        study.tell(asked, [found[aim.column] for aim in AIMS])

    return trial


def measure(trial: Trial, trials: int, repeats: int) -> list[float]:
    """CPU milliseconds of each of the last ``repeats`` trials."""
    each_ms = []
    for _ in range(trials):
        started = time.process_time()
        trial()
        each_ms.append(round((time.process_time() - started) * 1e3, 3))
    return each_ms[-repeats:]


def check(benchmark: SamplerBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    problems = [] if benchmark.kinds else ["kinds: none is given"]
    if not 1 <= benchmark.repeats <= benchmark.trials:
        problems.append(f"repeats = {benchmark.repeats}: must be 1 to the {benchmark.trials} trials; 100 is usual")
    if problems:
        raise ConfigError(problems)


def main(benchmark: SamplerBenchmark) -> int:
    """Check, measure, say and write; the exit code: 2 for what was asked wrongly."""
    try:
        check(benchmark)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    console, load = Console(highlight=False), [round(value, 2) for value in os.getloadavg()]
    contenders: dict[str, Trial] = {kind: ours(kind) for kind in benchmark.kinds}
    contenders |= {"tpe of plain Optuna": plain_optuna()} if benchmark.peer else {}
    shown, rows = Table("sampler", "trials", "ms", title="CPU time of ask and tell", title_justify="left"), {}
    for name, trial in contenders.items():
        trials = min(benchmark.trials, GP_TRIALS) if name == "gp" else benchmark.trials
        each_ms = measure(trial, trials, min(benchmark.repeats, trials // 2) or 1)
        rows[name] = {"trials": trials, "ms": (ms := median(each_ms)), "each_ms": each_ms}
        aim = f", at most {AT_MOST:g}: {'met' if ms <= AT_MOST else 'not met'}" if name == "tpe" else ""
        shown.add_row(name, str(trials), f"{ms:.2f}{aim}")
    console.print(shown)
    record = {
        "at_most_ms": AT_MOST,
        "samplers": rows,
        "settings": {name: value for name, value in asdict(benchmark).items() if name != "out"},
        "measured": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "load_average_at_start": load,
        "provenance": {**provenance(), "optuna": metadata.version("optuna")},
    }
    benchmark.out.parent.mkdir(parents=True, exist_ok=True)
    benchmark.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(SamplerBenchmark, prog="python -m benchmarks.sampler")))
