"""The layer in a model that is not vqcore's: an autoencoder of image patches, trained with ``torch.optim.Adam``.

    python -m examples.own_model

Images are cut into 4 x 4 patches; two small MLPs and a codebook that a gradient trains make each patch one of 256
codes. Perplexity and usage are of the whole test set.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.data import prepare
from vqcore import CodeHistogram, Quantized, QuantizerConfig, VectorQuantizer

PATCH = 4
BATCH = 2048


class PatchAutoencoder(nn.Module):
    """Patches (N, 48) to codes and back."""

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        pixels = 3 * PATCH * PATCH
        self.encoder = nn.Sequential(nn.Linear(pixels, 128), nn.ReLU(), nn.Linear(128, config.dim))
        self.quantizer = VectorQuantizer(config)
        self.decoder = nn.Sequential(nn.Linear(config.dim, 128), nn.ReLU(), nn.Linear(128, pixels))

    def forward(self, patches: Tensor) -> tuple[Tensor, Quantized]:
        """The reconstruction, and what the layer returned."""
        quantized: Quantized = self.quantizer(self.encoder(patches))
        return self.decoder(quantized.quantized), quantized


def patches_of(images: np.ndarray) -> Tensor:
    """(N, H, W, 3) bytes as (N·H/4·W/4, 48) patches on [-1, 1]."""
    count, height, width, _ = images.shape
    blocks = torch.from_numpy(np.array(images)).float().mul_(2 / 255).sub_(1)
    blocks = blocks.view(count, height // PATCH, PATCH, width // PATCH, PATCH, 3).transpose(2, 3)
    return blocks.reshape(-1, 3 * PATCH * PATCH)


def forget_revived(layer: VectorQuantizer, optimizer: torch.optim.Optimizer) -> None:
    """Codes that were moved to other places start with new moments: the old ones are of where they were."""
    state = optimizer.state[layer.codes.weight]
    for name in ("exp_avg", "exp_avg_sq"):
        if name in state:  # not before the first step
            state[name][layer.codes.revived] = 0


@torch.no_grad()
def evaluate(model: PatchAutoencoder, patches: Tensor) -> tuple[float, CodeHistogram]:
    """Mean squared error and the codes used, over all ``patches``."""
    model.eval()
    histogram, squares = CodeHistogram(model.quantizer.config.codebook_size), 0.0
    for batch in torch.split(patches, BATCH):
        reconstruction, quantized = model(batch)
        squares += float((reconstruction - batch).square().sum())
        histogram.update(quantized.indices)
    model.train()
    return squares / patches.numel(), histogram


def main() -> None:
    """Train, and tell how it goes."""
    parser = argparse.ArgumentParser(description="Train a small autoencoder of image patches with vqcore's layer.")
    parser.add_argument("--epochs", type=int, default=4)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)
    data = prepare("cifar10-mini")
    train, test = patches_of(data.train()), patches_of(data.test())
    config = QuantizerConfig(codebook_size=256, dim=8, codebook="gradient", init="kmeans++", revive_below=0.05)
    model = PatchAutoencoder(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    print(
        f"{len(train):,} training and {len(test):,} test patches; {config.codebook_size} codes of {config.dim} numbers"
    )
    for epoch in range(1, epochs + 1):
        losses, revived = [], 0
        for batch in torch.split(train[torch.randperm(len(train))], BATCH):
            reconstruction, quantized = model(batch)
            loss = F.mse_loss(reconstruction, batch) + quantized.loss
            optimizer.zero_grad()
            loss.backward()
            forget_revived(model.quantizer, optimizer)
            optimizer.step()
            losses.append(loss.detach())
            revived += int(model.quantizer.codes.revived.sum())
        mse, codes = evaluate(model, test)
        mean = float(torch.stack(losses).mean())
        print(
            f"epoch {epoch}: loss {mean:.4f}, test MSE {mse:.4f}, perplexity {codes.perplexity:.1f}, "
            f"usage {codes.usage:.1%}, revived {revived}"
        )


if __name__ == "__main__":
    main()
