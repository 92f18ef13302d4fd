"""What the screen says while a sweep runs."""

from types import SimpleNamespace

from rich.console import Console

from sweeps.engine.progress import Screen
from trainables.data import DataSet
from trainables.job import TrialJob
from trainables.journal import RunRecord
from vqcore.config import TrialConfig


def test_the_time_left_is_that_of_the_machine_it_runs_on_now(data_set: DataSet) -> None:
    run, config, slots = RunRecord(), TrialConfig().replace(epochs=10), 2
    jobs = [TrialJob(f"t{seed}", seed, config.replace(seed=seed), data_set, "t") for seed in range(2)]

    def epoch(trial: str, number: int, seconds: float) -> dict[str, object]:
        metrics = {"mse": 1 / number, "perplexity": 5.0, "usage": 0.5, "seconds": seconds}
        return {"event": "epoch", "trial": trial, "epoch": number, "metrics": metrics, "time": float(number)}

    for job in jobs:  # on a slow one, before the resume
        run.apply({"event": "start", "trial": job.key, "number": job.number, "config": config.flat(), "time": 0.0})
        run.apply(epoch(job.key, 1, 1000.0))
    screen = Screen(Console(), run, SimpleNamespace(jobs=jobs, planned=2, expected=None), (), lambda: slots)
    assert "2/20 epochs" in screen.summary()
    assert "left" not in screen.summary()
    run.apply(event := epoch("t0", 2, 10.0))
    screen(event)
    # 17 epochs, two at once
    assert screen.summary().endswith("lowest MSE 0.5000 at perplexity 5 (seed 0)  0:01:25 left")
    slots = 1  # a node has left
    assert screen.summary().endswith("1 at once  0:02:50 left")
