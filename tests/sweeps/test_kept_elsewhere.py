"""Sweeps whose trials' files lie in a bucket, or on a disk that fills up, or in a run folder that means harm."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from read_back import ctrl_c, folder, metrics

from analysis.report import analyse
from trainables import storage
from trainables.journal import read
from trainables.storage import Store, _bucket, join

Sweep = Callable[..., int]

SMALL = ("--seeds", "1", "--set", "channels=8", "hidden_channels=12", "dim=8")


@pytest.fixture(scope="module")
def whole(sweep: Sweep, out: Path) -> Path:
    """An undisturbed run, which others are compared with."""
    assert sweep(*SMALL, "--name", "whole_elsewhere") == 0
    return folder(out, "whole_elsewhere")


def test_a_sweep_in_a_bucket_interrupted_and_resumed(
    bucket: str, out: Path, sweep: Sweep, whole: Path, in_epoch: Callable[..., None]
) -> None:
    in_epoch(2, ctrl_c)
    assert sweep("--name", "cloud", "--storage", bucket, *SMALL) == 130
    in_epoch(99, ctrl_c)
    assert sweep("--resume", "cloud") == 0
    run = folder(out, "cloud")
    assert metrics(run) == metrics(whole)
    assert not (run / "trials").exists()
    for key in metrics(run):
        names = sorted(Store(join(bucket, "beta_ablation", "cloud", "trials", key)).names())
        assert [name[:11] for name in names] == ["epoch-00002", "reconstruct"]
    assert (run / "figures" / "reconstructions.png").stat().st_size > 10_000
    before = (run / "figures" / "reconstructions.png").read_bytes()
    assert "figures/reconstructions.png" in [p.relative_to(run).as_posix() for p in analyse(run).paths]
    assert (run / "figures" / "reconstructions.png").read_bytes() == before


def test_an_endpoint_that_dies_ends_the_sweep_in_words_and_resume_goes_on(
    bucket: str,
    out: Path,
    sweep: Sweep,
    whole: Path,
    in_epoch: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mortal = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    mortal.start()  # in this process, so with the same buckets
    host, port = mortal.get_host_and_port()
    location = f"s3://sweeps/mortal?endpoint_override={host}:{port}&scheme=http"
    monkeypatch.setattr(storage, "ATTEMPTS", 2)
    in_epoch(3, mortal.stop)
    assert sweep("--name", "mortal", "--storage", location, *SMALL) == 1
    said = capsys.readouterr()
    assert "nothing answers at the endpoint" in said.out
    assert "--resume" in said.out
    assert "Traceback" not in said.out + said.err
    statuses = [trial.status for trial in read(folder(out, "mortal") / "journal.jsonl").trials.values()]
    assert "failed" not in statuses, "no trial is to blame"
    assert sweep("--resume", "mortal") == 2, "it is still dead"
    assert "nothing answers" in capsys.readouterr().err
    again = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    again.start()
    _bucket.cache_clear()
    assert sweep("--resume", "mortal") == 0
    again.stop()
    assert metrics(folder(out, "mortal")) == metrics(whole)


def test_a_full_disk_ends_the_sweep_and_resume_goes_on(
    small_disk: Path,
    out: Path,
    sweep: Sweep,
    whole: Path,
    in_epoch: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        ballast.write_bytes(b"\1" * (shutil.disk_usage(small_disk).free - 20_000))

    in_epoch(3, fill)
    assert sweep("--name", "full_disk", "--storage", str(small_disk), *SMALL) == 1
    said = capsys.readouterr().out
    assert "No space left on device" in said
    assert "--resume" in said
    trials = read(folder(out, "full_disk") / "journal.jsonl").trials.values()
    assert "failed" not in [trial.status for trial in trials]
    assert sweep("--resume", "full_disk") == 2, "checked before the first trial"
    assert "missing; free them" in capsys.readouterr().err
    ballast.unlink()
    in_epoch(99, ctrl_c)
    assert sweep("--resume", "full_disk") == 0
    assert metrics(folder(out, "full_disk")) == metrics(whole)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def test_a_disk_that_turns_read_only_ends_the_sweep_and_resume_goes_on(
    small_disk: Path,
    out: Path,
    sweep: Sweep,
    whole: Path,
    in_epoch: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a file system does after an error of its disk; a network folder whose server is gone is told alike."""
    in_epoch(2, lambda: remount(small_disk, "ro"))
    assert sweep("--name", "read_only", "--storage", str(small_disk), *SMALL) == 1
    said = capsys.readouterr().out
    assert f"The run cannot go on: {small_disk}/" in said
    assert ": Read-only file system" in said
    assert "--resume" in said
    trials = read(folder(out, "read_only") / "journal.jsonl").trials.values()
    assert "failed" not in [trial.status for trial in trials], "no trial is to blame"
    assert sweep("--resume", "read_only") == 2, "checked before the first trial"
    assert "Read-only file system" in capsys.readouterr().err
    remount(small_disk, "rw")
    in_epoch(99, ctrl_c)
    assert sweep("--resume", "read_only") == 0
    assert metrics(folder(out, "read_only")) == metrics(whole)


