"""A checkpoint on disk is whole, or it is named as damaged and the one before is loaded."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from trainables.checkpoint import (
    Checkpoint,
    keep_checkpoint,
    load_checkpoint,
    remove_parts,
    save_checkpoint,
    whole_checkpoints,
)
from trainables.storage import Store, check_disk
from vqcore.config import problems_of

KEY = "0123456789ab"


def tensors(epoch: int) -> dict[str, torch.Tensor]:
    return {
        "weights": torch.full((3, 4), epoch / 3),
        "generator": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([1.5, -0.0]).bfloat16(),
        "mask": torch.tensor([True, False]),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "none": torch.zeros(0, 4),
        "epoch": torch.tensor(epoch),
    }


def facts(epoch: int, key: str = KEY) -> dict[str, Any]:
    history = [{"event": "epoch", "epoch": n, "metrics": {"mse": 0.1}, "time": 1.5} for n in range(1, epoch + 1)]
    return {"trial": key, "precision": "fp32", "history": history}


def saved(folder: Path, *epochs: int) -> Store:
    store = Store(str(folder))
    for epoch in epochs:
        save_checkpoint(store, epoch, tensors(epoch), facts(epoch))
    return store


def found(store: Store) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and why newer ones were passed over."""
    damaged: list[str] = []
    return next(whole_checkpoints(store, KEY, damaged), None), damaged


def loaded(store: Store) -> Checkpoint:
    checkpoint = load_checkpoint(store, KEY)
    assert checkpoint is not None
    return checkpoint


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def put(folder: Path, content: bytes, epoch: int = 1) -> None:
    """As a file whose name is right."""
    digest = hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    (folder / f"epoch-{epoch:05d}-{digest}.safetensors").write_bytes(content)


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = loaded(saved(tmp_path / "new", 1, 2, 3))
    assert checkpoint.facts == {**facts(3), "epoch": 3}
    assert checkpoint.tensors.keys() == tensors(3).keys()
    for name, tensor in tensors(3).items():
        assert checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[name], tensor)
    content = (tmp_path / "new" / checkpoint.name).read_bytes()
    assert checkpoint.name == f"epoch-00003-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"


def test_the_latest_and_the_one_before_are_kept_and_one_in_the_end(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2, 3)
    assert [name[:11] for name in files(tmp_path)] == ["epoch-00002", "epoch-00003"]
    keep_checkpoint(store, loaded(store).name)
    assert [name[:11] for name in files(tmp_path)] == ["epoch-00003"]


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert found(Store(str(tmp_path))) == found(Store(str(tmp_path / "missing"))) == (None, [])


def test_cut_or_changed_anywhere_the_one_before_is_loaded_and_the_other_named(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    file = next(tmp_path.glob("epoch-00002-*"))
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        for damage in (whole[:at], whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :], whole + b"x"):
            file.write_bytes(damage)
            checkpoint, damaged = found(store)
            assert checkpoint is not None
            assert checkpoint.facts["epoch"] == 1
            assert damaged == [f"{file.name}: its content does not match its name"]
    file.write_bytes(whole)
    assert loaded(store).facts["epoch"] == 2


def test_a_damaged_one_goes_when_its_epoch_is_saved_anew(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    damaged = next(tmp_path.glob("epoch-00002-*"))
    damaged.write_bytes(b"")
    save_checkpoint(store, 2, tensors(2), {**facts(2), "more": 1})
    assert not damaged.exists()
    assert [name[:11] for name in files(tmp_path)] == ["epoch-00001", "epoch-00002"]
    assert found(store)[1] == []


def test_a_newer_one_of_an_orphan_is_left_alone(tmp_path: Path) -> None:
    """The worker of a killed driver may be ahead of the one that took over."""
    store = saved(tmp_path, 3, 4)
    saved(tmp_path, 2)
    assert [name[:11] for name in files(tmp_path)] == ["epoch-00002", "epoch-00003", "epoch-00004"]
    assert loaded(store).facts["epoch"] == 4


def test_one_that_vanishes_is_no_damage_and_one_that_cannot_be_read_is(tmp_path: Path) -> None:
    class Late(Store):
        def names(self) -> list[str]:
            return [*super().names(), f"epoch-00009-{'0' * 16}.safetensors"]

        def read(self, name: str) -> bytes:
            if name.startswith("epoch-00002"):
                raise OSError(5, "Input/output error", name)
            return super().read(name)

    saved(tmp_path, 1, 2)
    checkpoint, damaged = found(Late(str(tmp_path)))
    assert checkpoint is not None
    assert checkpoint.facts["epoch"] == 1
    assert len(damaged) == 1
    assert "Input/output error" in damaged[0]


def test_a_save_that_dies_while_writing_leaves_the_ones_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = saved(tmp_path, 1)
    before = files(tmp_path)

    def dying(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dying)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path, 2)
    assert files(tmp_path) == before
    half = "epoch-00002-0123456789abcdef.safetensors.01234567.part"
    (tmp_path / half).write_bytes(b"half")
    assert found(store)[1] == [], "what is being written is not looked at"
    remove_parts(store)
    assert files(tmp_path) == before


