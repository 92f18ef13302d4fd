"""The command line: light before it runs, and what it refuses or accepts in the place of a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from read_back import without_mlflow

from sweeps import rebuild
from sweeps.engine.provenance import provenance
from sweeps.flags import SearchFlags, kept, search_of
from sweeps.run import run
from trainables.journal import Journal, read
from trainables.runs import JOURNAL
from vqcore.config import read_toml
from vqcore.errors import ConfigError

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "mlflow", "optuna", "matplotlib", "scipy", "pyarrow")
SMALL = ["--batch-size", "32", "--set", "channels=4", "hidden_channels=8", "residual_channels=4", "dim=4"]


def python(*words: str, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    """What a process of its own prints."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=variables, text=True, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("sweeps.pareto --help", 0),
        ("sweeps --help", 0),
        ("sweeps.sync --help", 0),
        ("sweeps.rebuild --help", 0),
        ("sweeps.beta_ablation --epoch 3", 2),
        ("sweeps run own.toml --trails 3", 2),
    ],
)
def test_help_and_a_wrong_flag_load_nothing_heavy(tmp_path: Path, words: str, code: int) -> None:
    (tmp_path / "own.toml").write_text("[space]\nestimator = ['ste', 'rotation']\n")
    program = f"""
import runpy, sys
sys.argv = {words.split()!r}
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print("loaded:", *set({HEAVY!r}) & sys.modules.keys())
"""
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"


