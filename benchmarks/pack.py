"""python -m benchmarks.pack: many models trained as one, beside the same models trained one after another.

Whole epochs of the compact model on real images, told as how many times as fast. ``networks`` are encoders and
decoders alone, in the two ways to make one network of many: ``torch.func.vmap`` over stacked parameters, which
``vqcore.pack`` takes, and grouped convolutions written out. Rows in turn; on the CPU process time of one thread, on a
GPU the wall time of a synchronised epoch.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tyro.conf import OmitArgPrefixes

from benchmarks.record import circumstances, write
from trainables.commands import run_command
from trainables.data import prepare
from vqcore.config import PRESETS, ConfigError, Precision, Preset, TrainingConfig, TrialConfig
from vqcore.networks import ResidualBlock
from vqcore.pack import Member, Pack
from vqcore.stacked import Stacked
from vqcore.training import Images

Work = Callable[[], object]


@dataclass(frozen=True)
class PackBenchmark:
    """Measure packs of models beside models that train one after another."""

    members: tuple[int, ...] = (4, 16)
    """Models in a pack, each."""
    preset: Preset = "compact"
    """The model."""
    batch_size: int = 128
    """Images of a step of each member."""
    precision: Precision = "fp32"
    """Of the networks."""
    steps: int = 4
    """Of an epoch."""
    repeats: int = 3
    """Epochs of each row; medians count."""
    out: Path = Path("benchmarks/results/pack.json")
    """The JSON file to write."""


def grouped(network: nn.Module, parameters: dict[str, Tensor], x: Tensor, members: int, prefix: str = "") -> Tensor:
    """The forward pass of ``members`` networks with stacked ``parameters`` as grouped convolutions.

    ``x``: (B, M C, H, W), the members' channels side by side. Of the architecture ``residual`` alone.
    """
    if isinstance(network, ResidualBlock):
        return F.relu(x + grouped(network.layers, parameters, x, members, f"{prefix}layers."))
    if isinstance(network, nn.Sequential):
        for name, part in network.named_children():
            x = grouped(part, parameters, x, members, f"{prefix}{name}.")
        return x
    if isinstance(network, nn.Conv2d | nn.ConvTranspose2d):
        weight, bias = (parameters[f"{prefix}{name}"].flatten(0, 1) for name in ("weight", "bias"))
        convolve = F.conv_transpose2d if isinstance(network, nn.ConvTranspose2d) else F.conv2d
        return convolve(x, weight, bias, network.stride, network.padding, groups=members)  # type: ignore[arg-type]
    y: Tensor = network(x)
    return y


def network_rows(trial: TrialConfig, members: int, device: torch.device) -> dict[str, Work]:
    """Forward and backward of encoder and decoder, of as many models."""
    models = [Member(trial.replace(seed=seed), device).model for seed in range(members)]
    images = torch.rand(members, trial.training.batch_size, 3, 32, 32, device=device)

    def one_after_another() -> None:
        for model, own in zip(models, images, strict=True):
            torch.autograd.backward(model.decoder(model.encoder(own)).square().mean())

    parts = [[model.encoder for model in models], [model.decoder for model in models]]
    apart = [Stacked(networks) for networks in parts]

    def stacked() -> None:
        torch.autograd.backward(apart[1](apart[0](images)).square().mean())

    def written_out() -> None:
        x = images.transpose(0, 1).flatten(1, 2)
        for networks, one in zip(parts, apart, strict=True):
            x = grouped(networks[0], one.parameters, x, members)
        torch.autograd.backward(x.square().mean())

    return {"networks: one after another": one_after_another, "vmap": stacked, "grouped": written_out}


def trial_rows(trial: TrialConfig, members: int, images: Images, device: torch.device) -> dict[str, Work]:
    """An epoch of as many trials, with their quantizers and optimisers."""
    alone, together = ([Member(trial.replace(seed=seed), device) for seed in range(members)] for _ in range(2))
    pack = Pack()
    return {
        "trials: one after another": lambda: [member.train_epoch(images) for member in alone],
        "as one": lambda: pack.train_epoch(together, images),
    }


def seconds(work: Work, device: torch.device) -> float:
    """That ``work`` takes: of the process on the CPU, by the clock on a GPU."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def measure(rows: dict[str, Work], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each row, the rows in turn; the first turn warms."""
    found: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(-1, repeats):
        for name in list(rows)[:: 1 if repeat % 2 == 0 else -1]:
            took = seconds(rows[name], device)
            found[name] += [round(took, 4)] if repeat >= 0 else []
    return found


def speedups(found: dict[str, list[float]]) -> dict[str, float]:
    """Of each row, how many times as fast as the models one after another: medians of the turns' ratios."""
    first, *others = found
    return {name: round(median(a / b for a, b in zip(found[first], found[name], strict=True)), 3) for name in others}


def check(benchmark: PackBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    problems = [f"members = {members}: a pack has at least 2" for members in benchmark.members if members < 2]
    if min(benchmark.repeats, benchmark.steps) < 1:
        problems.append(f"repeats = {benchmark.repeats}, steps = {benchmark.steps}: must be at least 1")
    if problems:
        raise ConfigError(problems)


def main(benchmark: OmitArgPrefixes[PackBenchmark]) -> None:
    """Measure packs of models beside models that train one after another."""
    check(benchmark)
    facts = circumstances(asdict(benchmark))
    console, device = Console(highlight=False), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    training = TrainingConfig(batch_size=benchmark.batch_size, precision=benchmark.precision)
    trial = TrialConfig(PRESETS[benchmark.preset], training)
    images = Images(prepare("cifar10-mini").train()[: benchmark.steps * benchmark.batch_size], device)
    results: dict[str, Any] = {}
    table = Table("members", "networks: vmap", "networks: grouped", "trials as one", title="Times as fast as in turn")
    for members in benchmark.members:
        networks = measure(network_rows(trial, members, device), benchmark.repeats, device)
        trials = measure(trial_rows(trial, members, images, device), benchmark.repeats, device)
        told = speedups(networks) | speedups(trials)
        table.add_row(str(members), *(f"{told[name]:.2f}" for name in ("vmap", "grouped", "as one")))
        results[str(members)] = {"times_as_fast": told, "seconds": networks | trials}
    console.print(table)
    kind = torch.cuda.get_device_name() if device.type == "cuda" else "cpu, one thread"
    write(benchmark.out, {"device": kind, "members": results, **facts})


if __name__ == "__main__":
    run_command(main)
