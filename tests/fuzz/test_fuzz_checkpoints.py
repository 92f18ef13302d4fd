"""Checkpoints cut, changed, renamed, exchanged and forged: never loaded wrongly, and the numbers stay the same."""

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damage import absurd, blows, damaged, examples
from hypothesis import given
from hypothesis import strategies as st

from analysis.results import images_of
from trainables.checkpoint import load_checkpoint
from trainables.data import DataSet
from trainables.storage import Folder
from trainables.trial import PICTURES, TrialJob, run_trial
from vqcore.config import TrialConfig

KEY = "0123456789ab"
SMALL = {
    "channels": 4, "hidden_channels": 4, "residual_channels": 2, "residual_blocks": 1, "codebook_size": 8, "dim": 4,
    "batch_size": 32, "epochs": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def job(data: DataSet, folder: Path, key: str = KEY, seed: int = 0) -> TrialJob:
    return TrialJob(key, 0, TrialConfig().replace(**{**SMALL, "seed": seed}), data, str(folder))


def told(job: TrialJob, until: int | None = None) -> list[dict[str, float]]:
    events = [event for event in run_trial(job, until) if event["event"] == "epoch"]
    return [{n: v for n, v in event["metrics"].items() if n != "seconds"} for event in events]


@pytest.fixture(scope="module")
def begun(data_set: DataSet, place: Path) -> Path:
    """Two epochs of three, and a checkpoint of each."""
    told(job(data_set, place / "begun"), 2)
    assert len(list((place / "begun").glob("*.safetensors"))) == 2
    return place / "begun"


@pytest.fixture(scope="module")
def truth(data_set: DataSet, place: Path) -> list[dict[str, float]]:
    return told(job(data_set, place / "whole"))


def spoilt(begun: Path, place: Path, which: list[bool], blows: list[Any]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=place))
    for number, file in enumerate(sorted(begun.iterdir())):
        content = file.read_bytes()
        (folder / file.name).write_bytes(damaged(content, blows) if which[number] else content)
    return folder


@examples(600)
@given(st.lists(st.booleans(), min_size=3, max_size=3), blows)
def test_what_is_loaded_is_what_was_saved(begun: Path, place: Path, which: list[bool], blows: list[Any]) -> None:
    found = load_checkpoint(Folder(str(spoilt(begun, place, which, blows))), KEY).checkpoint
    if found is not None:
        true = load_checkpoint(Folder(str(begun)), KEY).checkpoint
        assert true is not None
        if found.name != true.name:
            older = spoilt(begun, place, [False] * 3, [])
            (older / true.name).unlink()
            true = load_checkpoint(Folder(str(older)), KEY).checkpoint
            assert true is not None
        assert found.facts == true.facts
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in true.tensors.items())


@examples(40)
@given(st.lists(st.booleans(), min_size=3, max_size=3), blows)
def test_training_goes_on_to_the_same_numbers(
    begun: Path, truth: list[Any], data_set: DataSet, place: Path, which: list[bool], blows: list[Any]
) -> None:
    assert told(job(data_set, spoilt(begun, place, which, blows))) == truth


def put(folder: Path, content: bytes, epoch: int = 9) -> None:
    name = f"epoch-{epoch:05d}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors"
    (folder / name).write_bytes(content)


def file(header: bytes, tensors: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + tensors


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        (2**63).to_bytes(8, "little") + b"{}",
        (99_000_000).to_bytes(8, "little") + b"{}",
        file(b"{" * 100_000),
        file(b'{"a":' * 100_000),
        file(b"[]"),
        file(b'{"__metadata__":{"facts":"' + b"[" * 100_000 + b'"}}'),
        file(
            b'{"__metadata__":{"facts":"{}"},"x":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
            b"0" * 4,
        ),
        file(b'{"../../x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"0" * 4),
        b"\x80\x04cposix\nsystem\n(X\x04\x00\x00\x00exittR.",
    ],
)
def test_a_checkpoint_made_to_deceive_is_passed_over(
    begun: Path, truth: list[Any], data_set: DataSet, place: Path, content: bytes
) -> None:
    folder = spoilt(begun, place, [False] * 3, [])
    put(folder, content)
    assert told(job(data_set, folder)) == truth


@examples(150)
@given(st.sampled_from(["trial", "epoch", "precision", "history", "number", "config"]), absurd, st.booleans())
def test_forged_facts_are_passed_over_or_can_be_worked_with(
    begun: Path, place: Path, name: str, value: Any, inside: bool
) -> None:
    folder = spoilt(begun, place, [False] * 3, [])
    newest = max(folder.glob("epoch-*"))
    content = newest.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["facts"])
    if inside:
        facts["history"][-1]["metrics"][name] = value
    else:
        facts[name] = value
    header["__metadata__"]["facts"] = json.dumps(facts)
    newest.unlink()
    words = json.dumps(header).encode()
    put(folder, file(words + b" " * (-len(words) % 8), content[8 + length :]), epoch=2)
    found = load_checkpoint(Folder(str(folder)), KEY).checkpoint
    assert found is not None, "the one before is whole"
    assert type(found.facts["number"]) is int
    TrialConfig.from_flat(found.facts["config"])
    for event in found.facts["history"]:
        assert all(isinstance(metric, int | float) for metric in event["metrics"].values())


def test_checkpoints_of_another_trial_are_not_taken(
    begun: Path, truth: list[Any], data_set: DataSet, place: Path
) -> None:
    other = place / "other"
    told(job(data_set, other, "ba9876543210", seed=1))
    folder = spoilt(begun, place, [False] * 3, [])
    for path in other.glob("*.safetensors"):
        shutil.copy(path, folder)
    assert told(job(data_set, folder)) == truth


def test_a_file_larger_than_memory_is_passed_over(
    begun: Path, truth: list[Any], data_set: DataSet, place: Path
) -> None:
    folder = spoilt(begun, place, [False] * 3, [])
    with (folder / f"epoch-00009-{'0' * 16}.safetensors").open("wb") as huge:
        huge.truncate(2**43)
    assert told(job(data_set, folder)) == truth


@examples(300)
@given(blows)
def test_pictures_damaged_anywhere_are_of_their_kind_or_refused(begun: Path, blows: list[Any]) -> None:
    try:
        pixels = images_of(damaged((begun / PICTURES).read_bytes(), blows))
    except ValueError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 5
