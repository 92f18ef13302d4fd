"""python -m benchmarks.quantizer: a training step of our layer beside its peer's, each divided by the floor.

The floor is the least that the textbook does: one ``z @ C.T`` whole, its argmin, a gather; forward alone. The other
rows are full training steps: forward, backward, moving averages. On the CPU one thread, process CPU time, rows in turn;
extra memory is the peak of one step in a fresh process above what its inputs and its layer hold. On a GPU there are
also the product ``z @ C.T`` alone, by precision, and our search and gather alone, which should take at most 1.3 times
as long as the product.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import OmitArgPrefixes

from benchmarks.record import circumstances, write
from trainables.commands import run_command
from vqcore.codebooks import kmeans_plus_plus
from vqcore.config import ConfigError, QuantizerConfig, problems_of
from vqcore.nearest import nearest
from vqcore.quantizers import VectorQuantizer

ROOT = Path(__file__).parent.parent
PEER = "vector-quantize-pytorch"
LIMITS = {"16384x64x1024": 0.45, "4096x64x1024": 0.7, "16384x256x1024": 0.7, "16384x64x8192": 0.3}
"""The usual sizes, and what a step of ours with the rotation may cost there, of the floor."""
SIZES = (*LIMITS, "4096x256x8192")
MANY_CODES = 8192
"""From here on extra memory counts."""
KMEANS = "100000x64x1024"

Step = Callable[[], object]


@dataclass(frozen=True)
class QuantizerBenchmark:
    """Measure our quantization layer beside its peers."""

    sizes: tuple[str, ...] = SIZES
    """Vectors x dimensions x codes, each."""
    repeats: int = 15
    """Steps of each row; medians count."""
    out: Path = Path("benchmarks/results/quantizer.json")
    """The JSON file to write."""


class Row(TypedDict):
    """One contender at one size."""

    ratio: float
    """To the floor: the median over the repeats."""
    ms: float
    extra_mib: float | None
    each_ms: list[float]


Measured = dict[str, dict[str, Row]]
"""Rows by size and by name."""


class Target(TypedDict):
    """A limit, the figure beside it, and whether the figure keeps it."""

    what: str
    size: str
    at_most: float
    figure: float
    met: bool


def shape_of(size: str) -> tuple[int, int, int]:
    """N, D and K. ``ConfigError`` if ``size`` does not name them."""
    with suppress(ValueError):
        rows, dim, codes = map(int, size.split("x"))
        if rows > 0 and dim > 0 and codes > 1:
            return rows, dim, codes
    raise ConfigError([f"sizes: {size!r} is not vectors x dimensions x codes, such as {SIZES[0]}"])


def inputs(size: str, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Vectors as after a ReLU, far from the origin, that want a gradient; codes near some of them."""
    rows, dim, codes = shape_of(size)
    generator = torch.Generator().manual_seed(0)
    z_ND = torch.randn(rows, dim, generator=generator).relu_() + 0.1
    near_K = torch.randint(rows, (codes,), generator=generator)
    codes_KD = z_ND[near_K] + 0.05 * torch.randn(codes, dim, generator=generator)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return z_ND.to(device, dtype).requires_grad_(), codes_KD.to(device)


def floor(z_ND: Tensor, codes_KD: Tensor) -> Step:
    textbook = _compiled(lambda z_ND: codes_KD[(z_ND @ codes_KD.T).argmin(-1)], z_ND)
    return partial(textbook, z_ND.detach().float())


