"""Chaos: what it compares, what it draws, that it ends what it started; and a short one, for real."""

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.commands import Command, Place
from benchmarks.chaos.compare import Differences, compare
from benchmarks.chaos.damage import cut, flip
from benchmarks.chaos.faults import FAULTS
from benchmarks.chaos.outcome import Outcome, repeated
from benchmarks.chaos.processes import Started, of_session, until
from benchmarks.chaos.schedule import schedule
from benchmarks.chaos.watch import Watch
from trainables.journal import Journal
from vqcore.config import ConfigError

TRIAL = {
    "status": "completed",
    "reason": "",
    "number": 0,
    "config": {"seed": "0"},
    "epochs": {"1": {"mse": (0.25).hex()}, "2": {"mse": (0.125).hex()}},
}


def undisturbed() -> Outcome:
    return Outcome(
        trials={"a": deepcopy(TRIAL), "b": deepcopy(TRIAL)},
        rows=[["trial", "epoch"], ["a", 1], ["a", 2]],
        files={"exports/knee.toml": "seed = 0"},
        runs={"": ["FINISHED"], "a": ["FINISHED"], "b": ["FINISHED"]},
        params={"a": {"seed": "0"}, "b": {"seed": "0"}},
        points={"a mse 1": ["0x1"], "a seconds 1": ["time"]},
    )


def differences(found: Outcome) -> dict[str, list[str]]:
    seen = compare(undisturbed(), found)
    return {name: getattr(seen, name) for name, count in seen.counts.items() if count}


def test_equal_outcomes_have_no_difference() -> None:
    assert compare(undisturbed(), undisturbed()).none


def test_one_bit_of_one_metric_is_a_difference() -> None:
    found = undisturbed()
    found.trials["a"]["epochs"]["2"]["mse"] = (0.125 + 2**-55).hex()
    (told,) = differences(found)["different"]
    assert "epoch 2 of a: mse" in told


def test_what_is_lost_or_too_much_is_named() -> None:
    found = undisturbed()
    del found.trials["b"], found.trials["a"]["epochs"]["2"]
    found.trials["c"] = deepcopy(TRIAL)
    found.repeated = {"epoch 1 of a": 1}
    told = differences(found)
    assert told["lost"] == ["trial b", "epoch 2 of a"]
    assert len(told["repeated"]) == 2


def test_statuses_rows_and_exports_are_compared() -> None:
    found = undisturbed()
    found.trials["b"]["status"], found.files["exports/knee.toml"] = "failed", "seed = 1"
    found.rows.append(["b", 1])
    assert len(differences(found)["different"]) == 3


def test_mlflow_s_runs_and_points_are_counted() -> None:
    found = undisturbed()
    found.runs |= {"a": ["FINISHED", "KILLED"], "b": [], "": ["RUNNING"]}
    found.points = {"a mse 1": ["0x2"], "a mse 2": ["0x1"]}
    told = differences(found)
    assert len(told["mlflow_doubled"]) == 2
    assert sorted(told["mlflow_missing"]) == ["point a seconds 1", "run of b"]
    assert len(told["mlflow_different"]) == 2


def test_an_outcome_survives_its_file(tmp_path: Path) -> None:
    undisturbed().save(tmp_path / "outcome.json")
    assert compare(undisturbed(), Outcome.load(tmp_path / "outcome.json")).none


def test_an_epoch_recorded_twice_is_found_and_a_second_attempt_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("start", trial="a", number=0, config={})
    for _ in range(2):
        journal.write("epoch", trial="a", epoch=1, metrics={"mse": 1.0})
    for status in ("failed", "completed"):
        journal.write("end", trial="a", status=status, reason="", epoch=1)
    journal.close()
    assert repeated(tmp_path / "journal.jsonl") == {"epoch 1 of a": 1}


def test_a_seed_draws_always_the_same_each_kind_once_and_in_order() -> None:
    kinds = [kind for kind in FAULTS.values() if "grid" in kind.sweeps]
    planned = schedule(kinds, 30, 160, seed=3)
    assert planned == schedule(kinds, 30, 160, seed=3)
    assert planned != schedule(kinds, 30, 160, seed=4)
    assert len(planned) == 30
    assert Counter(one.fault.name for one in planned).keys() == {kind.name for kind in kinds}
    assert [one.epochs for one in planned] == sorted(one.epochs for one in planned)
    assert planned[-1].epochs == 160
    assert not planned[-1].fault.at_work, "at the end there is no worker left to kill"


