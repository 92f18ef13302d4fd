"""The architecture ``residual``, of the paper: stride-2 4x4 convolutions with ReLU, residual blocks, a last Tanh."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqcore.config import ModelConfig


class ResidualBlock(nn.Module):
    """ReLU(x + conv(ReLU(conv(x)))), both convolutions 3x3; the last ReLU makes encoder outputs nonnegative."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, channels, 3, padding=1),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Same shape out."""
        y: Tensor = x + self.layers(x)
        return y.relu_()


class UpConv(nn.ConvTranspose2d):
    """Transposed 4x4 convolution that doubles the sides."""

    def __init__(self, source: int, target: int) -> None:
        super().__init__(source, target, 4, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"], output_size: list[int] | None = None) -> Float[Tensor, "b o h2 w2"]:
        """(B, C, H, W) to (B, O, 2H, 2W)."""
        y = F.conv_transpose2d(x, self.weight, None, stride=2, padding=1)
        assert self.bias is not None
        # added apart: on the CPU the bias gradient inside a transposed convolution costs a third of its backward pass
        return y + self.bias.to(y.dtype).view(1, -1, 1, 1)


def _residuals(config: ModelConfig) -> list[nn.Module]:
    return [ResidualBlock(config.hidden_channels, config.residual_channels) for _ in range(config.residual_blocks)]


def _projection(source: int, target: int) -> nn.Module:
    """A 1x1 convolution where the widths differ; in the paper's model they are equal and there is none."""
    return nn.Identity() if source == target else nn.Conv2d(source, target, 1)


def encoder(config: ModelConfig) -> nn.Sequential:
    """(B, 3, H, W) images to (B, dim, H/4, W/4) latents."""
    return nn.Sequential(
        nn.Conv2d(3, config.channels, 4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(config.channels, config.hidden_channels, 4, stride=2, padding=1),
        nn.ReLU(inplace=True),
        *_residuals(config),
        _projection(config.hidden_channels, config.quantizer.dim),
    )


def decoder(config: ModelConfig) -> nn.Sequential:
    """(B, dim, H/4, W/4) codes to (B, 3, H, W) images on [-1, 1]."""
    return nn.Sequential(
        _projection(config.quantizer.dim, config.hidden_channels),
        *_residuals(config),
        UpConv(config.hidden_channels, config.channels),
        nn.ReLU(inplace=True),
        UpConv(config.channels, 3),
        nn.Tanh(),
    )
