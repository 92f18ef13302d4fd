"""Sweeps whose trials' files lie in a bucket, or in a storage that fails."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from read_back import ctrl_c, folder, metrics

from analysis.report import analyse
from trainables import storage
from trainables.journal import read
from trainables.storage import Store, _bucket, join

Sweep = Callable[..., int]

SMALL = ("--seeds", "1")


@pytest.fixture(scope="module")
def whole(sweep: Sweep, out: Path) -> Path:
    """An undisturbed run, which others are compared with."""
    assert sweep(*SMALL, "--name", "whole_elsewhere") == 0
    return folder(out, "whole_elsewhere")


@pytest.mark.slow
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
        assert [name[:11] for name in names] == ["epoch-00002", "reconstruct", "usage.npy"]
    assert (run / "figures" / "reconstructions.png").stat().st_size > 10_000
    before = (run / "figures" / "reconstructions.png").read_bytes()
    assert "figures/reconstructions.png" in [p.relative_to(run).as_posix() for p in analyse(run).paths]
    assert (run / "figures" / "reconstructions.png").read_bytes() == before


@pytest.mark.slow
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


Mend = Callable[[], object]


def fills_up(storage: Path) -> Mend:
    ballast = storage / "ballast"
    ballast.write_bytes(b"\1" * (shutil.disk_usage(storage).free - 20_000))
    return ballast.unlink


def turns_read_only(storage: Path) -> Mend:
    """As a file system does after an error of its disk; a network folder whose server is gone is told alike."""

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", storage.parent], check=True)

    remount("ro")
    return lambda: remount("rw")


def is_unmounted(storage: Path) -> Mend:
    away = storage.rename(storage.with_name("away"))
    storage.mkdir()  # as ``umount`` leaves the folder that it was mounted on

    def mount() -> None:
        storage.rmdir()  # fails if anything was written to the disk below
        away.rename(storage)

    return mount


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strike", "words", "refused"),
    [
        (fills_up, "No space left on device", "missing; free them"),
        (turns_read_only, "Read-only file system", "Read-only file system"),
        (is_unmounted, "No such file or directory", "storage: holds no files of run struck now; mount it as it was"),
    ],
)
def test_a_storage_that_fails_ends_the_sweep_in_words_and_resume_goes_on(
    strike: Callable[[Path], Mend],
    words: str,
    refused: str,
    small_disk: Path,
    out: Path,
    sweep: Sweep,
    whole: Path,
    in_epoch: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    storage, mends = small_disk / "storage", list[Mend]()
    storage.mkdir()
    shutil.rmtree(folder(out, "struck"), ignore_errors=True)
    in_epoch(3, lambda: mends.append(strike(storage)))
    assert sweep("--name", "struck", "--storage", str(storage), *SMALL) == 1
    said = capsys.readouterr().out
    assert f"The run cannot go on: {storage}/" in said
    assert words in said
    assert "--resume" in said
    trials = read(folder(out, "struck") / "journal.jsonl").trials.values()
    assert "failed" not in [trial.status for trial in trials], "no trial is to blame"
    in_epoch(99, ctrl_c)
    assert sweep("--resume", "struck") == 2, "checked before the first trial"
    assert refused in capsys.readouterr().err
    mends[0]()
    assert sweep("--resume", "struck") == 0
    assert metrics(folder(out, "struck")) == metrics(whole)


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
