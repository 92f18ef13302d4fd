"""The model card: what it says of a training's record, and what it does not claim."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.card import CARD, write_card
from trainables.journal import Journal
from trainables.runs import JOURNAL
from vqcore import VQVAE, ConfigError, TrialConfig, save

SMALL = TrialConfig().replace(channels=8, hidden_channels=8, residual_channels=4, codebook_size=16, dim=8, epochs=2)
MSES = {0: 0.010, 1: 0.012, 2: 0.017}
"""By seed, after the last epoch."""
EVIDENCE = ["rotation, beta 0.25: knee of the front", "", "seeds 0; after epoch 1"]
ORIGIN = {"sweep": "pareto", "name": "wide", "export": "knee", "seeds": [0], "data_hash": "d00d", "evidence": EVIDENCE}

Train = Callable[..., Path]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Writes what a full training leaves, as far as a card reads it."""

    def write(
        seed: int = 0, name: str | None = None, data: str = "cifar10-mini", origin: object = None, **facts: object
    ) -> Path:
        folder = tmp_path / "final" / (name or f"seed{seed}")
        config = SMALL.replace(seed=seed)
        journal = Journal(folder / JOURNAL)
        sizes = {"image_size": 32, "train_images": 2500, "test_images": 500}
        params = {"data": data, "data_hash": "d00d", **sizes} | facts
        tags = {"torch": "2.15.0", "command": "python -m trainables.final a|`b`.toml", "commit": "abc1234"}
        journal.write("sweep", sweep="final", name=folder.name, params=params, tags=tags, origin=origin or {})
        info = {"device": "cpu", "precision": "bf16"}
        key = config.key(str(params["data_hash"]))
        journal.write("start", trial=key, number=0, config=config.flat(), info=info)
        for epoch, mse in ((1, 0.02), (2, MSES[seed]), (3, 0.001)):  # the third: of a training that is being extended
            metrics = {"mse": mse, "perplexity": 8.0, "usage": 0.75, "bits": 192.0, "seconds": 30.0}
            journal.write("epoch", trial=key, epoch=epoch, metrics=metrics)
        journal.close()
        save(VQVAE(config.model), config, folder / "model.safetensors")
        return folder

    return write


def card_of(folder: Path) -> str:
    return write_card(folder).read_text()


def test_it_says_what_the_record_says(train: Train) -> None:
    card = card_of(train())
    assert card.startswith("---\nlibrary_name: vqcore\n")
    for said in (
        "- uoft-cs/cifar10\n",
        "An image of 32 x 32 pixels becomes 64 codes",
        "| codes | 16 of 8 dimensions |",
        "| test images | 500 |",
        "| commit | `abc1234` |",
        "| command | `python -m trainables.final a/'b'.toml` |",
        "| MSE | 0.01000 |",
        "| PSNR | 26.02 dB |",
        "| perplexity | 8.0 of 16 |",
        "codes used at least once: 12 of 16",
        "| bits a dimension | 0.0625 |",
        "| time | 60 s of",
    ):
        assert said in card, said
    assert "license" not in card
    configuration = card.partition("```toml\n")[2].partition("```")[0]
    assert TrialConfig.from_toml(tomllib.loads(configuration)) == SMALL


def test_a_folder_of_images_names_no_data_set_of_a_hub(train: Train) -> None:
    assert "datasets:" not in card_of(train(data="/data/mine"))


def test_one_seed_is_no_claim(train: Train) -> None:
    card = card_of(train())
    assert "One seed: these are the figures of one training, and no claim" in card
    assert "interval" not in card


def test_several_seeds_have_a_mean_and_students_interval(train: Train) -> None:
    folder = train(0)
    train(1)
    train(2)
    train(2, name="another-set", data_hash="beef")
    card = card_of(folder)
    assert "| mean | 0.0130 |" in card
    assert "| 95 % interval | [0.0040, 0.0220] |" in card  # 0.013 ± 4.303 · 0.003606 / √3
    assert card.count("| 2 | 0.01700 |") == 1
    assert "| [0.0040, 0.0220] | – | – | – |" in card, "values that do not spread"
    assert "had a part in choosing the configuration is not recorded" in card


def test_a_seed_that_chose_the_configuration_is_in_no_mean(train: Train) -> None:
    folder = train(0, origin=ORIGIN)
    train(1)
    card = card_of(folder)
    assert "| 0 (chose) | 0.01000 |" in card
    assert "no mean and no claim" in card
    assert "chosen by figures on this very test set" in card
    train(2)
    assert "| mean | 0.0145 |" in card_of(folder)


