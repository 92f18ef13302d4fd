"""How close samples are to real images, in the autoencoder's own space: precision and recall.

Kynkäänniemi et al. 2019, section 2: an image lies within a set if it is nearer to one of its members than that one's
k-th nearest neighbour is. Precision is the share of samples within the real images, recall the share of real images
within the samples. The space is the encoder's output, not that of a network that was trained to recognise things: so it
tells whether samples have the textures and colours of the data, and not whether they show anything. Read the figures
beside those of other real images, the most that can be reached, and of samples without a prior.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainables.sources import Images
from vqcore.training import Images as Batches
from vqcore.vqvae import VQVAE

IMAGES = 2000
"""Of each set; of fewer, as many as the smaller set has."""

NEIGHBOURS = 3
"""k, as in the paper."""

_BATCH = 256


class Fidelity(NamedTuple):
    """Of a set of images beside real ones."""

    precision: float
    recall: float


@torch.no_grad()
def features(model: VQVAE, images: Images) -> Tensor:
    """The encoder's output for each image, flattened, (N, F)."""
    batches = Batches(images, torch.device("cpu"))
    parts = [model.latents(batches.batch(slice(start, start + _BATCH))) for start in range(0, len(images), _BATCH)]
    return torch.cat(parts).flatten(1)


def fidelity(real_NF: Tensor, other_MF: Tensor) -> Fidelity:
    """Precision and recall of ``other_MF`` (M, F) beside ``real_NF`` (N, F).

    ``ValueError`` for ``NEIGHBOURS`` images or fewer.
    """
    if min(len(real_NF), len(other_MF)) <= NEIGHBOURS:
        raise ValueError(f"{len(real_NF)} and {len(other_MF)} images: more than {NEIGHBOURS} of each are needed")
    return Fidelity(_within(other_MF, real_NF), _within(real_NF, other_MF))


def _within(points_NF: Tensor, members_MF: Tensor) -> float:
    """The share of points that lie within a set."""
    radius_M = torch.cdist(members_MF, members_MF).kthvalue(NEIGHBOURS + 1, 1).values  # the nearest is itself
    return float((torch.cdist(points_NF, members_MF) <= radius_M).any(1).double().mean())


def spread(images: Images, count: int) -> Images:
    """``count`` of the images, spread evenly over the set."""
    return np.array(images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)])
