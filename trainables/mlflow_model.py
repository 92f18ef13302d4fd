"""A final training's model in MLflow's registry, as a graph of torch.export: loading it runs no pickle."""

import hashlib
import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trainables.journal import TrialRecord
from trainables.models import MODEL

logger = logging.getLogger(__name__)

CHAMPION = "champion"
"""The alias of the version that was trained from the sweep's recommended configuration."""

RECOMMENDED = "knee"
"""The export that a sweep recommends."""


def model_name(sweep: dict[str, Any]) -> str:
    """The registered model of a final training: its sweep's; of a configuration that is no sweep's, its own."""
    origin = sweep.get("origin", {})
    return f"vqsweep-{origin['sweep']}-{origin['name']}" if origin else f"vqsweep-final-{sweep['name']}"


def register(client: MlflowClient, run_id: str, folder: Path, sweep: dict[str, Any], trial: TrialRecord) -> None:
    """Register the model in ``folder`` as a version of ``model_name``, unless this very model is one of this run's.

    ``mlflow.pytorch.load_model("models:/NAME@champion")`` gives a module from images (b, 3, h, w) on [-1, 1] to their
    reconstructions; ``vqcore.load`` reads ``extra_files/model.safetensors`` of what ``mlflow.artifacts`` downloads.
    A model that torch.export cannot trace is logged and left out.
    """
    name, digest = model_name(sweep), hashlib.sha256((folder / MODEL).read_bytes()).hexdigest()
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    if any(version.tags.get("vqsweep.digest") == digest for version in versions):
        return
    place = f"model-{digest[:8]}"
    with TemporaryDirectory() as beside:
        try:
            _export(folder, int(sweep["params"]["image_size"]), Path(beside, "model"))
        except Exception:  # a network of the user's own: torch.export takes only what it can trace
            logger.exception("%s: its model is not registered, since it cannot be exported", folder)
            return
        client.log_artifacts(run_id, str(Path(beside, "model")), place)
    _make(client, name)
    origin, last = sweep.get("origin", {}), trial.epochs[trial.last_epoch]
    said = (
        f"{origin.get('export', 'one configuration')}, {trial.last_epoch} epochs on {sweep['params']['data']}: "
        f"MSE {last['mse']:.5f} on [-1, 1], perplexity {last['perplexity']:.1f}"
    )
    source, tags = f"runs:/{run_id}/{place}", {"vqsweep.digest": digest}
    version = client.create_model_version(name, source, run_id, tags, description=said)
    if origin.get("export") == RECOMMENDED:
        client.set_registered_model_alias(name, CHAMPION, version.version)


def _make(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description="VQ-VAE of vqsweep, from images on [-1, 1] to reconstructions")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _export(folder: Path, side: int, path: Path) -> None:
    """Write MLflow's model, with the files of ``vqcore.load`` in it."""
    import mlflow.pytorch
    import numpy as np
    import torch

    from trainables.export import drop_traces
    from vqcore.vqvae import load

    class Reconstruct(torch.nn.Module):
        """One tensor in and one out, as MLflow wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.model = load(folder / MODEL)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            reconstruction: torch.Tensor = self.model(images).reconstruction
            return reconstruction

    with torch.no_grad():
        mlflow.pytorch.save_model(
            Reconstruct().eval(),
            path,
            input_example=np.zeros((2, 3, side, side), np.float32),  # of two, so that any number will do
            serialization_format="pt2",
            extra_files=[str(folder / MODEL), str(folder / "model.toml")],
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}"],
        )
    graph = path / "data" / "model.pt2"
    torch.export.save(drop_traces(torch.export.load(graph)), graph)
