"""A prior's training, as a user starts it: model in, a folder that can be used out."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vqcore
from trainables.commands import Terminal
from trainables.data import prepare
from trainables.generated import sample_codes
from trainables.journal import Journal, read
from trainables.prior import PriorFlags, check_prior, main
from trainables.runs import JOURNAL
from trainables.samples import main as draw_samples
from trainables.tracking import Tracker
from vqcore import VQVAE, ConfigError, TrialConfig, save
from vqcore.config import read_toml
from vqcore.prior import Prior
from vqcore.prior_training import CodeSet, PriorTrainer

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=8, batch_size=32
)
QUICK = ("--width", "16", "--layers", "1", "--heads", "2", "--precision", "fp32", "--num-gpus", "0", "--num-cpus", "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[[int, int], np.ndarray]) -> Path:
    """Two classes of images in folders."""
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 80), ("test", 24)):
        for number, pixels in enumerate(pictures(count, len(split))):
            place = folder / split / ("cat" if number % 2 else "dog")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number:03}.png")
    return folder


@pytest.fixture
def out(tmp_path: Path, images: Path) -> Path:
    """Runs with an untrained model, as a full training leaves one."""
    data, folder = prepare(str(images)), tmp_path / "runs" / "final" / "one"
    journal = Journal(folder / JOURNAL)
    journal.write("sweep", sweep="final", name="one", params={"data": str(images), "image_size": data.image_size})
    journal.close()
    torch.manual_seed(0)
    save(VQVAE(SMALL.model), SMALL, folder / "model.safetensors")
    return tmp_path / "runs"


def run(out: Path, *words: str) -> int:
    """In this process, and without MLflow, whose client takes seconds to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tracker, "start", lambda tracker: None)
        return main(["one", "--out", str(out), "--name", "p", *QUICK, *words])


def equal(one: Path, other: Path) -> None:
    """Two priors, to the last bit."""
    ours, theirs = (vqcore.load_prior(folder / "prior.safetensors").state_dict() for folder in (one, other))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("kind", ["causal", "masked", "unigram"])
