"""Codes once: a trained model turns a data set into arrays of code indices, in one pass over its images.

    python -m trainables.encode MODEL [--data SOURCE]

They lie beside the model, in ``codes/<model hash>-<data hash>/``: ``train.npy`` and ``test.npy`` (N, rows, columns),
and ``codes.toml``, which says what they were made of and how, with the SHA-256 of each file. A folder of that name is
complete. It grows beside its place as ``<name>.tmp``, where each batch is followed by its checksum: a process that is
killed loses the batch that it was in, and the same call goes on after the last whole one.

The codes are those of ``vqcore.load(...).encode``: eval mode, fp32. A training in bf16 evaluated its epochs in bf16, so
near ties may fall to other codes than those it counted; who decodes these codes decodes what they will get.
"""

import hashlib
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import tyro
from rich.console import Console
from rich.text import Text

from trainables.commands import Terminal, duration, exit_code
from trainables.data import DataSet
from trainables.device import open_device
from trainables.flags import ModelFlags
from trainables.growing_array import GrowingArray
from trainables.interruption import leave
from trainables.models import TrainedModel, find_model
from trainables.storage import locked, replace_file, size, sync_folder
from vqcore.config import TrialConfig, read_toml, toml_text
from vqcore.errors import ConfigError
from vqcore.registry import ARCHITECTURES
from vqcore.training import EVALUATION_BATCH, Images
from vqcore.vqvae import VQVAE

Indices = npt.NDArray[np.unsignedinteger[Any]]
"""Code indices (N, rows, columns) of the smallest unsigned type that holds them."""

Progress = Callable[[int, int], None]
"""Is told how many images are done, and of how many."""

PROVENANCE = "codes.toml"
_FORMAT = 1
_HEADER = "What the arrays beside this file were made of, and how."
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Codes:
    """The codes of a data set by a model, whole on this disk; the indices stay in files."""

    folder: Path
    codebook_size: int
    rows: int
    """Codes down an image."""
    columns: int
    """Codes across it."""
    model_hash: str
    data_hash: str

    def train(self) -> Indices:
        """(N, rows, columns), mapped read-only, in the order of the data set's images; uint8, uint16 or uint32."""
        return self._mapped("train")

    def test(self) -> Indices:
        """As ``train``."""
        return self._mapped("test")

    def _mapped(self, split: str) -> Indices:
        return np.asarray(np.load(self.folder / f"{split}.npy", mmap_mode="r"))


def codes(
    model: TrainedModel, data: DataSet, device: torch.device | str = "cpu", show: Progress | None = None
) -> Codes:
    """The codes of both splits of ``data``, from the disk or made now; safe to call from several processes at once.

    Complete ones are read once, to compare their digests, and returned; damaged ones are made anew. ``show`` is called
    after each batch. A pass that was broken off goes on only where device, threads and torch are the same, so that the
    result is that of one pass, to the last bit on a CPU; else it begins again. ``ConfigError`` if the images do not fit
    the model, if it computes infinities, or if its folder cannot be written; ``DamagedDataError`` if ``data`` is not as
    it was prepared.
    """
    settings = model.path.with_suffix(".toml")
    config = TrialConfig.from_toml(read_toml(settings)).model
    if problems := tuple(config.size_problems(data.image_size)):
        raise ConfigError(problems)
    side = data.image_size // ARCHITECTURES[config.architecture].downsampling
    facts = {
        "format": _FORMAT,
        "model": {"hash": model.hash, "toml": _digest(settings)},
        "data": {"hash": data.hash, "train_images": data.train_images, "test_images": data.test_images},
        "codes": {"codebook_size": config.quantizer.codebook_size, "rows": side, "columns": side},
    }
    folder = (model.folder / "codes" / f"{model.hash}-{data.hash}").absolute()
    if not _complete(folder, facts):
        data.check()
        with locked(folder, "make room and start again, or copy the model to a folder that can be written"):
            if not _complete(folder, facts):
                _encode_into(folder, facts, model, data, torch.device(device), show)
    return Codes(folder, config.quantizer.codebook_size, side, side, model.hash, data.hash)


def progress_lines(console: Console, what: str, every: float = 10.0) -> Progress:
    """A progress that prints a line each ``every`` seconds, with the time left by the speed of this process."""
    began, last, before = time.monotonic(), time.monotonic(), -1

    def show(done: int, total: int) -> None:
        nonlocal last, before
        now = time.monotonic()
        if before < 0:
            before = done
            if done:
                console.print(f"{what}: goes on after {done:,} of {total:,} images")
        elif now - last >= every and done < total:
            last, left = now, (now - began) * (total - done) / (done - before)
            console.print(f"{what}: {done:,} of {total:,} images, about {duration(left)} left")

    return show


