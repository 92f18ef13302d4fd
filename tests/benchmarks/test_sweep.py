"""The benchmark refuses what it cannot measure, gives both sides the same images, and divides the right way round."""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.sweep import Run, SweepBenchmark, main, summary, times
from trainables.data import prepare
from trainables.sources import EMBEDDED
from vqcore.config import ConfigError
from vqcore.training import Images


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        main(SweepBenchmark(betas=(-1.0, 0.5), epochs=0, decay=1.5, repeats=0))
    assert all(words in str(error.value) for words in ("-1.0", "epochs = 0", "decay = 1.5", "repeats = 0"))


def test_a_missing_peer_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(ConfigError, match="pip install -e"):
        main(SweepBenchmark())


def test_both_sides_train_on_the_same_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks.peer_sweep import ParquetImages

    monkeypatch.setenv("VQSWEEP_CACHE", str(tmp_path))
    ours = Images(prepare("cifar10-mini").test(), torch.device("cpu"))
    peer = ParquetImages(EMBEDDED / "cifar10-mini" / "test-00000-of-00001.parquet")
    assert len(ours) == len(peer)
    torch.testing.assert_close(torch.stack([peer[i] for i in range(8)]), ours.batch(slice(0, 8)), atol=1e-6, rtol=0)


def test_the_ratio_is_of_medians_and_above_one_where_ours_is_faster() -> None:
    runs = [
        Run(side, wall, 1.0, 1.0, 8, "fp32", {}, {})
        for side, walls in (("ours", (10, 30, 11)), ("peer", (33, 20, 90)))
        for wall in walls
    ]
    found = summary(runs)
    assert found["ratio"] == 3.0
    assert found["median_seconds"]["ours"]["wall"] == 11


def test_times_are_counted_from_the_start_of_the_process() -> None:
    assert times(started=1000.0, wall=20.0, epochs=[1012.0, 1005.0]) == (20.0, 5.0, 8.0)
