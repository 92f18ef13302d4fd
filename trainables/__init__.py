"""vqcore as something that is run and recorded: a trial, the final training, the journal, MLflow."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """``from trainables import VQTrial``; ray and torch are imported by those who use it, and by nobody else."""
    if name == "VQTrial":
        return import_module("trainables.tune_trial").VQTrial
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
