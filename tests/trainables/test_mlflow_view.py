"""What MLflow has of a finished sweep beside its curves: a summary, names, a table, data set, images, a model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tracked import finish, open_sweep, report, seen, start

import vqcore
from trainables.journal import Journal
from trainables.mlflow_view import experiment_note, saved_view
from trainables.runs import JOURNAL
from trainables.tracking import default_uri, sync
from vqcore.config import TrialConfig
from vqcore.vqvae import VQVAE, save

pytestmark = pytest.mark.slow

FOUND = {
    "metrics": {"best_mse": 0.25, "best_perplexity": 40.0, "hypervolume": 30.5},
    "findings": ["Lowest MSE: beta 0.25 [-1, 1]."],
    "front": ["aaa"],
    "recommended": "beta 0.25",
}


def write_pictures(folder: Path, *epochs: int) -> None:
    """The last epoch's reconstructions, and a snapshot of each of ``epochs``."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), np.uint8)
    np.save(folder / "reconstructions.npy", np.stack([images, 255 - images]))
    for epoch in epochs:
        np.savez(folder / f"snapshot-{epoch:05}.npz", images=images, reconstructions=images // (epoch + 1))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def folder(out):
    """A finished sweep of three trials, with what its analysis and its trials leave."""
    folder = out / "beta_ablation" / "whole"
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb", "ccc")
    for key, epochs in {"aaa": (1, 2, 3), "bbb": (1, 2), "ccc": (1,)}.items():
        report(journal, key, *epochs)
    finish(journal, "aaa")
    finish(journal, "bbb", status="diverged", reason="loss is nan in epoch 3")
    finish(journal, "ccc", status="stopped", reason="forecast: 0.8% probable to end on the front")
    journal.write("done")
    write_pictures(folder / "trials" / "aaa", 0, 2)
    write_pictures(folder / "trials" / "bbb")
    (folder / "trials" / "ccc").mkdir()
    (folder / "trials" / "ccc" / "reconstructions.npy").write_bytes(b"cut off")
    (folder / "summary.json").write_text(json.dumps(FOUND))
    (folder / "report.html").write_text("<h1>What was found</h1>")
    assert sync(folder, default_uri(out)) == 4
    return folder


def client_of(out):
    from mlflow import MlflowClient

    return MlflowClient(default_uri(out))


def everything(out, folder):
    """All that MLflow has of a sweep and of its experiment."""
    client = client_of(out)
    parent, children, points = seen(default_uri(out), folder)
    runs = [run.to_dictionary() for run in (parent, *children.values())]
    listed = {
        (run.info.run_id, place, file.path)
        for run in (parent, *children.values())
        for place in ("", "images")
        for file in client.list_artifacts(run.info.run_id, place)
    }
    histories = [client.get_metric_history(parent.info.run_id, name) for name in parent.data.metrics]
    return runs, listed, points, [len(history) for history in histories], client.get_experiment("1").tags


def test_sending_again_changes_nothing(out, folder):
    before = everything(out, folder)
    sync(folder, default_uri(out))
    assert everything(out, folder) == before


def test_parent_has_the_summary_and_a_table_of_its_trials(out, folder):
    import mlflow

    mlflow.set_tracking_uri(default_uri(out))  # which ``load_table`` asks
    client, (parent, *_) = client_of(out), seen(default_uri(out), folder)
    counts = {"completed": 1, "stopped": 1, "diverged": 1, "failed": 0, "interrupted": 0}
    assert parent.data.metrics == FOUND["metrics"] | {"trials": 3.0} | {f"trials_{k}": v for k, v in counts.items()}
    note = parent.data.tags["mlflow.note.content"]
    assert f"runs/{parent.info.run_id}/artifacts/report.html" in note
    assert "Lowest MSE: beta 0.25" in note
    table = client.load_table("1", "trials.json", [parent.info.run_id])
    assert list(table["trial"]) == ["beta 0.25, seed 1", "beta 1, seed 1", "beta 2, seed 1"]
    assert list(table["on the front"]) == ["yes", "", ""]
    assert list(table["why"])[1:] == ["loss is nan in epoch 3", "forecast: 0.8% probable to end on the front"]


def test_children_are_named_tagged_and_ordered_for_people(out, folder):
    _, children, _ = seen(default_uri(out), folder)
    assert {key: run.info.run_name for key, run in children.items()}["bbb"] == "beta 1, seed 1"
    tags = {key: run.data.tags for key, run in children.items()}
    assert {key: tag.get("front") for key, tag in tags.items()} == {"aaa": "yes", "bbb": None, "ccc": None}
    assert tags["ccc"]["configuration"] == "beta 2"
    assert (tags["ccc"]["status"], tags["ccc"]["reason"][:8]) == ("stopped", "forecast")
    assert tags["bbb"]["status"] == "diverged"
    assert list(children["aaa"].data.params)[:2] == ["commitment_weight", "seed"]


def test_every_run_has_its_source_and_its_data_set(out, folder):
    import mlflow

    parent, children, _ = seen(default_uri(out), folder)
    for run in (parent, *children.values()):
        assert run.data.tags["mlflow.source.name"] == "sweeps.beta_ablation"
        assert run.data.tags["mlflow.source.git.commit"] == "abc1234"
        (used,) = run.inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("cifar10-mini", "d00d")
        assert mlflow.data.get_source(used.dataset).url.startswith("https://")


def test_images_are_of_each_snapshot_and_the_last_epoch(out, folder):
    client, (_, children, _) = client_of(out), seen(default_uri(out), folder)

    def steps(key):
        files = client.list_artifacts(children[key].info.run_id, "images")
        return sorted(file.path.split("+")[2] for file in files if file.path.endswith(".png"))

    assert steps("aaa") == ["0", "2", "3"]
    assert steps("bbb") == ["2"]
    assert steps("ccc") == []  # its file is damaged: said in the log, and nothing else is held up
    assert "reconstructions" in (folder / "log.txt").read_text()


def test_the_experiment_says_what_it_is_and_a_persons_words_stay(out, folder):
    client = client_of(out)
    experiment = client.get_experiment("1")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "artifacts/report.html" in experiment.tags["mlflow.note.content"]
    (parent, *_) = seen(default_uri(out), folder)
    client.set_experiment_tag("1", "mlflow.note.content", "mine")
    client.set_tag(parent.info.run_id, "mlflow.note.content", "mine too")
    sync(folder, default_uri(out))
    assert client.get_experiment("1").tags["mlflow.note.content"] == "mine"
    assert seen(default_uri(out), folder)[0].data.tags["mlflow.note.content"] == "mine too"


def test_an_experiment_of_many_runs_with_long_names_lists_what_fits():
    from mlflow.entities import Run, RunData, RunInfo, RunTag

    report = [RunTag("vqsweep.report", "report.html")]
    facts = {"experiment_id": "1", "user_id": "", "status": "FINISHED", "end_time": None, "lifecycle_stage": "active"}
    runs = [
        Run(RunInfo(run_id="f" * 32, start_time=age, run_name=f"{age}{'_' * 90}", **facts), RunData(tags=report))
        for age in range(30)
    ]
    note = experiment_note("1", "pareto", runs)
    assert len(note) <= 5000
    assert note.count("its report") > 5
    assert note.index("[29") < note.index("[28")


def test_a_view_gets_new_columns_and_keeps_what_a_person_chose():
    first = saved_view("vqsweep-trials", "pareto", ["commitment_weight"], None)
    envelope = json.loads(first)
    state = json.loads(envelope["state"]) | {"selectedColumns": ["metrics.`usage`"], "orderByKey": "metrics.`usage`"}
    edited = json.dumps(envelope | {"name": "mine", "state": json.dumps(state)})
    again = json.loads(saved_view("vqsweep-trials", "pareto", ["decay"], edited))
    assert again["name"] == "mine"
    assert json.loads(again["state"])["selectedColumns"] == ["metrics.`usage`", "params.`decay`"]
    assert json.loads(again["state"])["orderByKey"] == "metrics.`usage`"
    assert saved_view("vqsweep-trials", "pareto", ["decay"], json.dumps(again)) == json.dumps(again)
    assert (
        saved_view("vqsweep-trials", "pareto", ["decay"], "deflate;compressed by MLflow")
        == "deflate;compressed by MLflow"
    )


def test_a_resume_replaces_what_was_found(out, folder):
    again = out / "beta_ablation" / "again"
    shutil.copytree(folder, again)
    (again / JOURNAL).unlink()
    journal = open_sweep(again)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1)
    finish(journal, "aaa")
    journal.write("pause")
    sync(again, default_uri(out))
    start(journal, "bbb")
    report(journal, "bbb", 1)
    finish(journal, "bbb")
    journal.write("done")
    (again / "summary.json").write_text(json.dumps(FOUND | {"front": ["bbb"], "metrics": {"best_mse": 0.2}}))
    sync(again, default_uri(out))
    parent, children, _ = seen(default_uri(out), again)
    assert {key: run.data.tags["front"] for key, run in children.items()} == {"aaa": "no", "bbb": "yes"}
    assert parent.data.metrics["best_mse"] == 0.2
    assert parent.data.metrics["trials_interrupted"] == 0


