"""A trial gives the same numbers to the last bit however it is run, and each of them is recorded once."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stepping import reports, run_trial

from trainables.checkpoint import Checkpoint, load_checkpoint
from trainables.data import DataSet
from trainables.job import Collapse, TrialJob
from trainables.journal import read
from trainables.recorder import JournalWriter
from trainables.snapshots import snapshot_epochs
from trainables.storage import StorageError, Store
from vqcore.config import ConfigError, TrialConfig

CONFIG = TrialConfig().replace(
    channels=8, hidden_channels=12, residual_channels=4, residual_blocks=1, dim=6, codebook_size=16, batch_size=16,
    learning_rate=2e-3, decay=0.9, epochs=3,
)  # fmt: skip

Event = dict[str, Any]


def job_of(folder: Path, data: DataSet, **changes: Any) -> TrialJob:
    config = CONFIG.replace(**changes)
    return TrialJob(config.key(data.hash), 0, config, data, str(folder))


def checkpoint_of(job: TrialJob) -> Checkpoint | None:
    return load_checkpoint(Store(job.folder), job.key)


def checkpoints(folder: Path) -> list[Path]:
    """The oldest first."""
    return sorted(folder.glob("epoch-*"))


def metrics_of(events: list[Event]) -> dict[int, dict[str, float]]:
    """By epoch, without how long it took."""
    return {
        event["epoch"]: {name: value for name, value in event["metrics"].items() if name != "seconds"}
        for event in events
        if event["event"] == "epoch"
    }


def assert_same_checkpoint(one: TrialJob, other: TrialJob) -> None:
    first, second = checkpoint_of(one), checkpoint_of(other)
    assert first is not None
    assert second is not None
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name
    assert metrics_of(first.facts["history"]) == metrics_of(second.facts["history"])


def kinds(events: list[Event]) -> list[str]:
    return [event["event"] for event in events]


# What a trial says and leaves


def test_a_report_an_epoch_between_start_and_end(tmp_path: Path, data_set: DataSet) -> None:
    events = list(run_trial(job_of(tmp_path, data_set)))
    assert kinds(events) == ["start", "epoch", "epoch", "epoch", "end"]
    assert [event["epoch"] for event in events[1:4]] == [1, 2, 3]
    assert (events[-1]["status"], events[-1]["reason"]) == ("completed", "")
    names = {"mse", "perplexity", "usage", "bits", "loss", "codebook_loss", "commitment_loss"}
    for event in events[1:4]:
        metrics = event["metrics"]
        rates = {"bits_uniform", "bits_unigram"}
        assert set(metrics) == names | rates | {f"train_{name}" for name in names} | {"seconds"}
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["bits"] <= metrics["bits_unigram"]
        assert metrics["bits_uniform"] == 4 * 4 * math.log2(16)
    info = events[0]["info"]
    assert (info["device"], info["resumed_from"]) == ("cpu", 0)
    assert json.loads(json.dumps(events)) == events, "events travel as JSON"
    pair = np.load(tmp_path / "reconstructions.npy")
    assert pair.shape == (2, 8, 16, 16, 3)
    assert np.array_equal(pair[0], data_set.test()[:8])
    counts = np.load(tmp_path / "usage.npy")
    assert counts.sum() == 24 * 4 * 4, "every position of every test image"
    assert np.mean(counts > 0) == events[3]["metrics"]["usage"]
    kept = sorted(file.name for file in tmp_path.iterdir())
    assert [name[:11] for name in kept] == ["epoch-00003", "reconstruct", "usage.npy"], (
        "of a trial that has ended the last is enough"
    )


def test_betas_start_from_the_same_weights_and_see_the_same_data(tmp_path: Path, data_set: DataSet) -> None:
    """Before β has had its first effect, nothing else differs: common random numbers."""
    changes: dict[str, Any] = {"epochs": 1, "batch_size": 96, "learning_rate": 1e-30, "precision": "fp32"}
    first, second = (
        metrics_of(list(run_trial(job_of(tmp_path / str(beta), data_set, commitment_weight=beta, **changes))))[1]
        for beta in (0.1, 2.0)
    )
    for name in set(first) - {"loss", "train_loss"}:
        assert first[name] == second[name], name
    assert first["loss"] < second["loss"]


# The same numbers


@pytest.fixture(params=["fp32", "bf16"])
def straight(request: pytest.FixtureRequest, tmp_path: Path, data_set: DataSet) -> tuple[TrialJob, list[Event]]:
    """A trial run in one piece."""
    job = job_of(tmp_path / "straight", data_set, precision=request.param)
    return job, list(run_trial(job))


def test_slices_are_the_whole(straight: tuple[TrialJob, list[Event]], tmp_path: Path) -> None:
    job = replace(straight[0], folder=str(tmp_path / "sliced"))
    events: list[Event] = []
    for until in (1, 1, 2, 3):
        events += run_trial(job, until, known=len(metrics_of(events)))
    assert kinds(events) == ["start", "epoch", "start", "start", "epoch", "start", "epoch", "end"]
    assert metrics_of(events) == metrics_of(straight[1])
    assert_same_checkpoint(job, straight[0])
    assert np.array_equal(
        np.load(Path(job.folder, "reconstructions.npy")), np.load(Path(straight[0].folder, "reconstructions.npy"))
    )


def test_a_trial_that_is_extended_is_one_of_the_longer_budget(
    straight: tuple[TrialJob, list[Event]], tmp_path: Path
) -> None:
    job = replace(straight[0], folder=str(tmp_path / "extended"))
    assert kinds(list(run_trial(replace(job, config=job.config.replace(epochs=1)))))[-1] == "end"
    events = list(run_trial(job))
    assert metrics_of(events) == metrics_of(straight[1])
    assert events[0]["info"]["resumed_from"] == 1
    assert_same_checkpoint(job, straight[0])


def test_a_trial_beside_another_is_the_trial_alone(
    straight: tuple[TrialJob, list[Event]], tmp_path: Path, data_set: DataSet
) -> None:
    """In one process with a trial that differs in everything a process could carry over: before, and between."""
    job = replace(straight[0], folder=str(tmp_path / "beside"))
    other = job_of(
        tmp_path / "other", data_set, precision="fp32", seed=7, estimator="ste", codebook_size=64, dim=3, epochs=9
    )
    neighbour = run_trial(other)
    events: list[Event] = []
    for until in (1, 2, 3):
        next(neighbour)
        torch.rand(3)
        events += run_trial(job, until, known=until - 1)
        list(run_trial(other, until + 5))
    assert metrics_of(events) == metrics_of(straight[1])
    assert_same_checkpoint(job, straight[0])


# Snapshots


# The learned rate


def without_learned(events: list[Event]) -> tuple[dict[int, dict[str, float]], dict[int, float]]:
    """The metrics without it, and it by epoch."""
    metrics = metrics_of(events)
    return metrics, {epoch: one.pop("bits_learned") for epoch, one in metrics.items() if "bits_learned" in one}


def test_a_learned_rate_comes_with_the_last_epoch_and_changes_no_number(
    straight: tuple[TrialJob, list[Event]], tmp_path: Path
) -> None:
    """In one piece, in slices with an epoch that is trained again, and extended, after which it is computed again."""
    job = replace(straight[0], rate="learned", folder=str(tmp_path / "learned"))
    metrics, learned = without_learned(list(run_trial(job)))
    assert list(learned) == [3]
    assert 0 < learned[3] < 4 * 4 * math.log2(16) * 1.5
    assert metrics == metrics_of(straight[1])
    kept, other = checkpoint_of(job), checkpoint_of(straight[0])
    assert kept is not None
    assert other is not None
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in kept.tensors.items())

    sliced = replace(job, folder=str(tmp_path / "sliced"))
    events = list(run_trial(sliced, 2))
    checkpoints(tmp_path / "sliced")[-1].unlink()
    events += run_trial(sliced, known=2)
    assert without_learned(events) == (metrics, learned)

    extended = replace(job, folder=str(tmp_path / "extended"))
    first = without_learned(list(run_trial(replace(extended, config=job.config.replace(epochs=2)))))[1]
    assert list(first) == [2]
    assert without_learned(list(run_trial(extended))) == (metrics, first | learned), "its own epochs first, all of them"


def test_a_collapsed_trial_has_no_learned_rate(tmp_path: Path, data_set: DataSet) -> None:
    job = replace(job_of(tmp_path, data_set, epochs=5), rate="learned", collapse=Collapse(1.0, 2))
    events = list(run_trial(job))
    assert events[-1]["status"] == "stopped"
    assert without_learned(events)[1] == {}


def snapshots_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("snapshot-*"))}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"precision": "bf16"},
        {"codebook": "gradient", "estimator": "gumbel", "affine": "statistics", "revive_below": 0.5},
        {"layer": "fsq", "levels": "4,4", "estimator": "ste", "commitment_weight": 0.0},
        {"normalize": "cosine", "init": "kmeans++"},
    ],
    ids=str,
)
def test_snapshots_change_no_number_of_the_training(tmp_path: Path, data_set: DataSet, changes: dict[str, Any]) -> None:
    without = job_of(tmp_path / "without", data_set, **changes)
    with_them = replace(without, folder=str(tmp_path / "with"), snapshots=(0, 1, 2, 3))
    assert metrics_of(list(run_trial(without))) == metrics_of(list(run_trial(with_them)))
    assert_same_checkpoint(with_them, without)
    assert [len(snapshots_of(tmp_path / name)) for name in ("without", "with")] == [0, 4]


def test_a_snapshot_is_the_quantizer_after_its_epoch(tmp_path: Path, data_set: DataSet) -> None:
    job = replace(job_of(tmp_path, data_set), snapshots=(0, 3))
    list(run_trial(job))
    assert list(snapshots_of(tmp_path)) == ["snapshot-00000.npz", "snapshot-00003.npz"]
    start, end = (np.load(tmp_path / name) for name in snapshots_of(tmp_path))
    checkpoint = checkpoint_of(job)
    assert checkpoint is not None
    assert np.array_equal(end["codebook"], checkpoint.tensors["model.quantizer.codes.weight"])
    assert np.abs(start["codebook"]).max() <= 1 / 16 < np.abs(end["codebook"]).max(), "before training"
    assert np.array_equal(end["counts"], np.load(tmp_path / "usage.npy"))
    assert np.array_equal(start["images"], data_set.test()[:8])
    assert np.array_equal(np.load(tmp_path / "reconstructions.npy"), [end["images"], end["reconstructions"]])
    assert end["patches"].shape == (16, 4, 4, 3)
    distances = np.linalg.norm(end["embeddings"].astype(float)[:, None] - end["codebook"], axis=-1)
    assert np.mean(distances.argmin(1) == end["codes"]) > 0.99, "of a sample that is rounded to half precision"
    assert np.array_equal(np.bincount(end["codes"], minlength=16), end["counts"]), "of so few images, of all positions"


def test_a_resumed_trial_ends_with_the_same_snapshots(tmp_path: Path, data_set: DataSet) -> None:
    """Killed after the first snapshot, then after the checkpoint of epoch 2, of which the snapshot was damaged."""
    straight = replace(job_of(tmp_path / "straight", data_set), snapshots=(0, 2, 3))
    list(run_trial(straight))
    job = replace(straight, folder=str(tmp_path / "resumed"))
    list(run_trial(job, until=1))
    checkpoints(tmp_path / "resumed")[0].unlink()
    (tmp_path / "resumed" / "snapshot-00000.npz").write_bytes(b"half")
    for until in (1, 2, 3):
        list(run_trial(job, until))
    assert snapshots_of(tmp_path / "resumed") == snapshots_of(tmp_path / "straight")


@pytest.mark.parametrize(
    ("percents", "numbers", "epochs", "kept"),
    [
        ((0, 25, 50, 75, 99), (), 100, (0, 25, 50, 75, 99)),
        ((0, 25, 50, 75, 99), (), 20, (0, 5, 10, 15, 20)),
        ((0, 25, 50, 75, 99), (), 10, (0, 3, 5, 8, 10)),
        ((0.1, 99), (7, 0), 10, (0, 1, 7, 10)),
        ((99,), (), 1, (1,)),
        ((), (), 10, ()),
    ],
)
def test_snapshots_at_per_cent_of_the_training(
    percents: tuple[float, ...], numbers: tuple[int, ...], epochs: int, kept: tuple[int, ...]
) -> None:
    assert snapshot_epochs(percents, numbers, epochs) == kept


def test_snapshots_outside_the_training_are_refused_all_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        snapshot_epochs((-1, 50, 101, math.nan), (-2, 10, 11), 10)
    assert [problem.split(":")[0] for problem in refused.value.problems] == [
        "--snapshots -1", "--snapshots 101", "--snapshots nan", "--snapshot-epochs -2", "--snapshot-epochs 11",
    ]  # fmt: skip


# Crashes


def test_what_a_crash_left_unreported_is_told_again(tmp_path: Path, data_set: DataSet) -> None:
    """Killed after the checkpoint of epoch 2, before its report: the driver knows epoch 1 only."""
    job = job_of(tmp_path, data_set)
    lost = list(run_trial(job, until=2))
    events = list(run_trial(job, known=1))
    assert [event["epoch"] for event in events[1:-1]] == [2, 3]
    assert events[1] == lost[2], "the very report, with its time"
    assert kinds(list(run_trial(job, known=3))) == ["start", "end"]
    assert kinds(list(run_trial(job, known=0))) == ["start", "epoch", "epoch", "epoch", "end"]


def test_what_a_kill_inside_an_epoch_had_begun_to_write_is_removed(tmp_path: Path, data_set: DataSet) -> None:
    job = job_of(tmp_path / "killed", data_set)
    list(run_trial(job, until=2))
    half = tmp_path / "killed" / "epoch-00003-0123456789abcdef.safetensors.01234567.part"
    half.write_bytes(b"half")
    events = list(run_trial(job, known=2))
    assert events[0]["info"]["resumed_from"] == 2
    assert not half.exists()


@pytest.mark.parametrize("damage", ["flipped", "gone", "unreadable"])
@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_checkpoints_are_told_and_what_they_held_is_trained_again(
    tmp_path: Path, data_set: DataSet, damage: str, damaged: int
) -> None:
    straight = metrics_of(list(run_trial(job_of(tmp_path / "straight", data_set))))
    job = job_of(tmp_path / "damaged", data_set)
    list(run_trial(job, until=2))
    hurt = checkpoints(tmp_path / "damaged")[-damaged:]
    for file in hurt:
        content = file.read_bytes()
        file.unlink()
        if damage == "flipped":
            file.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
        elif damage == "unreadable":
            file.mkdir()
    events = list(run_trial(job, known=2))
    assert events[0]["info"]["resumed_from"] == 2 - damaged
    told = [f"{file.name}: its content does not match its name" for file in reversed(hurt)]
    assert events[0]["info"].get("damaged", []) == (told if damage == "flipped" else [])
    assert kinds(events) == ["start", "epoch", "end"], "what the driver knows is not told again"
    assert metrics_of(events)[3] == straight[3]
    checkpoint = checkpoint_of(job)
    assert checkpoint is not None
    assert metrics_of(checkpoint.facts["history"]) == straight
    assert kinds(list(run_trial(job, known=3))) == ["start", "end"]
    assert "damaged" not in next(run_trial(job, known=3))["info"]


def test_a_checkpoint_of_another_model_is_not_loaded(tmp_path: Path, data_set: DataSet) -> None:
    """Under the same key: the code has changed since, or somebody has put it there."""
    ours, theirs = job_of(tmp_path / "ours", data_set), job_of(tmp_path / "theirs", data_set, codebook_size=32)
    list(run_trial(replace(theirs, key=ours.key, folder=ours.folder), until=1))
    events = list(run_trial(ours))
    assert events[0]["info"]["resumed_from"] == 0
    assert events[0]["info"]["damaged"][0].endswith("its tensors are not those of this model")
    assert metrics_of(events) == metrics_of(list(run_trial(job_of(tmp_path / "straight", data_set))))


def test_a_full_disk_ends_no_trial_and_costs_no_epoch_that_was_told(
    tmp_path: Path, data_set: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, data_set)
    list(run_trial(job, until=1))
    before = {file.name for file in checkpoints(tmp_path)}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        running = run_trial(job, known=1)
        assert next(running)["event"] == "start"
        with pytest.raises(StorageError, match="No space left on device"):
            next(running)
    assert {file.name for file in tmp_path.iterdir()} == before | {"reconstructions.npy", "usage.npy"}
    assert kinds(list(run_trial(job, known=1))) == ["start", "epoch", "epoch", "end"]


@pytest.mark.parametrize("batch_size", [16, 96], ids=["in the loss", "in the metrics"])
def test_a_diverging_trial_ends_with_its_reason(tmp_path: Path, data_set: DataSet, batch_size: int) -> None:
    job = job_of(tmp_path / "trial", data_set, learning_rate=1e30, batch_size=batch_size)
    recorder = JournalWriter(tmp_path)
    for report in reports(job):
        recorder.report(job, report)
    recorder.close()
    for line in (tmp_path / "journal.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))
    trial = read(tmp_path / "journal.jsonl").trials[job.key]
    assert trial.status == "diverged"
    assert "nan" in trial.reason or "inf" in trial.reason
    assert "epoch 1" in trial.reason
    assert trial.finished(50)
    assert checkpoint_of(job) is None, "nothing to go on from"


def test_a_collapsed_codebook_stops_its_trial_with_the_reason(tmp_path: Path, data_set: DataSet) -> None:
    job = replace(job_of(tmp_path, data_set, epochs=4), collapse=Collapse(usage=1.01, epochs=2))
    events = list(run_trial(job))
    assert kinds(events) == ["start", "epoch", "epoch", "end"]
    assert (events[-1]["status"], events[-1]["reason"][-27:]) == ("stopped", ", under 101.0% for 2 epochs")
    assert kinds(list(run_trial(job, known=2))) == ["start", "end"], "so it does when it is resumed"


@pytest.mark.parametrize(
    ("usages", "reason"),
    [
        ((0.01, 0.01), ""),
        ((0.01, 0.2, 0.01, 0.01), ""),
        ((0.2, 0.01, 0.02, 0.03), "collapsed: usage 3.0%, under 10.0% for 3 epochs"),
    ],
)
def test_a_codebook_collapses_only_by_so_many_epochs_in_a_row(usages: tuple[float, ...], reason: str) -> None:
    assert Collapse(usage=0.1, epochs=3).reason([{"metrics": {"usage": usage}} for usage in usages]) == reason


def test_a_gpu_that_is_booked_and_not_there_is_told(
    tmp_path: Path, data_set: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"0.25 GPU booked .* --num-gpus 0"):
        next(run_trial(replace(job_of(tmp_path, data_set), gpus=0.25)))


@pytest.mark.gpu
def test_on_a_quarter_of_a_gpu_a_trial_runs_and_resumes(tmp_path: Path, data_set: DataSet) -> None:
    job = replace(job_of(tmp_path, data_set), gpus=0.25)
    events = list(run_trial(job, until=2)) + list(run_trial(job, known=2))
    assert kinds(events) == ["start", "epoch", "epoch", "start", "epoch", "end"]
    assert (events[0]["info"]["device"], events[0]["info"]["precision"]) == (torch.cuda.get_device_name(), "bf16")
    assert events[3]["info"]["resumed_from"] == 2
