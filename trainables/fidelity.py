"""How close samples are to real images, in the autoencoder's own space: precision, recall and coverage.

An image lies within a set if it is nearer to one of its members than that one's k-th nearest neighbour is. Precision is
the share of samples within the real images, recall the share of real images within the samples (Kynkäänniemi et al.
2019, section 2); coverage is the share of real images that have a sample within their own neighbourhood, which a few
outliers among the samples cannot raise as they raise recall (Naeem et al. 2020, section 3).

The space is the encoder's output, averaged over squares of 2 x 2, and not that of a network that learned to recognise
things: the figures tell whether samples have colours, textures and coarse layout of the data, and not whether they show
anything. They are read beside those of other real images, as good as samples can be, of reconstructions, and of codes
that were drawn without regard to their neighbours.
"""

from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.sources import Images
from vqcore.training import Images as Batches
from vqcore.vqvae import VQVAE

T = TypeVar("T", bound=np.generic)

IMAGES = 2000
"""Of each set; of fewer, as many as the smaller set has."""

NEIGHBOURS = 3
"""k, as in Kynkäänniemi et al. 2019."""

_BATCH = 256


class Fidelity(NamedTuple):
    """Of a set of images beside real ones, each a share."""

    precision: float
    recall: float
    coverage: float


@torch.no_grad()
def features(model: VQVAE, images: Images) -> Tensor:
    """The encoder's output for each image, averaged over squares of 2 x 2 where it is as large, flattened: (N, F)."""
    batches, parts = Batches(images, torch.device("cpu")), []
    for start in range(0, len(images), _BATCH):
        latents = model.latents(batches.batch(slice(start, start + _BATCH)))
        parts.append(F.avg_pool2d(latents, 2) if min(latents.shape[-2:]) > 1 else latents)
    return torch.cat(parts).flatten(1)


def fidelity(real_NF: Tensor, other_MF: Tensor) -> Fidelity:
    """Of ``other_MF`` (M, F) beside ``real_NF`` (N, F). ``ValueError`` for ``NEIGHBOURS`` images or fewer."""
    if min(len(real_NF), len(other_MF)) <= NEIGHBOURS:
        raise ValueError(f"{len(real_NF)} and {len(other_MF)} images: more than {NEIGHBOURS} of each are needed")
    distance_NM = torch.cdist(real_NF, other_MF)
    within_real, within_other = distance_NM <= _radius(real_NF).unsqueeze(1), distance_NM <= _radius(other_MF)
    shares = within_real.any(0), within_other.any(1), within_real.any(1)
    return Fidelity(*(float(share.double().mean()) for share in shares))


def _radius(members_NF: Tensor) -> Tensor:
    """The distance of each member to its k-th nearest other, (N,)."""
    return torch.cdist(members_NF, members_NF).kthvalue(NEIGHBOURS + 1, 1).values  # the nearest is itself


def spread(images: npt.NDArray[T], count: int) -> npt.NDArray[T]:
    """``count`` of the images, or of what stands for each, spread evenly over the set."""
    return np.array(images[np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)])
