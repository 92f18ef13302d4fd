"""Encoder and decoder as graphs of torch.export: what they give, what is in the files, and who can load them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vqcore
from trainables.card import write_card
from trainables.export import export_model
from trainables.graphs import DECODER, ENCODER
from trainables.models import find_model
from vqcore import VQVAE, ConfigError, TrialConfig, save
from vqcore.config import ModelConfig
from vqcore.registry import ARCHITECTURES, Architecture

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=8
)
LAYERS = {
    "vq": SMALL,
    "cosine": SMALL.replace(normalize="cosine", codebook_size=128),
    "affine": SMALL.replace(codebook="gradient", affine="learned"),
    "fsq": TrialConfig().replace(
        channels=8,
        hidden_channels=8,
        residual_blocks=0,
        layer="fsq",
        levels="5,4,3",
        estimator="ste",
        commitment_weight=0.0,
    ),
}


def exported(folder: Path, config: TrialConfig = SMALL) -> Path:
    torch.manual_seed(0)
    save(VQVAE(config.model), config, folder / "model.safetensors")
    export_model(find_model(str(folder), folder))
    return folder


def images(count: int, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count)) * 2 - 1


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
def test_any_batch_gives_what_the_model_gives_to_the_last_bit(tmp_path: Path, layer: str) -> None:
    folder = exported(tmp_path, LAYERS[layer])
    model = vqcore.load(folder / "model.safetensors")
    encoder, decoder = (torch.export.load(folder / name).module() for name in (ENCODER, DECODER))
    with torch.no_grad():
        for shape in ((1,), (2,), (7,), (70,), (3, 64, 24)):
            codes = encoder(images(*shape))
            assert codes.dtype == torch.int64
            assert torch.equal(codes, model.encode(images(*shape)))
            assert torch.equal(decoder(codes), model.decode(codes))


LOAD = """
import sys
for name in ("vqcore", "trainables"):
    sys.modules[name] = None  # importing it now fails
import torch
encoder, decoder = (torch.export.load(path).module() for path in sys.argv[1:])
print(*decoder(encoder(torch.zeros(5, 3, 32, 32))).shape)
"""


@pytest.mark.slow
def test_the_files_load_without_this_package_and_hold_no_pickle_and_no_path_of_this_machine(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    paths = [str(folder / name) for name in (ENCODER, DECODER)]
    loaded = subprocess.run([sys.executable, "-c", LOAD, *paths], text=True, capture_output=True, check=False)
    assert loaded.stdout.split() == ["5", "3", "32", "32"], loaded.stderr
    for path in paths:
        with zipfile.ZipFile(path) as file:
            members = {name: file.read(name) for name in file.namelist()}
        for name, content in members.items():
            assert b'"use_pickle": true' not in content, name
            assert not content.startswith((b"\x80", b"PK")), f"{name}: a pickle, or an archive of one"
            assert str(Path(vqcore.__file__).parent).encode() not in content, name
    assert {path.name for path in folder.iterdir()} == {"model.safetensors", "model.toml", ENCODER, DECODER}


@pytest.mark.slow
def test_the_card_names_the_graphs_as_long_as_they_are_of_these_weights(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    assert 'torch.export.load("encoder.pt2")' in write_card(folder).read_text()
    save(VQVAE(SMALL.model), SMALL, folder / "model.safetensors")
    assert "are not of these weights: export them again" in write_card(folder).read_text()
    (folder / ENCODER).write_bytes(b"cut off")
    assert "are not of these weights: export them again" in write_card(folder).read_text()


class Counting(nn.Module):
    """A network that torch.export cannot trace: what it does hangs on its input's values."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, config.quantizer.dim, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        z: Tensor = self.down(images)
        return z if float(z.sum()) > 0 else -z


@pytest.mark.slow
def test_a_network_that_cannot_be_traced_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = ARCHITECTURES["residual"].decoder
    monkeypatch.setitem(ARCHITECTURES, "counting", Architecture(Counting, decoder, 4))
    config = SMALL.replace(architecture="counting")
    with pytest.raises(ConfigError, match=r"encoder\.pt2: torch\.export cannot trace .* hand on model\.safetensors"):
        exported(tmp_path, config)
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.toml"}
