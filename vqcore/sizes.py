"""How large a model and its training's state are, from the configuration alone: nothing is made, and torch not needed.

Only networks of one's own that do not say how many parameters they have are made, on torch's ``meta`` device.
"""

import functools
from typing import Any

from vqcore.config import ModelConfig, TrialConfig
from vqcore.registry import ARCHITECTURES


def parameters(model: ModelConfig) -> int:
    """Trained parameters and the codebook's entries: ``vqcore.vqvae.parameter_count`` of the model."""
    codes, affine, _ = _codebook(model)
    return _networks(model) + codes + affine


def state_bytes(model: ModelConfig) -> int:
    """Of a checkpoint: what a gradient trains with two Adam moments each, and the codebook's moving averages."""
    codes, affine, averages = _codebook(model)
    by_gradient = codes if model.quantizer.codebook == "gradient" else 0
    return 4 * (3 * (_networks(model) + affine + by_gradient) + averages)


def shape(config: TrialConfig) -> tuple[Any, ...]:
    """What must be equal in two configurations for their networks to run as one."""
    networks = [value for name, value in vars(config.model).items() if name != "quantizer"]
    codes, training = config.model.quantizer, config.training
    return (*networks, codes.codebook_size, codes.dim, training.batch_size, training.precision)


def _codebook(model: ModelConfig) -> tuple[int, int, int]:
    """Numbers in the codes, in their learned affine map, and in what is averaged over batches."""
    config = model.quantizer
    if config.layer == "fsq":
        return 0, 0, 0
    codes, affine = config.codebook_size * config.dim, 2 * config.affine_groups * config.dim
    averages = config.codebook_size + (0 if config.codebook == "gradient" else 2 * codes)
    averages += affine + 2 * config.dim if config.affine == "statistics" else 0
    return codes, affine if config.affine == "learned" else 0, averages


@functools.lru_cache(maxsize=1024)
def _networks(model: ModelConfig) -> int:
    """Parameters of encoder and decoder."""
    architecture = ARCHITECTURES[model.architecture]
    if architecture.parameters is not None:
        return architecture.parameters(model)
    import torch

    with torch.device("meta"):
        networks = architecture.encoder(model), architecture.decoder(model)
    return sum(parameter.numel() for network in networks for parameter in network.parameters())