def _complete(folder: Path, facts: dict[str, Any]) -> bool:
    """Whether the folder holds what ``facts`` describe, each file as it was written. Reads all of it."""
    try:
        written = _provenance(folder)
        whole = all(_digest(folder / f"{split}.npy") == written["sha256"][split] for split in _SPLITS)
        return whole and {name: written.get(name) for name in facts} == facts
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _provenance(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / PROVENANCE).read_text(encoding="utf-8"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode_into(
    folder: Path,
    facts: dict[str, Any],
    model: TrainedModel,
    data: DataSet,
    device: torch.device,
    show: Progress | None,
) -> None:
    """Make ``folder``, after what a process that was killed left of it; the lock is held."""
    network, of = _loaded(model).to(device), facts["codes"]
    begun = {**facts, "source": data.source, "made": _circumstances(device)}
    building = folder.with_name(f"{folder.name}.tmp")
    if not _begun(building, begun):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        _write_provenance(building, begun)
    total, before = data.train_images + data.test_images, 0
    for split, pixels in (("train", data.train()), ("test", data.test())):
        shape, kind = (len(pixels), of["rows"], of["columns"]), np.min_scalar_type(of["codebook_size"] - 1)
        with _diverged(model), GrowingArray(building / f"{split}.npy", shape, kind, EVALUATION_BATCH) as array:
            for done in _encode_split(array, network, Images(pixels, device)):
                if show is not None:
                    show(before + done, total)
        before += len(pixels)
    digests = {split: _digest(building / f"{split}.npy") for split in _SPLITS}
    _write_provenance(building, {**begun, "sha256": digests})
    for checksums in building.glob("*.crc"):
        checksums.unlink()
    shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would not be made
    building.rename(folder)
    sync_folder(folder.parent)


@contextmanager
def _diverged(model: TrainedModel) -> Iterator[None]:
    """A model that computes infinities has diverged; the quantizer is the first to notice."""
    try:
        yield
    except FloatingPointError as error:
        raise ConfigError([f"{model.path}: {error}; it has diverged, train it anew"]) from error


def _loaded(model: TrainedModel) -> VQVAE:
    """The network. ``ConfigError`` if its file is not any more the one that was found: its codes would be misnamed."""
    network = model.load()
    if find_model(str(model.path), model.folder).hash != model.hash:
        raise ConfigError([f"{model.path}: was replaced while it was read; start again"])
    return network


def _circumstances(device: torch.device) -> dict[str, Any]:
    """What, besides model and images, the last bit of an encoder's output may hang on."""
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "precision": "fp32"}


def _begun(building: Path, begun: dict[str, Any]) -> bool:
    """Whether an unfinished folder is the beginning of the same codes; how the data set was named does not matter."""
    try:
        found = {**_provenance(building), "source": begun["source"]}
        return {name: found.get(name) for name in begun} == begun
    except (OSError, ValueError):
        return False


def _write_provenance(folder: Path, facts: dict[str, Any]) -> None:
    replace_file(folder / PROVENANCE, toml_text(facts, _HEADER).encode())


@torch.no_grad()
def _encode_split(array: GrowingArray, network: VQVAE, images: Images) -> Iterator[int]:
    """Append the codes of the images that are missing, batch by batch; how many there are before and after each."""
    yield array.rows
    for start in range(array.rows, len(images), EVALUATION_BATCH):
        array.append(network.encode(images.batch(slice(start, start + EVALUATION_BATCH))).cpu().numpy())
        yield array.rows


@dataclass(frozen=True)
class Encode(ModelFlags):
    """Turn a data set into code indices by a trained model, once."""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code: 0, 2 for what was given wrong, 130 after Ctrl-C: the same command then goes on."""
    flags = tyro.cli(Encode, prog="python -m trainables.encode", args=arguments)
    return exit_code(lambda: _run(flags), "; the same command goes on")


def _run(flags: Encode) -> None:
    console, started = Terminal(), time.monotonic()
    device = open_device(flags.num_cpus, flags.num_gpus)
    model = find_model(flags.model, flags.out)
    data = model.data(flags.data)
    for note in data.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    made = codes(model, data, device, progress_lines(console, "codes"))
    train, test = made.train(), made.test()
    used = int(np.count_nonzero(np.bincount(train.ravel(), minlength=made.codebook_size)))
    console.print(Text(str(made.folder)), soft_wrap=True)
    console.print(
        f"{len(train):,} training and {len(test):,} test images of {data.source}, {made.rows} x {made.columns} codes "
        f"each ({train.dtype}, {size(train.nbytes + test.nbytes)}); {used} of {made.codebook_size} codes are used in "
        f"training images; {time.monotonic() - started:.1f} s",
        soft_wrap=True,
    )


if __name__ == "__main__":
    leave(main())
