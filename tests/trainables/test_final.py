"""The final training of an exported configuration, as a user starts it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vqcore
from trainables.data import prepare
from trainables.final import main
from trainables.journal import read
from trainables.revision import commit
from trainables.runs import JOURNAL
from trainables.tracking import Tracker
from vqcore.config import TrialConfig, read_toml, write_toml

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=8, batch_size=32
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[[int, int], np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 64), ("test", 24)):
        (folder / split).mkdir()
        for number, pixels in enumerate(pictures(count, len(split))):
            Image.fromarray(pixels).save(folder / split / f"{number:03}.png")
    return folder


@pytest.fixture
def export(tmp_path: Path, images: Path) -> Path:
    """A file such as a run has in ``exports/``."""
    data = prepare(str(images))
    path = tmp_path / "knee.toml"
    table = {"source": str(images), "hash": data.hash, "image_size": data.image_size}
    origin = {"sweep": "pareto", "name": "wide", "export": "knee", "seeds": [0]}
    write_toml(path, SMALL.toml() | {"data": table, "origin": origin}, header="MSE on [-1, 1]: 0.0300, n = 1")
    return path


def arguments(export: Path, out: Path, *words: str) -> list[str]:
    return [str(export), "--out", str(out), "--num-gpus", "0", "--num-cpus", "1", *words]


def run(export: Path, out: Path, *words: str) -> int:
    """In this process, and without MLflow, whose client takes seconds to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "start", lambda tracker: None)
        return main(arguments(export, out, *words))


