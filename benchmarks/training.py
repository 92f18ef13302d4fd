"""python -m benchmarks.training: a trial's training step as a share of what its networks and this machine allow.

Beside ``Trainer.train_epoch`` stand the same networks without a quantizer (forward, squared error, backward, Adam, and
nothing else), their convolutions one by one, a product of matrices, a copy of memory, and the same networks with
vector-quantize-pytorch as one writes it. Real images; one thread and process CPU time on the CPU; rows in turn, medians
of the ratios within a repeat. ``--profile`` also says where the time of a step goes (``benchmarks/step_profile.py``).
On a GPU, where it has not run yet, ours is one CUDA graph a step, beside our own eager and compiled steps.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import OmitArgPrefixes

from benchmarks.bare import Network
from benchmarks.peer_model import PeerVQVAE
from benchmarks.record import circumstances, write
from benchmarks.step_limits import Step, convolutions, matrices, memory, work
from benchmarks.step_profile import parts_of_a_step
from trainables.commands import run_command
from trainables.data import prepare
from trainables.device import prepare_process
from vqcore.config import PRESETS, ConfigError, TrialConfig, problems_of
from vqcore.training import Images, Trainer

PEER = "vector-quantize-pytorch"
AT_LEAST = 0.85
"""Of the networks without a quantizer."""
CASES = ("compact/32", "compact/128", "compact/256", "paper/32")
PRECISIONS = ("fp32", "bf16")
FULL_SET = Path("data/cifar10")
PAPER_SHARE = 4
"""A repeat trains the paper's model, whose images take nine times as long, on this part of the images."""

OURS, NETWORKS, ALONE, MATRICES, MEMORY = "ours", "networks", "convolutions", "matrices", "memory"


@dataclass(frozen=True)
class TrainingBenchmark:
    """Measure a trial's training step beside its networks, the machine's limits and a peer."""

    cases: tuple[str, ...] = CASES
    """Presets and batch sizes."""
    images: int = 256
    """Images that a repeat trains on; one batch at least, and of the paper's model a quarter."""
    repeats: int = 7
    """Of each row; medians of the ratios count."""
    data: str = str(FULL_SET) if FULL_SET.exists() else "cifar10-mini"
    """Data set, as for a sweep."""
    profile: bool = False
    """Also where the time of a step goes."""
    out: Path = Path("benchmarks/results/training.json")
    """The JSON file to write."""


class Measured(TypedDict):
    """A preset at a batch size, in one precision."""

    images_per_s: float
    of_networks: float
    """Our images/s over those of the networks without a quantizer, and so on."""
    of_convolutions: float
    of_matrices: float
    of_memory: float
    beside_peer: dict[str, float]
    """Our images/s over the peer's, by the peer's precision."""
    beside_others: dict[str, float]
    """And over those of the rows that a GPU has besides."""
    gflops_a_step: float
    megabytes_a_step: float
    each_ms: dict[str, list[float]]
    """A step of each row, in every repeat."""


def config_of(case: str) -> TrialConfig:
    """``ConfigError`` if ``case`` is not a preset and a batch size."""
    name, _, batch = case.partition("/")
    with suppress(ValueError):
        if name in PRESETS and int(batch) > 0:
            return TrialConfig(PRESETS[name]).replace(batch_size=int(batch))
    raise ConfigError([f"cases: {case!r} is not a preset and a batch size, such as {CASES[0]}"])


def ours(config: TrialConfig, images: Images) -> Step:
    return partial(Trainer(config, images.device).train_epoch, images)


def eager(config: TrialConfig, images: Images, compiled: bool = False) -> Step:
    """Ours without a graph."""
    trainer = Trainer(config, images.device, graphed=False)
    for network in (trainer.model.encoder, trainer.model.decoder) if compiled else ():
        network.compile(dynamic=False)
    return partial(trainer.train_epoch, images)


def networks(config: TrialConfig, images: Images, channels_last: bool = True) -> Step:
    """Nothing but the least: the floor. In the layout that ours has, unless channels come first everywhere."""
    network, ready = Network(config, images.device), batches(config, images)
    if not channels_last:
        network.model.to(memory_format=torch.contiguous_format)
        ready = [batch.contiguous() for batch in ready]
    return over(ready, network.step)


