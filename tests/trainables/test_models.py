"""A trained model by its name, its folder or its file."""

from pathlib import Path

import pytest

from trainables.journal import Journal
from trainables.models import find_model
from vqcore import VQVAE, ConfigError, TrialConfig, save

SMALL = TrialConfig().replace(channels=8, hidden_channels=8, residual_channels=4, codebook_size=16, dim=8)


@pytest.fixture
def training(tmp_path: Path) -> Path:
    """The folder of a full training ``final/one``, as far as it matters here."""
    folder = tmp_path / "final" / "one"
    journal = Journal(folder / "journal.jsonl")
    journal.write("sweep", sweep="final", name="one", params={"data": "cifar10-mini", "image_size": 32})
    journal.close()
    save(VQVAE(SMALL.model), SMALL, folder / "model.safetensors")
    return folder


def test_a_model_is_found_by_name_folder_and_file(training: Path) -> None:
    names = ["one", "final/one", str(training), str(training / "model.safetensors")]
    one, *others = [find_model(name, training.parents[1]) for name in names]
    assert others == [one] * 3
    assert (one.source, one.image_size, len(one.hash)) == ("cifar10-mini", 32, 16)
    assert one.load().config == SMALL.model


def test_a_training_that_has_not_ended_is_named(training: Path) -> None:
    (training / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"one: .* holds no model\.safetensors; name a full training that has ended"):
        find_model("one", training.parents[1])


def test_without_a_journal_the_data_set_must_be_named(training: Path) -> None:
    (training / "journal.jsonl").unlink()
    with pytest.raises(ConfigError, match="names a data set; add --data"):
        find_model(str(training), training).data()


def test_a_model_without_a_prior_is_told_how_to_get_one(training: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no prior\.safetensors; .* train one with .*trainables\.prior "):
        find_model("one", training.parents[1]).prior()
