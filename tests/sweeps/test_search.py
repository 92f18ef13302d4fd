"""Sweeps that search, as a user starts them: real trials on a few real images, in this process."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from read_back import without_mlflow

from sweeps.cli import command
from sweeps.codebook_sizes import CodebookSizes
from sweeps.codebook_sizes import spec as sizes
from sweeps.estimators import Estimators
from sweeps.estimators import spec as estimators
from sweeps.pareto import Pareto, spec
from sweeps.run import run
from trainables.journal import RunRecord, read
from trainables.runs import JOURNAL

START = "pareto", ("sweeps.pareto",)
TINY = ["--batch-size", "32", "--set", "channels=8", "hidden_channels=8", "residual_channels=4", "dim=4"]


@pytest.fixture
def pareto(images: Path, out: Path) -> Callable[..., int]:
    """Run ``pareto`` inline with these words; its exit code."""

    def go(*words: str) -> int:
        small = ["--data", str(images), "--epochs", "4", "--codebook-sizes", "8", "16", "--trials", "6", *TINY]
        shared = ["--out", str(out), "--address", "inline"]
        with without_mlflow():
            return command(*START, Pareto, spec, [*([] if "--resume" in words else small), *shared, *words])

    return go


ASHA = ("--early-stopping", "asha", "--grace", "1", "--reduction", "2")


def record(out: Path, name: str, sweep: str = "pareto") -> RunRecord:
    return read(out / sweep / name / JOURNAL)


@pytest.mark.slow
def test_a_search_draws_stops_early_and_says_why(
    pareto: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pareto("--name", "search", *ASHA) == 0
    trials = record(out, "search").trials.values()
    assert len(trials) == 6
    assert {trial.status for trial in trials} == {"completed", "stopped"}
    for trial in trials:
        if trial.status == "stopped":
            assert trial.reason.startswith(f"rung {trial.last_epoch}: rank ")
            assert trial.reason.endswith("kept 1 in 2")
    assert {trial.config["codebook_size"] for trial in trials if trial.status == "completed"} == {8, 16}
    shown = " ".join(capsys.readouterr().out.split())
    rungs = Counter(trial.last_epoch for trial in trials if trial.status == "stopped")  # other arithmetic, other rungs
    (told,) = re.findall(r"trials stopped early: (.*?);", shown)
    assert sorted(told.split(", ")) == sorted(f"rung {epoch} ({count})" for epoch, count in rungs.items())
    assert (out / "pareto" / "search" / "results.parquet").exists()


@pytest.mark.slow
def test_what_a_search_drew_is_known_without_its_start_and_its_checkpoint(
    pareto: Callable[..., int], out: Path
) -> None:
    assert pareto("--name", "drawn", *ASHA, "--trials", "5") == 0
    whole, journal = record(out, "drawn"), out / "pareto" / "drawn" / JOURNAL
    second = next(trial.key for trial in whole.trials.values() if trial.number == 1)
    lines = journal.read_bytes().splitlines(keepends=True)
    left = [line for line in lines if not (line.startswith(b'{"event":"start"') and second.encode() in line)]
    assert len(left) < len(lines)
    journal.write_bytes(b"".join(left))
    shutil.rmtree(out / "pareto" / "drawn" / "trials" / second)
    assert pareto("--resume", "drawn") == 0
    after = record(out, "drawn")
    assert {key: (t.number, t.config, t.status) for key, t in after.trials.items()} == {
        key: (t.number, t.config, t.status) for key, t in whole.trials.items()
    }
    assert all(dict(trial.epochs) == dict(whole.trials[key].epochs) for key, trial in after.trials.items())


def test_a_budget_is_not_exceeded(pareto: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pareto("--name", "budget", "--early-stopping", "none", "--budget", "10") == 0
    trials = record(out, "budget").trials.values()
    assert sum(trial.last_epoch for trial in trials) == 10
    assert [t.reason for t in trials if t.status == "stopped"] == ["the budget of 10 epochs is spent"]
    assert "6 trials: 2 completed, 1 stopped early, 3 not begun; the budget of 10 epochs is spent" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_search_keeps_its_space(pareto: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert pareto("--name", "same-space", "--trials", "1", "--epochs", "1") == 0
    capsys.readouterr()
    assert pareto("--resume", "same-space", "--codebook-sizes", "8", "32") == 2
    assert "codebook_size: run same-space searches [8, 16], now it would be [8, 32]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--betas", "4", "0.1"], "commitment_weight from 4.0 to 0.1, log = True: must go from a finite number up"),
        (["--codebook-sizes"], "codebook_size: no values to sweep"),
        (["--objectives", "nonsense"], "objective 'nonsense': say whether less or more is better"),
        (["--objectives", "mse", "psnr:max"], "psnr: no trial reports it; there are mse, "),
        (["--constraints", "speed >= 3"], "speed: no trial reports it"),
        (["--objectives", "mse", "bits_learned"], "bits_learned: no trial reports it with --rate unigram; add --rate"),
        (["--constraints", "bits_learned <= 9"], "bits_learned: no trial reports it with --rate unigram; add --rate"),
        (["--objectives", "mse", "train_bits_learned:min", "--rate", "learned"], "train_bits_learned: no trial rep"),
        (
            ["--objectives", "bits_learned", "--rate", "learned"],
            "objective bits_learned: is known after a trial's last epoch alone, and --early-stopping auto decides by "
            "earlier ones; add --early-stopping none, or take bits_unigram, which each epoch reports",
        ),
        (["--objectives", "mse", "bits_learned", "--rate", "learned", *ASHA], "last epoch alone, and --early-stopping"),
        (["--constraints", "perplexity = 3"], "constraint 'perplexity = 3'"),
        (["--constraints", "parameters <= 10"], "parameters"),
        (["--trials", "0"], "trials = 0"),
        (["--budget", "1"], "budget = 1: not enough for one trial of 4 epochs"),
        (["--warm-start", "nowhere"], "'nowhere': no such run"),
        (["--early-stopping", "asha", "--grace", "0"], "grace = 0"),
        (["--grace", "2"], "grace = 2: does nothing with --early-stopping auto"),
        (["--grace", "2", "--stop-chance", "7"], "stop_chance = 7: must be between 0 and 1"),
        (["--early-stopping", "none", "--stop-chance", "0.1"], "stop_chance = 0.1: does nothing with"),
        (["--stop-chance", "0"], "stop_chance = 0: must be between 0 and 1"),
        (["--collapse-usage", "2"], "collapse_usage = 2: is a share"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_trial(
    pareto: Callable[..., int], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert pareto("--name", "never", *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_each_estimator_gets_as_many_trials_and_more_seeds_of_its_own_best(images: Path, out: Path) -> None:
    words = ["--data", str(images), "--epochs", "2", "--codebook-size", "8", "--trials", "3", "--seeds", "2", *TINY]
    words += ["--out", str(out), "--address", "inline", "--name", "fair"]
    with without_mlflow():
        assert command("estimators", ("sweeps.estimators",), Estimators, estimators, words) == 0
    trials = record(out, "fair", "estimators").trials.values()
    screened = [trial.config["estimator"] for trial in trials if trial.config["seed"] == 0]
    assert sorted(screened) == ["rotation"] * 3 + ["ste"] * 3
    assert {trial.config["estimator"] for trial in trials if trial.config["seed"] == 1} == {"rotation", "ste"}


def test_the_papers_sizes_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert sizes(CodebookSizes()).space["codebook_size"] == (256, 512, 1024, 2048)
    assert sizes(CodebookSizes(sizes=("small", "96"))).space["codebook_size"] == (256, 96)
    assert (
        command("codebook_sizes", ("sweeps.codebook_sizes",), CodebookSizes, sizes, ["--sizes", "small", "huge"]) == 2
    )
    assert "codebook_size = 'huge'" in capsys.readouterr().err


def test_the_plan_of_a_search_says_what_each_rung_trains(
    pareto: Callable[..., int], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--plan", "--name", "plan", "--trials", "18", "--epochs", "9", "--early-stopping", "asha", "--seeds", "3"]
    assert pareto(*words) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "18 to epoch 1, 6 to epoch 3, 2 to epoch 9" in said
    assert "one to screen, which counts in no mean; near the front up to 2" in said
    assert f"about {18 + 6 * 2 + 2 * 6}, at most {18 * 9 * 3}, of" in said
    assert "a trial at most" in said
    assert not (out / "pareto" / "plan").exists()


def test_of_a_grid_the_budget_leaves_trials_that_never_begin(
    images: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "short.toml"
    file.write_text("[space]\ncommitment_weight = [0.1, 0.2, 0.3]\n[flags]\nsampler = 'grid'\nearly_stopping = 'none'")
    words = ["run", str(file), "--data", str(images), "--epochs", "1", "--codebook-size", "8", "--budget", "2", *TINY]
    with without_mlflow():
        assert run([*words, "--out", str(out), "--address", "inline", "--name", "short"]) == 0
    assert [trial.status for trial in record(out, "short", "short").trials.values()] == ["completed"] * 2
    said = " ".join(capsys.readouterr().out.split())
    assert "3 trials: 2 completed, 1 not begun; the budget of 2 epochs is spent" in said
