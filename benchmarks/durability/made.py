"""Long runs without the training: the product begins them and keeps their books, only the metrics are made up."""

import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from sweeps import beta_ablation, pareto
from sweeps.cli import Start, request_of
from sweeps.engine.course import Course
from sweeps.engine.inline import slice_over
from sweeps.engine.request import INLINE, Ready, check_request
from sweeps.engine.spec import SweepSpec
from trainables.journal import Event, JournalReader
from trainables.recorder import Recorder
from trainables.runs import JOURNAL
from vqcore.config import TrialConfig

ROOT = Path(__file__).resolve().parents[2]
NAME = "long"
EPOCHS = 10
OPEN = 10
"""Trials that are left to train."""
STARTS_WITHIN = 300.0
"""Seconds."""

TINY = ("--set", "channels=8", "hidden_channels=8", "dim=8", "--batch-size", "8", "--epochs", str(EPOCHS))
INFO = {"device": "cpu", "precision": "fp32", "parameters": 12_345, "host": "made", "pid": 1, "threads": 1}
LOSSES = ("mse", "perplexity", "usage", "bits", "loss", "codebook_loss", "commitment_loss")


@dataclass(frozen=True)
class Kind:
    """A long sweep."""

    sweep: str
    flags: type[Any]
    spec: Callable[[Any], SweepSpec]
    words: Callable[[int], Sequence[str]]
    """Its flags, for so many trials."""
    extended: bool = False
    """Whether it had come to its end and gets more trials; else it was killed in the middle."""


def _grid(trials: int) -> list[str]:
    """Betas, two estimators and five seeds: a table with intervals, and every pair of its rows is compared."""
    betas = [f"{0.01 * 1.005**place:.8g}" for place in range(max(1, trials // 10))]
    return ["--codebook-size", "16", "--betas", *betas, "--estimators", "rotation", "ste", "--seeds", "5"]


def _search(trials: int) -> list[str]:
    return ["--trials", str(trials)]


KINDS = {
    "grid": Kind("beta_ablation", beta_ablation.BetaAblation, beta_ablation.spec, _grid),
    "search-killed": Kind("pareto", pareto.Pareto, pareto.spec, _search),
    "search-extended": Kind("pareto", pareto.Pareto, pareto.spec, _search, extended=True),
}
"""The search draws by TPE and stops early by Pareto-ASHA, as searches do unless told otherwise."""


def metrics(config: TrialConfig, epoch: int, rng: random.Random) -> dict[str, float]:
    """As many, and as long in a journal, as a trial's; better with every epoch, and a trade-off over beta."""
    beta, size = config.model.quantizer.commitment_weight, config.model.quantizer.codebook_size
    off = abs(math.log(beta)) / 10 + rng.random() / 20
    mse = 0.05 + off / 10 + 0.3 / epoch
    perplexity = size * math.exp(-off - 1 / epoch) * min(1.0, 0.5 + beta)
    told = (mse, perplexity, perplexity / size, 64 * math.log2(perplexity), mse + beta * off, off, off)
    both = {f"{split}{name}": value * (1 + rng.random() / 1e3) for split in ("", "train_")
            for name, value in zip(LOSSES, told, strict=True)}  # fmt: skip
    return {**both, "seconds": round(5 + rng.random(), 3)}


def tiny_images(folder: Path) -> Path:
    """A data set on which an epoch takes no time."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 8)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number:03}.png")
    return folder


def command(kind: Kind, out: Path, *words: object) -> list[str]:
    return [sys.executable, "-m", f"sweeps.{kind.sweep}", "--out", str(out), "--address", INLINE, *map(str, words)]


def until_first_start(
    words: list[str], journal: Path, log: Path
) -> tuple[subprocess.Popen[bytes], Event, JournalReader]:
    """Start a command: it, its first ``start`` event, and a reader of what follows.

    ``RuntimeError`` with its last lines if none comes.
    """
    reader = JournalReader(journal)
    list(reader.new())
    with log.open("ab") as output:
        process = subprocess.Popen(
            words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        over = process.poll() is not None
        for event in reader.new():
            if event["event"] == "start":
                return process, event, reader
        if over:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise RuntimeError(f"no trial was started:\n{tail(log)}")


def tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def long_run(kind: Kind, trials: int, out: Path) -> Path:
    """The folder of a run with ``trials`` finished trials; in a search that was killed, most wait at rungs instead."""
    data = tiny_images(out / "images")
    words = ["--data", str(data), *TINY, *kind.words(trials if kind.extended else trials + OPEN)]
    folder = out / kind.sweep / NAME
    process, _, _ = until_first_start(command(kind, out, "--name", NAME, *words), folder / JOURNAL, out / "begin.log")
    process.kill()
    process.wait()
    flags = replace(tyro.cli(kind.flags, args=words), name=NAME, out=out)
    request = replace(request_of(Start(kind.sweep, ()), flags, kind.spec(flags)), resume=True, address=INLINE)
    _go_on(check_request(request), folder, None if kind.extended else trials)
    return folder


def _go_on(ready: Ready, folder: Path, trials: int | None) -> None:
    """Keep the books of trials that nobody trains, until so many are there; with None, to the end of the search."""
    if ready.spec.search is not None:  # by chance: a sampler that learns would take minutes, and is told the same
        ready = replace(ready, spec=replace(ready.spec, search=replace(ready.spec.search, sampler="random")))
    recorder, rng = Recorder(folder), random.Random(0)
    course = Course(ready, recorder.run)
    recorder.listeners.append(course.heard)
    slices = course.slices()
    while (trials is None or len(recorder.run.trials) < trials) and (piece := slices.next()) is not None:
        job = piece.job
        recorder.told(job, {"event": "start", "info": INFO})
        for epoch in range(recorder.run.last_epoch(job.key) + 1, piece.until + 1):
            recorder.told(job, {"event": "epoch", "epoch": epoch, "metrics": metrics(job.config, epoch, rng)})
        if piece.until == EPOCHS:
            recorder.told(job, {"event": "end", "status": "completed", "reason": ""})
        slice_over(slices, recorder, piece, None)
    if slices.finished:
        for job, reason in slices.stopped():
            recorder.stopped(job, reason)
        recorder.write("done")
    recorder.close()
