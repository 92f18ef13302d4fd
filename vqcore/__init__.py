"""vqcore: a compact VQ-VAE whose bottleneck and metrics are honest. Plain PyTorch, usable alone."""

from vqcore.config import ConfigError, ModelConfig, QuantizerConfig, TrainingConfig, TrialConfig
from vqcore.metrics import CodeHistogram
from vqcore.quantizers import Quantized, VectorQuantizer
from vqcore.vqvae import VQVAE, load, save

__all__ = [
    "VQVAE",
    "CodeHistogram",
    "ConfigError",
    "ModelConfig",
    "Quantized",
    "QuantizerConfig",
    "TrainingConfig",
    "TrialConfig",
    "VectorQuantizer",
    "load",
    "save",
]
