"""A checkpoint on disk is whole, the latest or the one before, or it is not there."""

import itertools
import json
import os
from pathlib import Path

import pytest
import torch

from trainables.checkpoint import INDEX, load_checkpoint, replace_file, save_checkpoint


def tensors(epoch: int) -> dict[str, torch.Tensor]:
    return {
        "weights": torch.full((3, 4), epoch / 3),
        "generator": torch.arange(5, dtype=torch.uint8),
        "half": torch.tensor([1.5, -0.0]).bfloat16(),
        "epoch": torch.tensor(epoch),
    }


def saved(folder: Path, epochs: int) -> Path:
    for epoch in range(1, epochs + 1):
        save_checkpoint(folder, epoch, tensors(epoch), {"epoch": epoch, "history": [{"mse": 0.1}] * epoch})
    return folder


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "new" / "folder", 3))
    assert checkpoint is not None
    assert checkpoint.facts["epoch"] == 3
    assert checkpoint.facts["history"] == [{"mse": 0.1}] * 3
    assert checkpoint.tensors.keys() == tensors(3).keys()
    for name, tensor in tensors(3).items():
        assert checkpoint.tensors[name].dtype == tensor.dtype
        assert torch.equal(checkpoint.tensors[name], tensor)


def test_only_the_latest_is_kept(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    assert sorted(file.name for file in tmp_path.iterdir()) == [INDEX, "epoch-00003.safetensors"]


def test_none_where_there_is_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("deadly", [1, 2], ids=["the tensors", "the index"])
def test_a_save_that_dies_while_writing_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deadly: int
) -> None:
    saved(tmp_path, 1)
    writes = itertools.count(1)

    def dying(path: Path, content: bytes) -> None:
        if next(writes) == deadly:
            path.with_name(path.name + ".part").write_bytes(content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        replace_file(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("trainables.checkpoint.replace_file", dying)
        with pytest.raises(OSError, match="No space"):
            save_checkpoint(tmp_path, 2, tensors(2), {"epoch": 2})
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.facts["epoch"] == 1
    saved(tmp_path, 2)
    assert {file.name for file in tmp_path.iterdir()} == {INDEX, "epoch-00002.safetensors"}


def test_tensors_cut_or_changed_anywhere_are_not_loaded(tmp_path: Path) -> None:
    file = saved(tmp_path, 1) / "epoch-00001.safetensors"
    whole = file.read_bytes()
    for at in range(0, len(whole), 7):
        file.write_bytes(whole[:at])
        assert load_checkpoint(tmp_path) is None
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert load_checkpoint(tmp_path) is None
    file.write_bytes(whole)
    assert load_checkpoint(tmp_path) is not None
    file.unlink()
    assert load_checkpoint(tmp_path) is None


def test_an_index_cut_anywhere_is_not_loaded(tmp_path: Path) -> None:
    index = saved(tmp_path, 1) / INDEX
    whole = index.read_bytes()
    for end in range(len(whole)):
        index.write_bytes(whole[:end])
        assert load_checkpoint(tmp_path) is None


@pytest.mark.parametrize("index", ["null", "[]", "3", "{}", '{"file": 3}', '{"file": "x"}', '{"file": null}', "\x00"])
def test_an_index_of_something_else_is_not_loaded(tmp_path: Path, index: str) -> None:
    (saved(tmp_path, 1) / INDEX).write_text(index)
    assert load_checkpoint(tmp_path) is None


def test_the_index_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    saved(tmp_path / "other", 1)
    folder = saved(tmp_path / "own", 2)
    facts = json.loads((tmp_path / "other" / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps({**facts, "file": f"../other/{facts['file']}"}))
    assert load_checkpoint(folder) is None


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    replace_file(path, b"old")
    with path.open("rb") as reader:
        replace_file(path, b"new")
        assert reader.read() == b"old", "a reader in between keeps what it opened"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208
