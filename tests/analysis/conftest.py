"""Runs as a sweep would have left them, written by the real journal with numbers made up on the spot."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.journal import Journal
from trainables.snapshots import write_snapshot
from trainables.storage import Store
from vqcore.config import TrialConfig

DATA_HASH = "0123456789abcdef"


def metrics(mse: float, perplexity: float, beta: float = 0.25, codes: int = 512) -> dict[str, float]:
    codebook = 0.02 / (1 + beta)
    test = {
        "mse": mse,
        "perplexity": perplexity,
        "usage": min(1.0, 1.5 * perplexity / codes),
        "bits": 64 * float(np.log2(perplexity)),
        "loss": mse + beta * codebook,
        "codebook_loss": codebook,
        "commitment_loss": codebook,
    }
    return {**test, **{f"train_{name}": 0.95 * value for name, value in test.items()}, "seconds": 1.5}


class RunMaker:
    """Writes one run folder: ``trial`` for each trial, as the driver would."""

    def __init__(self, folder: Path, name: str, swept: Sequence[str], **params: Any) -> None:
        self.folder = folder
        self.journal = Journal(folder / "journal.jsonl")
        self.number = 0
        self.journal.write(
            "sweep",
            sweep="beta_ablation",
            name=name,
            id="a1b2c3",
            swept=list(swept),
            epochs=4,
            trials=params.pop("trials", 6),
            tags={"commit": "1234567", "data": "cifar10-mini", "data_hash": DATA_HASH, "hardware": "cpu"}
            | params.pop("tags", {}),
            params={"data": "cifar10-mini", "data_hash": DATA_HASH, "image_size": 32, **params},
        )

    def trial(
        self,
        curve: Sequence[tuple[float, float]],
        end: str | None = "completed",
        reason: str = "",
        report: Mapping[str, float] = {},
        last: Mapping[str, float] = {},
        info: Mapping[str, str] = {"device": "cpu"},
        **config: Any,
    ) -> str:
        """A trial that reports (mse, perplexity) an epoch and ends so; returns its key. Without ``end`` it runs on.

        ``report`` is laid over the metrics of every epoch, ``last`` over those of the last one.
        """
        trial = TrialConfig.from_flat({"epochs": 4, **config})
        key, flat = trial.key(DATA_HASH), trial.flat()
        self.journal.write("start", trial=key, number=self.number, config=flat, info=dict(info))
        self.number += 1
        for epoch, (mse, perplexity) in enumerate(curve, 1):
            usual = metrics(mse, perplexity, flat["commitment_weight"], flat["codebook_size"])
            end_of_all = last if epoch == len(curve) else {}
            self.journal.write("epoch", trial=key, epoch=epoch, metrics={**usual, **report, **end_of_all})
        if end:
            self.journal.write("end", trial=key, status=end, reason=reason, epoch=len(curve))
        return key

    def seeds(self, mses: Sequence[float], perplexities: Sequence[float], **config: Any) -> list[str]:
        """A completed configuration: the last value of each seed, after three epochs on the way there."""
        return [
            self.trial([(mse * w, perplexity / w) for w in (2.5, 1.6, 1.2, 1.0)], seed=seed, **config)
            for seed, (mse, perplexity) in enumerate(zip(mses, perplexities, strict=True))
        ]

    def reconstructions(self, key: str, noise: float = 10.0) -> None:
        path = self.folder / "trials" / key / "reconstructions.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (8, 32, 32, 3))
        blurred = np.clip(images + generator.normal(0, noise, images.shape), 0, 255)
        np.save(path, np.stack([images, blurred]).astype(np.uint8))

    def snapshots(self, key: str, *epochs: int, codes: int = 512, dim: int = 64, used: int = 300) -> None:
        """Of a codebook that drifts from epoch to epoch, of whose codes the first ``used`` are used."""
        generator = np.random.default_rng(0)
        start, images = generator.normal(size=(codes, dim)), generator.integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
        store = Store(str(self.folder / "trials" / key))
        (self.folder / "trials" / key).mkdir(parents=True, exist_ok=True)
        counts = np.where(np.arange(codes) < used, np.arange(codes)[::-1] + 1, 0)
        for epoch in epochs:
            codebook = (start * (1 + epoch)).astype(np.float32)
            index = generator.integers(0, used, 100)
            arrays = {"images": images[0], "reconstructions": images[1], "counts": counts, "codebook": codebook}
            arrays |= {"embeddings": (codebook[index] + 0.1).astype(np.float16), "codes": index}
            arrays["patches"] = generator.integers(0, 256, (codes, 4, 4, 3), np.uint8)
            write_snapshot(store, epoch, arrays)
        np.save(self.folder / "trials" / key / "usage.npy", counts)

    def done(self) -> Path:
        self.journal.write("done")
        return self.close()

    def close(self) -> Path:
        self.journal.close()
        return self.folder


MakeRun = Callable[..., RunMaker]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str = "quick", swept: Sequence[str] = ("commitment_weight",), **params: Any) -> RunMaker:
        return RunMaker(tmp_path / "beta_ablation" / "run", name, swept, **params)

    return make


@pytest.fixture
def ablation(make_run: MakeRun) -> Path:
    """A finished run with a trade-off, three seeds a beta, and one diverged trial."""
    run = make_run(trials=10)
    table: Mapping[float, tuple[float, float]] = {0.1: (0.020, 260.0), 0.25: (0.022, 300.0), 1.0: (0.030, 200.0)}
    chance = random.Random(1)
    for beta, (mse, perplexity) in table.items():
        keys = run.seeds(
            [mse + chance.gauss(0, 0.0004) for _ in range(3)],
            [perplexity + chance.gauss(0, 4) for _ in range(3)],
            commitment_weight=beta,
        )
        run.reconstructions(keys[0], noise=20 * beta)
    run.trial([(0.05, 9.0)], "diverged", "loss is not finite", commitment_weight=2.0)
    return run.done()
