"""Codes as features: what a linear probe and the nearest neighbours tell of an image's class from its codes.

    python -m trainables.probe MODEL [--data SOURCE]

Beside the codes' vectors stand what they were made of, the encoder's outputs, so that the difference is what quantizing
costs; which codes an image has, without where; its pixels, a baseline that needs no model; and the commonest class.

It tells how much of the class lies open in a representation, to a classifier that is linear or local, and no more. It
does not tell what a network trained on the codes could reach: accuracies of quantized networks that were trained to
classify (Huh et al. 2023) are another thing. Nor does it rank models: one that reconstructs better may show less of the
class. The interval is over test images; another seed of the model moves the figure as well, so compare several. The
model has seen the training images, never their labels.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from trainables.classifiers import Accuracy, Features, linear_probe, majority, nearest_neighbours
from trainables.commands import Terminal, duration, exit_code
from trainables.data import DataSet
from trainables.device import memory, open_device
from trainables.encode import Codes, Progress, codes, progress_lines
from trainables.flags import ModelFlags
from trainables.interruption import leave
from trainables.labels import Labels, required_labels
from trainables.models import TrainedModel, find_model
from trainables.storage import replace_file, size
from vqcore.config import ModelConfig
from vqcore.errors import ConfigError
from vqcore.registry import ARCHITECTURES
from vqcore.training import EVALUATION_BATCH, Images
from vqcore.vqvae import VQVAE

SEED = 0
"""Of the order of the training images, whose last tenth chooses the settings."""
MOST_VALIDATION = 5000
"""Images that choose the settings."""

OUTPUT = "probe.json"
"""The file with the figures, beside the model."""

CLASSIFIERS: dict[str, Callable[[Features], Accuracy]] = {
    "linear probe": linear_probe,
    "nearest neighbours": nearest_neighbours,
}


@dataclass(frozen=True)
class Representation:
    """What is known of an image, as numbers."""

    name: str
    numbers: int
    """Of an image."""
    of: Callable[[str, Tensor], Tensor]
    """Split and (B,) numbers of images to (B, ``numbers``) fp32, on whatever device."""


def widths(config: ModelConfig, image_size: int) -> dict[str, int]:
    """How many numbers an image is in each representation, from the pixels to the histogram of codes."""
    side = image_size // ARCHITECTURES[config.architecture].downsampling
    places = side**2 * config.quantizer.dim
    own = {"pixels": 3 * image_size**2, "latents": places, "codes": places}
    return {**own, "histogram of codes": config.quantizer.codebook_size}


def representations(network: VQVAE, data: DataSet, made: Codes, device: torch.device) -> list[Representation]:
    """Those that are compared, by a network that is on ``device``."""
    layer = network.quantizer
    images = {"train": Images(data.train(), device), "test": Images(data.test(), device)}
    indices = {"train": made.train(), "test": made.test()}

    def index(split: str, rows: Tensor) -> Tensor:
        return torch.from_numpy(indices[split][rows.numpy()].astype(np.int64)).to(device)

    def pixels(split: str, rows: Tensor) -> Tensor:
        return images[split].batch(rows).flatten(1)

    def latents(split: str, rows: Tensor) -> Tensor:
        """As they are compared with the codes: normalised or bounded where the layer does so."""
        vectors: Tensor = layer.vectors(network.latents(images[split].batch(rows)))
        return vectors.view(len(rows), -1)

    def vectors(split: str, rows: Tensor) -> Tensor:
        codes: Tensor = layer.decode(index(split, rows))
        return codes.flatten(1)

    def histogram(split: str, rows: Tensor) -> Tensor:
        """Square roots of the codes' shares: their Euclidean distance is Hellinger's."""
        found = index(split, rows).flatten(1)
        counts = torch.zeros(len(rows), made.codebook_size, device=device)
        return counts.scatter_add_(1, found, torch.ones_like(found, dtype=torch.float32)).div_(found.shape[1]).sqrt_()

    numbers = widths(network.config, data.image_size)
    ways = (pixels, latents, vectors, histogram)
    return [Representation(name, numbers[name], way) for name, way in zip(numbers, ways, strict=True)]


@torch.no_grad()
def features(one: Representation, labels: Labels, device: torch.device, show: Progress) -> Features:
    """Of all images: the training images in random order, both splits about the training images' mean."""
    order = torch.randperm(len(labels.train), generator=torch.Generator().manual_seed(SEED))
    splits = {"train": order, "test": torch.arange(len(labels.test))}
    total, done = sum(map(len, splits.values())), 0
    filled: dict[str, Tensor] = {}
    show(0, total)
    for split, rows in splits.items():
        filled[split] = torch.empty(len(rows), one.numbers, device=device)
        for start in range(0, len(rows), EVALUATION_BATCH):
            batch = rows[start : start + EVALUATION_BATCH]
            filled[split][start : start + len(batch)] = one.of(split, batch)
            done += len(batch)
            show(done, total)
    mean = filled["train"].mean(0)
    for tensor in filled.values():
        tensor -= mean
    classes = [torch.from_numpy(labels.train)[order].to(device), torch.from_numpy(labels.test).to(device)]
    tensors = (filled["train"], classes[0], filled["test"], classes[1])
    return Features(*tensors, _validation(len(order)), len(labels.classes))