@pytest.fixture(scope="module")
def final(out):
    """A final training of a sweep's knee, finished."""
    config = TrialConfig().replace(
        channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=8
    )
    folder = out / "final" / "full"
    journal = Journal(folder / JOURNAL)
    origin = {"sweep": "beta_ablation", "name": "whole", "export": "knee"}
    params = {"data": "cifar10-mini", "data_hash": "d00d", "image_size": 16}
    journal.write("sweep", sweep="final", name="full", id="final-id", swept=[], origin=origin, params=params)
    journal.write("start", trial="kkk", number=0, config=config.flat(), info={"device": "cpu"})
    journal.write("epoch", trial="kkk", epoch=1, metrics={"mse": 0.5, "perplexity": 9.0})
    journal.write("end", trial="kkk", status="completed", reason="", epoch=1)
    journal.write("done")
    torch.manual_seed(0)
    save(VQVAE(config.model).eval(), config, folder / "model.safetensors")
    for _ in range(2):  # the second finds the model there
        assert sync(folder, default_uri(out)) == 2
    return folder


def test_a_final_training_registers_its_model_once_as_champion(out, final):
    client = client_of(out)
    (model,) = client.search_registered_models()
    assert model.name == "vqsweep-beta_ablation-whole"
    (version,) = client.search_model_versions(f"name = '{model.name}'")
    assert client.get_model_version_by_alias(model.name, "champion").version == version.version
    run = client.get_run(version.run_id)
    assert run.data.metrics["mse"] == 0.5
    assert run.info.run_name == "full"


