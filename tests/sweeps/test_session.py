"""A sweep as a user sees it, in process: what it leaves, how it resumes, what bad input gets."""

import json
import shutil
import time
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from read_back import Driver, InEpoch, Sweep, ctrl_c, folder, metrics

from trainables.errors import FatalRunError
from trainables.journal import read
from trainables.trial import Trial
from vqcore.config import TrialConfig

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(sweep: Sweep, out: Path) -> Path:
    """An undisturbed run, which others are compared with."""
    assert sweep("--name", "whole", tracked=True) == 0
    return folder(out, "whole")


def test_what_a_run_leaves_behind(whole: Path) -> None:
    names = ("best_mse.toml", "best_perplexity.toml", "knee.toml")
    exports = [f"exports/{name}" for name in names]
    for path in ("figures/pareto.png", "figures/reconstructions.png", "tables/paper_table3.md", *exports):
        assert (whole / path).stat().st_size > 0, path
    rows = pq.read_table(whole / "results.parquet").to_pylist()
    assert len(rows) == 4 * 2
    assert {(row["commitment_weight"], row["seed"]) for row in rows} == {(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1)}
    assert all(row["mse"] > 0 and 1 <= row["perplexity"] <= 16 and row["train_mse"] > 0 for row in rows)
    tables = tomllib.loads((whole / "sweep.toml").read_text())
    assert tables["space"]["commitment_weight"] == [0.1, 1.0]
    assert TrialConfig.from_toml(tables["base"]).training.epochs == 2
    assert {"commit", "data_hash", "torch", "hardware", "command"} <= set(tables["provenance"])


