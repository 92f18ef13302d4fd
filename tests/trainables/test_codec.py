"""Images to a file and back, as a user does it: exactly the codes that the encoder made, or words on what is wrong."""

import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.code_file import Block, unpack
from trainables.codec import main
from trainables.commands import Terminal
from trainables.journal import Journal
from trainables.models import find_model
from trainables.prior_codec import Codec, open_codec
from vqcore import TrialConfig, save
from vqcore.errors import ConfigError
from vqcore.prior import PriorConfig, make_prior, save_prior
from vqcore.training import pixels
from vqcore.vqvae import seeded

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=8
)
TINY = PriorConfig(codebook_size=16, rows=4, columns=4, width=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[[int, int], np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for split, count in (("train", 8), ("test", 300)):
        (folder / split).mkdir()
        for number, one in enumerate(pictures(count, len(split))):
            Image.fromarray(one).save(folder / split / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    """Runs of priors of each kind, all of one model, but for ``other``."""
    out = tmp_path_factory.mktemp("runs")
    for name, kind in (
        ("causal", "causal"),
        ("unigram", "unigram"),
        ("masked", "masked"),
        ("labels", "causal"),
        ("other", "causal"),
    ):
        folder = out / "prior" / name
        journal = Journal(folder / "journal.jsonl")
        journal.write("sweep", sweep="prior", name=name, params={"data": str(images), "image_size": 16})
        journal.close()
        if name in ("causal", "other"):
            save(seeded(SMALL.model, seed=len(name)), SMALL, folder / "model.safetensors")
        else:  # copied, as safetensors may write the same model with its metadata in another order
            for end in ("safetensors", "toml"):
                shutil.copy(out / "prior" / "causal" / f"model.{end}", folder)
        save_a_prior(folder, replace(TINY, kind=kind, classes=3 if name == "labels" else 0), seed=ord(kind[0]))
    return out


def save_a_prior(folder: Path, config: PriorConfig, seed: int = 0) -> None:
    prior = make_prior(config, seed)
    prior.count(torch.arange(config.codebook_size) ** 2 + seed)
    model = {"model": {"hash": find_model(str(folder / "model.safetensors"), folder).hash}}
    save_prior(prior, folder / "prior.safetensors", model)


@pytest.fixture(scope="module")
def file(out: Path, images: Path) -> Path:
    """The test images, compressed with the causal prior."""
    path = out / "test.vqc"
    assert main(["compress", "causal", str(images), str(path), "--out", str(out)]) == 0
    return path


def codec(out: Path, name: str = "causal") -> Codec:
    return open_codec(name, out, None)


def expected(out: Path, images: Path) -> np.ndarray:
    """Reconstructions, by the model alone."""
    originals = np.stack([np.asarray(Image.open(path)) for path in sorted(images.glob("test/*.png"))])
    with torch.no_grad():
        batch = torch.from_numpy(originals).permute(0, 3, 1, 2).float() * (2 / 255) - 1
        model = codec(out).model
        pictures: np.ndarray = pixels(model.decode(model.encode(batch))).numpy()
        return pictures


@pytest.mark.parametrize("words", [(), ("--prior", "unigram")], ids=["learned", "unigram"])
def test_what_is_restored_is_what_the_model_makes_of_the_images(
    words: tuple[str, ...], out: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, array, folder = tmp_path / "a.vqc", tmp_path / "all.npy", tmp_path / "pngs"
    assert main(["compress", "causal", str(images), str(file), "--out", str(out), *words]) == 0
    said = capsys.readouterr().out
    assert f"300 images at {psnr_of(out, images):.2f} dB PSNR" in said
    assert f"{8 * file.stat().st_size / 300:.1f} bits an image" in said
    assert f"restore causal {file} {tmp_path}/a-restored" in said
    for to in (array, folder):
        assert main(["restore", "causal", str(file), str(to), "--out", str(out)]) == 0
    assert (
        np.abs(np.load(array).astype(int) - expected(out, images)).max() <= 1
    )  # batches of other sizes round otherwise
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == [f"{number:05}.png" for number in range(300)]
    assert np.array_equal(np.stack([np.asarray(Image.open(folder / name)) for name in names]), np.load(array))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.vqc", "all.npy", "pngs"]


def psnr_of(out: Path, images: Path) -> float:
    originals = np.stack([np.asarray(Image.open(path)) for path in sorted(images.glob("test/*.png"))])
    return float(10 * np.log10(255**2 / np.mean((originals.astype(float) - expected(out, images)) ** 2)))


def test_the_file_is_as_long_as_the_prior_says_and_holds_the_same_codes(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "prior" / "wide"
    shutil.copytree(out / "prior" / "causal", folder)
    save_a_prior(folder, replace(TINY, codebook_size=64, rows=8, columns=8))
    own = codec(tmp_path, "wide")
    codes = torch.randint(64, (1000, 8, 8), generator=torch.Generator().manual_seed(0)).numpy()
    content = own.pack(codes, Terminal())
    with torch.no_grad():
        bits = float(own.prior.bits(torch.from_numpy(codes)).sum())
    assert own.bits(codes) == pytest.approx(bits)
    assert 0 < 8 * len(content) / bits - 1 < 0.02
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            assert np.array_equal(own.unpack(content, "x", Terminal()), codes)
    finally:
        torch.set_num_threads(threads)


def test_a_plain_folder_of_images(out: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(images / "test", plain, ignore=lambda _, names: [name for name in names if name > "002.png"])
    words = ["compress", "unigram", str(plain), str(tmp_path / "three.vqc"), "--out", str(out)]
    assert main([*words, "--split", "train"]) == 2
    assert "plain folder of images; leave the flag out" in capsys.readouterr().err
    assert main(words) == 0
    Image.new("RGB", (20, 16)).save(plain / "wide.png")
    (plain / "broken.png").write_bytes(b"none")
    assert main([*words[:3], str(tmp_path / "new.vqc"), *words[4:]]) == 2
    said = capsys.readouterr().err
    assert "wide.png: is 20 x 16; all must be 16 x 16" in said
    assert "broken.png: does not decode" in said
    assert not (tmp_path / "new.vqc").exists()


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What is said on standard error; nothing is written, not even a part."""
    there = sorted(Path(str(words[3])).parent.rglob("*"))
    assert main([str(word) for word in words]) == 2
    assert sorted(Path(str(words[3])).parent.rglob("*")) == there
    return capsys.readouterr().err


def test_another_prior_or_model_than_the_file_says(
    out: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "to"
    for name in ("masked", "unigram"):
        assert "with the weights of prior" in refused(capsys, "restore", name, file, to, "--out", out)
    assert "was compressed with model" in refused(capsys, "restore", "other", file, to, "--out", out)
    shutil.copytree(out / "prior" / "causal", tmp_path / "prior" / "causal")
    save_a_prior(tmp_path / "prior" / "causal", codec(out).prior.config, seed=1)
    assert "with the weights of prior" in refused(capsys, "restore", "causal", file, to, "--out", tmp_path)
    shutil.copy(out / "prior" / "other" / "model.safetensors", tmp_path / "prior" / "causal")
    assert "is a prior of the model" in refused(capsys, "restore", "causal", file, to, "--out", tmp_path)


def test_what_cannot_be_coded_is_said_before_anything_is_written(
    out: Path, images: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to, ending = tmp_path / "a.vqc", ("--out", out)
    assert "add --prior unigram" in refused(capsys, "compress", "masked", images, to, *ending)
    assert "the class of each image, of 3" in refused(capsys, "compress", "labels", images, to, *ending)
    assert "is a unigram; leave" in refused(capsys, "compress", "unigram", images, to, "--prior", "learned", *ending)
    said = refused(capsys, "compress", "causal", "cifar10-mini", to, *ending)
    assert "its images are 32 x 32 pixels" in said
    said = refused(capsys, "compress", "nobody", images, file, *ending)
    assert "is there already" in said
    assert "no such run" in said
    assert "there is no folder" in refused(capsys, "restore", "causal", file, tmp_path / "a" / "b", *ending)
    assert "No such file" in refused(capsys, "restore", "causal", tmp_path / "none.vqc", tmp_path / "b", *ending)
    shutil.copytree(out / "prior" / "causal", tmp_path / "prior" / "bare")
    (tmp_path / "prior" / "bare" / "prior.safetensors").unlink()
    said = refused(capsys, "compress", "bare", images, to, "--out", tmp_path)
    assert "holds no prior.safetensors; name a prior's run, or train one with" in said


def test_a_damaged_file_restores_nothing(
    out: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, rng, hurt = file.read_bytes(), random.Random(0), tmp_path / "hurt.vqc"
    for _ in range(40):
        at = rng.randrange(len(whole))
        hurt.write_bytes(
            rng.choice([whole[:at], whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]])
        )
        assert str(hurt) in refused(capsys, "restore", "causal", hurt, tmp_path / "to.npy", "--out", out)


def test_without_constriction_no_image_is_encoded(
    out: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    monkeypatch.setattr(Codec, "encode", lambda *_: pytest.fail("it encodes"))
    said = refused(capsys, "compress", "causal", images, tmp_path / "a.vqc", "--out", out)
    assert "pip install 'constriction>=" in said


def test_a_small_file_that_asks_for_all_memory_is_refused_before_it_is_decoded(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.prior_codec.memory", lambda device: 16 * 10**9)
    own = open_codec("unigram", out, None)
    blocks = (Block(b"", 0, 0),) * 50_000
    file = replace(unpack(own.pack(np.zeros((1, 4, 4), np.int64), Terminal()), "x"), blocks=blocks)
    huge = replace(file, images=len(blocks) * 4096, block_size=4096).pack()
    with pytest.raises(ConfigError, match=r"x: holds 204,800,000 images by its header, .* 52 GB of memory"):
        own.unpack(huge, "x", Terminal())


def test_a_machine_that_computes_other_probabilities(
    out: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the same prior, by its hash, gave logits that differ in the last place."""
    other = make_prior(codec(out).prior.config)
    other.load_state_dict(codec(out).prior.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 1e-6)
    monkeypatch.setattr("trainables.models.TrainedModel.prior", lambda found: other.eval())
    said = refused(capsys, "restore", "causal", file, tmp_path / "to", "--out", out)
    assert "block 0: this machine computes other probabilities" in said
    assert "--prior unigram" in said


def test_an_error_while_pictures_are_written_leaves_none(
    out: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", full)
    assert main(["restore", "causal", str(file), str(tmp_path / "to"), "--out", str(out)]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_unigram_of_a_masked_prior(out: Path) -> None:
    own = open_codec("masked", out, "unigram")
    codes = np.arange(64).reshape(4, 4, 4) % 16
    assert np.array_equal(own.unpack(own.pack(codes, Terminal()), "x", Terminal()), codes)
    own.prior.counts.add_(1)
    content = open_codec("masked", out, "unigram").pack(codes, Terminal())
    with pytest.raises(ConfigError, match="was compressed with the counts of codes of prior"):
        own.unpack(content, "x", Terminal())
