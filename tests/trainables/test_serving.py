"""A registered model behind MLflow's own server, and in a process without this package."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import torch
from tracked import eventually, free_port

import vqcore
from trainables.journal import Journal
from trainables.runs import JOURNAL
from trainables.tracking import default_uri, sync
from vqcore.config import TrialConfig
from vqcore.vqvae import VQVAE, save

pytestmark = pytest.mark.service

SMALL = TrialConfig().replace(
    channels=8, hidden_channels=8, residual_channels=4, residual_blocks=1, codebook_size=16, dim=8
)
MODEL = "models:/vqsweep-final-full/1"


@pytest.fixture(scope="module")
def final(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A final training whose model is in the registry of ``<out>/mlflow.db``."""
    folder = tmp_path_factory.mktemp("runs") / "final" / "full"
    journal = Journal(folder / JOURNAL)
    params = {"data": "cifar10-mini", "data_hash": "d00d", "image_size": 16}
    journal.write("sweep", sweep="final", name="full", id="final-id", swept=[], params=params)
    journal.write("start", trial="kkk", number=0, config=SMALL.flat(), info={"device": "cpu"})
    journal.write("epoch", trial="kkk", epoch=1, metrics={"mse": 0.5, "perplexity": 9.0})
    journal.write("end", trial="kkk", status="completed", reason="", epoch=1)
    journal.write("done")
    torch.manual_seed(0)
    save(VQVAE(SMALL.model), SMALL, folder / "model.safetensors")
    sync(folder, default_uri(folder.parents[1]))
    return folder


def environment(final: Path) -> dict[str, str]:
    """Of a shell with this virtual environment and the tracking URI of the runs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    uri = default_uri(final.parents[1])
    return {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def server(final: Path) -> Iterator[str]:
    """``mlflow models serve`` as docs/tracking.md says it; its address."""
    port = free_port()
    command = ["mlflow", "models", "serve", "-m", MODEL, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    address, out = f"http://127.0.0.1:{port}", final.parents[1]
    with (out / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment(final), cwd=out, stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (out / "serve.log").read_text()[-3000:]
        return requests.get(f"{address}/ping", timeout=2).ok

    try:
        eventually(answers, seconds=150)
        yield address
    finally:
        process.terminate()  # which ends its worker too
        process.wait(timeout=60)


@pytest.mark.parametrize("count", [1, 2])
def test_what_the_server_gives_is_what_the_model_gives(final: Path, server: str, count: int) -> None:
    images = torch.rand(count, 3, 16, 16) * 2 - 1
    answer = requests.post(f"{server}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.ok, answer.text
    with torch.no_grad():
        ours = vqcore.load(final / "model.safetensors")(images).reconstruction
    assert torch.equal(torch.tensor(answer.json()["predictions"]), ours)


def test_images_of_another_shape_are_refused(server: str) -> None:
    answer = requests.post(f"{server}/invocations", json={"inputs": [[[[0.0]]]]}, timeout=60)
    assert answer.status_code == 400


WITHOUT = """
import sys
for name in ("vqcore", "trainables"):
    sys.modules[name] = None  # importing it now fails
import mlflow.pytorch
import torch
print(*mlflow.pytorch.load_model(sys.argv[1])(torch.zeros(5, 3, 16, 16)).shape)
"""


def test_the_model_loads_without_this_package(final: Path) -> None:
    command = [sys.executable, "-c", WITHOUT, MODEL]
    run = subprocess.run(
        command, env=environment(final), cwd=final.parents[1], text=True, capture_output=True, check=False
    )
    assert run.stdout.split()[-4:] == ["5", "3", "16", "16"], run.stderr


def test_the_registered_graph_holds_no_path_of_this_machine(final: Path) -> None:
    (graph,) = final.parents[1].rglob("model.pt2")
    with zipfile.ZipFile(graph) as file:
        for name in file.namelist():
            assert str(Path(vqcore.__file__).parent).encode() not in file.read(name), name
