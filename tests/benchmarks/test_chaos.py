"""Chaos: what it compares, what it draws, that it ends what it started; and a short one, for real."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.commands import Run
from benchmarks.chaos.faults import FAULTS, schedule
from benchmarks.chaos.outcome import Outcome, compare, incomplete, outcome
from benchmarks.processes import Command, kill, until
from trainables.journal import Journal

WHOLE = Outcome(
    trials={"a: status": "'completed'", "b: status": "'completed'"},
    epochs={"a epoch 1: mse": "0x1.8p-2", "a epoch 1: seconds": "a time", "b epoch 1: mse": "0x1.0p-3"},
    files={"results.parquet: a epoch 1": "{'mse': 0.375}", "exports/knee.toml": "seed = 0"},
    runs={"parent": ["FINISHED"], "a": ["FINISHED"], "b": ["FINISHED"]},
    params={"a: seed": "0"},
    points={"a epoch 1: mse": ["0x1.8p-2"], "a epoch 1: seconds": ["a time"], "b epoch 1: mse": ["0x1.0p-3"]},
)


def differences(found: Outcome) -> dict[str, int]:
    return {kind: len(lines) for kind, lines in compare(WHOLE, found).items() if lines}


def test_equal_outcomes_have_no_difference() -> None:
    assert differences(deepcopy(WHOLE)) == {}
    assert incomplete(WHOLE) == []


def test_one_bit_a_lost_trial_a_surplus_epoch_and_another_export_are_differences() -> None:
    found = deepcopy(WHOLE)
    found.epochs |= {"a epoch 1: mse": (0.375 + 2**-54).hex(), "a epoch 2: mse": "0x0p+0"}
    found.files["exports/knee.toml"] = "seed = 1"
    del found.trials["b: status"]
    found.recorded_twice = ["epoch 1 of a"]
    assert differences(found) == {"lost": 1, "repeated": 2, "different": 2}


def test_mlflow_s_runs_and_points_are_counted_and_compared_with_the_journal() -> None:
    found = deepcopy(WHOLE)
    found.runs |= {"a": ["FINISHED", "FINISHED"], "parent": ["RUNNING"]}
    found.points |= {"b epoch 1: mse": ["0x1.0p-3", "0x1.0p-3"], "a epoch 1: mse": ["0x1.0p-2"]}
    del found.runs["b"], found.points["a epoch 1: seconds"]
    assert differences(found) == {"mlflow_missing": 2, "mlflow_doubled": 2, "mlflow_different": 4}
    assert len(incomplete(found)) == 5


@pytest.mark.slow
def test_an_epoch_recorded_twice_is_found_and_a_second_attempt_is_not(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("start", trial="a", number=0, config={"decay": 0.9})
    for _ in range(2):
        journal.write("epoch", trial="a", epoch=1, metrics={"mse": 0.375, "seconds": 1.0})
    for status in ("failed", "completed"):
        journal.write("end", trial="a", status=status, reason="", epoch=1)
    journal.close()
    client = MlflowClient(uri := f"sqlite:///{tmp_path / 'mlflow.db'}")
    run = client.create_run("0", tags={"vqsweep.trial": "a"})
    client.log_metric(run.info.run_id, "mse", 0.375, step=1)
    found = outcome(tmp_path, uri)
    assert found.recorded_twice == ["epoch 1 of a"]
    assert found.epochs == {"a epoch 1: mse": "0x1.8000000000000p-2", "a epoch 1: seconds": "a time"}
    assert found.trials["a: decay"] == "0.9"
    assert (found.runs, found.points) == ({"a": ["RUNNING"]}, {"a epoch 1: mse": ["0x1.8000000000000p-2"]})


def test_a_seed_draws_always_the_same_each_kind_once_and_in_order() -> None:
    planned = schedule(FAULTS, 12, 160, seed=3)
    assert planned == schedule(FAULTS, 12, 160, seed=3)
    assert planned != schedule(FAULTS, 12, 160, seed=4)
    assert len(planned) == 12
    assert {one.fault for one in planned} == set(FAULTS)
    assert [one.epochs for one in planned] == sorted(one.epochs for one in planned)


def test_everything_wrong_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "0", "--only", "meteorite", "--trials", "5", "--epochs", "1"]) == 2
    said = capsys.readouterr().err
    assert all(words in said for words in ("faults = 0", "meteorite", "Ctrl-C", "trials = 5", "epochs = 1"))


def test_the_next_command_resumes_a_run_that_has_a_journal(tmp_path: Path) -> None:
    grid = Run("grid", 20, 8, tmp_path, "http://127.0.0.1:1")
    words = grid.command()
    assert len(words) - words.index("--betas") - 1 == 10
    Journal(grid.folder / "journal.jsonl").close()
    assert grid.command()[2:] == ["sweeps.beta_ablation", "--resume", "chaos", "--out", tmp_path]


def test_what_was_started_is_ended_with_its_children(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"]
    command = Command(words, tmp_path / "log")
    assert until(lambda: len(command.members()) == 2, 20)
    assert kill(command.pid)
    assert command.wait(20) == -signal.SIGKILL
    assert list(command.members().values()) == ["sleep 60"]
    command.end()
    assert command.members() == {}


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start ``python -m benchmarks.chaos`` in a folder of its own; all of it is ended with the test."""
    running: list[Command] = []

    def start(words: str) -> Command:
        places = ["--out", tmp_path / "out", "--results", tmp_path / "chaos.json"]
        command = [sys.executable, "-m", "benchmarks.chaos", *words.split(), *places]
        running.append(Command(command, tmp_path / "chaos.log"))
        return running[-1]

    yield start
    for one in running:
        one.signal(signal.SIGTERM)
        one.wait(60)
        one.end()


@pytest.mark.service
@pytest.mark.timeout(900)  # on a machine with much else to do
def test_a_short_chaos_changes_nothing(chaos: Callable[..., Command], tmp_path: Path) -> None:
    """Of one training without Ray: a sweep whose worker is killed is in tests/sweeps/test_ray.py."""
    short = chaos("--sweep final --faults 1 --epochs 8 --seed 0 --only SIGKILL")
    assert short.wait(850) == 0, short.output
    (seed,) = json.loads((tmp_path / "chaos.json").read_text())["seeds"]
    assert seed["same"], seed
    assert len(seed["strikes"]) == 1


@pytest.mark.service
def test_interrupted_chaos_leaves_no_process(chaos: Callable[..., Command], tmp_path: Path) -> None:
    long = chaos("--trials 4 --epochs 50")
    log = tmp_path / "out" / "grid-undisturbed" / "driver-00.log"
    assert until(lambda: log.exists() and _started_in(tmp_path), 120), long.output
    leaders = _started_in(tmp_path)
    long.signal(signal.SIGTERM)
    assert long.wait(60) == 130, long.output
    assert until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in leaders), 10)


def _started_in(folder: Path) -> list[int]:
    """Processes whose command line names a folder below the test's own, besides chaos itself."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if str(folder / "out" / "grid-undisturbed") in words:
            found.append(int(process.name))
    return found