def test_the_evidence_of_the_export_stands_in_it(train: Train) -> None:
    card = card_of(train(origin=ORIGIN))
    assert (
        "`knee` of the sweep `pareto`, `wide`, which gave as evidence:\n\n    rotation, beta 0.25: knee of the f"
        in card
    )


def test_limits_follow_from_the_record(train: Train) -> None:
    best = card_of(train(0))
    assert "a longer training may lower it" in best
    assert "4 of 16 codes stand for nothing in the test set" in best
    MSES[5] = 0.03
    assert "the MSE was 0.02000 after epoch 1 and 0.03000 after epoch 2" in card_of(train(5))


def test_what_a_person_wrote_below_the_line_stays_and_a_readme_of_ones_own_is_not_overwritten(train: Train) -> None:
    folder = train()
    own = "\nIntended for tests.\n"
    with write_card(folder).open("a") as file:
        file.write(own)
    once = card_of(folder)
    assert once.endswith(own)
    assert card_of(folder) == once
    (folder / CARD).write_text("Mine.\n")
    with pytest.raises(ConfigError, match=r"README\.md: is no card of this command.*move it away"):
        write_card(folder)
    assert (folder / CARD).read_text() == "Mine.\n"


def with_prior(folder: Path, beside: Path) -> Path:
    """A prior's folder, which holds a copy of the model and a journal of its own."""
    beside.mkdir(parents=True)
    for name in ("model.safetensors", "model.toml"):
        (beside / name).write_bytes((folder / name).read_bytes())
    (beside / "prior.safetensors").write_bytes(b"")
    (beside / "prior.toml").write_text('[prior]\nkind = "causal"\n')
    named = ("uniform <b>|", 256.0, 256.0, 256.0, 0.083), ("causal prior", 170.25, 168.5, 172.0, 0.0554)
    keys = ("prior", "bits", "low", "high", "bits_per_dimension")
    saved = {"percent_under_entropy": 11.46, "percent_low": 11.0, "percent_high": 12.0}
    rates = {"test_images": 500, **saved, "rates": [dict(zip(keys, rate, strict=True)) for rate in named]}
    (beside / "rates.json").write_text(json.dumps(rates))
    return beside


def test_a_card_calls_nothing_a_saving_whose_interval_reaches_0(train: Train, tmp_path: Path) -> None:
    folder = with_prior(train(), tmp_path / "prior" / "one")
    rates = folder / "rates.json"
    rates.write_text(rates.read_text().replace('"percent_low": 11.0', '"percent_low": -0.5'))
    assert "is 11.5 % [-0.5, 12.0] under it, which is not told from no saving." in card_of(folder)


def test_a_prior_beside_the_model_has_its_section_and_the_model_its_record(train: Train, tmp_path: Path) -> None:
    card = card_of(with_prior(train(), tmp_path / "prior" / "one"))
    assert "A prior over the codes lies beside the model: `causal`." in card
    assert "| uniform &lt;b&gt;/ | 256.00 | [256.00, 256.00] | 0.0830 |" in card
    assert "| causal prior | 170.25 | [168.50, 172.00] | 0.0554 |" in card
    assert "The learned rate is 11.5 % [11.0, 12.0] under it." in card
    assert "| MSE | 0.01000 |" in card
    assert "needs a prior" not in card
    rates = tmp_path / "prior" / "one" / "rates.json"
    rates.write_text(rates.read_text().replace('"percent_low": 11.0', '"percent_low": -0.5'))
    assert "under it, which is not told from no saving." in card_of(rates.parent)


@pytest.mark.parametrize("content", ['{"rates": [', "[]", '{"test_images": 500}', '{"rates": [{"prior": "causal"}]}'])
def test_a_damaged_file_of_the_prior_is_named(train: Train, tmp_path: Path, content: str) -> None:
    folder = with_prior(train(), tmp_path / "prior" / "one")
    (folder / "rates.json").write_text(content)
    with pytest.raises(ConfigError, match=r"rates\.json: holds no rates"):
        write_card(folder)


def test_without_a_record_it_claims_nothing(train: Train) -> None:
    folder = train()
    (folder / JOURNAL).unlink()
    card = card_of(folder)
    assert "The record of its training is not here" in card
    assert "MSE |" not in card
    (folder / "model.toml").write_text("not [ toml")
    with pytest.raises(ConfigError, match="not valid TOML"):
        write_card(folder)