def test_a_storage_that_is_unmounted_gets_nothing_on_the_disk_below(
    tmp_path: Path,
    out: Path,
    sweep: Sweep,
    whole: Path,
    in_epoch: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    mounted, away = tmp_path / "mounted", tmp_path / "away"
    mounted.mkdir()

    def unmount() -> None:
        mounted.rename(away)
        mounted.mkdir()

    in_epoch(2, unmount)
    assert sweep("--name", "unmounted", "--storage", str(mounted), *SMALL) == 1
    assert "No such file or directory" in capsys.readouterr().out
    in_epoch(99, ctrl_c)
    assert sweep("--resume", "unmounted") == 2
    assert f"--storage {mounted}: holds no files of run unmounted now; mount it as it was" in capsys.readouterr().err
    assert not list(mounted.iterdir())
    mounted.rmdir()
    away.rename(mounted)
    assert sweep("--resume", "unmounted") == 0
    assert metrics(folder(out, "unmounted")) == metrics(whole)


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("s3://key:hunter2@bucket/x", "must hold no credentials"),
        ("s3://sweeps/x?scheme=http&endpoint_override=127.0.0.1:9", "nothing answers at the endpoint"),
        ("gs://bucket", "must be a folder, or s3://bucket/prefix"),
        ("/dev/null", "Not a directory"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_before_the_first_trial(
    bucket: str, out: Path, sweep: Sweep, where: str, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--name", "nowhere", "--storage", where, "--epochs", "0") == 2
    said = capsys.readouterr().err
    assert rule in said
    assert "epochs = 0" in said, "with whatever else is wrong"
    assert "hunter2" not in said
    assert not folder(out, "nowhere").exists()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


def test_a_run_folder_full_of_hostile_files_does_no_harm(
    out: Path,
    sweep: Sweep,
    whole: Path,
    in_epoch: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_epoch(3, ctrl_c)
    assert sweep("--name", "hostile", *SMALL) == 130
    in_epoch(99, ctrl_c)
    run, bomb, victim = folder(out, "hostile"), pickle.dumps(Bomb()), tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.chdir(tmp_path)
    for trial in (run / "trials").iterdir():
        for file in trial.iterdir():
            file.unlink()
        (trial / f"epoch-00002-{'0' * 16}.safetensors").write_bytes(bomb)
        (trial / f"epoch-00001-{'0' * 16}.safetensors").symlink_to(victim)
        (trial / "epoch-00001.safetensors.part").symlink_to(victim)
        np.save(trial / "reconstructions.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    for name in ("checkpoint.json", "model.pt", "reconstructions.npy"):
        (run / name).write_bytes(bomb)
    findings = analyse(run)
    assert any("are damaged and not shown: it cannot be read" in line for line in findings.lines)
    assert sweep("--resume", "hostile") == 0
    assert metrics(run) == metrics(whole)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "exploded").exists()
