"""The examples run, and what the documentation of vqcore says is so: snippets, fields, names of tests, links."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples import trajectories
from vqcore import QuantizerConfig

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "vqcore.md"
TEXT = PAGE.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
TWO_PROCESSES = "# replicas.py\n"
# the compiler's code is tested elsewhere and takes a minute; that there is one graph shows without it
FIRST = "import functools, torch\ntorch.compile = functools.partial(torch.compile, backend='aot_eager')\n"


def run(*arguments: str | Path, cache: Path | None = None) -> str:
    """What a Python process printed; it must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"VQSWEEP_CACHE": str(cache)} if cache else {})
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_model_of_ones_own_learns(tmp_path: Path) -> None:
    lines = run("-m", "examples.own_model", "--epochs", "2", cache=tmp_path).splitlines()
    told = [re.fullmatch(r"epoch \d: loss (.+), test MSE (.+), perplexity (.+), usage (.+)%, revived \d+", line)
            for line in lines[1:]]  # fmt: skip
    first, last = ([float(number) for number in match.groups()] for match in told if match)
    assert last[0] < 0.7 * first[0]
    assert last[1] < 0.7 * first[1]
    assert 100 < last[2] < 256
    assert 60 < last[3] <= 100


@pytest.mark.slow
def test_the_trajectories_are_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "trajectories.png"
    told = run("-m", "examples.trajectories", "--steps", "3", "--out", picture)
    assert all(name in told for name in trajectories.ESTIMATORS)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", trajectories.ESTIMATORS)
def test_points_go_downhill_from_where_they_start(name: str) -> None:
    paths = trajectories.follow(name, 300)
    assert torch.equal(paths.z[0], trajectories.starts())
    target = torch.tensor(trajectories.TARGET)
    layer = trajectories.layer_of(name).eval()
    at_start = (layer(trajectories.starts()).quantized - target).square().sum(1).mean()
    assert trajectories.best_losses()[0] - 1e-6 <= paths.loss < at_start / 2


@pytest.mark.slow
def test_the_snippets_run_in_their_order(tmp_path: Path) -> None:
    script = tmp_path / "snippets.py"
    script.write_text("\n".join([FIRST, *(s for s in SNIPPETS if not s.startswith(TWO_PROCESSES))]), encoding="utf-8")
    run(script)


@pytest.mark.slow
def test_the_snippet_of_two_processes_runs(tmp_path: Path) -> None:
    (snippet,) = (s for s in SNIPPETS if s.startswith(TWO_PROCESSES))
    script = tmp_path / "replicas.py"
    script.write_text(snippet, encoding="utf-8")
    run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script)


def test_every_field_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", TEXT.split("## Fields")[1].split("\n## ")[0], re.MULTILINE))
    defaults = {one.name: one.default for one in dataclasses.fields(QuantizerConfig)}
    assert rows == {
        name: str(value) if not isinstance(value, str) else f'"{value}"' for name, value in defaults.items()
    }


def test_every_defect_has_its_test() -> None:
    named = re.findall(r"`(test_\w+)` \|$", TEXT, re.MULTILINE)
    files = (ROOT / "tests" / "vqcore").glob("test_*.py")
    written = re.findall(r"^def (test_\w+)", "".join(file.read_text(encoding="utf-8") for file in files), re.MULTILINE)
    assert len(named) == 10
    assert not {*named} - {*written}


@pytest.mark.parametrize("page", [PAGE, ROOT / "vqcore" / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for link in links:
        assert link in anchors if link.startswith("#") else (page.parent / link).exists(), link
