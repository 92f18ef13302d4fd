"""Nothing that is read runs code or leads out of its folder; nothing secret is written down."""

import ast
import io
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from analysis.figures import write_figures
from analysis.layout import Table
from analysis.report import analyse
from analysis.results import load
from sweeps.beta_ablation import BetaAblation, spec
from sweeps.cli import command
from trainables.checkpoint import load_checkpoint
from trainables.journal import Journal, read
from trainables.mlflow_sender import artifacts
from trainables.runs import PICTURES
from trainables.storage import Store
from vqcore.config import ConfigError, TrialConfig, read_toml
from vqcore.vqvae import load as load_model

REPO = Path(__file__).parents[1]
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "aws-s3cr3t-4711",
    "RAY_AUTH_TOKEN": "ray-s3cr3t-4711",
    "MLFLOW_TRACKING_PASSWORD": "mlflow-s3cr3t-4711",
    "MLFLOW_TRACKING_TOKEN": "token-s3cr3t-4711",
}
HOSTILE = ["<script>alert(1)</script>", "[red]x[/red]", "[/]", "a|b", "![x](http://x/)", "$\\frac$", "\x1b[31m"]
KEY = "0123456789ab"


# What is loaded


def calls(source: str) -> set[str]:
    """The dotted names of everything that a module imports or calls, and ``shell``, ``allow_pickle`` where given."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        elif isinstance(node, ast.Call):
            found |= {ast.unparse(node.func)} | {word.arg for word in node.keywords if word.arg}
    return found


def test_no_module_can_run_what_it_reads() -> None:
    never = {
        "torch.load", "yaml", "yaml.load", "marshal", "shelve", "dill", "cloudpickle", "joblib", "eval", "exec",
        "os.system", "os.popen", "shell", "allow_pickle", "pickle", "compile", "np.fromfile",
    }  # fmt: skip
    for floor in ("vqcore", "trainables", "analysis", "sweeps"):
        for path in sorted((REPO / floor).rglob("*.py")):
            found = calls(path.read_text(encoding="utf-8"))
            assert not found & never, f"{path}: {found & never}"


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_under_any_name_that_is_read_does_not_go_off(tmp_path: Path) -> None:
    run, gone_off = tmp_path / "runs" / "sweep" / "run", tmp_path / "gone-off"
    content = pickle.dumps(Bomb(gone_off))
    trial = run / "trials" / KEY
    trial.mkdir(parents=True)
    names = ["journal.jsonl", "sweep.toml", "results.parquet", "model.safetensors", "model.toml"]
    for path in [*(run / name for name in names), trial / PICTURES, trial / f"epoch-00001-{'0' * 16}.safetensors"]:
        path.write_bytes(content)
    assert read(run / "journal.jsonl").trials == {}
    assert read(run / "journal.jsonl").sweep == {}
    assert load_checkpoint(Store(str(trial)), KEY) is None
    with pytest.raises(ConfigError):
        read_toml(run / "sweep.toml")
    with pytest.raises(ConfigError):
        load_model(run / "model.safetensors")
    (run / "journal.jsonl").unlink()
    told(run)
    assert load(run).pictures.rows == ()
    assert not gone_off.exists()


def told(run: Path, name: str = "run", reason: str = "") -> None:
    """A journal of two trials, one of which failed."""
    journal = Journal(run / "journal.jsonl")
    config = TrialConfig().flat()
    journal.write("sweep", sweep="sweep", name=name, id="1", swept=["estimator"], trials=2, params={"data": name})
    journal.write("start", trial=KEY, number=0, config={**config, "estimator": name})
    journal.write("epoch", trial=KEY, epoch=1, metrics={"mse": 0.5, "perplexity": 2.0, "usage": 0.5, "bits": 1.0})
    journal.write("end", trial=KEY, epoch=1, status="completed", reason="")
    journal.write("start", trial="ba9876543210", number=1, config={**config, "estimator": "ste"})
    journal.write("end", trial="ba9876543210", epoch=0, status="failed", reason=reason)
    journal.close()


# Where names lead


def test_links_in_a_run_are_not_sent_to_mlflow(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_text("s3cr3t")
    run = tmp_path / "run"
    (run / "figures").mkdir(parents=True)
    (run / "figures" / "pareto.png").write_text("ours")
    (run / "figures" / "x.png").symlink_to(secret)
    (run / "sweep.toml").symlink_to(secret)
    (run / "tables").symlink_to(tmp_path)
    (tmp_path / "y.md").write_text("s3cr3t")
    assert artifacts(run) == [run / "figures" / "pareto.png"]


# What is shown


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_and_means_nothing(tmp_path: Path, name: str) -> None:
    run = tmp_path / "runs" / "sweep" / "run"
    run.mkdir(parents=True)
    told(run, name, reason=name)
    findings = analyse(run)
    screen = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor")
    screen.print(findings.renderable())
    said = screen.file.getvalue()
    assert said.count("could not be written") == 1, "of an estimator that is none, nothing can be exported"
    assert "exports could not be written: estimator" in said
    if name.isprintable():
        assert name in said, "as it was written, not as markup"
    else:
        assert name not in said, "no commands to the terminal"
    for path in (run / "tables").glob("*.md"):
        content = path.read_text(encoding="utf-8")
        assert "<script" not in content
        tables = [part.splitlines() for part in content.split("\n\n") if part.startswith("| ")]
        columns = [{line.replace("\\|", "").count("|") for line in table} for table in tables]
        assert columns
        assert all(len(counts) == 1 for counts in columns), "the name adds no column"
    for path in write_figures(load(run), paper=True):
        if path.suffix == ".svg":
            ElementTree.fromstring(path.read_bytes())
            assert b"<script" not in path.read_bytes()
    for path in (run / "exports").glob("*.toml"):
        read_toml(path)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_cell_is_text(name: str) -> None:
    table = Table(name, ("a", "b"), ((name, name),), (name,))
    lines = table.markdown().splitlines()
    assert "<" not in table.markdown()
    assert lines[4].replace("\\|", "").count("|") == 3
    screen = Console(file=io.StringIO(), width=200)
    screen.print(table.rich())
    assert name.replace("\x1b", "\ufffd") in screen.file.getvalue()


# What is written down


@pytest.mark.service
def test_no_secret_is_written_down_and_nothing_is_open_to_all(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = (
        f"-m sweeps.beta_ablation --address inline --out {out} --name quiet --betas 1 --seeds 1 --epochs 1 "
        "--codebook-size 8 --image-size 8 --batch-size 512 "
        "--set channels=4 hidden_channels=4 residual_channels=2 residual_blocks=1 dim=4"
    )
    environment = {**os.environ, **SECRETS, "VQSWEEP_CACHE": str(tmp_path / "cache")}
    said = b""
    for more in (
        ["--tracking-uri", "http://user:uri-s3cr3t@127.0.0.1:9?token=uri-s3cr3t"],
        ["--resume", "quiet", "--tracking-uri", f"sqlite:///{out}/mlflow.db", "--epochs", "2"],
    ):
        own = words.split() if "--resume" not in more else words.split()[:6]
        done = subprocess.run(
            [sys.executable, *own, *more], cwd=REPO, env=environment, capture_output=True, check=False
        )
        said += done.stdout + done.stderr
        assert done.returncode == 0, done.stderr.decode()
    assert b"http://***@127.0.0.1:9?***" in said
    assert b"s3cr3t" not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert out / "mlflow.db" in written
    for path in written:
        assert b"s3cr3t" not in path.read_bytes(), path
    for path in tmp_path.rglob("*"):
        assert not path.lstat().st_mode & stat.S_IWOTH or path.is_symlink(), f"{path}: anybody may write it"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("more", [[], ["--resume", "quiet"]])
def test_a_secret_in_the_storage_is_refused_and_not_repeated(
    tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path / "beta_ablation" / "quiet" / "journal.jsonl")
    journal.write("sweep", name="quiet", id="1", toml={"flags": {}})
    journal.close()
    words = ["--out", str(tmp_path), "--address", "inline", *more]
    for storage in ("s3://bucket/x?access_key=a&secret_key=s3cr3t", "s3://a:s3cr3t@bucket", "gs://a:s3cr3t@bucket"):
        assert (
            command("beta_ablation", ("sweeps.beta_ablation",), BetaAblation, spec, [*words, "--storage", storage]) == 2
        )
    said = "".join(capsys.readouterr())
    assert "--storage" in said
    assert "s3cr3t" not in said
