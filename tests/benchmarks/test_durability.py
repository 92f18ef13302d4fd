"""The benchmark of durability: its arithmetic, by hand."""

import pytest

from benchmarks.durability import DurabilityBenchmark, cost_of, main, times
from vqcore.config import ConfigError


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        main(DurabilityBenchmark(parts=(), trials=30, epochs=1))
    assert all(words in str(error.value) for words in ("parts: none", "trials = 30", "epochs = 1"))


def test_the_cost_is_what_lies_between_epochs_and_mlflow_s_cpu() -> None:
    events = [{"event": "start", "trial": "a", "info": {"pid": 1}}]
    for place, time in enumerate((10.0, 15.05, 20.15)):
        metrics = {"seconds": 5.0}
        events.append({"event": "epoch", "trial": "a", "epoch": place + 1, "time": time, "metrics": metrics})
    found = cost_of(events, mlflow_cpu=0.025)
    assert (found["epoch_seconds"], found["not_training_ms"], found["not_training_most_ms"]) == (5, 75, 100)
    assert (found["not_training_percent"], found["mlflow_cpu_percent"], found["sum_percent"]) == (1.5, 0.5, 2.0)


def test_a_resume_is_timed_by_its_journal() -> None:
    events = [
        {"event": name, "time": time} for name, time in (("start", 7.5), ("end", 9.0), ("end", 8.0), ("done", 12))
    ]
    assert times(5.0, events) == (2.5, 3.0)
