"""The benchmark of training counts the work that a step is known to be, refuses what it cannot run, and records all."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import training
from benchmarks.step_limits import work
from benchmarks.step_profile import PARTS, parts_of_a_step
from benchmarks.training import PRECISIONS, TrainingBenchmark, config_of, main, shares
from vqcore.config import ConfigError, TrialConfig
from vqcore.training import Images, Trainer

Pictures = Callable[[int, int], np.ndarray]
TINY = TrialConfig().replace(
    channels=8, hidden_channels=12, residual_channels=4, residual_blocks=1, dim=6, codebook_size=16, batch_size=16
)


def test_the_work_of_the_compact_models_step_is_what_was_counted_by_hand() -> None:
    """38.27 M multiply-accumulates an image; 29.73 GFLOP and 196 MB a step of 128 in bf16."""
    needed = work(config_of("compact/128"), 32, bf16=True)
    assert needed.macs == 38_273_024
    assert needed.flops == pytest.approx(29.73e9, rel=1e-3)
    assert needed.bytes == pytest.approx(196e6, rel=0.01)


def test_everything_wrong_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        main(TrainingBenchmark(cases=("compact/128", "large/32", "paper/0", "compact"), images=0, repeats=0))
    assert all(text in str(error.value) for text in ("'large/32'", "'paper/0'", "'compact'", "images = 0", "repeats"))


def test_shares_are_of_the_same_repeat_and_below_one_where_ours_is_slower() -> None:
    of_row = {"ours": 2.0, "networks": 1.0, training.PEER: 8.0, "convolutions": 0.5, "matrices": 0.1, "memory": 0.1}
    each_ms = {(name, row): [ms, 10 * ms] for name in PRECISIONS for row, ms in of_row.items()}
    own = shares("bf16", config_of("compact/128"), 32, each_ms)
    assert (own["of_networks"], own["of_convolutions"]) == (0.5, 0.25)
    assert own["of_matrices"] == pytest.approx(0.05 * 29.73e9 / (2 * 1024**3), rel=1e-3)
    assert own["of_memory"] == pytest.approx(0.05 * 196e6 / 2**27, rel=0.01)
    assert own["beside_peer"] == {"fp32": 4.0, "bf16": 4.0}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_file_holds_every_case_in_both_precisions_and_where_the_time_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Pictures, device: str
) -> None:
    monkeypatch.setattr(training, "config_of", lambda case: TINY)
    monkeypatch.setattr(training, "prepare", lambda name: SimpleNamespace(train=lambda: pictures(64, 0)))
    monkeypatch.setattr(training, "prepare_process", lambda cpus, gpus: torch.device(device))
    out = tmp_path / "new" / "training.json"
    main(TrainingBenchmark(cases=("compact/16",), images=32, repeats=2, profile=True, out=out))
    record = json.loads(out.read_text())
    for precision in PRECISIONS:
        own = record[device]["compact/16"][precision]
        assert all(len(ms) == 2 for ms in own["each_ms"].values())
        assert set(own["beside_others"]) == (set(training.ON_A_GPU) if device == "cuda" else set())
        assert record["profile"][f"compact/16 {precision}"].keys() == {*PARTS.values(), "rest"}
    assert [aim["met"] for aim in record["targets"]] == [aim["figure"] >= 0.85 for aim in record["targets"]]
    assert training.PEER in record["provenance"]


def test_the_parts_of_a_step_are_all_of_it(pictures: Pictures) -> None:
    images = Images(pictures(64, 0), torch.device("cpu"))
    parts = parts_of_a_step(Trainer(TINY), images)
    assert sum(parts.values()) == pytest.approx(1, abs=1e-3)
    assert min(parts[name] for name in PARTS.values()) > 0
