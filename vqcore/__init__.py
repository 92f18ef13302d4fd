"""vqcore: a compact VQ-VAE whose bottleneck and metrics are honest. Plain PyTorch, usable alone.

Torch is imported with the first name that is asked for, and not by the processes that only need ``vqcore.errors``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqcore.config import (
        ConfigError,
        ModelConfig,
        QuantizerConfig,
        TrainingConfig,
        TrialConfig,
        from_taming_legacy,
        from_vqtorch_beta,
    )
    from vqcore.fsq import FSQ
    from vqcore.metrics import CodeHistogram
    from vqcore.quantized import Quantized
    from vqcore.quantizers import VectorQuantizer, quantizer
    from vqcore.vqvae import VQVAE, load, save

__all__ = [
    "FSQ",
    "VQVAE",
    "CodeHistogram",
    "ConfigError",
    "ModelConfig",
    "Quantized",
    "QuantizerConfig",
    "TrainingConfig",
    "TrialConfig",
    "VectorQuantizer",
    "from_taming_legacy",
    "from_vqtorch_beta",
    "load",
    "quantizer",
    "save",
]

_HOMES = {
    "FSQ": "fsq",
    "VQVAE": "vqvae",
    "CodeHistogram": "metrics",
    "Quantized": "quantized",
    "VectorQuantizer": "quantizers",
    "quantizer": "quantizers",
    "load": "vqvae",
    "save": "vqvae",
}
"""Modules of the names; of the others ``config``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"vqcore.{_HOMES.get(name, 'config')}"), name)