# Files that are not ours


def header(metadata: object, **tensors: object) -> bytes:
    words = json.dumps({"__metadata__": metadata, **tensors}).encode()
    return len(words).to_bytes(8, "little") + words


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (2**63).to_bytes(8, "little") + b"{}",
        header({"facts": "[" * 100_000}),
        header({"facts": "{}"}, x={"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}),
        header({"facts": "{}"}, x={"dtype": "object", "shape": [], "data_offsets": [0, 0]}),
    ],
)
def test_a_file_made_to_deceive_is_skipped(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "trial", content)
    checkpoint, damaged = found(Store(str(tmp_path / "trial")))
    assert (checkpoint, len(damaged)) == (None, 1)


@pytest.mark.parametrize(
    "changes", [{"trial": "ba9876543210"}, {"trial": None}, {"history": []}, {"history": None}, {"epoch": 2}]
)
def test_whole_but_of_another_trial_or_epoch_is_skipped(tmp_path: Path, changes: dict[str, Any]) -> None:
    for number, facts_here in enumerate([{**facts(1), "epoch": 1}, {**facts(1), "epoch": 1, **changes}]):
        content = safetensors.torch.save({"epoch": torch.tensor(1)}, {"facts": json.dumps(facts_here)})
        put(tmp_path / str(number), content)
    assert loaded(Store(str(tmp_path / "0"))).facts["epoch"] == 1
    checkpoint, damaged = found(Store(str(tmp_path / "1")))
    assert (checkpoint, len(damaged)) == (None, 1)


STRAYS = [
    "epoch-00009.safetensors",
    "epoch-00001-0123456789abcdef (copy).safetensors",
    "epoch-00001-0123456789abcdef.safetensors~",
    "epoch-00001-abc (copy).safetensors",
    "epoch-notes.txt",
    "notes (old).part",
    "epoch-00001-0123456789abcdef.safetensors.01234567 (copy).part",
    ".part",
]


def test_what_a_person_left_there_is_left_alone_and_hurts_nobody(tmp_path: Path) -> None:
    for name in STRAYS:
        (tmp_path / name).write_bytes(b"kept")
    store = saved(tmp_path, 1, 2, 3)
    assert loaded(store).facts["epoch"] == 3
    remove_parts(store)
    keep_checkpoint(store, loaded(store).name)
    assert [(tmp_path / name).read_bytes() for name in STRAYS] == [b"kept"] * len(STRAYS)
    assert [name[:11] for name in files(tmp_path) if name not in STRAYS] == ["epoch-00003"]


def test_too_little_room_counts_what_the_trials_hold(tmp_path: Path) -> None:
    check_disk(str(tmp_path / "not" / "yet"), 1)
    (problem,) = problems_of(lambda: check_disk(str(tmp_path), 10**18))
    assert problem.startswith(f"{tmp_path}: the checkpoints need 1,000,000,000 GB, ")
    assert problem.endswith("missing; free them, name another --storage, or sweep fewer trials")
    saved(tmp_path / KEY, 1)
    with next((tmp_path / KEY).iterdir()).open("r+b") as file:
        file.truncate(10**12)  # of which the disk holds next to nothing
    check_disk(str(tmp_path), 10**12)
