"""Two processes (gloo) in training: their replicas stay equal to the last bit, and equal to one on all the data."""

import contextlib
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from vqcore import CodeHistogram, QuantizerConfig, VectorQuantizer

STEPS, ROWS = 6, 24
LAYERS: dict[str, dict[str, Any]] = {
    "ema": {},
    "ema_debiased": {"codebook": "ema_debiased"},
    "cosine": {"normalize": "cosine"},
    "gumbel": {"estimator": "gumbel"},
    "ema, revival": {"revive_below": 0.9, "revive_share": 0.5},
    "ema_debiased, kmeans++, revival": {
        "codebook": "ema_debiased",
        "init": "kmeans++",
        "revive_below": 0.9,
    },
    "gradient": {"codebook": "gradient", "nu": 0.5},
    "gradient, revival": {"codebook": "gradient", "revive_below": 0.9, "revive_share": 0.5},
    "affine learned": {"codebook": "gradient", "affine": "learned", "affine_groups": 2},
    "affine statistics": {"codebook": "gradient", "affine": "statistics", "affine_groups": 2},
    "all of it": {
        "codebook": "gradient",
        "affine": "statistics",
        "init": "kmeans++",
        "revive_below": 0.9,
        "normalize": "cosine",
    },
}
BY_CHANCE = {name for name in LAYERS if any(word in name for word in ("gumbel", "kmeans++", "revival", "all"))}
UNEVEN = {"ema": ROWS // 3, "affine statistics": 7, "ema, revival": 3, "ema, nothing": 0}
"""Rows of the second process where the first has ``ROWS``."""


def batch(rank: int, step: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * rank + step)
    return 0.5 * rank + torch.randn(rows, 4, generator=generator), torch.randn(rows, 4, generator=generator)


def made(name: str) -> VectorQuantizer:
    torch.manual_seed(0)
    return VectorQuantizer(QuantizerConfig(codebook_size=16, dim=4, decay=0.8, **{"init": "normal"} | LAYERS[name]))


def train_step(layer: nn.Module, z: Tensor, g: Tensor) -> None:
    layer.zero_grad()
    z = z.requires_grad_()
    out = layer(z)
    ((out.quantized * g).mean() + out.loss).backward()
    with torch.no_grad():
        for parameter in layer.parameters():
            assert parameter.grad is not None
            parameter -= 2.0 * parameter.grad


def states(name: str, rank: int, broadcast: bool = False) -> list[dict[str, Tensor]]:
    layer = made(name)
    trained: nn.Module = layer
    if layer.config.codebook == "gradient":
        # DDP's own copies of buffers from the first process would hide a difference
        trained = nn.parallel.DistributedDataParallel(layer, broadcast_buffers=broadcast)
    torch.manual_seed(100 + rank)  # chance differs, as in two processes of one job it does
    kept = []
    for step in range(STEPS):
        train_step(trained, *batch(rank, step))
        kept.append({key: tensor.clone() for key, tensor in layer.state_dict().items()})
    return kept


def uneven(name: str, rows: int, rank: int) -> dict[str, Tensor]:
    layer = made(name.removesuffix(", nothing"))
    for step in range(STEPS):
        layer(batch(rank, step, rows if rank else ROWS)[0])
    return layer.state_dict()


def histogram(rank: int) -> Tensor:
    one = CodeHistogram(8)
    one.update(torch.tensor([[0, 1], [5, 5]]) + rank)
    one.reduce()
    return one.counts


def work(rank: int, folder: str, tasks: list[str]) -> None:
    """One of the two processes: what each of ``tasks`` gave, or the error it ended with, as ``<task>.<rank>.pt``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=30)
    )
    for task in tasks:
        kind, _, name = task.partition(":")
        result: Any
        try:
            if kind == "uneven":
                result = uneven(name, UNEVEN[name], rank)
            elif kind == "histogram":
                result = histogram(rank)
            else:
                result = states(name, rank, broadcast=kind == "copied")
        except Exception:
            result = traceback.format_exc()
        torch.save(result, f"{folder}/{task}.{rank}.pt")
    dist.destroy_process_group()


def results(folder: Path, task: str) -> tuple[Any, Any]:
    files = [folder / f"{task}.{rank}.pt" for rank in (0, 1)]
    assert all(file.exists() for file in files), "the processes ended in or before this"
    one, other = (torch.load(file) for file in files)
    for result in (one, other):
        assert not isinstance(result, str), result
    return one, other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    tasks = [
        *(f"states:{name}" for name in LAYERS),
        "copied:all of it",
        "histogram",
        *(f"uneven:{name}" for name in UNEVEN),
    ]
    # one that ends the processes leaves no file, nor do those after it
    with contextlib.suppress(torch.multiprocessing.ProcessExitedException):
        torch.multiprocessing.spawn(work, (str(folder), tasks), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_replicas_stay_equal_to_the_last_bit(folder: Path, name: str) -> None:
    for step, (one, other) in enumerate(zip(*results(folder, f"states:{name}"), strict=True)):
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items()), step
        assert all(tensor.isfinite().all() for tensor in one.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in BY_CHANCE])
def test_two_processes_are_one_on_the_joined_batch(folder: Path, name: str) -> None:
    layer = made(name)
    for step, kept in enumerate(results(folder, f"states:{name}")[0]):
        (z0, g0), (z1, g1) = batch(0, step), batch(1, step)
        train_step(layer, torch.cat([z0, z1]), torch.cat([g0, g1]))
        for key, tensor in layer.state_dict().items():
            torch.testing.assert_close(kept[key], tensor, rtol=1e-4, atol=1e-5)


def test_ddps_copies_of_the_buffers_change_nothing(folder: Path) -> None:
    copied, plain = results(folder, "copied:all of it"), results(folder, "states:all of it")
    for one, other, expected in zip(*copied, plain[0], strict=True):
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
        assert all(torch.equal(tensor, expected[key]) for key, tensor in one.items())


def test_a_histogram_adds_up_all_processes(folder: Path) -> None:
    for counts in results(folder, "histogram"):
        assert counts.tolist() == [1, 2, 1, 0, 0, 2, 2, 0]


@pytest.mark.parametrize("name", UNEVEN)
def test_batches_of_unequal_size(folder: Path, name: str) -> None:
    """The end of an epoch: one process has fewer vectors than the other, or none."""
    one, other = results(folder, f"uneven:{name}")
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    if "revival" not in name:
        layer = made(name.removesuffix(", nothing"))
        for step in range(STEPS):
            layer(torch.cat([batch(0, step)[0], batch(1, step, UNEVEN[name])[0]]))
        torch.testing.assert_close(one["codes.weight"], layer.codes.weight.detach(), rtol=1e-4, atol=1e-5)
