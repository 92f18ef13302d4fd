"""A folder or a bucket: whole files or none, nothing outside it, and errors in words."""

import os
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from stepping import run_trial

from trainables.data import DataSet
from trainables.job import TrialJob
from trainables.storage import StorageError, Store, check_storage, join, size
from vqcore.config import ConfigError, TrialConfig, problems_of

OUTSIDE = ["../x", "..", ".", "", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", ".hidden", "a?b", "x" * 300]
SMALL = TrialConfig().replace(
    channels=8, hidden_channels=12, residual_channels=4, residual_blocks=1, dim=6, codebook_size=16, batch_size=32,
    epochs=3,
)  # fmt: skip


@pytest.fixture(params=["folder", "bucket"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        (tmp_path / "a").mkdir()
        return str(tmp_path / "a" / "b")
    return join(request.getfixturevalue("bucket"), tmp_path.name)


# What both promise


def test_what_is_written_is_read_listed_and_removed(location: str) -> None:
    store = Store(location)
    assert store.names() == []
    store.write("one", b"abc")
    store.write("two.npy", b"")
    store.write("one", b"again")
    assert sorted(store.names()) == ["one", "two.npy"]
    assert (store.read("one"), store.read("two.npy")) == (b"again", b"")
    for _ in range(2):
        store.delete("one")
    assert store.names() == ["two.npy"]
    with pytest.raises(FileNotFoundError):
        store.read("one")
    Store(join(location, "below")).write("three", b"3")
    assert store.names() == ["two.npy"], "folders are no files"
    assert problems_of(lambda: check_storage(location)) == ()
    assert store.names() == ["two.npy"], "the probe is gone"


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_a_location(location: str, name: str) -> None:
    store = Store(location)
    for use in (
        lambda: join(location, name),
        lambda: store.read(name),
        lambda: store.write(name, b"x"),
        lambda: store.delete(name),
    ):
        with pytest.raises(ConfigError, match="must be a plain name"):
            use()


def test_a_trial_leaves_the_same_wherever_it_is_kept(location: str, data_set: DataSet, tmp_path: Path) -> None:
    job = TrialJob(SMALL.key(data_set.hash), 0, SMALL, data_set, location, snapshots=(0, 2))
    list(run_trial(job, until=2))
    names = sorted(Store(location).names())
    beside = ["reconstructions.npy", "snapshot-00000.npz", "snapshot-00002.npz", "usage.npy"]
    assert [name[:11] for name in names] == ["epoch-00001", "epoch-00002", *(name[:11] for name in beside)]
    Store(location).write(names[1], b"damaged")
    resumed = list(run_trial(job, known=2))
    assert resumed[0]["info"]["resumed_from"] == 1
    straight = list(run_trial(replace(job, folder=str(tmp_path / "straight"))))
    assert resumed[1]["metrics"]["mse"] == straight[3]["metrics"]["mse"]
    left = sorted(Store(location).names())
    assert left[1:] == beside
    assert all(Store(location).read(name) == (tmp_path / "straight" / name).read_bytes() for name in beside)


def test_locations_go_on_before_their_options() -> None:
    assert join("s3://b/p/?region=eu-1", "x", "y") == "s3://b/p/x/y?region=eu-1"
    assert join("s3://b", "x") == "s3://b/x"
    assert join("/a/b", "c") == "/a/b/c"
    assert join("b", "c") == str(Path("b/c").absolute())


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 49_280, 7_247_844, 71_499_868, 2 * 10**9)] == [
        "0 bytes", "999 bytes", "1.0 kB", "49 kB", "7.2 MB", "71 MB", "2.0 GB",
    ]  # fmt: skip


# A folder


def test_nothing_is_written_through_a_link_and_what_is_no_file_is_not_listed(tmp_path: Path) -> None:
    victim, store = tmp_path / "victim", Store(str(tmp_path / "trial"))
    victim.write_text("precious")
    store.write("one", b"1")
    for name in ("linked", "linked.part"):
        (tmp_path / "trial" / name).symlink_to(victim)
    store.write("linked", b"new")
    store.delete("linked.part")
    assert (victim.read_text(), store.read("linked")) == ("precious", b"new")
    os.mkfifo(tmp_path / "trial" / "pipe")
    (tmp_path / "trial" / "zero").symlink_to("/dev/zero")
    (tmp_path / "trial" / "folder").mkdir()
    assert sorted(store.names()) == ["linked", "one"]


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_durable_is_forced_to_the_disk_and_then_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    forced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        forced.append(("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file", (tmp_path / "x").exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    Store(str(tmp_path)).write("x", b"1", durable)
    assert forced == ([("file", False), ("folder", True)] if durable else [])


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    contents = [bytes([n]) * 200_000 for n in range(8)]
    threads = [threading.Thread(target=store.write, args=("x", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read("x") in contents
    assert store.names() == ["x"]


def test_a_file_in_the_place_of_the_folder_is_no_trial_s_fault(tmp_path: Path) -> None:
    (tmp_path / "trials").touch()
    store = Store(str(tmp_path / "trials" / "t"))
    for use in (lambda: store.write("one", b""), lambda: store.delete("one")):
        with pytest.raises(StorageError, match=rf"Not a directory \(node {socket.gethostname()}\)"):
            use()


@pytest.mark.parametrize(
    ("where", "rule"),
    [
        ("{tmp}/file", "Not a directory"),
        ("{tmp}/file/below", "Not a directory"),
        ("gs://bucket/x", "must be a folder, or s3://bucket/prefix"),
        ("s3:/bucket", "must be a folder, or s3://bucket/prefix"),
        ("/proc", "No such file"),
        ("", "must be a folder"),
        ("s3://", "must be s3://bucket"),
        ("s3://Bucket_", "must be s3://bucket"),
        ("s3://bucket/a//b", "must be s3://bucket"),
        ("s3://bucket/../b", "must be s3://bucket"),
        ("s3://bucket/a?region", "endpoint_override=, scheme= and region= may come"),
        ("s3://bucket/a?region=EU;rm", "endpoint_override=, scheme= and region= may come"),
        ("ftp://me:hunter2@host/", "must be a folder, or s3://bucket/prefix"),
        ("s3://AKIAIOSF:hunter2@bucket/p", "must hold no credentials"),
        ("s3://bucket/p?endpoint_override=me:hunter2@host", "must hold no credentials"),
        ("s3://bucket/p?secret_key=hunter2", "must hold no credentials"),
    ],
)
def test_what_is_no_storage_is_told_and_no_secret_is_repeated(tmp_path: Path, where: str, rule: str) -> None:
    (tmp_path / "file").touch()
    (problem,) = problems_of(lambda: check_storage(where.format(tmp=tmp_path)))
    assert problem.startswith("--storage")
    assert rule in problem
    assert "hunter2" not in problem
    assert "AKIA" not in problem


# A bucket


def test_a_bucket_that_is_not_there_and_an_endpoint_that_is_dead(bucket: str) -> None:
    (missing,) = problems_of(lambda: check_storage(bucket.replace("sweeps", "missing")))
    assert "there is no such bucket" in missing
    (dead,) = problems_of(lambda: check_storage("s3://sweeps/a?scheme=http&endpoint_override=127.0.0.1:9"))
    assert "nothing answers at the endpoint" in dead


def test_no_credentials(bucket: str, tmp_path: Path) -> None:
    """In a process of its own: a file system keeps the credentials that it found."""
    words = "from trainables.storage import check_storage; import sys; check_storage(sys.argv[1])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    asked = subprocess.run(
        [sys.executable, "-c", words, bucket],
        env=environment | {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "access is denied: set AWS_ACCESS_KEY_ID" in asked.stderr
