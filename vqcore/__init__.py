"""vqcore: a compact VQ-VAE whose bottleneck and metrics are honest. Plain PyTorch, usable alone.

Torch is imported with the first name that needs it, and not by the processes that only need ``vqcore.errors``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqcore.config import ConfigError, ModelConfig, QuantizerConfig, TrainingConfig, TrialConfig
    from vqcore.metrics import CodeHistogram
    from vqcore.prior import PriorConfig, load_prior
    from vqcore.quantizers import FSQ, Quantized, VectorQuantizer, quantizer
    from vqcore.vqvae import VQVAE, load, save

__all__ = [
    "FSQ",
    "VQVAE",
    "CodeHistogram",
    "ConfigError",
    "ModelConfig",
    "PriorConfig",
    "Quantized",
    "QuantizerConfig",
    "TrainingConfig",
    "TrialConfig",
    "VectorQuantizer",
    "load",
    "load_prior",
    "quantizer",
    "save",
]

_WITH_TORCH = {
    "metrics": ("CodeHistogram",),
    "prior": ("PriorConfig", "load_prior"),
    "quantizers": ("FSQ", "Quantized", "VectorQuantizer", "quantizer"),
    "vqvae": ("VQVAE", "load", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _WITH_TORCH.items() if name in names), "config")
    return getattr(importlib.import_module(f"vqcore.{home}"), name)
