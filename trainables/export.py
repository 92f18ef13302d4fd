"""Encoder and decoder as graphs that need only torch: ``python -m trainables.export NAME``.

Leaves ``encoder.pt2`` and ``decoder.pt2`` beside the model. ``torch.export.load(path).module()`` reads them where this
package is not installed.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainables.commands import run_command
from trainables.errors import one_line
from trainables.graphs import DECODER, ENCODER, MODEL_HASH
from trainables.models import TrainedModel, find_model
from trainables.storage import sync_folder
from vqcore.errors import ConfigError
from vqcore.registry import ARCHITECTURES
from vqcore.vqvae import VQVAE

CHECKED = (1, 2, 7)
"""Batch sizes at which a written graph is compared with the model, to the last bit."""

_EXAMPLE_SIDE = 32
"""Of the images that are traced, in pixels, where no journal says how large those of the training were."""


def main(name: Annotated[str, tyro.conf.Positional], /, out: Path = Path("runs")) -> None:
    """Write a trained model's encoder and decoder as graphs of torch.export, for any batch size.

    Args:
        name: A full training's name or folder, or a model.safetensors.
        out: Folder of all runs.
    """
    model = find_model(name, out)
    print(*export_model(model), sep="\n")
    print(f"On the CPU both equal the model to the last bit, in batches of {', '.join(map(str, CHECKED))}.")
    print(f'Next: codes = torch.export.load("{model.folder / ENCODER}").module()(images)')


def export_model(model: TrainedModel) -> tuple[Path, Path]:
    """Write both graphs beside the model, which then appear together, and return their paths.

    The batch size is free, from 1 on; so are the sides of images where the network allows it, from two codes a side on.
    ``ConfigError`` if torch.export cannot trace the network, or if a graph does not give what the model gives.
    """
    whole, encoder, decoder = model.load(), model.load(), model.load()
    del encoder.decoder, decoder.encoder  # each file has the weights that it needs
    images = _images(model, whole)
    with torch.no_grad(), TemporaryDirectory(dir=model.folder, prefix=".export-") as beside:
        _write(_Encoder(encoder), images, whole.encode, Path(beside, ENCODER), model.hash)
        _write(_Decoder(decoder), whole.encode(images), whole.decode, Path(beside, DECODER), model.hash)
        for name in (ENCODER, DECODER):
            Path(beside, name).replace(model.folder / name)
    sync_folder(model.folder)
    return model.folder / ENCODER, model.folder / DECODER


def drop_traces(program: ExportedProgram) -> ExportedProgram:
    """The same program, without the stack traces of its nodes, which name folders of this machine."""
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


class _Encoder(nn.Module):
    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.encode(images)


class _Decoder(nn.Module):
    def __init__(self, model: VQVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, indices: Tensor) -> Tensor:
        return self.model.decode(indices)


def _images(model: TrainedModel, vqvae: VQVAE) -> Tensor:
    """Noise on [-1, 1], as many images as the largest batch that is compared, as large as those of the training."""
    step = ARCHITECTURES[vqvae.config.architecture].downsampling
    side = model.image_size or max(2 * step, _EXAMPLE_SIDE // step * step)
    return 2 * torch.rand(max(CHECKED), 3, side, side, generator=torch.Generator().manual_seed(0)) - 1


def _write(module: nn.Module, inputs: Tensor, eager: Callable[[Tensor], Tensor], path: Path, of: str) -> None:
    """Trace, write with the hash of the model that it is ``of``, read again, and compare."""
    free = {0: Dim("batch", min=1), inputs.ndim - 2: Dim.AUTO, inputs.ndim - 1: Dim.AUTO}
    try:  # an example of two, since torch.export takes a size of one as fixed
        program = torch.export.export(module, (inputs[:2],), dynamic_shapes=(free,))
    except Exception as error:  # a network of the user's own: torch.export raises what it comes upon
        reason = f"torch.export cannot trace the network ({one_line(error)})"
        raise ConfigError([f"{path.name}: {reason}; hand on model.safetensors, which vqcore.load reads"]) from error
    program.example_inputs = None  # which torch.export.save would pickle
    torch.export.save(drop_traces(program), path, extra_files={MODEL_HASH: of})
    graph = torch.export.load(path).module()
    if not all(torch.equal(graph(inputs[:rows]), eager(inputs[:rows])) for rows in CHECKED):
        raise ConfigError([f"{path.name}: its graph does not give what the model gives; hand on model.safetensors"])


if __name__ == "__main__":
    run_command(main)
