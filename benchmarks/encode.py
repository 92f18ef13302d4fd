"""python -m benchmarks.encode MODEL: what codes cost, beside the encoder and the search alone.

Ours is ``trainables.encode.codes`` from the beginning to complete files: the model, reading and scaling pixels, files
with their checksums and digests. After each of its batches the encoder and the search for the nearest code run on the
same batch, scaled already, and nothing is kept. One thread, process CPU time.
"""

import shutil
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import tyro

from benchmarks.record import circumstances, write
from trainables.commands import run_command
from trainables.data import DataSet
from trainables.device import open_device
from trainables.encode import codes
from trainables.models import TrainedModel, find_model
from vqcore.nearest import nearest
from vqcore.training import Images

LIMIT = 1.1
"""What codes may cost, of the encoder and the search alone."""


class Alone:
    """The encoder and the search after each batch of ``codes``, which calls this; CPU seconds of both."""

    def __init__(self, model: TrainedModel, data: DataSet) -> None:
        self._network = model.load()
        self._splits = [Images(pixels, torch.device("cpu")) for pixels in (data.train(), data.test())]
        self._done = 0
        self.ours = self.alone = 0.0
        self._began = time.process_time()

    @torch.no_grad()
    def __call__(self, done: int, total: int) -> None:
        self.stop()
        if done > self._done:
            train, test = self._splits
            images, before = (train, 0) if done <= len(train) else (test, len(train))
            batch = images.batch(slice(self._done - before, done - before))
            layer, began = self._network.quantizer, time.process_time()
            nearest(layer.vectors(self._network.latents(batch)), layer.codebook)
            self.alone += time.process_time() - began
        self._done, self._began = done, time.process_time()

    def stop(self) -> None:
        """Count what ``codes`` did since the last batch."""
        self.ours += time.process_time() - self._began


def main(
    model: Annotated[str, tyro.conf.Positional],
    data: str | None = None,
    runs: Path = Path("runs"),
    out: Path = Path("benchmarks/results/encode.json"),
) -> None:
    """Measure what the codes of a data set cost.

    Args:
        model: A full training by name or folder, with a learned codebook.
        data: Data set; the model's own unless given.
        runs: Folder of all runs.
        out: Where the figures go.
    """
    facts = circumstances({"model": model, "data": data})
    device = open_device(num_cpus=1, num_gpus=0)
    found = find_model(model, runs)
    images = found.data(data)
    with TemporaryDirectory() as folder:  # codes that are there already would cost nothing
        for path in (found.path, found.path.with_suffix(".toml")):
            shutil.copy(path, folder)
        copy = find_model(folder, Path(folder))
        alone = Alone(found, images)
        codes(copy, images, device, alone)
        alone.stop()
    count, ratio = images.train_images + images.test_images, round(alone.ours / alone.alone, 3)
    verdict = "met" if ratio <= LIMIT else "not met"
    print(
        f"codes of {count:,} images: {alone.ours:.1f} s of CPU, {ratio:.3f} of the encoder and the search alone "
        f"({alone.alone:.1f} s), at most {LIMIT}: {verdict}"
    )
    seconds = {"ours": round(alone.ours, 2), "alone": round(alone.alone, 2)}
    write(out, {"images": count, "ratio": ratio, "at_most": LIMIT, "cpu_seconds": seconds, **facts})


if __name__ == "__main__":
    run_command(main)
