"""Every shape annotation of vqcore is checked as it is called; one thread; a GPU test that cannot run says why."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

_ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(_ROOT))  # so that bare pytest does not take tests/vqcore for vqcore
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start

# before anything imports vqcore; config answers a user's wrong types itself, and registry names types without torch
_UNHOOKED = {"vqcore.config", "vqcore.registry"}
_HOOKED = {f"vqcore.{file.stem}" for file in (_ROOT / "vqcore").glob("[a-z]*.py")} - _UNHOOKED
install_import_hook(sorted(_HOOKED), "beartype.beartype")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from trainables.data import _FORMAT, DataSet  # noqa: E402

torch.set_num_threads(1)


def _why_no_gpu() -> str | None:
    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        return f"CUDA {torch.version.cuda} does not start: {str(error).splitlines()[0]}"
    return f"torch {torch.__version__} finds no CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # a worker takes whole files: the long ones first, so that short ones are left for the end and both end together
    starts = {item.path for item in items if item.get_closest_marker("service")}
    items.sort(key=lambda item: item.path not in starts)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and (reason := _why_no_gpu()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs a CUDA GPU: {reason}"))


@pytest.fixture(scope="session")
def pictures() -> Callable[[int, int], np.ndarray]:
    """(count, seed) -> smooth uint8 pictures (count, 16, 16, 3): there is something to learn in them."""

    def make(count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        down, across = np.meshgrid(np.linspace(0, 1, 16), np.linspace(0, 1, 16), indexing="ij")
        waves = rng.uniform(1, 6, (4, count, 1, 1, 3))
        turns = waves[0] * down[None, :, :, None] + waves[1] * across[None, :, :, None] + waves[2]
        images: np.ndarray = (127.5 * (1 + np.sin(turns))).astype(np.uint8)
        return images

    return make


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory, pictures: Callable[[int, int], np.ndarray]) -> DataSet:
    """96 training and 24 test pictures of 16 x 16, as ``prepare`` would leave them."""
    folder = tmp_path_factory.mktemp("data")
    splits = {"train": pictures(96, 0), "test": pictures(24, 1)}
    for name, images in splits.items():
        np.save(Path(folder) / f"{name}.npy", images)
    digest = hashlib.sha256(b"".join(images.tobytes() for images in splits.values())).hexdigest()[:16]
    (folder / "meta.json").write_text(json.dumps({"format": _FORMAT, "hash": digest}))
    return DataSet("pictures", digest, str(folder), 16, len(splits["train"]), len(splits["test"]))


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """The location of an empty bucket of a real S3 endpoint on loopback; its credentials are in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(f"AWS_{name}", value)
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/sweeps", method="PUT")).close()
        yield f"s3://sweeps/a/b?endpoint_override={host}:{port}&scheme=http"
    server.stop()


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of its own, of a size such as ``4m``."""
    disks: list[Path] = []

    def mount(size: str) -> Path:
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        mounted = subprocess.run(words, capture_output=True, text=True, check=False)
        if mounted.returncode:  # root alone may, and not in every container
            pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
        disks.append(disk)
        return disk

    yield mount
    for disk in disks:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
def small_disk(disk_of: Callable[[str], Path]) -> Path:
    """A disk of its own of 4 MB."""
    return disk_of("4m")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright: ``browser.new_page()``. Tests that use it are marked ``service``.

    For a file, not for the session: an event loop runs in this thread as long as Playwright does, and others' calls of
    ``asyncio.run`` would fail.
    """
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed here (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (it comes with .[dev])")
    words = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=words)
        yield chromium
        chromium.close()