def test_damage_hits_and_is_not_seen_as_a_new_file(tmp_path: Path) -> None:
    file = tmp_path / "trials" / "a" / "epoch-00001-0123456789abcdef.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(100))
    with Watch(tmp_path / "trials") as watch:
        assert until(lambda: watch.trained == 1, 5)
        with watch.blind():
            flip(file, random.Random(0), 10, 20)
            assert sum(file.read_bytes()[10:20]) > 0
            cut(file, random.Random(0))
        assert file.stat().st_size < 100
    assert (watch.trained, watch.twice) == (1, 0)


def test_an_epoch_trained_again_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "trials" / "a"
    folder.mkdir(parents=True)
    with Watch(tmp_path / "trials") as watch:
        for count in (1, 2):
            (folder / "part").write_bytes(bytes(count))
            (folder / "part").replace(folder / "epoch-00001.safetensors")
            assert until(lambda count=count: watch.trained == count, 5)
    assert watch.twice == 1


def test_what_was_started_is_ended_with_its_children(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"]
    started = Started(words, tmp_path / "log", {}, tmp_path)
    assert until(lambda: len(started.members()) == 2, 20)
    started.signal(signal.SIGKILL)
    assert started.wait(20) == -signal.SIGKILL
    assert [process.words for process in of_session(started.pid)] == ["sleep 60"]
    assert len(started.end()) == 1
    assert started.members() == []


def test_everything_asked_wrongly_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "0", "--only", "meteorite"]) == 2
    told = capsys.readouterr().err
    assert "faults = 0" in told
    assert "meteorite" in told
    assert "Ctrl-C" in told, "the names that there are"
    with pytest.raises(ConfigError, match="one slot"):
        Command("search", 20, 8, 2)


def test_the_three_sweeps_are_commands_of_the_project(tmp_path: Path) -> None:
    place = Place(tmp_path / "runs", tmp_path / "storage", "http://127.0.0.1:1")
    grid, search = Command("grid", 20, 8, 2), Command("search", 20, 8, 1)
    assert "sweeps.beta_ablation" in grid.start(place)
    assert len(grid.start(place)) - grid.start(place).index("--betas") - 1 == 10
    assert grid.resume(place) == grid.start(place), "of what has no journal yet nothing can be resumed"
    assert "sweeps.pareto" in search.start(place)
    assert "trainables.final" in Command("final", 1, 20, 2).start(place)


SHORT = "--faults 6 --trials 4 --epochs 4 --seed 1"
KINDS = ["worker killed", "driver preempted", "Ctrl-C twice", "server killed", "workers killed", "bit flipped"]
"""One each: a worker, the driver, MLflow, the newest checkpoints, the journal."""


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Start ``python -m benchmarks.chaos`` in a folder of its own; all of it is ended with the test."""
    running: list[Started] = []

    def start(*words: str) -> Started:
        places = ["--out", tmp_path / "out", "--results", tmp_path / "chaos.json"]
        command = [sys.executable, "-m", "benchmarks.chaos", *words, *places]
        running.append(Started(command, tmp_path / "chaos.log", {}, Path(__file__).parents[2]))
        return running[-1]

    yield start
    for one in running:
        one.signal(signal.SIGTERM)
        one.wait(60)
        one.end()


@pytest.mark.service
@pytest.mark.timeout(900)  # it takes a minute and a half; on a machine with much else to do, several
def test_a_short_chaos_changes_nothing(chaos: Callable[..., Started], tmp_path: Path) -> None:
    short = chaos(*SHORT.split(), "--only", *KINDS)
    assert short.wait(850) == 0, short.said()
    (seed,) = json.loads((tmp_path / "chaos.json").read_text())["seeds"]
    assert (seed["wrong"], seed["examples"]) == ([], {}), short.said()
    assert seed["differences"] == dict.fromkeys(Differences().counts, 0)
    assert seed["struck"] == seed["recovered"] == 6


@pytest.mark.service
def test_interrupted_chaos_leaves_no_process(chaos: Callable[..., Started], tmp_path: Path) -> None:
    long = chaos("--faults", "3", "--trials", "4", "--epochs", "50")
    assert until(lambda: list((tmp_path / "out").glob("*/life-00.log")) != [], 120), long.said()
    time.sleep(3)
    leaders = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _told(path, tmp_path)]
    assert len(leaders) == 3, "chaos itself, the server and the driver"
    long.signal(signal.SIGTERM)
    assert long.wait(60) == 130, long.said()
    assert not [pid for pid in leaders if of_session(pid)]


def _told(process: Path, folder: Path) -> bool:
    """Whether a process leads a session and was told of a folder, in its words."""
    try:
        return str(folder) in (process / "cmdline").read_text() and len(of_session(int(process.name))) > 0
    except OSError:
        return False