def peer(config: TrialConfig, images: Images) -> Step:
    """A typical loop, as in ``benchmarks/peer_sweep.py``; its batches are ready, which is to its favour."""
    codes = config.model.quantizer
    model = PeerVQVAE(config.model, codes.commitment_weight, codes.decay).to(images.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)

    def step(batch: Tensor) -> None:
        with autocast(config, batch):
            reconstruction, _, commitment_loss = model(batch)
            loss = F.mse_loss(reconstruction, batch) + commitment_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return over([batch.contiguous() for batch in batches(config, images)], step)


ON_A_GPU: dict[str, Callable[[TrialConfig, Images], Step]] = {
    "ours, eager": eager,
    "ours, compiled": partial(eager, compiled=True),
    "networks, channels first": partial(networks, channels_last=False),
}


def rows(config: TrialConfig, images: Images, side: int) -> dict[str, Step]:
    """What is timed in one precision; each trains on all of ``images``, but for the limits."""
    dtype = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    others = {name: make(config, images) for name, make in ON_A_GPU.items()} if images.device.type == "cuda" else {}
    return {
        OURS: ours(config, images),
        NETWORKS: networks(config, images),
        PEER: peer(config, images),
        ALONE: convolutions(config, side, dtype, images.device),
        MATRICES: matrices(dtype, images.device)[0],
        MEMORY: memory(images.device)[0],
        **others,
    }


def measure(case: str, pixels: np.ndarray, repeats: int, device: torch.device) -> dict[str, Measured]:
    """Both precisions of a case, in turn."""
    configs = {name: config_of(case).replace(precision=name) for name in PRECISIONS}
    images, batch, side = Images(pixels, device), config_of(case).training.batch_size, pixels.shape[1]
    steps = {(name, row): step for name in PRECISIONS for row, step in rows(configs[name], images, side).items()}
    each_ms: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    for repeat in range(-1, repeats):  # the first warms
        for key in list(steps)[:: 1 if repeat % 2 == 0 else -1]:
            ms = milliseconds(steps[key], device)
            if repeat >= 0:
                each_ms[key].append(ms if key[1] in (ALONE, MATRICES, MEMORY) else ms * batch / len(images))
    return {name: shares(name, configs[name], side, each_ms) for name in PRECISIONS}


def shares(precision: str, config: TrialConfig, side: int, each_ms: dict[tuple[str, str], list[float]]) -> Measured:
    """What the rows say of one precision."""
    step = each_ms[precision, OURS]
    needed, cpu = work(config, side, precision == "bf16"), torch.device("cpu")
    limits = {MATRICES: needed.flops / matrices(torch.float32, cpu)[1], MEMORY: needed.bytes / memory(cpu)[1]}

    def of(row: str, times: float = 1.0, other: str = precision) -> float:
        return round(median(times * a / b for a, b in zip(each_ms[other, row], step, strict=True)), 4)

    return Measured(
        images_per_s=round(1e3 * config.training.batch_size / median(step), 1),
        of_networks=of(NETWORKS),
        of_convolutions=of(ALONE),
        of_matrices=of(MATRICES, limits[MATRICES]),
        of_memory=of(MEMORY, limits[MEMORY]),
        beside_peer={name: of(PEER, other=name) for name in PRECISIONS},
        beside_others={row: of(row) for row in ON_A_GPU if (precision, row) in each_ms},
        gflops_a_step=round(needed.flops / 1e9, 2),
        megabytes_a_step=round(needed.bytes / 1e6, 1),
        each_ms={row: [round(ms, 3) for ms in own] for (name, row), own in each_ms.items() if name == precision},
    )


def table(measured: dict[str, dict[str, Measured]], title: str) -> Table:
    """For the terminal: a row each case and precision."""
    shown = Table("", "", title=title, title_justify="left", min_width=len(title))
    of = (NETWORKS, ALONE, MATRICES, MEMORY)
    others = next(iter(measured.values()))[PRECISIONS[0]]["beside_others"]
    for column in ("images/s", *of, *(f"peer {name}" for name in PRECISIONS), *others):
        shown.add_column(column, justify="right")
    for case, found in measured.items():
        for precision, own in found.items():
            parts: dict[str, Any] = dict(own)
            percent = [f"{parts[f'of_{name}']:.0%}" for name in of]
            times = [f"{ratio:.2f} x" for ratio in (own["beside_peer"] | own["beside_others"]).values()]
            shown.add_row(case, precision, f"{own['images_per_s']:.0f}", *percent, *times)
    return shown


