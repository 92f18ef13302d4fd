"""An estimator and a network of one's own, in one file: `python -m examples.own_parts`.

Registered before a configuration names them; a sweep's own script does the same before it calls `sweeps.cli.main`.
"""

import torch
from torch import Tensor, nn

from vqcore import VQVAE, ModelConfig, QuantizerConfig
from vqcore.networks import ResidualBlock, UpConv
from vqcore.registry import ARCHITECTURES, Architecture, estimator


@estimator("clipped")
def clipped(g_ND: Tensor, z_ND: Tensor, q_ND: Tensor) -> Tensor:
    """The straight-through gradient, no longer than 1 for any vector."""
    length_N1 = torch.linalg.vector_norm(g_ND, dim=-1, keepdim=True)
    shortened_ND: Tensor = g_ND / length_N1.clamp(min=1)
    return shortened_ND


def encoder(config: ModelConfig) -> nn.Module:
    """(B, 3, H, W) images to (B, dim, H/8, W/8) latents."""
    wide = config.hidden_channels
    return nn.Sequential(
        nn.Conv2d(3, wide, 8, stride=8),
        ResidualBlock(wide, config.residual_channels),
        nn.Conv2d(wide, config.quantizer.dim, 1),
    )


def decoder(config: ModelConfig) -> nn.Module:
    """(B, dim, H/8, W/8) codes to (B, 3, H, W) images on [-1, 1]."""
    wide, narrow = config.hidden_channels, config.channels
    return nn.Sequential(
        UpConv(config.quantizer.dim, wide),
        nn.ReLU(),
        UpConv(wide, narrow),
        nn.ReLU(),
        UpConv(narrow, 3),
        nn.Tanh(),
    )


ARCHITECTURES["patches"] = Architecture(encoder, decoder, downsampling=8)


def main() -> None:
    """A forward and a backward pass through both."""
    layer = QuantizerConfig(codebook_size=64, dim=8, estimator="clipped")
    model = VQVAE(ModelConfig(architecture="patches", quantizer=layer))
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    out = model(images)
    ((out.reconstruction - images).square().mean() + out.quantized.loss).backward()
    print(f"{tuple(out.quantized.indices.shape[1:])} codes an image, reconstruction {tuple(out.reconstruction.shape)}")


if __name__ == "__main__":
    main()
