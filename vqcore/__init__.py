"""vqcore: a compact VQ-VAE whose bottleneck and metrics are honest. Plain PyTorch, usable alone."""

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