def probe(model: TrainedModel, data: DataSet, device: torch.device, console: Console) -> dict[str, Any]:
    """The figures of every representation and classifier, as ``probe.json`` has them; a line on the screen for each.

    ``ConfigError`` without labels, or if the machine has not the memory.
    """
    labels, network = required_labels(data), model.load().to(device)
    widest = max(widths(network.config, data.image_size).values())
    _check_memory(widest * 4 * (data.train_images + data.test_images), device)
    made = codes(model, data, device, progress_lines(console, "codes"))
    compared = representations(network, data, made, device)
    results = [row for one in compared for row in _accuracies(one, labels, device, console)]
    common = majority(torch.from_numpy(labels.train), torch.from_numpy(labels.test))
    return {
        "model": model.hash,
        "data": {"source": data.source, "hash": data.hash, "train_images": data.train_images},
        "test_images": data.test_images,
        "validation_images": _validation(data.train_images),
        "classes": len(labels.classes),
        "seed": SEED,
        "torch": torch.__version__,
        "results": [*results, {"features": "none", "numbers": 0, "classifier": "majority", **asdict(common)}],
    }


def _accuracies(
    one: Representation, labels: Labels, device: torch.device, console: Console
) -> Iterator[dict[str, Any]]:
    """Of each classifier. The features are let go before those of another representation are made."""
    seen = features(one, labels, device, progress_lines(console, one.name))
    for name, classify in CLASSIFIERS.items():
        started = time.monotonic()
        accuracy, facts = classify(seen), {"features": one.name, "numbers": one.numbers, "classifier": name}
        row = {**facts, **asdict(accuracy), "seconds": round(time.monotonic() - started, 1)}
        console.print(f"{one.name}, {name}: {_cell(row)} %; {row['seconds']:.0f} s")
        yield row


def _validation(images: int) -> int:
    return max(1, min(MOST_VALIDATION, images // 10))


def table(results: list[dict[str, Any]]) -> Table:
    """For the terminal: a row a representation, a column a classifier."""
    shown = Table("features", title="Test accuracy in % (95 % interval)", title_justify="left")
    for name in ("numbers", *CLASSIFIERS):
        shown.add_column(name, justify="right")
    by = {(row["features"], row["classifier"]): row for row in results}
    for name in dict.fromkeys(row["features"] for row in results if row["numbers"]):
        rows = [by[name, classifier] for classifier in CLASSIFIERS]
        shown.add_row(name, f"{rows[0]['numbers']:,}", *map(_cell, rows))
    common = _cell(by["none", "majority"])
    shown.add_row("commonest class", "0", common, common)
    return shown


def _cell(row: dict[str, Any]) -> str:
    test, low, high = (100 * row[name] for name in ("test", "low", "high"))
    return f"{test:.1f} ({low:.1f} to {high:.1f})"


def _check_memory(needed: int, device: torch.device) -> None:
    """``ConfigError`` if features of so many bytes, and a third as much to work in, are more than the machine has."""
    if needed * 4 // 3 > (have := memory(device)):
        what = f"the features of all images need {size(needed * 4 // 3)} of memory, this machine has {size(have)}"
        raise ConfigError([f"{what}; name a smaller data set with --data"])


@dataclass(frozen=True)
class Probe(ModelFlags):
    """Tell how much of an image's class lies open in its codes."""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code: 0, 2 for what was given wrong, 130 after Ctrl-C, which keeps the codes alone."""
    flags = tyro.cli(Probe, prog="python -m trainables.probe", args=arguments)
    return exit_code(lambda: _run(flags), "; the same command begins again, with the codes that are there")


def _run(flags: Probe) -> None:
    console, started = Terminal(), time.monotonic()
    device = open_device(flags.num_cpus, flags.num_gpus)
    model = find_model(flags.model, flags.out)
    figures = probe(model, model.data(flags.data), device, console)
    path = model.folder / OUTPUT
    replace_file(path, (json.dumps(figures, indent=1) + "\n").encode())
    console.print(table(figures["results"]))
    console.print(Text(f"{path}; took {duration(time.monotonic() - started)}"), soft_wrap=True)


if __name__ == "__main__":
    leave(main())
