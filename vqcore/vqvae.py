"""The VQ-VAE: encoder, nearest code, decoder (van den Oord et al. 2017), and the files of a trained one."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn

from vqcore.config import ConfigError, ModelConfig, TrialConfig, read_toml, write_toml
from vqcore.quantizers import Quantized, VectorQuantizer, quantizer
from vqcore.registry import ARCHITECTURES
from vqcore.sizes import parameters
from vqcore.weights import load_weights


class VQVAEOutput(NamedTuple):
    """What the model returns."""

    reconstruction: Tensor
    """(B, 3, H, W) on [-1, 1]."""
    quantized: Quantized


class VQVAE(nn.Module):
    """Images on [-1, 1] to codes and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        architecture = ARCHITECTURES[config.architecture]
        self.encoder = architecture.encoder(config)
        self.quantizer = quantizer(config.quantizer)
        self.decoder = architecture.decoder(config)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> VQVAEOutput:
        """Reconstruct; h and w are multiples of the architecture's downsampling."""
        quantized = self.quantize(images)
        return VQVAEOutput(self.decoder(quantized.quantized), quantized)

    def latents(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d y x"]:
        """Of images, by the encoder. ``ValueError`` if it does not reduce the sides as its architecture says."""
        latents: Tensor = self.encoder(images)
        factor = ARCHITECTURES[self.config.architecture].downsampling
        if (latents.shape[-2] * factor, latents.shape[-1] * factor) != tuple(images.shape[-2:]):
            name = self.config.architecture
            raise ValueError(
                f"architecture {name!r}: images of {tuple(images.shape[-2:])} became latents of "
                f"{tuple(latents.shape[-2:])}, and its downsampling is {factor}; correct it in ARCHITECTURES"
            )
        return latents

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b y x"]:
        """The code indices of images."""
        return self.quantize(images).indices

    def quantize(self, images: Float[Tensor, "b 3 h w"]) -> Quantized:
        """The codes of images as vectors and as indices: ``.quantized`` (B, D, y, x) is what the decoder sees.

        Latents of one's own are quantized by ``model.quantizer(latents)``.
        """
        quantized: Quantized = self.quantizer(self.latents(images))
        return quantized

    def decode(self, indices: Int[Tensor, "b y x"]) -> Float[Tensor, "b 3 h w"]:
        """Images of code indices, on [-1, 1]."""
        images: Tensor = self.decoder(self.quantizer.decode(indices))
        return images


def save(model: VQVAE, config: TrialConfig, path: Path) -> None:
    """Write ``path`` (safetensors) and, beside it, the configuration as TOML: what ``load`` reads."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    # one entry: safetensors writes several in random order, and equal models are to be equal files
    save_file(tensors, path, metadata={"format": "vqcore 1"})
    write_toml(path.with_suffix(".toml"), config.toml(), header="The model beside this file; vqcore.load reads both.")


def load(path: str | Path) -> VQVAE:
    """The model that ``save`` wrote, in eval mode on the CPU. Nothing in the files can run code."""
    path = Path(path)
    config = TrialConfig.from_toml(read_toml(path.with_suffix(".toml")))
    if not path.exists():
        raise ConfigError([f"{path}: no such file; name the model.safetensors that a final training left"])
    return load_weights(path, lambda: VQVAE(config.model), parameters(config.model), "model")


def parameter_count(model: nn.Module) -> int:
    """Trained parameters, the codebook's entries among them although moving averages and no gradient train them."""
    layers = [module for module in model.modules() if isinstance(module, VectorQuantizer)]
    averaged = sum(layer.codes.weight.numel() for layer in layers if layer.config.codebook != "gradient")
    return averaged + sum(p.numel() for p in model.parameters())


def seeded(config: ModelConfig, seed: int) -> VQVAE:
    """A new model whose weights depend on ``seed`` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VQVAE(config)
