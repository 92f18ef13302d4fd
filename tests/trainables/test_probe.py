"""Codes as features: the two classifiers on features whose accuracy is known, and the command on real images."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from image_sets import a_set, image_folder, pixels
from torch import Tensor

from trainables import classifiers, probe
from trainables.classifiers import Accuracy, Features, linear_probe, majority, nearest_neighbours, wilson
from trainables.data import prepare
from trainables.encode import codes
from trainables.models import find_model
from vqcore import TrialConfig, save
from vqcore.vqvae import seeded

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=4
)
WORDS = ["--num-cpus", "1", "--num-gpus", "0"]


def drawn(points: Tensor, labels: Tensor, classes: int = 2, test: int = 100, validation: int = 50) -> Features:
    return Features(points[test:], labels[test:], points[:test], labels[:test], validation, classes)


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(500, 6, generator=torch.Generator().manual_seed(0))


def test_the_interval_is_wilsons() -> None:
    """Values of Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_line_is_found_by_the_linear_probe_whatever_the_units(noise: Tensor) -> None:
    labels = (noise[:, 0] + noise[:, 1] > 0).long()
    units = torch.tensor([1e-3, 1e3, 1.0, 1.0, 1.0, 0.0])
    found = linear_probe(drawn(noise * units, labels))
    assert found.test > 0.95
    assert found.low < found.test < found.high


def test_what_no_line_parts_is_found_by_the_neighbours(noise: Tensor) -> None:
    labels = (noise[:, 0] * noise[:, 1] > 0).long()
    features = drawn(noise[:, :2], labels)
    assert nearest_neighbours(features).test > 0.9
    assert linear_probe(features).test < 0.65


def test_neighbours_are_those_of_every_distance_written_out(noise: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.randint(3, (500,), generator=torch.Generator().manual_seed(1))
    features = drawn(noise + 5, labels, classes=3)
    monkeypatch.setattr(classifiers, "NEIGHBOURS", (7,))
    monkeypatch.setattr(classifiers, "_SCORES", 4000)  # blocks of ten queries
    nearest = torch.cdist(features.test.double(), features.train.double()).argsort(-1)[:, :7]
    polls = torch.nn.functional.one_hot(features.train_labels[nearest], 3).sum(1)
    clear = polls.topk(2).values.diff(dim=-1).squeeze(-1) < 0
    expected = (polls.argmax(-1) == features.test_labels)[clear].sum()
    tied = int((~clear).sum())
    found = nearest_neighbours(features)
    assert expected <= round(found.test * 100) <= expected + tied
    assert found.setting == 7


def test_equal_votes_go_to_the_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "NEIGHBOURS", (2,))
    train = torch.tensor([[0.0], [1.0], [9.0]])
    features = Features(train, torch.tensor([0, 1, 1]), torch.tensor([[0.4], [0.6]]), torch.tensor([0, 1]), 1, 2)
    assert nearest_neighbours(features).test == 1


def test_the_test_images_choose_nothing(noise: Tensor) -> None:
    labels = (noise[:, 0] + noise.roll(1, 0)[:, 1] > 0).long()
    for classify in (linear_probe, nearest_neighbours):
        one, other = (
            classify(drawn(noise, torch.cat([first, labels[100:]]))) for first in (labels[:100], 1 - labels[:100])
        )
        assert (one.setting, one.validation) == (other.setting, other.validation)
        assert one.test == pytest.approx(1 - other.test)


def test_the_commonest_class_of_the_training_images() -> None:
    labels = torch.zeros(500, dtype=torch.int64)
    labels[:100] = (torch.arange(100) < 70).long()
    assert majority(labels[100:], labels[:100]).test == pytest.approx(0.3)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(seeded(SMALL.model, 0), SMALL, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def images(tmp_path: Path, cache: Path) -> str:
    """Folders of two classes, of which one is brighter."""
    train, test = (pixels(count, (16, 16, 3), seed=count) // 2 for count in (80, 30))
    for split in (train, test):
        split[1::2] += 64
    return image_folder(tmp_path / "images", train, test)


def test_the_command_compares_them_and_keeps_the_figures(
    model: Path, images: str, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for _ in range(2):
        assert probe.main([str(model), "--data", images, *WORDS]) == 0
        written.append(json.loads((model / "probe.json").read_text()))
        for row in written[-1]["results"]:
            row.pop("seconds", None)
    assert written[0] == written[1]
    rows = {(row["features"], row["classifier"]): row for row in written[0]["results"]}
    assert len(rows) == 9
    assert rows["none", "majority"]["test"] == pytest.approx(0.5)
    found = rows["pixels", "linear probe"]
    assert found["numbers"] == 16 * 16 * 3
    assert found["test"] > 0.9, "in the right order, with the right labels"
    assert rows["histogram of codes", "linear probe"]["numbers"] == 16
    shown = f"{100 * found['test']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
    assert capsys.readouterr().out.count(shown) >= 4, "a line and a cell of the table, of either run"


def test_representations_are_of_the_codes_and_the_latents(model: Path, tmp_path: Path, cache: Path) -> None:
    found, data = find_model(str(model), model), prepare(a_set(tmp_path / "images"))
    made, rows = codes(found, data), torch.tensor([4, 0])
    network, cpu = found.load(), torch.device("cpu")
    colours, latents, vectors, histogram = (
        one.of("train", rows) for one in probe.representations(network, data, made, cpu)
    )
    images = torch.from_numpy(data.train()[[4, 0]]).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(colours, images.flatten(1))
    with torch.no_grad():
        quantized = network.quantizer(network.latents(images))
        torch.testing.assert_close(latents, network.latents(images).movedim(1, -1).flatten(1))
    torch.testing.assert_close(vectors, quantized.quantized.flatten(1))
    counts = np.stack([np.bincount(one.ravel(), minlength=16) for one in made.train()[[4, 0]]])
    torch.testing.assert_close(histogram.square() * made.rows * made.columns, torch.from_numpy(counts).float())


def test_without_labels_nothing_is_computed(
    model: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = a_set(tmp_path / "images")
    for path in (tmp_path / "images").glob("*.parquet"):
        pq.write_table(pq.read_table(path).drop(["label"]), path)
    assert probe.main([str(model), "--data", source, *WORDS]) == 2
    assert "not every image has a label; add a column label" in capsys.readouterr().err
    assert not (model / "codes").exists()


def test_features_beyond_the_memory_are_refused(
    model: Path, images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 500)
    assert probe.main([str(model), "--data", images, *WORDS]) == 2
    assert "of memory, this machine has 250 kB; name a smaller data set" in capsys.readouterr().err


def test_ctrl_c_says_what_is_kept(
    model: Path, images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(features: Features) -> Accuracy:
        raise KeyboardInterrupt

    monkeypatch.setitem(probe.CLASSIFIERS, "linear probe", interrupted)
    assert probe.main([str(model), "--data", images, *WORDS]) == 130
    assert "Interrupted; the same command begins again, with the codes that are there" in capsys.readouterr().out
    assert not (model / "probe.json").exists()
