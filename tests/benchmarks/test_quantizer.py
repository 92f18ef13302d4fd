"""The benchmark of the layer refuses what it cannot measure, divides the right way round, and measures what it says."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import quantizer
from benchmarks.quantizer import GPU_ROWS, PEER, ROWS, QuantizerBenchmark, Row, inputs, main, ratio, shape_of, targets
from vqcore.config import ConfigError

TINY = "96x8x64"


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizer, "_cpu_extra_mib", lambda name, size, step: 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # other tests run in this process


def test_everything_wrong_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        main(QuantizerBenchmark(sizes=("64x8", TINY, "8x0x4", "axbxc"), repeats=0))
    assert all(text in str(error.value) for text in ("'64x8'", "'8x0x4'", "'axbxc'", "repeats = 0"))
    assert TINY not in str(error.value)


@pytest.mark.usefixtures("no_processes")
def test_the_file_holds_every_row_its_targets_and_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizer, "KMEANS", "200x4x8")
    out = tmp_path / "new" / "quantizer.json"
    main(QuantizerBenchmark(sizes=(TINY, "32x4x64"), repeats=3, out=out))
    record = json.loads(out.read_text())
    assert list(record["cpu"]) == [TINY, "32x4x64"]
    assert list(record["cpu"][TINY]) == list(ROWS)
    assert all(len(row["each_ms"]) == 3 and row["extra_mib"] == 1.0 for row in record["cpu"][TINY].values())
    assert record["cpu"][TINY]["floor"]["ratio"] == 1.0
    assert record["gpu"] is None
    assert {"commit", "hardware", "torch", PEER} <= record["provenance"].keys()
    assert all(aim["met"] == (aim["figure"] <= aim["at_most"]) for aim in record["targets"])


def test_the_products_rows_leave_torchs_precision_as_it_was() -> None:
    """These rows are measured on a GPU alone; they run anywhere."""
    torch.set_float32_matmul_precision("high")
    try:
        for name in GPU_ROWS.keys() - ROWS.keys():
            GPU_ROWS[name](*inputs(TINY))()
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_ratio_is_below_one_where_ours_is_faster_and_of_the_same_repeat() -> None:
    assert ratio([2.0, 20.0, 2.0], [4.0, 40.0, 4.0]) == 0.5
    assert ratio([1.0, 10.0, 3.0], [2.0, 20.0, 30.0]) == 0.5  # two medians would say 3 / 20


def test_targets_divide_ours_by_the_peer() -> None:
    def row(ms: float, mib: float) -> Row:
        return Row(ratio=ms / 10, ms=ms, extra_mib=mib, each_ms=[ms])

    size, fewer = "16384x64x8192", "16384x64x1024"
    rows = dict(zip(ROWS, (row(*m) for m in ((10, 9), (2, 30), (1, 30), (40, 1000), (40, 900))), strict=True))
    assert {tuple(aim.values()) for aim in targets({size: rows, fewer: rows}, 3.0)} == {
        ("step, of the floor", size, 0.3, 0.2, True),
        ("step, of the floor", fewer, 0.45, 0.2, True),
        *(("step, of the peer's", one, at_most, 0.05, True) for one in (size, fewer) for at_most in (0.1, 0.2)),
        *(("step, of ours with ste", one, 1.1, 2.0, False) for one in (size, fewer)),
        ("extra memory, of the peer's", size, 0.05, 0.03, True),
        ("k-means++ on two threads, wall seconds", quantizer.KMEANS, 10, 3.0, True),
    }


def test_all_rows_start_from_the_same_codes() -> None:
    from vector_quantize_pytorch import VectorQuantize

    z_ND, codes_KD = inputs(TINY)
    assert (z_ND.shape, codes_KD.shape, shape_of(TINY)) == ((96, 8), (64, 8), (96, 8, 64))
    assert z_ND.requires_grad
    assert z_ND.min() >= 0.1 - 1e-6
    seen = []
    real = VectorQuantize.forward
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            VectorQuantize,
            "forward",
            lambda self, z: seen.append(self.codebook.clone()) or real(self, z),
        )
        ROWS["vector-quantize-pytorch, rotation"](z_ND, codes_KD)()
    assert torch.equal(seen[0], codes_KD)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux alone keeps the peak")
def test_extra_memory_of_the_floor_is_its_matrix_of_scores() -> None:
    extra = quantizer._cpu_extra_mib("floor", "8192x4x2048", lambda: None)
    assert extra == pytest.approx(64, abs=16)
