"""Learned priors in reports: whose they are, what several seeds say together, and what is said of damaged files."""

import hashlib
import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import compare, learned_rates, tables
from analysis.figures import __main__ as figures
from analysis.page import write_page
from analysis.priors import priors_of, sentences
from analysis.report import analyse
from analysis.results import load
from trainables.journal import Journal
from vqcore.config import ConfigError, write_toml

MODEL = b"the weights of a model"
PRIOR = {"kind": "causal", "codebook_size": 16, "rows": 8, "columns": 8, "classes": 0, "width": 16, "layers": 1,
         "heads": 2, "dropout": 0.1}  # fmt: skip
TRAINING = {"epochs": 3, "batch_size": 64, "learning_rate": 0.001, "patience": 4, "precision": "auto"}
LEARNED = {0: 120.0, 1: 122.0, 2: 124.0}
"""Bits an image by seed."""


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A full training, as far as a report reads it."""
    folder = tmp_path / "final" / "small"
    journal = Journal(folder / "journal.jsonl")
    journal.write("sweep", sweep="final", name="small", id="f", swept=[], trials=1, params={"data": "cifar10-mini"})
    journal.write("start", trial="kkk", number=0, config={"estimator": "rotation", "epochs": 1}, info={})
    metrics = {"mse": 0.04, "perplexity": 9.0, "usage": 1.0, "bits": 99.0}
    journal.write("epoch", trial="kkk", epoch=1, metrics=metrics)
    journal.write("end", trial="kkk", status="completed", reason="", epoch=1)
    journal.write("done")
    journal.close()
    (folder / "model.safetensors").write_bytes(MODEL)
    return folder


def train(out: Path, seed: int = 0, of: bytes = MODEL, name: str = "", ended: bool = True, **changed: object) -> Path:
    """What ``trainables.prior`` leaves."""
    prior = {key: changed.get(key, value) for key, value in PRIOR.items()}
    folder = out / "prior" / (name or f"seed{seed}")
    journal = Journal(folder / "journal.jsonl")
    params = {"data": "cifar10-mini", "data_hash": "d00d", "model": "/elsewhere", "model_hash": hash_of(of)}
    journal.write("sweep", sweep="prior", name=folder.name, id=folder.name, swept=[], trials=1, params=params)
    info = {"precision": "bf16", "device": "cpu"}
    journal.write("start", trial="ppp", number=0, config={**prior, **TRAINING, "seed": seed}, info=info)
    for epoch, bits in ((1, 131.5), (2, 121.5), (3, 123.25))[: 3 if ended else 1]:
        metrics = {"train_bits": bits + 2, "validation_bits": bits + seed, "seconds": 1.0}
        journal.write("epoch", trial="ppp", epoch=epoch, metrics=metrics)
    if ended:
        journal.write("end", trial="ppp", status="completed", reason="", epoch=3)
        journal.write("done")
        facts = {"model": {"hash": hash_of(of)}, "data": {"source": "cifar10-mini", "hash": "d00d"}}
        write_toml(folder / "prior.toml", {"prior": prior, "training": {**TRAINING, "seed": seed}, **facts})
        (folder / "prior.safetensors").write_bytes(b"weights")
        names = {"uniform": 256.0, "unigram entropy": 136.0, "unigram code": 136.5, "<i>causal</i>": LEARNED[seed]}
        rows = [
            {"prior": name, "bits": bits, "low": bits - 1, "high": bits + 1, "bits_per_dimension": bits / 3072}
            for name, bits in names.items()
        ]
        percent = 100 * (1 - LEARNED[seed] / 136)
        under = {"percent_under_entropy": percent, "percent_low": percent - 0.5, "percent_high": percent + 0.5}
        sample = {"images": "samples", "precision": 0.81, "recall": 0.42, "coverage": 0.37}
        content = {"test_images": 500, **under, "rates": rows, "samples": [sample]}
        (folder / "rates.json").write_text(json.dumps(content))
        (folder / "summary.json").write_text('{"metrics": {}, "findings": ["its own"]}')
        (folder / "figures").mkdir()
        for shade, picture in enumerate(("samples", "completions", "interpolations")):
            Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(folder / "figures" / f"{picture}.png")
    journal.close()
    return folder


def section(folder: Path) -> str:
    """The part of the page, as text a person would see."""
    found = re.search(r'<section id="prior">(.*?)</section>', write_page(load(folder)).read_text(), re.DOTALL)
    return unescape(found[1]) if found else ""


def test_a_report_of_a_model_without_a_prior_has_no_such_part(model: Path) -> None:
    train(model.parent.parent, of=b"another model")
    assert section(model) == ""
    assert 'href="#prior"' not in (model / "report.html").read_text()


def test_one_seed_is_said_to_be_one_seed(model: Path) -> None:
    train(model.parent.parent)
    (said,) = sentences(priors_of(load(model)))
    assert said.startswith("causal prior, width 16, layers 1, heads 2: 120.00 bits an image, 11.8 % [11.3, 12.3] under")
    assert said.endswith("One seed: how far others spread is not known.")
    assert "Over seeds" not in section(model)


def test_an_interval_that_holds_zero_is_no_saving(model: Path) -> None:
    rates = train(model.parent.parent) / "rates.json"
    content = json.loads(rates.read_text()) | {"percent_low": -0.2}
    rates.write_text(json.dumps(content))
    assert (
        "of the test codes, 136.00, which is not told from no saving; the interval"
        in sentences(priors_of(load(model)))[0]
    )


def test_a_learned_prior_of_a_collapsed_codebook_is_not_said_to_count(model: Path) -> None:
    rates = train(model.parent.parent) / "rates.json"
    content = json.loads(rates.read_text())
    rates.write_text(json.dumps({name: value for name, value in content.items() if "percent" not in name}))
    (said,) = sentences(priors_of(load(model)))
    assert said.endswith("heads 2: 120.00 bits an image [119.00, 121.00] over images.")


def test_seeds_of_one_configuration_have_a_mean_and_an_interval(model: Path) -> None:
    for seed in LEARNED:
        train(model.parent.parent, seed)
    train(model.parent.parent, 1, name="twice")  # the same seed counts once
    (said,) = sentences(priors_of(load(model)))
    # mean 122, sd 2: t(2) = 4.303, so 4.303 * 2 / sqrt(3) = 4.97 either way
    assert "122.0 ± 2.0 bits an image over 3 seeds, 95 % interval of the mean [117.0, 127.0]" in said
    assert "10.3 ± 1.5 % [6.6, 13.9]" in said


def test_the_section_has_rates_curves_pictures_of_the_best_and_whatever_was_measured_of_samples(model: Path) -> None:
    for seed in LEARNED:
        train(model.parent.parent, seed)
    train(model.parent.parent, 0, name="wide", width=32)
    page = section(model)
    assert page.count('<td class="n">256.00</td>') == 1  # what needs no prior stands once
    assert "<i>" not in write_page(load(model)).read_text()
    assert "causal prior, width 32, layers 1, heads 2, seed 0 (wide)" in page
    figure = re.search(r'<svg id="prior-curves".*?</svg>', page, re.DOTALL)[0]
    assert len(re.findall(r'class="curve e', figure)) == len(re.findall(r'class="curve dashed e', figure)) == 4
    assert page.count("data:image/png") == 3
    assert "Samples: seed0" in page
    assert re.search(r"coverage</th>.*0.81</td><td class=\"n\">0.42</td><td class=\"n\">0.37", page, re.DOTALL)
    assert "not whether they show anything" in page


def test_a_priors_own_report_has_nothing_that_needs_an_mse_and_leaves_its_summary(tmp_path: Path) -> None:
    folder = train(tmp_path)
    train(tmp_path, 1)
    train(tmp_path, 0, of=b"another model", name="stranger")
    found = analyse(folder)
    assert [path.name for path in found.paths] == ["report.html"]
    assert "over 2 seeds" in found.lines[0]
    page = (folder / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == ["prior", "provenance"]
    assert re.findall(r'href="#(\w+)"', page.partition("</nav>")[0])[-2:] == ["prior", "provenance"]
    assert not re.search(r"\bMSE\b|<script|stranger", page)
    assert json.loads((folder / "summary.json").read_text())["findings"] == ["its own"]


def test_a_prior_under_way_shows_its_curve(tmp_path: Path) -> None:
    folder = train(tmp_path, ended=False)
    assert "not completed, 1 of at most 3 epochs; no rates yet" in analyse(folder).lines[0]
    assert 'id="prior-curves"' in section(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rates.json", b'{"rates": [', "seed0: the prior is not shown, its files are damaged"),
        ("rates.json", b'{"rates": [{"prior": 1}], "test_images": 3}', "seed0: the prior is not shown"),
        ("rates.json", b"[]", "seed0: the prior is not shown"),
        ("rates.json", None, "FileNotFoundError"),
        ("prior.toml", b"[prior", "prior.toml"),
        ("prior.toml", b"prior = 3", "seed0: the prior is not shown"),
        ("figures/samples.png", b"\x89PNG\r\n\x1a\n cut off", "seed0: its samples are damaged and not shown"),
    ],
)
def test_damaged_files_are_a_line_and_hide_no_other_prior(
    model: Path, name: str, content: bytes | None, said: str
) -> None:
    damaged = train(model.parent.parent)
    train(model.parent.parent, 1)
    (damaged / name).unlink()
    if content is not None:
        (damaged / name).write_bytes(content)
    assert "seed 1 (seed1)" in section(model)
    warned = re.findall(r'<p class="warn">(.*?)</p>', (model / "report.html").read_text())
    assert [line for line in warned if said in unescape(line)], warned


@pytest.mark.parametrize("command", [tables.main, figures.main])
def test_commands_for_models_say_what_a_prior_has(tmp_path: Path, command: object) -> None:
    folder = train(tmp_path)
    with pytest.raises(ConfigError, match=r"trained a prior, which has no MSE; `.*analysis.report .*seed0` writes"):
        command("prior/seed0", out=tmp_path)
    assert not (folder / "tables").exists()


def test_a_comparison_names_every_prior(tmp_path: Path) -> None:
    train(tmp_path)
    train(tmp_path, 1)
    with pytest.raises(ConfigError) as error:
        compare.named(["seed0", "seed1"], tmp_path)
    assert len(error.value.problems) == 2


def test_priors_of_several_models_have_a_mean_together(model: Path, tmp_path: Path, capsys) -> None:
    names = [train(tmp_path, seed, of=bytes([seed])).name for seed in range(3)]
    learned_rates.main(names, tmp_path)
    screen = capsys.readouterr().out
    assert "Mean of 3: 122.0 ± 2.0 bits an image [117.0, 127.0]" in screen
    other = train(tmp_path, 0, of=b"4", name="wide", width=32)
    with pytest.raises(ConfigError, match=r"wide: differs in width from .*seed0"):
        learned_rates.main([*names, other.name], tmp_path)
    with pytest.raises(ConfigError, match=r"small: has no learned rate; train it to its end"):
        learned_rates.main([*names, model.name], tmp_path)
