"""``--set``: every field of the configuration is within reach of the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.journal import read
from vqcore.config import ConfigError, read_settings, read_toml


def test_words_become_values_in_the_type_of_their_field() -> None:
    words = ["codebook=gradient", "nu=0.5", "affine_groups=4", "alternate=True", "levels=8,5,5"]
    expected = {"codebook": "gradient", "nu": 0.5, "affine_groups": 4, "alternate": True, "levels": "8,5,5"}
    assert read_settings(words) == expected
    with pytest.raises(ConfigError) as error:
        read_settings(["nu=much", "alternate=2", "depth=3", "nu"])
    told = [problem.split(":")[0] for problem in error.value.problems]
    assert told == ["nu=much", "alternate=2", "depth=3", "nu"]


def test_a_run_is_made_and_resumed_with_its_settings(sweep: Callable[..., int], out: Path) -> None:
    assert sweep("--seeds", "1", "--name", "set", "--set", "codebook=gradient", "alternate=true", "init=kmeans++") == 0
    quantizer = read_toml(out / "beta_ablation/set/exports/best_mse.toml")["model"]["quantizer"]
    assert (quantizer["codebook"], quantizer["init"]) == ("gradient", "kmeans++")
    assert sweep("--resume", "set", "--epochs", "3") == 0
    trials = read(out / "beta_ablation/set/journal.jsonl").trials.values()
    assert [(trial.config["codebook"], trial.last_epoch) for trial in trials] == [("gradient", 3)] * 2


def test_every_layer_trains_from_the_command_line(sweep: Callable[..., int], out: Path) -> None:
    fsq = ["--betas", "0", "--estimators", "ste", "--set", "layer=fsq", "levels=4,4"]
    assert sweep("--seeds", "1", "--name", "fsq", "--epochs", "1", *fsq) == 0
    (trial,) = read(out / "beta_ablation/fsq/journal.jsonl").trials.values()
    assert trial.epochs[1]["usage"] > 0.1
    assert trial.config["codebook_size"] == 16


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "--set decay=0.5 commitment_weight=1",
            ["--set decay: has a flag of its own, --decay", "this sweep varies it"],
        ),
        ("--set nu=0.5", ["nu = 0.5: has a meaning only with codebook = 'gradient'"]),
        ("--set layer=fsq levels=8,8", ["fsq rounds straight through", "fsq has no commitment loss"]),
    ],
)
def test_what_cannot_be_set_is_told(
    sweep: Callable[..., int], words: str, told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--name", "never", *words.split()) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in told), said