def profiled(case: str, precision: str, pixels: np.ndarray) -> dict[str, float]:
    """Where the time of a step goes on the CPU."""
    trainer = Trainer(config_of(case).replace(precision=precision))
    return parts_of_a_step(trainer, Images(pixels, trainer.device))


def table_of_parts(parts: dict[str, dict[str, float]]) -> Table:
    """For the terminal: a row each part of a step."""
    title = "Where the time of a step goes on the CPU"
    shown = Table("", *parts, title=title, title_justify="left", min_width=len(title))
    for part in next(iter(parts.values())):
        shown.add_row(part, *(f"{own[part]:.1%}" for own in parts.values()))
    return shown


def targets(measured: dict[str, dict[str, Measured]]) -> Iterator[dict[str, Any]]:
    """Each figure that has a limit."""
    for case, found in measured.items():
        for precision, own in found.items():
            figure = own["of_networks"]
            met = figure >= AT_LEAST
            yield {"case": case, "precision": precision, "at_least": AT_LEAST, "figure": figure, "met": met}


def check(benchmark: TrainingBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    problems = [line for case in benchmark.cases for line in problems_of(partial(config_of, case))]
    if not benchmark.cases:
        problems.append("cases: none is given")
    problems += [f"{name} = {value}: must be at least 1" for name, value in
                 (("images", benchmark.images), ("repeats", benchmark.repeats)) if value < 1]  # fmt: skip
    if problems:
        raise ConfigError(problems)


def main(benchmark: OmitArgPrefixes[TrainingBenchmark]) -> None:
    """Measure a trial's training step beside its networks, the machine's limits and a peer."""
    check(benchmark)
    console = Console(highlight=False)
    facts = circumstances(asdict(benchmark), PEER)
    device = prepare_process(1, int(torch.cuda.is_available()))
    train = prepare(benchmark.data).train()
    measured: dict[str, dict[str, Measured]] = {}
    parts: dict[str, dict[str, float]] = {}
    for case in benchmark.cases:
        count = benchmark.images // (PAPER_SHARE if case.startswith("paper") else 1)
        pixels = train[: max(count, config_of(case).training.batch_size)]
        measured[case] = measure(case, pixels, benchmark.repeats, device)
        console.print(f"{case}: {measured[case]['bf16']['of_networks']:.0%} of its networks in bf16")
        if benchmark.profile:
            parts |= {f"{case} {name}": profiled(case, name, pixels) for name in PRECISIONS}
    console.print(table(measured, f"Training on {device.type}: our images/s, as a share of what stands alone"))
    if parts:
        console.print(table_of_parts(parts))
    aims = list(targets(measured))
    for aim in aims:
        verdict = "met" if aim["met"] else "not met"
        what = f"{aim['case']} in {aim['precision']}: {aim['figure']:.1%} of its networks"
        console.print(f"{what}, at least {AT_LEAST:.0%}: {verdict}")
    write(benchmark.out, {"targets": aims, device.type: measured, "profile": parts, **facts})


def autocast(config: TrialConfig, batch: Tensor) -> AbstractContextManager[None]:
    return torch.autocast(batch.device.type, torch.bfloat16, enabled=config.training.precision == "bf16")


def batches(config: TrialConfig, images: Images) -> list[Tensor]:
    size = config.training.batch_size
    return [images.batch(slice(start, start + size)) for start in range(0, len(images) - size + 1, size)]


def over(ready: list[Tensor], step: Callable[[Tensor], object]) -> Step:
    """All batches, one after another."""

    def run() -> None:
        for batch in ready:
            step(batch)

    return run


def milliseconds(step: Step, device: torch.device) -> float:
    """CPU time of this process; on a GPU time on the wall, to the end of its work."""
    if device.type == "cpu":
        started = time.process_time()
        step()
        return (time.process_time() - started) * 1e3
    torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    run_command(main)
