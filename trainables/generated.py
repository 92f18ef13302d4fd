"""Pictures that a model makes with a prior: samples, completions of half an image, and interpolations without one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from trainables.sources import Images
from vqcore.prior import UNKNOWN, Prior
from vqcore.training import Images as Batches
from vqcore.training import pixels
from vqcore.vqvae import VQVAE

ACROSS = 8
"""Images side by side."""

SAMPLES, SHOWN, COMPLETIONS = 64, 8, 4
"""Samples on a page; test images that are completed, and pairs that are interpolated; completions of each."""

_BATCH = 256
_GAP = 2
"""White pixels between images."""


def sample_codes(prior: Prior, count: int, labels: Tensor | None = None, seed: int = 0, **how: float | int) -> Tensor:
    """``count`` grids (B, rows, columns), a batch at a time, so that memory does not grow with them.

    The first batch is what ``Prior.sample`` gives for ``seed``, the others are no other seed's; ``how`` as it has it.
    """
    starts, parts = range(0, count, _BATCH), []
    # torch's generator on the CPU reads the lower 32 bits of a seed alone
    seeds = [seed, *np.random.SeedSequence(seed).generate_state(len(starts)).tolist()]
    for start, own_seed in zip(starts, seeds, strict=False):
        size = min(_BATCH, count - start)
        own = None if labels is None else labels[start : start + size]
        parts.append(prior.sample(size, own, seed=own_seed, **how))  # type: ignore[arg-type]
    return torch.cat(parts)


@torch.no_grad()
def decoded(model: VQVAE, codes: Tensor) -> Images:
    """The images of codes (B, rows, columns), as bytes (B, H, W, 3)."""
    parts = [pixels(model.decode(part)).cpu().numpy() for part in torch.split(codes, _BATCH)]
    return np.concatenate(parts)


@torch.no_grad()
def encoded(model: VQVAE, images: Images) -> Tensor:
    """The codes (B, rows, columns) of images (B, H, W, 3)."""
    batches = Batches(images, torch.device("cpu"))
    starts = range(0, len(images), _BATCH)
    return torch.cat([model.encode(batches.batch(slice(start, start + _BATCH))) for start in starts])


def round_robin(count: int, classes: int) -> Tensor | None:
    """A class for each of ``count`` images, in rows of ``ACROSS``; None for a prior without classes."""
    return torch.arange(count) // ACROSS % classes if classes else None


def samples(model: VQVAE, prior: Prior, seed: int = 0, count: int = SAMPLES) -> Image.Image:
    """``count`` samples at temperature 1; with classes a row for each class in turn."""
    codes = sample_codes(prior, count, round_robin(count, prior.config.classes), seed)
    return grid(decoded(model, codes), ACROSS)


@torch.no_grad()
def completions(model: VQVAE, prior: Prior, images: Images, labels: Tensor | None, seed: int = 0) -> Image.Image:
    """Rows: images, their reconstructions, the upper half of their codes alone, and completions of it."""
    codes = model.encode(_batch(images))
    upper = codes.clone()
    upper[:, codes.shape[1] // 2 :] = UNKNOWN
    shown = decoded(model, codes)
    given = shown.copy()
    given[:, given.shape[1] // 2 :] = 255
    rows = [images, shown, given]
    for number in range(COMPLETIONS):
        rows.append(decoded(model, prior.sample(len(images), labels, seed=seed + number, known=upper)))
    return grid(np.concatenate(rows), len(images))


@torch.no_grad()
def interpolations(model: VQVAE, images: Images) -> Image.Image:
    """A row for each pair of neighbours among the images, from one to the other: outputs of the encoder are mixed and
    then quantized. It shows what the codes between two images are, and needs no prior."""
    latents = model.latents(_batch(images))
    first, second = latents[0::2], latents[1::2]
    shares = torch.linspace(0, 1, ACROSS).view(-1, 1, 1, 1, 1)
    mixed = first + shares * (second - first)
    codes = torch.stack([model.quantizer(part).indices for part in mixed], 1)
    return grid(decoded(model, codes.flatten(0, 1)), ACROSS)


def write_pictures(
    folder: Path, model: VQVAE, prior: Prior, test: Images, labels: npt.NDArray[np.int64] | None, seed: int = 0
) -> Sequence[Path]:
    """``samples.png``, ``completions.png`` and ``interpolations.png``, the same for the same arguments; their paths.

    The images are spread evenly over the test set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, len(test) - 1, min(SHOWN, len(test))).astype(int)
    pairs = np.linspace(0, len(test) - 1, min(2 * SHOWN, len(test) // 2 * 2)).astype(int)
    own = None if labels is None else torch.from_numpy(labels[chosen])
    pictures = {
        "samples": samples(model, prior, seed),
        "completions": completions(model, prior, np.array(test[chosen]), own, seed),
        "interpolations": interpolations(model, np.array(test[pairs])),
    }
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in pictures]


def grid(images: Images, across: int, scale: int | None = None) -> Image.Image:
    """Images in rows of ``across``, enlarged by whole pixels to a page that can be looked at."""
    count, height, width, _ = images.shape
    down = -(-count // across)
    page = np.full((down * (height + _GAP) - _GAP, across * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // across * (height + _GAP), number % across * (width + _GAP)
        page[top : top + height, left : left + width] = image
    picture = Image.fromarray(page)
    scale = scale or max(1, 640 // picture.width)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _batch(images: Images) -> Tensor:
    return Batches(images, torch.device("cpu")).batch(slice(0, len(images)))
