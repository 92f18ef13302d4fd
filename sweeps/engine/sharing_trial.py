"""One of the trials that ``sweeps.engine.sharing`` measures side by side, each a process.

It reads a trial from standard input, answers when it is ready, waits for the word, trains for as long as it was told,
answers with what it found, and keeps its memory until standard input is closed. An answer is a line of JSON.
"""

import json
import os
import sys
import time
from typing import NamedTuple

import ray
import torch

from trainables.device import prepare_process, process_memory
from trainables.errors import one_line
from trainables.job import TrialJob
from vqcore.registry import ARCHITECTURES, ESTIMATORS
from vqcore.training import EVALUATION_BATCH, Images, Trainer

WARM_STEPS = 5
"""Before anything is timed: the first allocates, and chooses cuDNN's algorithms."""

PASSES = 10
"""Of the timed ones, so many take about the whole time: processes then end together but for a tenth of it."""


class Parcel(NamedTuple):
    """What a process is told."""

    estimators: dict[str, object]
    """With the user's own, since no module of theirs is imported here."""
    architectures: dict[str, object]
    job: TrialJob
    seconds: float


def main() -> None:
    """Answer for one trial."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        parcel = Parcel(*ray.cloudpickle.load(sys.stdin.buffer))
        ESTIMATORS.update(parcel.estimators)  # type: ignore[arg-type]
        ARCHITECTURES.update(parcel.architectures)  # type: ignore[arg-type]
        trial = _Measured(parcel.job, parcel.seconds)
        print(json.dumps({"ready": True}), file=answers)
        if sys.stdin.buffer.readline():
            print(json.dumps({"images": trial.images_per_second(), **trial.memory()}), file=answers)
    except torch.OutOfMemoryError:
        print(json.dumps({"trouble": f"out of memory with {parcel.job.gpus:g} GPU each"}), file=answers)
    except Exception as error:
        print(json.dumps({"trouble": one_line(error)}), file=answers)
    sys.stdin.buffer.read()


class _Measured:
    """A trial in training, warm."""

    def __init__(self, job: TrialJob, seconds: float) -> None:
        self.seconds, self.device = seconds, prepare_process(job.cpus, job.gpus)
        self.trainer = Trainer(job.config, self.device)
        array, test = job.data.train(), job.data.test()
        self.sets = Images(array, self.device), Images(test, self.device)  # as a trial holds them: whole on a GPU
        size = min(job.config.training.batch_size, len(array))
        first = Images(array[: WARM_STEPS * size], self.device)
        self.trainer.train_epoch(first)
        started = time.perf_counter()
        self.trainer.train_epoch(first)
        step = (time.perf_counter() - started) / (len(first) // size)
        steps = max(1, round(seconds / PASSES / step))
        self.images = Images(array[: min(steps, len(array) // size) * size], self.device)
        self.trainer.train_epoch(self.images)
        self.trainer.evaluate(Images(test[:EVALUATION_BATCH], self.device))

    def images_per_second(self) -> float:
        """Of whole passes, until the time is over; a pass ends when its metrics are known, and the GPU has done it."""
        passes, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < self.seconds:
            self.trainer.train_epoch(self.images)
            passes += 1
        return passes * len(self.images) / elapsed

    def memory(self) -> dict[str, int]:
        """Bytes at the peak: of this process, as far as it can tell, and of everybody on the GPU."""
        if self.device.type == "cpu":
            return {"own": process_memory()[0], "all": 0}
        free, total = torch.cuda.mem_get_info()
        return {"own": torch.cuda.max_memory_reserved(), "all": total - free}


if __name__ == "__main__":
    main()