def product(z_ND: Tensor, codes_KD: Tensor, precision: str) -> Step:
    """``z @ C.T`` of fp32 vectors, as fp32 ("ieee") or as TF32, or of vectors and codes that are bf16."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    z_ND, codes_DK = z_ND.detach().to(dtype), codes_KD.T.to(dtype)

    def step() -> None:
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        z_ND @ codes_DK
        torch.backends.cuda.matmul.fp32_precision = before

    return step


def search(z_ND: Tensor, codes_KD: Tensor) -> Step:
    return partial(_compiled(lambda z_ND: F.embedding(nearest(z_ND, codes_KD), codes_KD), z_ND), z_ND.detach())


def ours(z_ND: Tensor, codes_KD: Tensor, estimator: str = "rotation") -> Step:
    size, dim = codes_KD.shape
    layer = VectorQuantizer(QuantizerConfig(codebook_size=size, dim=dim, estimator=estimator)).to(z_ND.device)
    layer.codes.weight.copy_(codes_KD)
    layer.codes.ema_sums.copy_(codes_KD)
    return _training_step(layer, z_ND)


def peer(z_ND: Tensor, codes_KD: Tensor, rotation_trick: bool) -> Step:
    from vector_quantize_pytorch import VectorQuantize

    config = QuantizerConfig(codebook_size=codes_KD.shape[0], dim=codes_KD.shape[1])
    same = {name: getattr(config, name) for name in ("dim", "codebook_size", "decay", "commitment_weight")}
    layer = VectorQuantize(rotation_trick=rotation_trick, **same).to(z_ND.device)
    for name, buffer in layer.named_buffers():
        if name.endswith(("embed", "embed_avg")):
            buffer.copy_(codes_KD)
    return _training_step(layer, z_ND.detach().unsqueeze(0).requires_grad_())


ROWS: dict[str, Callable[[Tensor, Tensor], Step]] = {
    "floor": floor,
    "ours, rotation": ours,
    "ours, ste": partial(ours, estimator="ste"),
    f"{PEER}, rotation": partial(peer, rotation_trick=True),
    f"{PEER}, ste": partial(peer, rotation_trick=False),
}
GPU_ROWS: dict[str, Callable[[Tensor, Tensor], Step]] = {
    **ROWS,
    **{f"GEMM alone, {name}": partial(product, precision=name) for name in ("ieee", "tf32", "bf16")},
    "our search and gather alone": search,
}


def measure(benchmark: QuantizerBenchmark, device: str, console: Console) -> Measured:
    """All rows that ``device`` has, in turn, at each size."""
    rows, clock, extra = ROWS, _cpu_ms, _cpu_extra_mib
    if device == "cuda":
        rows, clock, extra = GPU_ROWS, _cuda_ms, _cuda_extra_mib
    measured: Measured = {}
    for size in benchmark.sizes:
        if device == "cuda":
            torch.compiler.reset()  # each size compiled for itself
        steps = {name: row(*inputs(size, device)) for name, row in rows.items()}
        extra_mib = {name: extra(name, size, step) for name, step in steps.items()}
        each_ms: dict[str, list[float]] = {name: [] for name in rows}
        for repeat in range(-1, benchmark.repeats):  # the first warms
            # the other order each time: what the machine does meanwhile should not always meet the same row
            for name in list(rows)[:: 1 if repeat % 2 == 0 else -1]:
                ms = clock(steps[name])
                each_ms[name] += [round(ms, 3)] if repeat >= 0 else []
        measured[size] = {
            name: Row(ratio=ratio(own, each_ms["floor"]), ms=median(own), extra_mib=extra_mib[name], each_ms=own)
            for name, own in each_ms.items()
        }
        console.print(f"{device} {size}: ours {measured[size]['ours, rotation']['ratio']:.2f} of the floor")
    return measured


def ratio(own: list[float], other: list[float]) -> float:
    """The median of the repeats' ratios: two steps of one repeat meet the same load, two medians need not."""
    return round(median(a / b for a, b in zip(own, other, strict=True)), 4)


def print_extra_mib(name: str, size: str) -> None:
    """In a fresh process: a tiny step first, which loads libraries; then the one that counts."""
    torch.set_num_threads(1)
    rows, dim, codes = shape_of(size)
    ROWS[name](*inputs(f"{min(rows, 64)}x{dim}x{min(codes, 64)}"))()
    step = ROWS[name](*inputs(size))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    held = _status_mib("VmRSS")
    step()
    print(round(_status_mib("VmHWM") - held, 1))


def kmeans_seconds() -> tuple[float, float]:
    """Wall time of k-means++ on two threads, and CPU time."""
    size = shape_of(KMEANS)[2]
    z_ND = inputs(KMEANS)[0].detach()
    torch.set_num_threads(2)
    wall, cpu = time.perf_counter(), time.process_time()
    kmeans_plus_plus(z_ND, size, torch.Generator().manual_seed(0))
    took = round(time.perf_counter() - wall, 2), round(time.process_time() - cpu, 2)
    torch.set_num_threads(1)
    return took


