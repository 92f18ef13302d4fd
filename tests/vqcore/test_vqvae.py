"""The whole model: its shapes and sizes, what the decoder really receives, and what is kept on disk."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vqcore
from vqcore import VQVAE, ConfigError, ModelConfig, QuantizerConfig, TrialConfig
from vqcore.config import PRESETS
from vqcore.networks import ResidualBlock, UpConv
from vqcore.registry import ARCHITECTURES
from vqcore.vqvae import parameter_count, seeded

SMALL = ModelConfig(8, 12, 4, 2, QuantizerConfig(codebook_size=16, dim=6))
EQUAL = ModelConfig(8, 12, 4, 1, QuantizerConfig(codebook_size=16, dim=12))
"""No projection: the codes go straight into the decoder."""
BARE = ModelConfig(8, 12, 4, 0, QuantizerConfig(codebook_size=2, dim=12, estimator="ste"))


def images(count: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def alive(config: ModelConfig) -> VQVAE:
    """A model whose codes lie among its latents, so that several are used."""
    model = seeded(config, 0)
    latents_ND = model.encoder(images(8)).detach().movedim(1, -1).reshape(-1, config.quantizer.dim)
    model.quantizer.codebook.copy_(
        latents_ND[:: len(latents_ND) // config.quantizer.codebook_size][: config.quantizer.codebook_size]
    )
    model.quantizer.codes.ema_sums.copy_(model.quantizer.codebook)
    return model


# Networks


def test_parameters_are_counted_with_the_codes() -> None:
    """The presets, as the table in the paper's appendix counts them layer by layer."""
    assert parameter_count(VQVAE(PRESETS["compact"])) == 613_443
    assert parameter_count(VQVAE(PRESETS["paper"])) == 6_044_163


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24), (4, 4)])
@pytest.mark.parametrize("config", [SMALL, EQUAL, BARE])
def test_shapes(config: ModelConfig, height: int, width: int) -> None:
    model, batch = VQVAE(config), images(2, height, width)
    out = model(batch)
    assert model.encoder(batch).shape == (2, config.quantizer.dim, height // 4, width // 4)
    assert out.reconstruction.shape == batch.shape
    assert out.quantized.indices.shape == (2, height // 4, width // 4)
    assert out.reconstruction.abs().max() <= 1


def test_a_residual_block_is_relu_of_the_sum_in_float64() -> None:
    block, x = ResidualBlock(6, 4).double(), torch.randn(2, 6, 5, 5).double()
    first, second = (layer for layer in block.layers if isinstance(layer, nn.Conv2d))
    inner = F.conv2d(x, first.weight, first.bias, padding=1).clamp(min=0)
    expected = (x + F.conv2d(inner, second.weight, second.bias, padding=1)).clamp(min=0)
    before = x.clone()
    torch.testing.assert_close(block(x), expected)
    assert torch.equal(x, before), "the block wrote into its input"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_upward_convolution_is_torchs_own(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours = UpConv(6, 4).to(dtype)
    theirs = nn.ConvTranspose2d(6, 4, 4, stride=2, padding=1).to(dtype)
    theirs.load_state_dict(ours.state_dict())
    x, g = torch.randn(2, 6, 5, 3, dtype=dtype), torch.randn(2, 4, 10, 6, dtype=dtype)
    for module in (ours, theirs):
        module(x).backward(g)
    torch.testing.assert_close(ours(x), theirs(x))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_papers_latents_are_not_negative() -> None:
    assert VQVAE(EQUAL).encoder(images()).min() >= 0


# The bottleneck


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "autocast", "bf16"])
@pytest.mark.parametrize("config", [SMALL, EQUAL, BARE], ids=["projected", "equal widths", "bare"])
def test_the_decoder_receives_rows_of_the_codebook_bit_for_bit(
    config: ModelConfig, precision: str, training: bool
) -> None:
    model = alive(config).train(training)
    if precision != "fp32":
        model = model.to(memory_format=torch.channels_last)
    batch = images(4)
    if precision == "bf16":
        model.encoder.bfloat16(), model.decoder.bfloat16()
        batch = batch.bfloat16()
    received: list[Tensor] = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: received.append(inputs[0].clone()))
    codebook = model.quantizer.codebook.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        out = model(batch)
    (seen,) = received
    assert seen.dtype == (torch.float32 if precision == "fp32" else torch.bfloat16)
    rows = codebook.to(seen.dtype)[out.quantized.indices].movedim(-1, 1)
    whole = torch.int32 if precision == "fp32" else torch.int16
    assert torch.equal(seen.contiguous().view(whole), rows.contiguous().view(whole))
    assert torch.equal(out.quantized.quantized, rows), "the decoder wrote into its input"
    assert len(out.quantized.indices.unique()) > 1


