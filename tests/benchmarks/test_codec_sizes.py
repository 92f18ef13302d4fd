"""The benchmark of the codec: other formats at the same error, and only bytes that each image has for itself."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.codec import Lossy, at_error, jpeg, main, mosaic, scan, webp, without_headers
from trainables.journal import Journal
from trainables.models import find_model
from vqcore import TrialConfig, save
from vqcore.prior import PriorConfig, make_prior, save_prior
from vqcore.vqvae import seeded

SMALL = TrialConfig().replace(channels=8, hidden_channels=8, residual_channels=4, codebook_size=16, dim=8)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)


def test_a_mosaic_holds_every_picture_once_and_nothing_else() -> None:
    whole = mosaic(noise(6))
    assert whole.shape == (1, 64, 96, 3)
    assert np.array_equal(whole[0, 32:, 64:], noise(6)[5])


def test_of_a_jpeg_its_scan_alone_counts_and_of_a_webp_what_follows_its_headers() -> None:
    flat = np.zeros((32, 32, 3), np.uint8)
    assert scan(jpeg("4:2:0", flat, 50, shared=True)) < 20
    file = jpeg("4:4:4", noise(1)[0], 50, shared=True)
    assert 500 < scan(file) < len(file) - 500
    small = webp(flat, 50, shared=True)
    assert (small[:4], small[12:16], small[23:26]) == (b"RIFF", b"VP8 ", b"\x9d\x01\x2a")
    assert 0 < without_headers(small) < 30


def test_the_quality_is_the_one_whose_error_is_asked_for() -> None:
    """A format whose error is 100 - quality, and whose files are as long as the quality."""

    def save(picture: np.ndarray, quality: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture + np.uint8(100 - quality)).save(file, "PNG")
        return file.getvalue()

    lossy = Lossy(100, save, lambda file: 200 - int(np.asarray(Image.open(io.BytesIO(file))).max()))
    flat = np.zeros((2, 8, 8, 3), np.uint8)
    found = at_error(lossy, flat, 650.0)  # between 25 and 26 squared
    assert found["quality"] == "74 to 75"
    assert found["bytes_an_image"] == pytest.approx(174 + (26**2 - 650) / (26**2 - 25**2))
    assert at_error(lossy, flat, 1e6)["quality"] == "1"
    assert at_error(lossy, flat, -1.0)["quality"] == "100"


def test_the_file_holds_every_row_and_that_all_codes_came_back(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "prior" / "one"
    journal = Journal(folder / "journal.jsonl")
    journal.write("sweep", sweep="prior", name="one", params={"data": "cifar10-mini", "image_size": 32})
    journal.close()
    save(seeded(SMALL.model, seed=0), SMALL, folder / "model.safetensors")
    facts = {"model": {"hash": find_model("one", tmp_path / "runs").hash}}
    prior = make_prior(PriorConfig(codebook_size=16, width=16, layers=1, heads=2))
    save_prior(prior, folder / "prior.safetensors", facts)
    out = tmp_path / "codec.json"
    main("one", images=12, runs=tmp_path / "runs", out=out)
    record = json.loads(out.read_text())
    assert [record["ours"][kind]["codes_equal"] for kind in ("unigram", "learned")] == [True, True]
    names = [row["name"] for row in record["rows"]]
    assert len(names) == 3 + 11 + 4
    assert record["header_shares"].keys() == {"JPEG 4:2:0", "JPEG 4:4:4", "WebP"}
    assert all(0 < share < 1 for share in record["header_shares"].values())
    assert names[:3] == ["codes, all of one length", "ours, unigram prior", "ours, learned prior"]
    assert record["rows"][0]["bytes_an_image"] == 32
    assert record["needed_bytes"].keys() == {"model.safetensors", "prior.safetensors"}