def test_the_registered_model_loads_by_mlflow_without_pickle_and_by_vqcore(out, final, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.chdir(out)  # the database's artifacts are named from there
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    mlflow.set_tracking_uri(default_uri(out))
    uri = "models:/vqsweep-beta_ablation-whole@champion"
    images = torch.rand(3, 3, 16, 16) * 2 - 1
    here = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path)))
    assert not [file for pattern in ("*.pth", "*.pkl", "*.pickle", "*.bin") for file in here.rglob(pattern)]
    ours = vqcore.load(here / "extra_files" / "model.safetensors")
    with torch.no_grad():
        theirs = mlflow.pytorch.load_model(uri)(images)
        assert torch.equal(theirs, ours(images).reconstruction)


def train_prior(folder):
    """What the training of a prior leaves, as far as MLflow is told of it. Its epochs have the time of the call."""
    (folder / JOURNAL).unlink(missing_ok=True)
    journal = Journal(folder / JOURNAL)
    params = {"data": "cifar10-mini", "data_hash": "d00d", "model": "/r/final/full/model.safetensors"}
    params["model_hash"] = "beef"
    journal.write("sweep", sweep="prior", name="over", id="prior-id", swept=[], params=params, origin=params)
    config = {"kind": "causal", "classes": 0, "width": 16, "layers": 1, "heads": 2, "dropout": 0.1, "seed": 3}
    journal.write("start", trial="ppp", number=0, config=config, info={"device": "cpu"})
    for epoch in (1, 2):
        metrics = {"train_bits": 130.0 - epoch, "validation_bits": 131.0 - epoch, "seconds": 1.0}
        journal.write("epoch", trial="ppp", epoch=epoch, metrics=metrics)
    journal.write("end", trial="ppp", status="completed", reason="", epoch=2)
    (folder / "figures").mkdir(exist_ok=True)
    for name in ("samples", "completions"):
        Image.new("RGB", (8, 8)).save(folder / "figures" / f"{name}.png")
    (folder / "figures" / "interpolations.png").write_bytes(b"cut off")
    (folder / "rates.json").write_text("{}")
    (folder / "summary.json").write_text(
        json.dumps({"metrics": {"bits_causal_prior": 120.5}, "findings": ["Found *it*."]})
    )
    journal.write("done")
    journal.close()