def test_images_are_decoded_from_nothing_but_their_indices() -> None:
    model = alive(SMALL).eval()
    out = model(images())
    assert torch.equal(model.encode(images()), out.quantized.indices)
    assert torch.equal(model.quantize(images()).quantized, out.quantized.quantized)
    assert torch.equal(model.decode(out.quantized.indices), out.reconstruction)


# Seeds


def test_equal_seeds_give_equal_weights_whatever_is_swept() -> None:
    torch.manual_seed(5)
    random = torch.get_rng_state()
    models = [
        seeded(ModelConfig(8, 12, 4, 2, QuantizerConfig(16, 6, name, beta, decay)), 3)
        for name, beta, decay in (("ste", 0.1, 0.9), ("rotation", 2.0, 0.99))
    ]
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name])
    first, other = (next(model.parameters()) for model in (models[0], seeded(SMALL, 4)))
    assert not torch.equal(first, other)


# On disk


def kept(folder: Path, layout: torch.memory_format = torch.contiguous_format) -> tuple[VQVAE, Path]:
    config = TrialConfig(SMALL)
    model = alive(SMALL).to(memory_format=layout)
    model(images())
    vqcore.save(model, config, folder / "model.safetensors")
    return model.eval(), folder / "model.safetensors"


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    for number in range(8):
        vqcore.save(seeded(SMALL, 0), TrialConfig(SMALL), tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path, layout: torch.memory_format) -> None:
    model, path = kept(tmp_path, layout)
    for loaded in (vqcore.load(path), vqcore.load(str(path))):
        assert loaded.config == model.config
        assert not loaded.training
        assert set(loaded.state_dict()) == set(model.state_dict())
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, loaded.state_dict()[name])
        torch.testing.assert_close(loaded(images()).reconstruction, model(images()).reconstruction)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.safetensors", "model.toml"]


def test_a_model_that_is_cut_of_another_size_or_missing_is_refused(tmp_path: Path) -> None:
    _, path = kept(tmp_path)
    whole, table = path.read_bytes(), path.with_suffix(".toml")
    for keep in (0, 1, 7, 8, 100, -1):
        path.write_bytes(whole[:keep])
        with pytest.raises(ConfigError, match=r"model\.safetensors: does not hold the model that its TOML describes"):
            vqcore.load(path)
    path.write_bytes(whole)
    table.write_text(table.read_text().replace("dim = 6", "dim = 7"))
    with pytest.raises(ConfigError, match="does not hold the model"):
        vqcore.load(path)
    table.write_text(table.read_text().replace("dim = 7", f"dim = {2**24}"))  # a codebook of a gigabyte
    with pytest.raises(ConfigError, match=r"does not hold the model that its TOML describes \(.* numbers, and it has"):
        vqcore.load(path)
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        vqcore.load(path)
    table.unlink()
    with pytest.raises(ConfigError, match=r"model\.toml: cannot be read"):
        vqcore.load(path)


def test_an_estimator_and_a_network_of_ones_own_in_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate of fixed-length codes follows from the network's own downsampling."""
    from examples import own_parts

    own_parts.main()
    config = ModelConfig(architecture="patches", quantizer=QuantizerConfig(codebook_size=16, dim=8))
    assert VQVAE(config).encode(torch.zeros(2, 3, 32, 32)).shape == (2, 4, 4)
    wrong = dataclasses.replace(ARCHITECTURES["patches"], downsampling=4)
    monkeypatch.setitem(ARCHITECTURES, "patches", wrong)
    with pytest.raises(ValueError, match=r"'patches': images of \(32, 32\) became latents of \(4, 4\).* is 4"):
        VQVAE(config).encode(torch.zeros(2, 3, 32, 32))
