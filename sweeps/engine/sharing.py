"""How many trials share a GPU, by measurement: ``--trials-per-gpu auto``.

The largest configuration is trained in 1, 2, 4, ... processes side by side, each with a trial's share of the GPU and of
its memory, until more would not fit or would not train more images a second. ``choose`` decides, a function of what was
measured. Where NVIDIA's MPS runs, the processes are its clients, as trials are; nothing here starts or stops it. This
process needs no torch.
"""

import hashlib
import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from subprocess import PIPE, Popen, TimeoutExpired
from typing import IO, Any, NamedTuple

from analysis.layout import counted
from sweeps.engine.resources import Gpu, share
from trainables.data import DataSet
from trainables.job import TrialJob
from trainables.storage import size
from vqcore.config import TrialConfig
from vqcore.registry import ARCHITECTURES, ESTIMATORS

MOST = 16
"""Trials on a GPU that are measured."""

LEAST_GAIN = 0.05
"""Of the images a second, that twice as many trials must win: else fewer are better, since each ends sooner."""

KEPT_FREE = 0.1
"""Of the GPU's memory."""

SECONDS = 4.0
"""Of training that are timed."""

LATE = 180.0
"""Seconds after which processes that have not answered are ended."""

WITHOUT_MEANING = ("seed", "epochs", "commitment_weight", "decay", "learning_rate")
"""Fields on which neither the speed nor the memory of a training depends."""


class Row(NamedTuple):
    """What so many trials side by side were measured to do."""

    trials: int
    images: float
    """A second, of all together."""
    memory: int
    """Bytes of the GPU that each takes at the peak, its CUDA context counted."""
    tensors: int
    """Bytes of these that torch's allocator holds; the others are the context, and a part of what others hold."""
    trouble: str = ""
    """Why they could not be measured, in words."""


@dataclass(frozen=True)
class Sharing:
    """The choice, and what it comes from."""

    trials_per_gpu: int
    reason: str
    rows: tuple[Row, ...]
    measured: Mapping[str, Any]
    """What the rows hold for: the GPU, torch, MPS, the configuration's shape."""

    @property
    def slowdown(self) -> float:
        """How many times as long a step takes beside the others as alone."""
        found = {row.trials: row.images for row in self.rows if not row.trouble}
        return found[1] * self.trials_per_gpu / found[self.trials_per_gpu] if self.trials_per_gpu in found else 1.0

    def table(self) -> dict[str, Any]:
        """As ``sweep.toml`` keeps it."""
        return {**vars(self), "rows": [row._asdict() for row in self.rows]}

    def lines(self) -> Iterator[str]:
        """What was measured, a line for each number of trials."""
        for row in self.rows:
            if row.trouble:
                yield f"{row.trials}: {row.trouble}"
            else:
                beside = f"{size(row.memory - row.tensors)} of it beside tensors"
                yield f"{row.trials}: {row.images:,.0f} images/s, {size(row.memory)} each, {beside}"


def share_gpu(
    config: TrialConfig,
    data: DataSet,
    gpu: Gpu,
    limit: tuple[int, str],
    before: Mapping[str, Any],
    tell: Callable[[str], object],
    seconds: float = SECONDS,
    on_gpu: bool = True,
) -> Sharing:
    """Measure and choose. ``before`` is the table of a run that goes on: what it has measured is not measured again.

    ``limit`` is how many trials there may be on a GPU at most, and why. ``tell`` is told before it takes time.
    """
    measured = _measured_for(config, data, gpu)
    rows = [Row(**row) for row in before["rows"]] if before.get("measured") == measured else []
    told = False
    while (choice := choose(rows, gpu.memory, limit)) is None:
        if not told:
            tell(f"Measuring how many trials to train at once on {gpu.name}: some 20 s each for 1, 2, 4, ... of them.")
            told = True
        rows.append(measure(config, data, 2 * rows[-1].trials if rows else 1, seconds, on_gpu))
    number, reason = choice
    return Sharing(number, reason, tuple(rows), measured)