@pytest.fixture
def own(tmp_path: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a sweep of two trials from a file whose [flags] train an epoch on batches of 16; its exit code."""
    (tmp_path / "own.toml").write_text(
        "[space]\nestimator = ['ste']\ncommitment_weight = [0.1, 0.2]\n"
        "[flags]\nepochs = 1\nbatch_size = 16\nsampler = 'grid'\nearly_stopping = 'none'\ncodebook_size = 8\n",
        encoding="utf-8-sig",  # as Windows' editors save it
    )
    monkeypatch.chdir(tmp_path)
    shared = ["--out", str(out), "--address", "inline", "--data", str(images)]

    def go(*words: str) -> int:
        with without_mlflow():
            return run(["run", "own.toml", *shared, *words])

    return go


@pytest.fixture
def refused(own: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The lines with which these words are refused."""

    def errors(*words: str) -> str:
        assert own(*words) == 2
        return capsys.readouterr().err

    return errors


@pytest.mark.slow
def test_a_resumed_run_keeps_its_own_flags_over_those_of_the_file(own: Callable[..., int], out: Path) -> None:
    words = ["--snapshots", "0", "99", *SMALL, "codebook=gradient", "alternate=true"]
    assert own("--name", "kept", "--epochs", "2", *words) == 0
    assert own("--resume", "kept", "--epochs", "3") == 0
    run = read(out / "own" / "kept" / JOURNAL)
    found = [(*map(trial.config.get, ("batch_size", "codebook")), trial.last_epoch) for trial in run.trials.values()]
    assert found == [(32, "gradient", 3)] * 2
    assert read_toml(out / "own/kept/exports/best_mse.toml")["training"]["alternate"] is True
    snapshots = sorted(file.name for file in (out / "own/kept/trials").glob("*/snapshot-*"))
    assert snapshots == sorted([f"snapshot-0000{epoch}.npz" for epoch in (0, 2, 3)] * 2), "99 % of 2, then of 3 epochs"
    assert read_toml(out / "own" / "kept" / "sweep.toml")["flags"]["epochs"] == 3


@pytest.mark.slow
def test_a_resume_takes_the_words_of_the_start_and_names_the_flag_that_differs(
    own: Callable[..., int], refused: Callable[..., str], images: Path
) -> None:
    Path("pictures").symlink_to(images)
    words = ["--data", "pictures", "--storage", "checkpoints", *SMALL]
    assert own("--name", "relative", *words) == 0
    assert own("--resume", "relative", *words) == 0
    assert "--storage elsewhere: run relative has" in refused("--resume", "relative", "--storage", "elsewhere")


def test_paths_are_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        (tmp_path / "runs/pareto" / name).mkdir(parents=True)
        (tmp_path / "runs/pareto" / name / JOURNAL).touch()
    (tmp_path / "images").mkdir()
    flags = SearchFlags(data="images", storage="s", warm_start="pareto/first", tracking_uri="sqlite:///m.db")
    absolute = {name: kept(flags)[name] for name in ("data", "storage", "warm_start", "tracking_uri")}
    assert absolute == {
        "data": f"{tmp_path}/images",
        "storage": f"{tmp_path}/s",
        "warm_start": f"{tmp_path}/runs/pareto/first",
        "tracking_uri": f"sqlite:///{tmp_path}/m.db",
    }
    buckets = SearchFlags(storage="s3://bucket/prefix", tracking_uri="http://me:word@host:5000")
    assert kept(buckets)["storage"] == "s3://bucket/prefix"
    assert "word" not in kept(buckets)["tracking_uri"]


def test_a_run_that_was_copied_alone_is_known_by_its_journal(
    own: Callable[..., int], refused: Callable[..., str], out: Path, tmp_path: Path
) -> None:
    assert own("--name", "moved", *SMALL) == 0
    alone = tmp_path / "elsewhere" / "moved"
    alone.parent.mkdir()
    (out / "own" / "moved").rename(alone)
    assert f"move it to {tmp_path / 'elsewhere' / 'own' / 'moved'}" in refused("--resume", str(alone))


def test_a_run_is_resumed_as_the_sweep_that_it_is(
    sweep: Callable[..., int], refused: Callable[..., str], out: Path
) -> None:
    assert sweep("--name", "another", "--betas", "1", "--seeds", "1", "--epochs", "1") == 0
    errors = refused("--resume", str(out / "beta_ablation" / "another"))
    assert "is a run of the sweep beta_ablation, begun with `python " in errors


def test_a_run_of_one_training_is_no_sweep(refused: Callable[..., str], out: Path, tmp_path: Path) -> None:
    folder = out / "prior" / "p"
    journal = Journal(folder / "journal.jsonl")
    journal.write("sweep", sweep="prior", name="p", tags={"command": "python -m trainables.prior m"})
    journal.close()
    errors = refused("--resume", "prior/p")
    assert "is one training and no sweep; the command that began it goes on with it: python -m trainables.pr" in errors
    with pytest.raises(ConfigError, match=r"no sweep; for its report .*analysis\.report .*, for MLflow .*sweeps\.sync"):
        rebuild.main("prior/p", out)
    with pytest.raises(ConfigError, match=r"--warm-start prior/p: .* is a prior's run, .*; name a sweep"):
        search_of(SearchFlags(warm_start="prior/p", out=out))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[space", "is not valid TOML"),
        ("[flags]\nepochs = 1", "has no table [space]"),
        ("[space]\nestimator = ['ste']\n[more]", "[more] is not known"),
        ("[space]\ndecay = 0.1", "must be a list of values"),
        ("[space]\ndecay = ['0.1', 0.9]", "decay = '0.1': must be strictly"),
        ("[space]\ndecay = {low = 0.8, high = 0.9, log = 'false'}", "log = 'false': must go from"),
        ("[space]\ndecay = {low = 0.8, high = true}", "must go from a finite number up"),
        ("[space]\ndecay = [0.8, 0.9]\n[flags]\nepoch = 1", "--epoch"),
        ("[space]\ndecay = [0.8, 0.9]\n[flags]\nepochs = 'many'", "many"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str], text: str, problem: str
) -> None:
    (tmp_path / "own.toml").write_text(text)
    try:
        code = run(["run", str(tmp_path / "own.toml"), "--data", str(images), "--out", str(tmp_path), "--plan"])
    except SystemExit as wrong_flag:
        code = wrong_flag.code
    assert code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--out", "--data", "--storage"])
def test_a_name_that_no_record_can_hold_is_refused(
    refused: Callable[..., str], images: Path, tmp_path: Path, flag: str
) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    if flag == "--data":
        Path(name).symlink_to(images)
    assert f"{flag} {name!r}: has a name that is not UTF-8" in refused("--name", "never", flag, name)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_too_deep_for_rays_sockets_is_refused_where_ray_is_started(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(variable, f"/tmp/{'deep/' * 12}")
    words = ["--name", "never", "--trials-per-gpu", "0.5", "--address"]
    assert "sockets" not in refused(*words, "inline")
    assert f"{variable}=/tmp/deep/" in (problem := refused(*words, "None"))
    assert "set RAY_TMPDIR to a short folder" in problem


def test_a_file_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "analysis.py").touch()
    (tmp_path / "mine.py").write_text("from sweeps.cli import main\n")
    done = python("mine.py", cwd=tmp_path)
    assert done.returncode == 1
    assert f"{tmp_path / 'analysis.py'} hides the package 'analysis' of vqsweep" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("closing", [">&-", "| true"], ids=["closed", "reader gone"])
def test_a_sweep_whose_output_nobody_reads_ends_well(images: Path, tmp_path: Path, closing: str) -> None:
    words = f"--data {images} --address inline --epochs 1 --seeds 1 --betas 0.1 --codebook-size 8 --out runs --name a"
    command = f"{sys.executable} -m sweeps.beta_ablation {words} --tracking-uri http://127.0.0.1:9 {' '.join(SMALL)}"
    script = f"{command} {closing}; exit ${{PIPESTATUS[0]}}"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"event":"done"' in (tmp_path / "runs/beta_ablation/a" / JOURNAL).read_text()


def test_the_command_of_a_run_is_one_that_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "mine.py", "--name", "a b"])
    assert provenance()["command"] == "python mine.py --name 'a b'"


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        (
            "--set decay=0.5 commitment_weight=1",
            ["--set decay: has a flag of its own, --decay", "this sweep varies it"],
        ),
        ("--set nu=0.5", ["nu = 0.5: has a meaning only with codebook = 'gradient'"]),
        ("--set layer=fsq levels=8,8", ["fsq, which learns nothing, takes estimator", "commitment_weight = 0.0"]),
    ],
)
def test_what_cannot_be_set_is_an_error(
    sweep: Callable[..., int], words: str, problems: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("--name", "never", *words.split()) == 2
    errors = capsys.readouterr().err
    assert all(problem in errors for problem in problems), errors
