import subprocess
import sys
import tomllib

import numpy as np
import pytest
from matplotlib.image import imread

from analysis import report
from analysis.export import write_exports
from analysis.findings import sentences
from analysis.report import analyse
from analysis.results import load
from vqcore.config import TrialConfig

EXPORTS = {"best_mse.toml", "best_perplexity.toml", "knee.toml"}
PAPER = {"paper_table3.md", "paper_table3.tex", "paper_table3.csv"}
PRINTED = {f"{name}.{kind}" for name in ("configurations", "rates") for kind in ("tex", "csv")}
TABLES = {"results.md", *PRINTED, *PAPER}
ALWAYS = {"report.html", "summary.json", "results.parquet", "pareto.png", "curves.png", *TABLES, *EXPORTS}
EVERYTHING = ALWAYS | {"front.md", "rate.png"}


def names(findings):
    return {path.name for path in findings.paths}


def test_a_finished_run_leaves_everything(ablation):
    findings = analyse(ablation)
    assert names(findings) == EVERYTHING | {"reconstructions.png"}
    assert all(path.stat().st_size for path in findings.paths)
    assert findings.lines[0] == (
        "10 trials: 9 completed, 1 diverged. Compared after epoch 4 on cifar10-mini, 3 seeds a configuration."
    )
    assert any(line.startswith("Lowest MSE: beta 0.1, 0.0") and "n = 3" in line for line in findings.lines)
    assert any(line.startswith("Highest perplexity: beta 0.25") for line in findings.lines)
    assert any(line.startswith("By the means: 2 configurations are on the front") for line in findings.lines)
    assert "Not compared: beta 2, seed 0, diverged after epoch 1: loss is not finite" in findings.lines


def test_a_run_in_which_nothing_completed(make_run):
    run = make_run()
    run.trial([(0.1, 5)], None, commitment_weight=0.1)
    findings = analyse(run.close())
    assert names(findings) == {"report.html", "summary.json", "results.parquet", "results.md", *PAPER}
    assert findings.lines == (
        "6 trials: 1 not finished, 5 not begun; the run is not finished. Nothing to compare: no trial completed.",
        "Not compared: 1 trial begun and not finished",
    )


def test_a_sweep_is_finished_when_every_trial_has_ended(make_run):
    run = make_run(trials=2)
    run.trial([(0.1, 5)], commitment_weight=0.1)
    assert "not finished" in sentences(load(run.folder))[0]
    run.trial([], "failed", "out of memory", commitment_weight=1)
    assert sentences(load(run.close()))[0].startswith("2 trials: 1 completed, 1 failed. Compared")


def test_one_finished_trial(make_run):
    run = make_run()
    run.trial([(0.05, 50)], commitment_weight=0.25)
    findings = analyse(run.close())
    assert names(findings) == ALWAYS


def test_half_written_reconstructions_are_passed_over(make_run):
    run = make_run()
    whole, cut = run.seeds([0.02, 0.021], [300, 301], commitment_weight=0.1)
    run.reconstructions(whole)
    run.reconstructions(cut)
    path = run.folder / "trials" / whole / "reconstructions.npy"
    path.write_bytes(path.read_bytes()[:1000])
    assert "reconstructions.png" in names(analyse(run.done()))
    (run.folder / "trials" / cut / "reconstructions.npy").write_bytes(b"")
    assert "reconstructions.png" not in names(analyse(run.folder))


def test_figures_of_many_configurations_with_names_that_are_no_mathematics(make_run):
    run = make_run(name="$x_1^{", swept=("commitment_weight", "estimator"), data="a$b$/c_{d")
    for i in range(40):
        run.seeds([0.02 + i / 1000], [300 - i], commitment_weight=0.1 + i / 7, estimator=("ste", "rotation")[i % 2])
    pixels = imread(next(path for path in analyse(run.done()).paths if path.name == "pareto.png"))
    assert pixels.shape[0] > 600
    assert np.ptp(pixels) > 0


def test_exports_load_and_carry_their_evidence(ablation):
    paths = write_exports(load(ablation))
    text = {path.stem: path.read_text() for path in paths}
    tables = tomllib.loads(text["best_perplexity"])
    config = TrialConfig.from_toml(tables)
    assert (config.model.quantizer.commitment_weight, config.training.seed, config.training.epochs) == (0.25, 0, 4)
    assert TrialConfig.from_toml(tomllib.loads(text["best_mse"])).model.quantizer.commitment_weight == 0.1
    assert tables["data"] == {"source": "cifar10-mini", "hash": "0123456789abcdef", "image_size": 32}
    comments = [line for line in text["best_mse"].splitlines() if line.startswith("#")]
    for evidence in (
        "seeds 0, 1, 2",
        "whichever of the 3 is picked, n = 3",
        "sweep quick, commit 1234567",
        "lowest MSE by the means",
    ):
        assert any(evidence in line for line in comments), evidence


def test_exports_of_a_name_that_toml_could_not_hold(make_run):
    run = make_run(name="a\nb\x00c\x7f\u2028[data]")
    run.seeds([0.02], [300], commitment_weight=0.1)
    for path in write_exports(load(run.done())):
        assert TrialConfig.from_toml(tomllib.loads(path.read_text())).training.seed == 0


def test_what_cannot_be_written_is_said_and_hides_nothing(ablation):
    (ablation / "figures").write_text("a file where a folder should be")
    findings = analyse(ablation)
    assert names(findings) == EVERYTHING - {"pareto.png", "rate.png", "curves.png"}
    assert any(line.startswith("figures could not be written: ") for line in findings.lines)


def test_an_alarm_that_fails_hides_no_finding(ablation, monkeypatch):
    monkeypatch.setattr(report, "alarms", lambda results: 1 / 0)
    findings = analyse(ablation)
    assert names(findings) == EVERYTHING | {"reconstructions.png"}
    assert "completed" in findings.lines[0]
    assert any(line.startswith("alarms could not be written: ") for line in findings.lines)


@pytest.mark.slow
def test_the_command_prints_the_findings_and_a_run_that_is_not_there_exits_2_with_the_plain_message(ablation):
    command = [sys.executable, "-m", "analysis.report", "--out", str(ablation.parent.parent)]
    done = subprocess.run([*command, "run"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "By the means" in done.stdout
    assert "exports/" in done.stdout
    missing = subprocess.run([*command, "nowhere"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