def test_a_prior_has_its_rates_its_pictures_and_how_to_load_it(out):
    folder = out / "prior" / "over"
    for _ in range(2):  # the second time with other times, as when lines of a journal were lost and made again
        train_prior(folder)
        assert sync(folder, default_uri(out)) == 2
    client = client_of(out)
    experiment = client.get_experiment_by_name("vqsweep/prior")
    child, parent = sorted(
        client.search_runs([experiment.experiment_id]), key=lambda run: "vqsweep.trial" not in run.data.tags
    )
    assert parent.data.metrics["bits_causal_prior"] == 120.5
    assert child.info.run_name == "kind causal, classes 0, width 16, layers 1, heads 2, seed 3"
    for run in (parent, child):
        assert {"model_hash": "beef", "model_run": "final/full"}.items() <= run.data.tags.items()
    note = parent.data.tags["mlflow.note.content"]
    assert "`final/full`" in note
    assert 'vqcore.load_prior("prior.safetensors")' in note
    assert r"Found \*it\*." in note
    points = client.get_metric_history(child.info.run_id, "validation_bits")
    assert [(point.step, point.value) for point in points] == [(1, 130.0), (2, 129.0)]
    images = [Path(file.path).name.split("+") for file in client.list_artifacts(child.info.run_id, "images")]
    assert sorted((name[0], name[2]) for name in images if name[-1].endswith("webp")) == [
        ("completions", "2"), ("samples", "2")
    ]  # fmt: skip
    assert "interpolations.png is not sent" in (folder / "log.txt").read_text()
    assert {"rates.json", "trials.json"} <= {file.path for file in client.list_artifacts(parent.info.run_id)}
    view = json.loads(experiment.tags["mlflow.sharedViewState.vqsweep-trials"])
    assert view["name"] == "trials, lowest validation_bits first"
    state = json.loads(view["state"])
    assert state["orderByKey"] == "metrics.`validation_bits`"
    assert not [column for column in state["selectedColumns"] if "mse" in column or "estimator" in column]


def test_the_report_can_lead_to_the_page_of_each_trial(out, folder):
    pages = json.loads((folder / "mlflow.json").read_text())
    assert pages.keys() == {"", "aaa", "bbb", "ccc"}
    assert len({page.rpartition("/runs/")[2] for page in pages.values()}) == 4
    assert all(page.startswith("http://127.0.0.1:5000/#/experiments/") for page in pages.values())
