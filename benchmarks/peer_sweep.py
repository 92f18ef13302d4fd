"""The peer of ``benchmarks.sweep``: a beta ablation as one writes it from the documentation of the libraries it uses.

Ray Tune's function trainable, vector-quantize-pytorch's VectorQuantize with the rotation trick and an EMA codebook, a
PyTorch Dataset that decodes with PIL, Ray's own MLflow callback. Nothing is held back: encoder and decoder are the
project's, torch gets the threads that were booked, Ray runs without its dashboard, perplexity is counted over the whole
test set.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import ray
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peer_model import PeerVQVAE
from trainables.sources import EMBEDDED
from vqcore.config import PRESETS

MODEL = PRESETS["compact"]
Batches = DataLoader[Tensor]


@dataclass(frozen=True)
class Script:
    """Train a VQ-VAE for each beta with Ray Tune and log to MLflow."""

    out: Path
    """Where Ray's results and ``mlflow.db`` go."""
    betas: tuple[float, ...]
    """Commitment weights."""
    epochs: int
    """Passes over the training images."""
    decay: float
    """Of the codebook's moving averages."""
    num_cpus: int
    """Trials at once."""


class ParquetImages(Dataset[Tensor]):
    """The images of a Parquet file in the Hugging Face layout, decoded as they are asked for; on [-1, 1]."""

    def __init__(self, path: Path) -> None:
        self.encoded = [row["bytes"] for row in pq.read_table(path, columns=["img"]).column("img").to_pylist()]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(io.BytesIO(self.encoded[index])) as image:
            pixels: Tensor = self.transform(image.convert("RGB"))
        return pixels


def train(config: dict[str, Any]) -> None:
    """One trial: reports ``mse`` and ``perplexity`` of the test set after each epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    training = ParquetImages(Path(config["data"]) / "train-00000-of-00001.parquet")
    test = ParquetImages(Path(config["data"]) / "test-00000-of-00001.parquet")
    # one CPU a trial: workers beside it would take the other trial's
    batches = DataLoader(training, batch_size=128, shuffle=True, drop_last=True, num_workers=0)
    test_batches = DataLoader(test, batch_size=256, num_workers=0)
    model = PeerVQVAE(MODEL, config["beta"], config["decay"])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    for _ in range(config["epochs"]):
        train_loss = train_epoch(model, optimizer, batches)
        tune.report({"train_loss": train_loss, **evaluate(model, test_batches)})


def train_epoch(model: PeerVQVAE, optimizer: torch.optim.Optimizer, batches: Batches) -> float:
    """One pass; the mean loss."""
    model.train()
    total = 0.0
    for images in batches:
        reconstruction, _, commitment_loss = model(images)
        loss = F.mse_loss(reconstruction, images) + commitment_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(batches)


@torch.no_grad()
def evaluate(model: PeerVQVAE, batches: Batches) -> dict[str, float]:
    """MSE on [-1, 1] and perplexity of a whole set."""
    model.eval()
    squared, pixels = 0.0, 0
    counts = torch.zeros(MODEL.quantizer.codebook_size)
    for images in batches:
        reconstruction, indices, _ = model(images)
        squared += F.mse_loss(reconstruction, images, reduction="sum").item()
        pixels += images.numel()
        counts += torch.bincount(indices.flatten(), minlength=len(counts))
    used = counts[counts > 0] / counts.sum()
    return {"mse": squared / pixels, "perplexity": torch.exp(-(used * used.log()).sum()).item()}


def main(script: Script) -> None:
    """Run the sweep."""
    ray.init(address="local", include_dashboard=False, num_cpus=script.num_cpus)
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={
            "beta": tune.grid_search(list(script.betas)),
            "decay": script.decay,
            "epochs": script.epochs,
            "data": str(EMBEDDED / "cifar10-mini"),
        },
        run_config=tune.RunConfig(
            name="beta_ablation",
            storage_path=str(script.out.absolute()),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{script.out.absolute() / 'mlflow.db'}", experiment_name="beta_ablation"
                )
            ],
        ),
    ).fit()
    print(results.get_dataframe()[["config/beta", "mse", "perplexity"]])


if __name__ == "__main__":
    main(tyro.cli(Script))
