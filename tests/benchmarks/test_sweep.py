"""The benchmark refuses what it cannot measure, gives both sides the same images, and divides the right way round."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.bare import Bare, Network
from benchmarks.cpu_times import by_kind
from benchmarks.sweep import Run, SweepBenchmark, main, summary, times
from benchmarks.sweep_parts import parts, share
from trainables.data import prepare
from trainables.sources import EMBEDDED
from vqcore.config import ConfigError, TrialConfig
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


def event(name: str, time: float, **fields: Any) -> dict[str, Any]:
    return {"event": name, "time": time, **fields}


def epoch(trial: str, began: float, ended: float) -> dict[str, Any]:
    return event("epoch", ended, trial=trial, metrics={"seconds": ended - began})


NETWORK = Bare(epoch=1.5, evaluation=0.25, files=0, cpu=1.5, images=100)
TRIAL = Bare(epoch=1.75, evaluation=0.25, files=0.125, cpu=1.875, images=100)

JOURNAL = [
    event("sweep", 3),
    event("start", 5, trial="a", info={}),
    *(event("start", 8, trial=trial, info={"pid": pid}) for trial, pid in (("a", 1), ("b", 2))),
    epoch("a", 6, 8),
    epoch("b", 7, 9),
    epoch("a", 8.25, 10.25),
    epoch("b", 9.5, 11.5),
    event("done", 13),
]


def test_every_second_of_a_sweep_went_into_one_part() -> None:
    found = list(parts(JOURNAL, started=0, wall=14, data=1, network=NETWORK, trial=TRIAL, slots=2).values())
    before, epochs, after = found[:4], found[4:8], found[8:]
    assert before == [2, 1, 2, 1.5]  # the second slot's first epoch begins a second later
    assert epochs == [2.5, 0.5, 0.5, 0.5]  # four epochs of two seconds on two slots
    # gaps of 0.25 and 0.5 s, in each a file of 0.125 s; then the first slot is empty for 1.25 s
    assert after == [0.125, 0.25, 0.625, 1.5, 1]
    assert sum(found) == 14


def test_a_share_is_of_what_the_slots_would_have_done_in_the_same_time() -> None:
    assert share(TRIAL, epochs=4, slots=2, wall=14) == 0.25


def test_cpu_time_is_summed_by_kind_of_process() -> None:
    seen = [("ray::VQTrial.train", 8), ("ray::VQTrial", 7), ("python -m sweeps.beta_ablation", 4), ("gcs_server", 1)]
    assert by_kind(seen) == {"Ray's own processes": 1, "the driver": 4, "the trials' processes": 15}


def test_a_slot_of_two_processes_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="2 processes, and there were 3 slots"):
        parts(JOURNAL, 0, 14, 1, NETWORK, TRIAL, slots=3)


def test_the_network_alone_learns_and_changes_nothing_as_it_is_evaluated() -> None:
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (16, 8, 8, 3), generator=chance, dtype=torch.uint8).numpy()
    config = TrialConfig().replace(channels=8, hidden_channels=8, batch_size=4, precision="fp32", learning_rate=1e-2)
    network, images = Network(config, torch.device("cpu")), Images(pixels, torch.device("cpu"))
    before = network.evaluate(images)
    assert network.evaluate(images) == before
    for _ in range(5):
        network.train_epoch(images)
    assert network.evaluate(images) < before
