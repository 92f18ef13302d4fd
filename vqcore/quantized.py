"""What every quantization layer takes and returns."""

from typing import NamedTuple

from torch import Tensor

from vqcore.config import ConfigError, QuantizerConfig


class Quantized(NamedTuple):
    """What a quantizer returns."""

    quantized: Tensor
    """The codes in the input's shape and dtype: bit for bit rows of the codebook (rounded to that dtype)."""
    indices: Tensor
    """int64; the input's shape without the channel dimension."""
    commitment_loss: Tensor
    """Mean over all elements of (z − sg q)², unweighted, fp32 scalar; its gradient goes to the encoder."""
    codebook_loss: Tensor
    """Mean of (sg z − q)², unweighted, fp32 scalar: the quantization error. Its gradient goes to a codebook trained by
    gradient; else it has none and is only told."""
    loss: Tensor
    """What to add to the task loss: the two losses, weighted."""


def require(config: QuantizerConfig, layer: str) -> None:
    """``ConfigError`` unless ``config`` describes this ``layer``."""
    if config.layer != layer:
        raise ConfigError(
            [f"layer = {config.layer!r}: this is the layer {layer!r}; vqcore.quantizer(config) makes either"]
        )


def rows_of(z: Tensor, channel_dim: int, dim: int) -> Tensor:
    """``z`` as fp32 rows (N, dim). ``ValueError`` if its channels are not ``dim``."""
    if z.shape[channel_dim] != dim:
        raise ValueError(
            f"dimension {channel_dim} of the input has {z.shape[channel_dim]} entries, a code {dim}: "
            f"name the channel dimension of {tuple(z.shape)} with channel_dim="
        )
    return z.movedim(channel_dim, -1).reshape(-1, dim).float()


def shaped(rows_ND: Tensor, like: Tensor, channel_dim: int) -> Tensor:
    """The inverse of ``rows_of``: rows in the shape and dtype of ``like``."""
    shape = like.movedim(channel_dim, -1).shape
    return rows_ND.to(like.dtype).view(shape).movedim(-1, channel_dim)
