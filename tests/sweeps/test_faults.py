"""Whatever dies, a resume ends with the same trials and the same numbers."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from read_back import Driver, InEpoch, Sweep, folder, metrics

from sweeps import rebuild
from trainables.data import prepare
from trainables.journal import read
from vqcore.config import ConfigError

Capture = pytest.CaptureFixture[str]


def states(run: Path) -> dict[str, tuple[int, str, str]]:
    trials = read(run / "journal.jsonl").trials
    return {key: (trial.number, trial.status, trial.reason) for key, trial in trials.items()}


@pytest.fixture(scope="module")
def place(out: Path) -> Path:
    return out / "beta_ablation"


@pytest.fixture(scope="module")
def undisturbed(sweep: Sweep, out: Path) -> Path:
    assert sweep("--name", "undisturbed", tracked=True) == 0
    return folder(out, "undisturbed")


@pytest.mark.slow
def test_sigterm_ends_with_the_epoch_and_says_resume_me(
    undisturbed: Path, place: Path, sweep: Sweep, in_epoch: InEpoch, capsys: Capture
) -> None:
    in_epoch(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert sweep("--name", "preempted") == 75
    assert f"--resume {place / 'preempted'}" in capsys.readouterr().out
    assert sum(len(epochs) for epochs in metrics(place / "preempted").values()) == 2, "it was finished, and no more"
    assert not (place / "preempted" / "figures").exists(), "who preempts kills soon: pictures can wait"
    assert sweep("--resume", "preempted") == 0
    assert metrics(place / "preempted") == metrics(undisturbed)
    assert states(place / "preempted") == states(undisturbed)


def test_a_run_folder_removed_meanwhile_ends_the_sweep_in_words(
    place: Path, sweep: Sweep, in_epoch: InEpoch, capsys: Capture
) -> None:
    in_epoch(1, lambda: shutil.rmtree(place / "removed"))
    assert sweep("--name", "removed") == 1
    said = capsys.readouterr().out
    assert "journal.jsonl: removed while the run goes on" in said
    assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_lines_of_the_journal_lost_to_the_disk_are_taken_again_from_checkpoints(
    undisturbed: Path, place: Path, sweep: Sweep, seed: int
) -> None:
    run = place / f"flipped{seed}"
    shutil.copytree(undisturbed, run, symlinks=True)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    chance = random.Random(seed)
    for number in chance.sample(range(len(lines)), 4):
        damaged = bytearray(lines[number])
        damaged[chance.randrange(len(damaged) - 1)] ^= 1 << chance.randrange(8)
        lines[number] = bytes(damaged)
    (run / "journal.jsonl").write_bytes(b"".join(lines))
    assert sweep("--resume", run.name) == 0
    assert metrics(run) == metrics(undisturbed)
    assert states(run) == states(undisturbed)


def test_what_neither_journal_nor_checkpoint_knows_is_trained_again(
    undisturbed: Path, place: Path, sweep: Sweep, capsys: Capture
) -> None:
    run = place / "twice"
    shutil.copytree(undisturbed, run, symlinks=True)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    key = next(iter(read(run / "journal.jsonl").trials))
    epoch = next(i for i, line in enumerate(lines) if key.encode() in line and b'"epoch":1,"metrics"' in line)
    lines[epoch] = lines[epoch].replace(b'"mse":0', b'"mse":9')
    (run / "journal.jsonl").write_bytes(b"".join(lines))
    shutil.rmtree(run / "trials" / key)
    assert sweep("--resume", run.name) == 0
    assert "1 trials opened again" in capsys.readouterr().out
    assert metrics(run) == metrics(undisturbed)
    assert states(run) == states(undisturbed)


@pytest.mark.slow
def test_everything_is_rebuilt_from_the_journal_alone(
    undisturbed: Path, tmp_path: Path, sweep: Sweep, capsys: Capture
) -> None:
    run = tmp_path / "beta_ablation" / "undisturbed"
    run.mkdir(parents=True)
    shutil.copy(undisturbed / "journal.jsonl", run)
    rebuild.main("undisturbed", tmp_path)
    assert "4 trials, 8 epochs, 0 damaged lines" in capsys.readouterr().out
    for name in ("sweep.toml", "tables/results.md", "exports/knee.toml", "figures/pareto.png"):
        assert (run / name).exists(), name
    assert (run / "sweep.toml").read_text() == (undisturbed / "sweep.toml").read_text()
    assert (run / "exports" / "knee.toml").read_text() == (undisturbed / "exports" / "knee.toml").read_text()
    assert pq.read_table(run / "results.parquet").equals(pq.read_table(undisturbed / "results.parquet"))
    assert (tmp_path / "mlflow.db").exists()
    assert sweep("--resume", "undisturbed", "--out", str(tmp_path)) == 0, "its flags are in the journal too"


def test_a_rebuild_keeps_away_from_a_run_at_work(undisturbed: Path, out: Path) -> None:
    with FileLock(undisturbed / ".lock"), pytest.raises(ConfigError, match="a driver is at work"):
        rebuild.main("undisturbed", out)


def test_a_rebuild_of_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "beta_ablation" / "empty").mkdir(parents=True)
    (tmp_path / "beta_ablation" / "empty" / "journal.jsonl").write_bytes(b'{"event":"done"}\n')
    with pytest.raises(ConfigError, match="nothing can be made of it"):
        rebuild.main("empty", tmp_path)


@pytest.mark.slow
def test_a_damaged_data_cache_is_made_anew(
    undisturbed: Path, images: Path, tmp_path: Path, place: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path))
    pixels = Path(prepare(str(images)).folder, "train.npy")
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 1
    pixels.write_bytes(content)
    assert sweep("--name", "cached") == 0
    assert metrics(place / "cached") == metrics(undisturbed)


@pytest.mark.slow
def test_a_data_cache_truncated_meanwhile_ends_the_sweep_in_words(
    undisturbed: Path,
    images: Path,
    tmp_path: Path,
    place: Path,
    sweep: Sweep,
    in_epoch: InEpoch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path))
    pixels = Path(prepare(str(images)).folder, "test.npy")

    def damage() -> None:
        content = pixels.read_bytes()
        pixels.unlink()  # this very process has it mapped
        pixels.write_bytes(content[:-1])

    in_epoch(2, damage)
    assert sweep("--name", "truncated") == 1
    assert "the prepared data set is damaged" in capsys.readouterr().out
    assert "failed" not in {status for _, status, _ in states(place / "truncated").values()}, "no trial is to blame"
    assert sweep("--resume", "truncated") == 0
    assert metrics(place / "truncated") == metrics(undisturbed)


@pytest.mark.slow
def test_a_full_disk_ends_the_sweep_and_a_resume_goes_on(
    undisturbed: Path,
    images: Path,
    tmp_path: Path,
    disk_of: Callable[[str], Path],
    capsys: Capture,
    sweep: Sweep,
    in_epoch: InEpoch,
) -> None:
    """Journal, checkpoints and MLflow's database lie on one small disk, which others fill."""
    small = disk_of("60m")
    in_epoch(3, lambda: fill(small))
    assert sweep("--name", "full", "--out", str(small), "--tracking-uri", f"sqlite:///{tmp_path}/m.db") == 1
    said = capsys.readouterr().out
    assert "The run cannot go on" in said
    assert "full" in said or "No space left" in said, said
    assert "--resume" in said
    assert "Traceback" not in said
    run = small / "beta_ablation" / "full"
    assert "failed" not in {status for _, status, _ in states(run).values()}, "no trial is to blame"
    (small / "filler").unlink()
    assert sweep("--resume", "full", "--out", str(small)) == 0
    assert metrics(run) == metrics(undisturbed)
    assert states(run) == states(undisturbed)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 3])
def test_two_ctrl_c_end_it_at_once_and_a_resume_goes_on(
    undisturbed: Path, place: Path, sweep: Sweep, driver: Driver, epochs: int
) -> None:
    name = f"impatient{epochs}"
    with driver(name) as process:
        while sum(map(len, metrics(place / name).values())) < epochs:
            assert process.poll() is None, "it ended before it could be interrupted"
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        while "Stopping" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=20)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert sweep("--resume", name) == 0
    assert metrics(place / name) == metrics(undisturbed)
