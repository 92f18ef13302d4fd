"""What an estimator does to one point: gradient descent in two dimensions, through the layer itself.

    python -m examples.trajectories        # draws docs/figures/trajectories.png

A point z is replaced by its nearest code q and pays ‖q − t‖² for a target t. Within the cell of a code that loss is
constant: all that z learns of it is what an estimator passes on. Points start on a ring, the codes stand still, and z
alone moves, on that loss and on the layer's own (commitment). After the paths that Huh et al. 2023 draw for the
straight-through estimator.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from vqcore import QuantizerConfig, VectorQuantizer

ESTIMATORS = ("ste", "rotation", "rotation_unscaled", "reflection", "gumbel")
TARGET = (0.85, 1.15)
TARGETS = 100
"""So many targets besides the one that is drawn: one alone proves nothing."""
STEPS = 600
LAST = 100
"""So many steps make the end: at the border of two cells a point goes back and forth."""
RATE = 0.01
BETA = 0.25
STARTS = 12
RADIUS = 2.3
LIMIT = 2.75
"""Half the side of a panel."""
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "trajectories.png"

_BLUE, _RED, _GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito 2008


@dataclass(frozen=True)
class Paths:
    """Where the points went under one estimator."""

    z: Tensor
    """(steps + 1, points, 2): each point on its way to ``TARGET``."""
    loss: float
    """Mean of ‖q − t‖² over these points and the last ``LAST`` steps, q the code nearest to each."""
    excess: float
    """The same over all other targets, less what the best code of each pays."""


def codes() -> Tensor:
    """A jittered grid about the origin: cells of about one size."""
    side = torch.linspace(-2.2, 2.2, 5)
    grid_K2 = torch.cartesian_prod(side, side)
    jitter_K2 = torch.rand(grid_K2.shape, generator=torch.Generator().manual_seed(4)) - 0.5
    return grid_K2 + 0.75 * jitter_K2


def starts() -> Tensor:
    """Points at equal distances on a ring about the origin."""
    angle_N = 2 * math.pi * (torch.arange(STARTS) + 0.35) / STARTS
    return RADIUS * torch.stack([angle_N.cos(), angle_N.sin()], dim=1)


def targets() -> Tensor:
    """``TARGET``, then others, uniform on [-1.5, 1.5]²."""
    others_T2 = 3 * torch.rand(TARGETS, 2, generator=torch.Generator().manual_seed(0)) - 1.5
    return torch.cat([torch.tensor([TARGET]), others_T2])


def layer_of(estimator: str) -> VectorQuantizer:
    """The layer with ``codes``, which stand still."""
    codes_K2 = codes()
    config = QuantizerConfig(codebook_size=len(codes_K2), dim=2, estimator=estimator, commitment_weight=BETA)
    layer = VectorQuantizer(config)
    with torch.no_grad():
        layer.codes.weight.copy_(codes_K2)
    layer.freeze()
    return layer


def follow(estimator: str, steps: int = STEPS) -> Paths:
    """Gradient descent of every start towards every target, in training mode: gumbel draws its codes."""
    torch.manual_seed(0)
    layer, target_T12 = layer_of(estimator), targets().unsqueeze(1)
    z_TN2 = starts().repeat(len(target_T12), 1, 1).requires_grad_()
    path, at_end = [z_TN2[0].detach().clone()], torch.zeros(len(target_T12))
    last = min(LAST, steps)
    for step in range(steps):
        out = layer(z_TN2, channel_dim=-1)
        # the layer's loss is a mean over all numbers; here every point counts for itself, as if it were alone
        loss = (out.quantized - target_T12).square().sum() + z_TN2.numel() * out.loss
        (gradient_TN2,) = torch.autograd.grad(loss, z_TN2)
        with torch.no_grad():
            z_TN2 -= RATE * gradient_TN2
            if step >= steps - last:
                nearest_TN2 = layer.eval()(z_TN2, channel_dim=-1).quantized
                at_end += (nearest_TN2 - target_T12).square().sum(-1).mean(-1) / last
                layer.train()
        path.append(z_TN2[0].detach().clone())
    return Paths(torch.stack(path), float(at_end[0]), float((at_end - best_losses())[1:].mean()))


def best_losses() -> Tensor:
    """What the code nearest to each target pays; no code pays less."""
    return (codes() - targets().unsqueeze(1)).square().sum(-1).amin(-1)


def draw(every: Mapping[str, Paths]) -> Figure:
    """A panel an estimator, all with the same axes, and the legend where the next would be."""
    columns = 3
    rows = math.ceil((len(every) + 1) / columns)
    figure = Figure(figsize=(3.3 * columns, 3.8 * rows), layout="compressed")
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True).flat)
    for axes, (name, paths) in zip(panels, every.items(), strict=False):
        _ground(axes)
        _paths(axes, paths)
        axes.set_title(name, loc="left", size=11, weight="bold", pad=30)
        caption = f"task loss at the end {paths.loss:.2f}\nover {TARGETS} targets {paths.excess:.2f} above the best"
        axes.text(0, 1.025, caption, transform=axes.transAxes, size=9, color="0.35", linespacing=1.3)
    for axes in panels[len(every) :]:
        axes.set_axis_off()
    _legend(panels[len(every)])
    return figure


def _ground(axes: Axes) -> None:
    """The cells of the codes, faint; the codes, the origin, the target."""
    side = np.linspace(-LIMIT, LIMIT, 700)
    across, up = np.meshgrid(side, side)
    points = torch.from_numpy(np.stack([across.ravel(), up.ravel()], axis=1)).float()
    with torch.no_grad():
        cells = layer_of("ste").eval()(points).indices.numpy().reshape(across.shape)
    edges = np.zeros(cells.shape, dtype=bool)
    edges[1:] |= cells[1:] != cells[:-1]
    edges[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    shade = np.where(edges[..., None], [0.75, 0.75, 0.75, 1.0], [1.0, 1.0, 1.0, 0.0])
    axes.imshow(shade, extent=(-LIMIT, LIMIT, -LIMIT, LIMIT), origin="lower", interpolation="antialiased", zorder=0)
    codes_K2 = codes().numpy()
    axes.scatter(codes_K2[:, 0], codes_K2[:, 1], s=9, color="0.45", linewidths=0, zorder=1)
    axes.plot(0, 0, "+", ms=9, mew=1.2, color="black", zorder=5)
    axes.plot(*TARGET, "*", ms=12, mec="white", mew=0.8, color=_GREEN, zorder=8)
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    axes.tick_params(labelsize=8, color="0.6", labelcolor="0.35", length=2.5)
    axes.spines[:].set_color("0.8")


def _paths(axes: Axes, paths: Paths) -> None:
    lines_NS2 = paths.z.transpose(0, 1).numpy()
    axes.add_collection(LineCollection(list(lines_NS2), colors=_BLUE, linewidths=1.1, alpha=0.75, zorder=3))
    first, last = lines_NS2[:, 0], lines_NS2[:, -1]
    axes.scatter(first[:, 0], first[:, 1], s=26, facecolors="white", edgecolors=_BLUE, linewidths=1.2, zorder=4)
    axes.scatter(last[:, 0], last[:, 1], s=34, facecolors=_RED, edgecolors="white", linewidths=0.8, zorder=7)


def _legend(axes: Axes) -> None:
    handles = {
        "start": Line2D([], [], ls="", marker="o", ms=6, mfc="white", mec=_BLUE),
        "path of z": Line2D([], [], color=_BLUE, lw=1.2),
        "end": Line2D([], [], ls="", marker="o", ms=6.5, mfc=_RED, mec="white"),
        "target t": Line2D([], [], ls="", marker="*", ms=12, mfc=_GREEN, mec="white"),
        "a code, and its cell": Line2D([], [], marker=".", ms=6, color="0.75", mec="0.45", mfc="0.45", lw=0.8),
        "origin": Line2D([], [], ls="", marker="+", ms=8, color="black"),
    }
    axes.legend(handles.values(), handles.keys(), loc="upper left", frameon=False, fontsize=9, labelspacing=0.7)
    best = float(best_losses()[0])
    caption = (
        f"Task loss ‖q − t‖², mean over points and\nthe last {LAST} steps; no code has less than {best:.2f}.\n"
        f"{STEPS} steps of gradient descent at {RATE},\ncommitment weight {BETA}. The codes stand still."
    )
    axes.text(0.04, 0.03, caption, transform=axes.transAxes, size=8.5, color="0.35", va="bottom", linespacing=1.4)


def main() -> None:
    """Draw the picture and tell the losses."""
    parser = argparse.ArgumentParser(description="Draw what each estimator does to one point.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the PNG to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="of gradient descent")
    arguments = parser.parse_args()
    every = {name: follow(name, arguments.steps) for name in ESTIMATORS}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    draw(every).savefig(arguments.out, dpi=160)
    for name, paths in every.items():
        print(f"{name:18} task loss {paths.loss:.2f}, over {TARGETS} targets {paths.excess:.2f} above the best")
    print(arguments.out)


if __name__ == "__main__":
    main()
