"""Learned priors over code grids: what turns codes into samples, and their number into bits.

A VQ-VAE is trained with a uniform prior and gets a learned one afterwards (van den Oord et al. 2017, section 3.3).
There are three kinds with one interface: ``unigram`` counts codes, ``causal`` is an autoregressive transformer, and
``masked``, of the same blocks, fills many positions a step.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vqcore.config import ConfigError, read_toml, write_toml
from vqcore.prior.base import UNKNOWN, InOrder, Kind, Prior, PriorConfig, Steps
from vqcore.prior.causal import Causal
from vqcore.prior.masked import Masked
from vqcore.prior.unigram import Unigram
from vqcore.weights import load_weights

__all__ = [
    "UNKNOWN",
    "Causal",
    "InOrder",
    "Kind",
    "Masked",
    "Prior",
    "PriorConfig",
    "Steps",
    "Unigram",
    "load_prior",
    "make_prior",
    "save_prior",
]

_CONFIG = "prior"
"""The entry of the file's metadata that holds the configuration, so that an edited TOML is noticed."""

_KINDS: dict[Kind, type[Prior]] = {"causal": Causal, "masked": Masked, "unigram": Unigram}


def make_prior(config: PriorConfig, seed: int = 0) -> Prior:
    """A new prior, whose weights depend on ``seed`` alone; the global generators are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed those of GPUs too
        return _KINDS[config.kind](config)


def save_prior(prior: Prior, path: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Write ``path`` (safetensors) and, beside it, configuration and further tables of ``facts`` as TOML."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in prior.state_dict().items()}
    # one entry: safetensors writes several in random order, and equal priors are to be equal files
    save_file(tensors, path, metadata={_CONFIG: _as_json(prior.config)})
    tables = {"prior": dataclasses.asdict(prior.config), **(facts or {})}
    header = "The prior beside this file, over the codes of one model; vqcore.load_prior reads both."
    write_toml(path.with_suffix(".toml"), tables, header)


def load_prior(path: str | Path) -> Prior:
    """The prior that ``save_prior`` wrote, in eval mode on the CPU. Nothing in the files can run code."""
    path = Path(path)
    table = read_toml(path.with_suffix(".toml")).get("prior", {})
    known = {field.name for field in dataclasses.fields(PriorConfig)}
    if not isinstance(table, dict) or set(table) - known:
        raise ConfigError(
            [f"{path.with_suffix('.toml')}: its table [prior] must hold {', '.join(sorted(known))} alone"]
        )
    config = PriorConfig(**table)
    if not path.exists():
        raise ConfigError([f"{path}: no such file; name the prior.safetensors that trainables.prior left"])
    with torch.device("meta"):
        numbers = sum(tensor.numel() for tensor in make_prior(config).state_dict().values())
    prior = load_weights(path, lambda: make_prior(config), numbers, "prior")
    with safe_open(path, "pt") as file:
        trained = (file.metadata() or {}).get(_CONFIG)
    if trained != _as_json(config):  # other heads, say, fit the same weights
        rule = f"its table [prior] is not what the weights beside it were trained as, {trained}; put it back"
        raise ConfigError([f"{path.with_suffix('.toml')}: {rule}"])
    return prior


def _as_json(config: PriorConfig) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True)
