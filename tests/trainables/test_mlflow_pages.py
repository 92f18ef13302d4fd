"""MLflow's pages in a real browser, on the server that ``make ui`` starts: what a person finds there of a sweep."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tracked import eventually, finish, free_port, open_sweep, report, seen, start

from trainables.mlflow_view import UNDOCUMENTED
from trainables.tracking import default_uri, sync

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

WAIT = 60_000
"""Milliseconds that MLflow's page may take, on a machine that is busy."""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A finished sweep that MLflow has."""
    out = tmp_path_factory.mktemp("runs")
    folder = out / "beta_ablation" / "looked-at"
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 2, 3)
    report(journal, "bbb", 1, 2)
    finish(journal, "aaa")
    finish(journal, "bbb", status="stopped", reason="forecast: 0.8% probable to end on the front")
    journal.write("done")
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), np.uint8)
    trial = folder / "trials" / "aaa"
    trial.mkdir(parents=True)
    np.save(trial / "reconstructions.npy", np.stack([images, images]))
    np.savez(trial / "snapshot-00001.npz", images=images, reconstructions=255 - images)
    (folder / "figures").mkdir()
    Image.new("RGB", (640, 480), "teal").save(folder / "figures" / "pareto.png")
    (folder / "report.html").write_text("<!doctype html><title>report</title><h1>The front is settled</h1>")
    found = {"metrics": {"best_mse": 0.25}, "findings": ["Lowest MSE: beta 0.25."], "front": ["aaa"]}
    (folder / "summary.json").write_text(json.dumps(found))
    assert sync(folder, default_uri(out)) == 3
    return out


@pytest.fixture(scope="module")
def links(out):
    """The addresses that the command behind ``make ui`` prints, of the server itself and of each experiment."""
    port = free_port()
    command = [sys.executable, "-m", "trainables.mlflow_sender", str(out), "--ui", "--port", str(port)]
    log = (out / "ui.log").open("wb")
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        eventually(lambda: "startup complete" in (out / "ui.log").read_text(), seconds=150)
        yield re.findall(r"http://127\.0\.0\.1[^\s:]*:\d+[^\s:,]*", (out / "ui.log").read_text())[:2]
        os.killpg(process.pid, signal.SIGKILL)
    log.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(WAIT)
    yield context.new_page()
    context.close()


@pytest.fixture
def places(out, links):
    """Where the pages of the parent run and of the child with images are."""
    parent, children, _ = seen(default_uri(out), out / "beta_ablation" / "looked-at")
    runs = f"{links[0]}/#/experiments/{parent.info.experiment_id}/runs"
    return f"{runs}/{parent.info.run_id}", f"{runs}/{children['aaa'].info.run_id}"


def shown(image):
    """Whether an image has arrived."""
    return image.evaluate("image => image.complete && image.naturalWidth > 0")


def test_the_printed_link_opens_the_experiment_for_training_and_its_description_leads_on(links, page):
    page.goto(links[1])
    page.get_by_role("link", name="looked-at", exact=True).first.wait_for()
    page.get_by_text("Model registry").first.wait_for()  # a part of the interface for training alone
    page.get_by_text("Evaluation runs").first.wait_for(state="hidden")  # the other one may be there for a moment
    with page.expect_popup() as trials:
        page.get_by_role("link", name="trials, lowest MSE first").click()
    trials.value.get_by_role("link", name="beta 1, seed 1").wait_for()
    with page.expect_popup() as newest:
        page.get_by_role("link", name="newest report").click()
    newest.value.frame_locator("iframe").get_by_text("The front is settled").wait_for()


def test_the_saved_views_list_trials_by_mse_and_configurations(links, page):
    assert "mlflow.sharedViewState." in UNDOCUMENTED
    page.goto(links[1])
    page.get_by_role("button", name="Views").click()
    page.get_by_text("trials, lowest MSE first", exact=True).last.click()
    page.get_by_role("link", name="beta 1, seed 1").wait_for()
    rows = page.get_by_role("link", name=re.compile(r"^beta \S+, seed 1$")).all()
    ordered = [row.inner_text() for row in sorted(rows, key=lambda row: row.bounding_box()["y"])]
    assert ordered == ["beta 0.25, seed 1", "beta 1, seed 1"]
    for column in ("mse", "perplexity", "commitment_weight", "front", "status"):
        page.get_by_role("columnheader", name=column).first.wait_for()
    page.goto(f"{links[1]}&viewStateShareKey=vqsweep-configurations")
    page.get_by_text("Group: configuration: beta 0.25", exact=False).first.wait_for()


def test_the_columns_source_and_dataset_are_filled(links, page):
    page.goto(links[1])
    page.get_by_text("cifar10-mini (d00d)").first.wait_for()
    page.get_by_text("sweeps.beta_ablation").first.wait_for()


def test_a_child_has_curves_and_images_by_epoch(places, page):
    page.goto(f"{places[1]}/model-metrics")
    page.locator(".js-plotly-plot path.js-line").first.wait_for(state="attached")
    page.get_by_text("reconstructions").first.wait_for()
    for step in (1, 3):  # the slider begins at 0
        page.get_by_role("slider").first.press("ArrowRight")
        eventually(lambda step=step: shown(page.locator(f"img[src*='step%2B{step}%2B']").first))


def test_the_parent_shows_its_children_the_pareto_figure_the_report_and_the_table_of_trials(places, page):
    assert "mlflow.loggedArtifacts" in UNDOCUMENTED
    page.goto(places[0])
    for text in ("best_mse", "trials_stopped", "Lowest MSE: beta 0.25", "beta 0.25, seed 1"):
        page.get_by_text(text).first.wait_for()
    page.goto(f"{places[0]}/artifacts/figures/pareto.png")
    page.reload()
    eventually(lambda: shown(page.locator("img[src^='blob:'], img[src*='get-artifact']").first))
    page.goto(f"{places[0]}/artifacts/report.html")
    page.reload()
    page.frame_locator("iframe").get_by_text("The front is settled").wait_for()
    page.goto(f"{places[0]}/artifacts/trials.json")
    page.reload()
    page.get_by_text("View as table").wait_for()
    page.get_by_text("forecast: 0.8% probable to end").first.wait_for()