def choose(rows: Sequence[Row], capacity: int, limit: tuple[int, str]) -> tuple[int, str] | None:
    """How many trials a GPU of ``capacity`` bytes gets, and why; None if twice as many are to be measured first.

    ``rows`` are of 1, 2, 4, ... trials; those beyond the ``limit``, a number and its reason, do not count.
    """
    most, why = limit
    rows = [row for row in rows if row.trials <= most]
    number = rows[-1].trials if rows else 1
    more = 2 * number
    if rows and rows[-1].trouble:
        return max(1, number // 2), f"{number} could not be measured: {rows[-1].trouble}"
    if len(rows) > 1 and (gain := rows[-1].images / rows[-2].images - 1) < LEAST_GAIN:
        much = f"{gain:.0%} more" if gain >= 0 else f"{-gain:.0%} less"
        return number // 2, f"{number} train {much} images a second, and each takes longer to its end"
    if more > most:
        return number, f"{more} were not tried: {why}"
    if rows and more * rows[-1].memory > (1 - KEPT_FREE) * capacity:
        need = f"{more} would take {size(more * rows[-1].memory)}"
        return number, f"{need} of the GPU's {size(capacity)}, of which {KEPT_FREE:.0%} stay free"
    return None


def most_useful(trials: int, cpus: int, gpus: int) -> tuple[int, str]:
    """How many trials a GPU can be of use to, and what it is that limits them."""
    limits = [
        (MOST, f"{MOST} are the most that are measured"),
        (max(1, cpus // gpus), f"each keeps a CPU busy, of {counted(cpus, 'CPU')} for {counted(gpus, 'GPU')}"),
        (math.ceil(trials / gpus), f"the sweep has {counted(trials, 'trial')} for {counted(gpus, 'GPU')}"),
    ]
    return min(limits, key=lambda limit: limit[0])


def mps_socket() -> Path | None:
    """Where the control daemon of NVIDIA's MPS listens, if it does."""
    # https://docs.nvidia.com/deploy/mps/latest/appendix-environment-variables.html
    socket = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps", "control")
    return socket if socket.exists() else None


def measure(config: TrialConfig, data: DataSet, trials: int, seconds: float, on_gpu: bool = True) -> Row:
    """Train ``config`` in so many processes at once; the first GPU is shared among them, or each has a CPU."""
    import ray  # as a trial's process unpickles it, with estimators and networks of the user's own

    from sweeps.engine.ray_cluster import pickle_own_code_by_value

    pickle_own_code_by_value()
    job = TrialJob("sharing", 0, config, data, "", cpus=1.0, gpus=share(1, trials) if on_gpu else 0.0)
    parcel = ray.cloudpickle.dumps((dict(ESTIMATORS), dict(ARCHITECTURES), job, seconds))  # type: ignore[no-untyped-call]
    with tempfile.TemporaryFile() as errors, _started(trials, errors) as processes:
        answers = _asked(processes, parcel)
        if not _trouble(answers, errors):
            answers = _asked(processes, b"go\n")
        if trouble := _trouble(answers, errors):
            return Row(trials, 0.0, 0, 0, trouble)
    own = max(int(answer["own"]) for answer in answers)
    each = max(int(answer["all"]) for answer in answers) // trials
    return Row(trials, round(sum(answer["images"] for answer in answers), 1), max(own, each), own)


Process = Popen[bytes]
Answer = dict[str, Any]


@contextmanager
def _started(count: int, errors: IO[bytes]) -> Iterator[list[Process]]:
    """So many processes, gone afterwards: killed only if they do not end, since MPS may lose others with a client."""
    command = [sys.executable, "-m", "sweeps.engine.sharing_trial"]
    processes: list[Process] = []
    late = threading.Timer(LATE, lambda: _too_late(processes, errors))
    late.start()
    try:
        for _ in range(count):  # in sessions of their own: Ctrl-C is meant for this process, which then ends them
            processes.append(Popen(command, stdin=PIPE, stdout=PIPE, stderr=errors, start_new_session=True))
        yield processes
    finally:
        for process in processes:
            with suppress(BrokenPipeError):
                _pipe(process.stdin).close()
        for process in processes:
            try:
                process.wait(10)
            except TimeoutExpired:
                _kill([process])
            _pipe(process.stdout).close()
        late.cancel()


def _too_late(processes: list[Process], errors: IO[bytes]) -> None:
    errors.write(f"no answer within {LATE:.0f} s\n".encode())
    errors.flush()
    _kill(processes)


def _kill(processes: list[Process]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def _asked(processes: list[Process], words: bytes) -> list[Answer]:
    """Tell all of them, then wait for the answer of each: an empty one of a process that has ended."""
    for process in processes:
        with suppress(BrokenPipeError):
            _pipe(process.stdin).write(words)
            _pipe(process.stdin).flush()
    return [json.loads(_pipe(process.stdout).readline() or "{}") for process in processes]


def _trouble(answers: list[Answer], errors: IO[bytes]) -> str:
    """What the first that could not train says, or the last that was printed; empty if all could."""
    said = [str(answer.get("trouble", "")) for answer in answers if "trouble" in answer or not answer]
    if not said:
        return ""
    errors.seek(0)
    printed = errors.read().decode(errors="replace").strip().splitlines()
    return next(filter(None, [*said, *printed[-1:]]), "a process ended without a word")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _measured_for(config: TrialConfig, data: DataSet, gpu: Gpu) -> dict[str, Any]:
    """For what a measurement holds, as far as it matters to speed and memory."""
    fields = {name: value for name, value in config.flat().items() if name not in WITHOUT_MEANING}
    shape = json.dumps([fields, data.image_size, data.train_images, data.test_images], sort_keys=True)
    digest = hashlib.sha256(shape.encode()).hexdigest()[:12]
    versions = {"torch": metadata.version("torch"), "mps": mps_socket() is not None}
    return {"gpu": gpu.name, "memory": gpu.memory, "configuration": digest, **versions}