def test_mlflow_has_a_parent_and_a_child_a_trial(whole: Path, out: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name("vqsweep/beta_ablation")
    assert experiment is not None
    identity = tomllib.loads((whole / "sweep.toml").read_text())["sweep"]["id"]
    runs = client.search_runs([experiment.experiment_id], f"tags.`vqsweep.sweep` = '{identity}'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 1 + 4
    assert all(run.info.status == "FINISHED" for run in runs)
    child = next(run for run in runs if run is not parents[0])
    assert len(client.get_metric_history(child.info.run_id, "mse")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [0, 2, 5])
def test_ctrl_c_exits_130_and_resume_ends_with_the_same_numbers(
    whole: Path, out: Path, sweep: Sweep, in_epoch: InEpoch, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    in_epoch(epochs + 1, ctrl_c)
    assert sweep("--name", f"interrupted{epochs}") == 130
    monkeypatch.undo()
    assert sweep("--resume", f"interrupted{epochs}") == 0
    assert metrics(folder(out, f"interrupted{epochs}")) == metrics(whole)


@pytest.mark.slow
def test_a_driver_killed_outright_resumes_as_well(whole: Path, out: Path, sweep: Sweep, driver: Driver) -> None:
    journal = folder(out, "killed") / "journal.jsonl"
    with driver("killed") as process:
        while sum(len(trial.epochs) for trial in read(journal).trials.values()) < 3:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()
    assert sweep("--resume", "killed") == 0
    assert metrics(folder(out, "killed")) == metrics(whole)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    epochs = [(line["trial"], line["epoch"]) for line in lines if line["event"] == "epoch"]
    assert len(epochs) == len(set(epochs)) == 8, "each epoch recorded once"


def test_resume_of_a_finished_run_trains_nothing(whole: Path, sweep: Sweep, capsys: Capture) -> None:
    before = metrics(whole)
    assert sweep("--resume", "whole") == 0
    assert "nothing to train" in capsys.readouterr().out
    assert metrics(whole) == before


@pytest.mark.slow
def test_resume_extends_a_run_by_epochs_seeds_and_values(whole: Path, out: Path, sweep: Sweep) -> None:
    shutil.copytree(whole, folder(out, "longer"), symlinks=True)
    assert sweep("--resume", "longer", "--epochs", "3", "--seeds", "3", "--betas", "0.5", "1") == 0
    longer, short = metrics(folder(out, "longer")), metrics(whole)
    trials = read(folder(out, "longer") / "journal.jsonl").trials
    wanted = {key for key, trial in trials.items() if trial.config["commitment_weight"] != 0.1}
    assert (len(wanted), sorted(trial.number for trial in trials.values())) == (6, list(range(8)))
    assert all(len(longer[key]) == (3 if key in wanted else 2) for key in longer), "what is no longer asked for is kept"
    assert all(longer[key][epoch] == short[key][epoch] for key in short for epoch in (1, 2))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--resume whole --decay 0.5 --batch-size 16", "--decay 0.5|--batch-size 16"),
        ("--resume whole --name other", "keeps its name"),
        ("--resume never", "never"),
        (f"--out {__file__}", __file__),
        ("--address 127.0.0.1:9", "--address 127.0.0.1:9: no Ray cluster can be joined there"),
        ("--address ray://127.0.0.1:9", "--address ray://127.0.0.1:9: must be host:port"),
        (
            "--betas -1 --decay 1.5 --codebook-size 1 --epochs 0 --num-gpus 8 --trials-per-gpu 2.5 --name whole "
            "--data nowhere",
            "commitment_weight = -1.0|decay = 1.5|codebook_size = 1|epochs = 0|--num-gpus 8|--trials-per-gpu 2.5|"
            "--resume whole|nowhere",
        ),
        *((f"--name={name}", "--name") for name in ["a/b", "../up", "", ".", "latest", "-x", "a\\b"]),
    ],
)
def test_what_cannot_be_is_told_all_at_once_with_exit_code_2(
    whole: Path, sweep: Sweep, capsys: Capture, words: str, said: str
) -> None:
    assert sweep(*words.split()) == 2
    told = capsys.readouterr().err
    assert all(part in told for part in said.split("|")), told
    assert "Traceback" not in told


def test_resume_refuses_other_images(images: Path, out: Path, sweep: Sweep, tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(images, mine)
    assert sweep("--name", "replaced", "--data", str(mine), "--seeds", "1") == 0
    shutil.copy(mine / "train" / "001.png", mine / "train" / "000.png")
    assert sweep("--resume", "replaced") == 2
    assert "a run keeps its data" in capsys.readouterr().err


def test_a_run_stopped_before_it_began_leaves_its_name_free(out: Path, sweep: Sweep) -> None:
    folder(out, "early").mkdir(parents=True)
    (folder(out, "early") / "journal.jsonl").touch()
    assert sweep("--name", "early", "--seeds", "1") == 0


@pytest.mark.slow
def test_an_extension_that_fails_is_told(
    whole: Path, out: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shutil.copytree(whole, folder(out, "failing"))

    def broken(*_: object) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(Trial, "step", broken)
    assert sweep("--resume", "failing", "--epochs", "3") == 1
    assert "the disk is on fire" in capsys.readouterr().out
    assert {t.status for t in read(folder(out, "failing") / "journal.jsonl").trials.values()} == {"failed"}
    monkeypatch.undo()
    assert sweep("--resume", "failing", "--epochs", "3") == 0, "a failed trial is tried again"


def test_a_diverging_trial_is_marked_and_the_sweep_goes_on(out: Path, sweep: Sweep, capsys: Capture) -> None:
    assert sweep("--name", "diverging", "--betas", "0.1", "1e300", "--seeds", "1") == 0
    trials = read(folder(out, "diverging") / "journal.jsonl").trials.values()
    assert {trial.config["commitment_weight"]: trial.status for trial in trials} == {
        0.1: "completed",
        1e300: "diverged",
    }
    said = capsys.readouterr().out
    assert "diverged" in said
    assert "2 trials: 1 completed, 1 diverged" in said


def test_a_dead_server_is_a_warning_and_the_sweep_goes_on(out: Path, sweep: Sweep, capsys: Capture) -> None:
    words = ("--name", "deaf", "--seeds", "1", "--tracking-uri", "http://user:secret@127.0.0.1:9")
    assert sweep(*words) == 0
    said = capsys.readouterr().out
    assert "The run goes on" in said
    assert "python -m sweeps.sync" in said
    kept = said + (folder(out, "deaf") / "sweep.toml").read_text() + (folder(out, "deaf") / "journal.jsonl").read_text()
    assert "secret" not in kept


def test_plan_says_the_cost_and_runs_nothing(out: Path, sweep: Sweep, capsys: Capture) -> None:
    assert sweep("--plan", "--name", "planned") == 0
    said = capsys.readouterr().out
    for part in ("4, 1 at once", "8 in all", "wall time", "checkpoints"):
        assert part in said, said
    assert not folder(out, "planned").exists()


def test_checkpoints_can_lie_elsewhere(out: Path, tmp_path: Path, sweep: Sweep) -> None:
    assert sweep("--name", "elsewhere", "--seeds", "1", "--storage", str(tmp_path)) == 0
    assert len(list(tmp_path.glob("beta_ablation/elsewhere/trials/*/epoch-00002-*.safetensors"))) == 2
    assert (folder(out, "elsewhere") / "figures" / "reconstructions.png").exists()
    linked, real = folder(out, "elsewhere") / "trials", tmp_path / "beta_ablation" / "elsewhere" / "trials"
    assert linked.samefile(real)


def test_a_sweep_that_fails_before_a_trial_begins_is_not_called_done(
    out: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def lost(*_: object) -> None:
        raise FatalRunError(5, "the storage is gone")

    monkeypatch.setattr(Trial, "open", lost)
    assert sweep("--name", "unbegun") == 1
    assert "--resume" in capsys.readouterr().out
    run = read(folder(out, "unbegun") / "journal.jsonl")
    assert [trial.status for trial in run.trials.values()] == ["running"]
    assert not run.done