def test_leaves_one_folder_from_which_all_can_be_used(out: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(out, "--kind", kind, "--epochs", "2") == 0
    folder = out / "prior" / "p"
    model, prior = vqcore.load(folder / "model.safetensors"), vqcore.load_prior(folder / "prior.safetensors")
    assert model.decode(prior.sample(3)).shape == (3, 3, 16, 16)
    rates = json.loads((folder / "rates.json").read_text())
    assert (rates["test_images"], rates["codes_an_image"], rates["dimensions_an_image"]) == (24, 16, 768)
    assert len(rates["rates"]) == (3 if kind == "unigram" else 4)
    for name in ("samples", "completions", "interpolations"):
        assert Image.open(folder / "figures" / f"{name}.png").width > 200
    assert "Prior" in (folder / "README.md").read_text()
    screen = capsys.readouterr().out
    assert "unigram code of the training codes" in screen
    assert "trainables.codec compress" in screen
    assert "trainables.samples" in screen


def test_a_prior_of_classes_draws_one_of_them(out: Path, tmp_path: Path) -> None:
    assert run(out, "--by-class", "--epochs", "1") == 0
    folder = out / "prior" / "p"
    assert read_toml(folder / "prior.toml")["labels"]["classes"] == ["cat", "dog"]
    for label, path in (("dog", tmp_path / "a.png"), ("1", tmp_path / "b.png"), (None, tmp_path / "c.png")):
        draw_samples("p", count=9, label=label, to=path, out=out)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(ConfigError, match="--label 'frog': no such class of this prior; there are cat, dog"):
        draw_samples("p", label="frog", out=out)


def test_no_samples_are_drawn_where_prior_and_model_do_not_fit(out: Path, tmp_path: Path) -> None:
    assert run(out, "--by-class", "--epochs", "1") == 0
    folder, toml = out / "prior" / "p", out / "prior" / "p" / "prior.toml"
    before = toml.read_text()
    toml.write_text(before[: before.index("[labels]")])
    with pytest.raises(ConfigError, match="names 0 classes, and the prior has 2"):
        draw_samples("p", out=out)
    toml.write_text(before)
    save(VQVAE(SMALL.model), SMALL, folder / "model.safetensors")
    with pytest.raises(ConfigError, match="is a prior of the model"):
        draw_samples("p", out=out)
    with pytest.raises(ConfigError, match=r"holds no prior.safetensors; name a prior's run, or train one with"):
        draw_samples("one", out=out)
    assert not (folder / "figures" / "samples-0.png").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"temperature": math.nan}, "--temperature nan"),
        ({"seed": 2**70}, "--seed 1180591620717411303424: must be"),
        ({"to": Path("x.txt")}, "--to x.txt: must be a file that ends in .png"),
    ],
)
def test_a_wrong_flag_of_the_samples_is_said(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        draw_samples("p", **flags)


def test_samples_that_are_measured_have_the_classes_of_the_training_set(
    out: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few, drawn = tmp_path / "few", list[list[int]]()
    shutil.copytree(images, few)
    for path in sorted((few / "train" / "cat").iterdir())[4:]:
        path.unlink()

    def seen(prior: Prior, count: int, labels: torch.Tensor | None = None) -> torch.Tensor:
        drawn.extend([] if labels is None else [labels.bincount().tolist()])
        return sample_codes(prior, count, labels)

    monkeypatch.setattr("trainables.prior.sample_codes", seen)
    assert run(out, "--by-class", "--epochs", "1", "--data", str(few)) == 0
    assert drawn == [[3, 21]]  # of 24, where 4 in 44 are cats
    assert "The learned rate, without the class, which it is given, is" in capsys.readouterr().out


def test_codes_that_cannot_be_written_are_said_of_a_completed_training_too(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = out / "final" / "one" / "codes"
    for ready in (False, True):
        if ready:
            codes.unlink()
            assert run(out, "--epochs", "1") == 0
            shutil.rmtree(codes)
        codes.write_text("in the way")
        assert run(out, "--epochs", "1") == 1
        assert f"The run cannot go on: {codes}: cannot be written (File exists)" in capsys.readouterr().out


def test_a_model_that_is_replaced_meanwhile_is_not_put_beside_the_prior(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train_epoch = PriorTrainer.train_epoch

    def then_replaced(trainer: PriorTrainer, *codes: CodeSet) -> dict[str, float]:
        metrics = train_epoch(trainer, *codes)
        save(VQVAE(SMALL.model), SMALL, out / "final" / "one" / "model.safetensors")
        return metrics

    monkeypatch.setattr(PriorTrainer, "train_epoch", then_replaced)
    assert run(out, "--epochs", "1") == 1
    assert "is not any more the model that this prior was trained for" in capsys.readouterr().out
    assert not (out / "prior" / "p" / "prior.safetensors").exists()


def test_the_same_command_goes_on_and_the_test_set_chooses_nothing(out: Path) -> None:
    assert run(out, "--epochs", "3") == 0
    first = out / "prior" / "straight"
    (out / "prior" / "p").rename(first)
    run(out, "--epochs", "3")
    equal(first, out / "prior" / "p")
    assert run(out, "--epochs", "3") == 0  # all is trained: the files are written again
    equal(first, out / "prior" / "p")
    record = read(first / JOURNAL)
    (trial,) = record.trials.values()
    assert trial.status == "completed"
    assert set(trial.epochs[1]) == {"train_bits", "validation_bits", "seconds"}


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_prior(out: Path) -> None:
    words = ["--epochs", "40", "--patience", "40", "--dropout", "0.1"]
    command = [sys.executable, "-m", "trainables.prior", "one", "--out", str(out), *QUICK, *words, "--name", "killed"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 3/") for line in process.stdout)
        process.kill()
    assert not (out / "prior" / "killed" / "prior.safetensors").exists()
    assert [run(out, *words, "--name", name) for name in ("killed", "straight")] == [0, 0]
    equal(out / "prior" / "killed", out / "prior" / "straight")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--heads", "3"), "heads = 3: must divide width = 16"),
        (("--epochs", "0"), "epochs = 0: must be a whole number"),
        (("--kind", "unigram", "--by-class"), "--by-class: a unigram prior has no classes"),
        (("--name", "a/b"), "--name 'a/b': must be a plain name"),
        (("--num-cpus", "9999"), "--num-cpus 9999: this machine has"),
        (("--data", "nowhere"), "data = 'nowhere': no folder and no data set of that name"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    out: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(out, *words) == 2
    assert said in capsys.readouterr().err
    assert not (out / "prior").exists()


def test_a_test_set_too_small_for_neighbours_has_rates_alone(
    out: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    shutil.copytree(images, few)
    tests = sorted((few / "test").rglob("*.png"))
    for path in tests[3:]:
        path.unlink()
    assert run(out, "--epochs", "1", "--data", str(few)) == 0
    rates = json.loads((out / "prior" / "p" / "rates.json").read_text())
    assert (rates["test_images"], rates["samples"]) == (3, [])
    for path in tests[1:3]:
        path.unlink()
    assert run(out, "--epochs", "1", "--data", str(few)) == 2
    assert "80 training and 1 test images; a prior trains" in capsys.readouterr().err


def test_a_model_named_by_its_file_in_this_folder_gives_the_run_its_name(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out / "final" / "one")
    flags = PriorFlags(model="model.safetensors", kind="unigram", out=out, num_gpus=0)
    assert check_prior(flags, Terminal())[1].name.startswith("one-unigram-")


def test_another_prior_does_not_get_the_same_folder(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(out, "--epochs", "1") == 0
    assert run(out, "--epochs", "1", "--seed", "1") == 2
    assert "holds the training of another configuration; choose another --name" in capsys.readouterr().err