def targets(measured: Measured, kmeans_wall: float) -> Iterator[Target]:
    """Every limit on the figures of the CPU."""

    def target(what: str, size: str, at_most: float, figure: float) -> Target:
        return Target(what=what, size=size, at_most=at_most, figure=figure, met=figure <= at_most)

    for size, rows in measured.items():
        step, other = rows["ours, rotation"], rows[f"{PEER}, rotation"]
        many = shape_of(size)[2] >= MANY_CODES
        if size in LIMITS:
            yield target("step, of the floor", size, LIMITS[size], step["ratio"])
        for at_most in (0.2, 0.1):  # five times as fast at every size, ten times with many codes; better with any
            yield target("step, of the peer's", size, at_most, ratio(step["each_ms"], other["each_ms"]))
        yield target("step, of ours with ste", size, 1.1, ratio(step["each_ms"], rows["ours, ste"]["each_ms"]))
        if other["extra_mib"] and step["extra_mib"] and many:
            yield target("extra memory, of the peer's", size, 0.05, round(step["extra_mib"] / other["extra_mib"], 4))
    yield target("k-means++ on two threads, wall seconds", KMEANS, 10, kmeans_wall)


def table(measured: Measured, title: str) -> Table:
    """For the terminal: a row each contender, a column each size."""
    shown = Table("", title=title, title_justify="left", min_width=len(title))
    for size in measured:
        shown.add_column(size, justify="right")
    shown.add_row("floor, ms", *(f"{rows['floor']['ms']:.2f}" for rows in measured.values()), end_section=True)
    for name in next(iter(measured.values())):
        cells = [rows[name] for rows in measured.values()]
        extra = ["" if cell["extra_mib"] is None else f" (+{cell['extra_mib']:.0f})" for cell in cells]
        shown.add_row(name, *(f"{cell['ratio']:.2f}{more}" for cell, more in zip(cells, extra, strict=True)))
    return shown


def check(benchmark: QuantizerBenchmark) -> None:
    """Raise ``ConfigError`` with all that is wrong, before anything runs."""
    problems = [line for size in benchmark.sizes for line in problems_of(partial(shape_of, size))]
    if not benchmark.sizes:
        problems.append("sizes: none is given")
    if benchmark.repeats < 1:
        problems.append(f"repeats = {benchmark.repeats}: must be at least 1; 15 is usual")
    if problems:
        raise ConfigError(problems)


def main(benchmark: OmitArgPrefixes[QuantizerBenchmark]) -> None:
    """Measure our quantization layer beside its peers."""
    check(benchmark)
    console = Console(highlight=False)
    facts = circumstances(asdict(benchmark), PEER)
    torch.set_num_threads(1)
    cpu, gpu = measure(benchmark, "cpu", console), None
    console.print(table(cpu, "CPU time on one thread, of the floor's (+ extra memory, MiB)"))
    if torch.cuda.is_available():
        gpu = measure(benchmark, "cuda", console)
        console.print(table(gpu, "GPU time, compiled, of bf16 input, of the floor's (+ extra memory, MiB)"))
    kmeans = dict(zip(("wall_seconds", "cpu_seconds"), kmeans_seconds(), strict=True))
    aims = list(targets(cpu, kmeans["wall_seconds"]))
    for aim in aims:
        verdict = "met" if aim["met"] else "not met"
        console.print(f"{aim['what']} ({aim['size']}): {aim['figure']:.3g}, at most {aim['at_most']:g}: {verdict}")
    write(benchmark.out, {"targets": aims, "cpu": cpu, "gpu": gpu, "kmeans": kmeans, **facts})


def _training_step(layer: torch.nn.Module, z: Tensor) -> Step:
    """Forward and backward, of a task's gradient on the codes and of the layer's loss: its first and last result."""
    forward, gradient = _compiled(layer, z), torch.ones_like(z)

    def step() -> None:
        quantized, *_, loss = forward(z)
        torch.autograd.grad((quantized, loss), z, (gradient, torch.ones_like(loss)))

    return step


def _compiled(function: Callable[..., Any], z: Tensor) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False) if z.is_cuda else function


def _cpu_ms(step: Step) -> float:
    started = time.process_time()
    step()
    return (time.process_time() - started) * 1e3


def _cuda_ms(step: Step) -> float:
    start, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _cpu_extra_mib(name: str, size: str, step: Step) -> float | None:
    if not Path("/proc/self/clear_refs").exists():  # of Linux alone
        return None
    program = "import sys; from benchmarks.quantizer import print_extra_mib; print_extra_mib(*sys.argv[1:])"
    command = [sys.executable, "-c", program, name, size]
    return float(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _cuda_extra_mib(name: str, size: str, step: Step) -> float | None:
    for _ in range(3):  # compiles
        step()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    step()
    return round((torch.cuda.max_memory_allocated() - held) / 2**20, 1)


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    run_command(main)
