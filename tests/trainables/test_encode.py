"""Code indices of a data set: once, whole, and those of this model and these images."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import encode
from trainables.commands import Terminal
from trainables.data import DamagedDataError, DataSet
from trainables.encode import Codes, codes, main, progress_lines
from trainables.models import TrainedModel, find_model
from vqcore import VQVAE, ConfigError, TrialConfig, load, save
from vqcore.vqvae import seeded

SMALL = TrialConfig().replace(channels=8, hidden_channels=8, residual_channels=4, codebook_size=300, dim=8)


def model_in(folder: Path, config: TrialConfig = SMALL, seed: int = 0) -> TrainedModel:
    folder.mkdir(parents=True, exist_ok=True)
    save(seeded(config.model, seed), config, folder / "model.safetensors")
    return find_model(str(folder), folder)


@pytest.fixture
def model(tmp_path: Path) -> TrainedModel:
    return model_in(tmp_path / "model")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "EVALUATION_BATCH", 16)


def whole(model: TrainedModel, data: DataSet, folder: Path) -> Codes:
    """The codes in one pass, of a copy of the model."""
    shutil.copytree(model.folder, folder, ignore=shutil.ignore_patterns("codes"))
    return codes(find_model(str(folder), folder), data)


def test_they_are_what_the_loaded_model_encodes(model: TrainedModel, data_set: DataSet) -> None:
    found = codes(model, data_set)
    assert (found.rows, found.columns, found.codebook_size) == (4, 4, 300)
    assert found.folder == model.folder / "codes" / f"{model.hash}-{data_set.hash}"
    for indices, pixels in ((found.train(), data_set.train()), (found.test(), data_set.test())):
        images = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).float().mul(2 / 255).sub(1)
        with torch.no_grad():
            expected = load(model.path).encode(images).numpy()
        np.testing.assert_array_equal(indices, expected)
        assert indices.dtype == np.uint16
        with pytest.raises(ValueError, match="read-only"):
            indices[0] = 0


@pytest.mark.parametrize(("size", "kind"), [(256, np.uint8), (257, np.uint16)])
def test_the_smallest_type_that_holds_every_index(
    tmp_path: Path, data_set: DataSet, size: int, kind: type[np.generic]
) -> None:
    assert codes(model_in(tmp_path, SMALL.replace(codebook_size=size)), data_set).train().dtype == kind


def test_complete_ones_are_not_made_again(
    model: TrainedModel, data_set: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = codes(model, data_set)
    monkeypatch.setattr(TrainedModel, "load", lambda self: pytest.fail("loaded"))
    assert codes(model, replace(data_set, source="the same by another name")) == found


class KilledError(Exception):
    pass


def killed_after(images: int) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        if done >= images:
            raise KilledError

    return show


@pytest.mark.parametrize("images", [0, 32, 96, 112])
def test_broken_off_anywhere_they_go_on_and_equal_those_of_one_pass(
    tmp_path: Path, model: TrainedModel, data_set: DataSet, images: int
) -> None:
    with pytest.raises(KilledError):
        codes(model, data_set, show=killed_after(images))
    assert not (model.folder / "codes" / f"{model.hash}-{data_set.hash}").exists()
    said: list[int] = []
    found = codes(model, data_set, show=lambda done, total: said.append(done))
    assert said[0] == min(images, 96), "what was done is not done again"
    once = whole(model, data_set, tmp_path / "once")
    for name in ("train.npy", "test.npy", "codes.toml"):
        assert (found.folder / name).read_bytes() == (once.folder / name).read_bytes(), name
    assert sorted(path.name for path in found.folder.iterdir()) == ["codes.toml", "test.npy", "train.npy"]


@pytest.mark.parametrize("harm", ["cut", "byte", "no checksum", "sum cut", "header"])
def test_what_a_power_cut_did_to_unfinished_ones_is_noticed(
    tmp_path: Path, model: TrainedModel, data_set: DataSet, harm: str
) -> None:
    with pytest.raises(KilledError):
        codes(model, data_set, show=killed_after(48))
    (array,), (sums,) = ([*model.folder.glob(f"codes/*.tmp/train.{end}")] for end in ("npy", "crc"))
    content = bytearray(array.read_bytes())
    if harm == "cut":
        array.write_bytes(content[:-5])
    elif harm == "no checksum":
        sums.unlink()
    elif harm == "sum cut":
        sums.write_bytes(sums.read_bytes()[:-1])
    else:
        content[-1 if harm == "byte" else 60] ^= 1
        array.write_bytes(content)
    said: list[int] = []
    found = codes(model, data_set, show=lambda done, total: said.append(done))
    assert said[0] == (0 if harm in ("no checksum", "header") else 32)
    np.testing.assert_array_equal(found.train(), whole(model, data_set, tmp_path / "once").train())


def test_other_threads_begin_anew_since_their_last_bits_may_differ(
    model: TrainedModel, data_set: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KilledError):
        codes(model, data_set, show=killed_after(48))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    said: list[int] = []
    codes(model, data_set, show=lambda done, total: said.append(done))
    assert said[0] == 0


@pytest.mark.parametrize("harm", ["byte", "cut", "removed", "provenance", "settings"])
def test_damaged_ones_are_made_anew(model: TrainedModel, data_set: DataSet, harm: str) -> None:
    found = codes(model, data_set)
    array, before = found.folder / "train.npy", found.train().copy()
    if harm == "byte":
        content = bytearray(array.read_bytes())
        content[-3] ^= 1
        array.write_bytes(content)
    elif harm == "cut":
        array.write_bytes(array.read_bytes()[:-3])
    elif harm == "removed":
        array.unlink()
    elif harm == "provenance":
        (found.folder / "codes.toml").write_text("not [ toml")
    else:  # which the model's hash does not cover
        settings = model.path.with_suffix(".toml")
        settings.write_text(settings.read_text().replace('normalize = "none"', 'normalize = "inputs"'))
    again = codes(model, data_set).train()
    assert np.array_equal(again, before) == (harm != "settings")


def test_another_model_or_set_has_codes_of_its_own(tmp_path: Path, model: TrainedModel, data_set: DataSet) -> None:
    first = codes(model, data_set)
    kept = shutil.copy(model.path, tmp_path)
    other = codes(model_in(model.folder, seed=1), data_set)
    assert other.folder != first.folder
    assert not np.array_equal(other.train(), first.train())
    shutil.copy(kept, model.path)
    assert codes(model, data_set).folder == first.folder
    with pytest.raises(DamagedDataError):
        codes(model, replace(data_set, hash="of other images"))


def test_a_model_that_was_replaced_meanwhile_is_refused(model: TrainedModel, data_set: DataSet) -> None:
    model_in(model.folder, seed=1)
    with pytest.raises(ConfigError, match="was replaced while it was read; start again"):
        codes(model, data_set)


def test_images_that_do_not_fit_and_a_model_that_diverged(
    tmp_path: Path, model: TrainedModel, data_set: DataSet
) -> None:
    with pytest.raises(ConfigError, match="images of 18 x 18"):
        codes(model, replace(data_set, image_size=18))
    network = VQVAE(SMALL.model)
    next(network.parameters()).data.fill_(torch.nan)
    save(network, SMALL, model.path)
    with pytest.raises(ConfigError, match=r"not finite .* it has diverged"):
        codes(find_model(str(model.path), tmp_path), data_set)


def test_a_folder_that_cannot_be_written_is_named(model: TrainedModel, data_set: DataSet) -> None:
    (model.folder / "codes").write_text("a file in the way")
    with pytest.raises(ConfigError, match=r"codes: cannot be written .* copy the model to a folder"):
        codes(model, data_set)


def test_two_at_once_make_them_once(model: TrainedModel, data_set: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    load_it = TrainedModel.load
    monkeypatch.setattr(TrainedModel, "load", lambda self: (loaded.append(self.path), load_it(self))[1])
    threads = [threading.Thread(target=codes, args=(model, data_set)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert len(codes(model, data_set).train()) == 96


def test_the_command_says_where_they_are_and_what_is_wrong(
    tmp_path: Path, model: TrainedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--num-cpus", "1", "--num-gpus", "0"]
    assert main([str(model.folder), *words]) == 2
    assert "names a data set; add --data" in capsys.readouterr().err
    assert main([str(model.folder), "--num-cpus", "1000"]) == 2
    assert "--num-cpus 1000: this machine has" in capsys.readouterr().err
    assert main(["nothing", "--out", str(tmp_path), *words]) == 2
    assert "no such run" in capsys.readouterr().err
    monkeypatch.setattr(encode, "EVALUATION_BATCH", 256)
    assert main([str(model.folder), "--data", "cifar10-mini", *words]) == 0
    said = capsys.readouterr().out
    assert "2,500 training and 500 test images of cifar10-mini, 8 x 8 codes each (uint16" in said


def test_progress_tells_where_it_goes_on_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    show = progress_lines(Terminal(), "codes", every=0)
    for done in (30, 50, 100):
        show(done, 100)
    assert capsys.readouterr().out.splitlines() == [
        "codes: goes on after 30 of 100 images",
        "codes: 50 of 100 images, about 5 s left",
    ]


@pytest.mark.slow
def test_killed_as_a_process_it_goes_on(tmp_path: Path) -> None:
    """Of a wide model, so that there is time to kill it."""
    model = model_in(tmp_path / "wide", TrialConfig().replace(codebook_size=4096))
    command = [sys.executable, "-m", "trainables.encode", str(model.folder), "--data", "cifar10-mini"]
    words = ["--num-cpus", "1", "--num-gpus", "0"]
    with subprocess.Popen([*command, *words]) as process:
        sums = threading.Event()
        while not sums.wait(0.01):
            if [path for path in model.folder.glob("codes/*.tmp/train.crc") if path.stat().st_size >= 8]:
                sums.set()
        process.kill()
    (array,) = model.folder.glob("codes/*.tmp/train.npy")
    assert 0 < array.stat().st_size < 2500 * 64 * 2
    again = subprocess.run([*command, *words], check=True, capture_output=True, text=True)
    assert "goes on after" in again.stdout
    (made,) = (path for path in model.folder.glob("codes/*") if path.is_dir())
    shutil.copytree(model.folder, tmp_path / "once", ignore=shutil.ignore_patterns("codes"))
    subprocess.run([*command[:3], str(tmp_path / "once"), *command[4:], *words], check=True, capture_output=True)
    for name in ("train.npy", "test.npy", "codes.toml"):
        assert (made / name).read_bytes() == (tmp_path / "once" / "codes" / made.name / name).read_bytes()