def started(export: Path, out: Path, *words: str) -> "subprocess.Popen[str]":
    """As a process of its own."""
    command = [sys.executable, "-m", "trainables.final", *arguments(export, out, *words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def same_model(out: Path, *names: str) -> None:
    """To the last bit."""
    one, other = (vqcore.load(out / "final" / name / "model.safetensors").state_dict() for name in names)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.slow
def test_leaves_a_model_that_vqcore_reads_back(export: Path, out: Path, images: Path) -> None:
    assert run(export, out, "--epochs", "2", "--name", "plain") == 0
    folder = out / "final" / "plain"
    kept = sorted(file.name for file in folder.glob("trials/*/snapshot-*"))
    assert kept == [f"snapshot-0000{epoch}.npz" for epoch in (0, 1, 2)], "at 0, 25, 50, 75 and 99 % of two epochs"
    model = vqcore.load(folder / "model.safetensors")
    assert read_toml(folder / "model.toml")["training"]["epochs"] == 2
    pixels = torch.from_numpy(prepare(str(images)).test()[:4].copy()).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        codes = model.encode(pixels)
        assert torch.equal(model.decode(codes), model(pixels).reconstruction)


@pytest.mark.slow
def test_leaves_a_card_that_says_where_the_configuration_is_from(
    export: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(export, out, "--epochs", "1", "--name", "carded") == 0
    screen = capsys.readouterr().out
    assert f"{out / 'final' / 'carded' / 'README.md'}\n" in screen
    assert f"trainables.prior {out / 'final' / 'carded'} --out {out}\n" in screen  # beside it, where its report looks
    path = out / "final" / "carded" / "README.md"
    card = path.read_text()
    assert "`knee` of the sweep `pareto`, `wide`, which gave as evidence:\n\n    MSE on [-1, 1]: 0.0300" in card
    assert "A part in choosing the configuration was had by: seed 0." in card
    assert "chosen by figures on this very test set" in card
    assert f"| commit | `{commit()}` |" in card
    path.write_text("Mine.\n")
    assert run(export, out, "--epochs", "1", "--name", "carded") == 0
    assert "is no card of this command" in capsys.readouterr().out
    assert path.read_text() == "Mine.\n"


@pytest.mark.slow
def test_goes_on_where_it_stopped_and_equals_a_training_in_one_go(
    export: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(export, out, "--epochs", "3", "--name", "whole") == 0
    assert run(export, out, "--epochs", "1", "--name", "parts") == 0
    capsys.readouterr()
    assert run(export, out, "--epochs", "3", "--name", "parts") == 0
    lines = capsys.readouterr().out
    assert "epoch 1/3" not in lines
    assert "epoch 3/3" in lines
    same_model(out, "whole", "parts")
    assert run(export, out, "--epochs", "2", "--name", "parts") == 2
    assert "has 3 already" in capsys.readouterr().err
    assert run(export, out, "--epochs", "3", "--name", "parts", "--seed", "7") == 2
    assert "another configuration" in capsys.readouterr().err


@pytest.mark.service
def test_ctrl_c_is_told_by_the_exit_code_however_late_another_one_comes(export: Path, out: Path) -> None:
    with started(export, out, "--epochs", "1000", "--name", "late") as training:
        assert training.stdout is not None
        for start in ("epoch 1/", "Next:"):
            assert any(line.startswith(start) for line in training.stdout)
            time.sleep(0.2)  # by the second time the process is about to be gone
            training.send_signal(signal.SIGINT)
    assert training.returncode == 130


@pytest.mark.service
def test_terminated_then_killed_it_goes_on_and_equals_a_training_in_one_go(
    export: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--epochs", "40", "--name")
    assert run(export, out, *words, "undisturbed") == 0
    codes = []
    for end, last in ((signal.SIGTERM, "epoch 2/"), (signal.SIGKILL, "epoch 8/")):
        with started(export, out, *words, "hurt") as training:
            assert training.stdout is not None
            assert any(line.startswith(last) for line in training.stdout)
            if end == signal.SIGKILL:
                training.send_signal(signal.SIGSTOP)  # so that it is still there
                assert run(export, out, *words, "hurt") == 2
                assert "another process drives this run" in capsys.readouterr().err
            training.send_signal(end)
            training.communicate(timeout=60)
        codes.append(training.returncode)
    assert codes == [75, -signal.SIGKILL]
    capsys.readouterr()
    assert run(export, out, *words, "hurt") == 0
    assert "epoch 8/" not in capsys.readouterr().out
    whole, hurt = (read(out / "final" / name / JOURNAL).trials for name in ("undisturbed", "hurt"))
    for key, trial in whole.items():
        assert [metrics["mse"] for metrics in hurt[key].epochs.values()] == [
            metrics["mse"] for metrics in trial.epochs.values()
        ]
    same_model(out, "undisturbed", "hurt")


def test_everything_wrong_is_told_at_once(export: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = export.read_text().replace("decay = 0.99", "decay = 2.0")
    export.write_text(text)
    assert run(export, out, "--epochs", "0", "--data", "nowhere", "--name", "a/b", "--snapshots", "200") == 2
    said = capsys.readouterr().err
    for part in ("decay = 2.0", "epochs = 0", "nowhere", "a/b", "--snapshots 200"):
        assert part in said, part


@pytest.mark.slow
def test_images_other_than_those_of_the_evidence(
    export: Path, out: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export.write_text(export.read_text().replace(prepare(str(images)).hash, "0" * 16))
    assert run(export, out, "--epochs", "1", "--name", "others") == 2
    assert "its evidence is from other images" in capsys.readouterr().err
    assert run(export, out, "--epochs", "1", "--name", "others", "--data", str(images)) == 0


@pytest.mark.parametrize("content", [None, "not [ toml", "", "training = 3", 'data = "x"'])
def test_a_file_that_is_no_export(tmp_path: Path, out: Path, content: str | None) -> None:
    path = tmp_path / "broken.toml"
    if content is not None:
        path.write_text(content)
    assert run(path, out, "--epochs", "1") == 2


def test_a_training_that_diverges_says_so_and_exits_1(
    export: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export.write_text(export.read_text().replace("commitment_weight = 0.25", "commitment_weight = 1e300"))
    assert run(export, out, "--epochs", "1", "--name", "diverges") == 1
    assert "loss is" in capsys.readouterr().out
    assert not (out / "final" / "diverges" / "model.safetensors").exists()
