"""TOML files cut, changed and made to deceive: an export, a sweep of one's own, what a run kept of itself."""

import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from damage import absurd, blows, damaged, examples, fraction, tables_in
from hypothesis import given
from hypothesis import strategies as st

from sweeps.run import sweep_of
from trainables.final import Final, check_final
from vqcore.config import ConfigError, TrialConfig, problems_of, read_toml

Sweep = Callable[..., int]

OWN = b"""\
[space]
estimator = ["rotation", "ste"]
commitment_weight = {low = 0.05, high = 4.0, log = true}
codebook_size = [8, 16]

[flags]
epochs = 2
trials = 3
plan = true
set = ["channels=4"]
"""

_changes = st.lists(st.tuples(fraction, fraction, st.booleans(), absurd), min_size=1, max_size=3)
_spoils = blows.map(lambda blows: (damaged, blows)) | _changes.map(lambda changes: (changed, changes))
"""A way to spoil a file, and its argument."""


def changed(content: bytes, changes: list[tuple[float, float, bool, Any]]) -> bytes:
    """The file with values replaced or names dropped, at any depth."""
    path = Path(tempfile.mkdtemp()) / "x.toml"
    path.write_bytes(content)
    tables = deepcopy(read_toml(path))
    for where, which, dropped, value in changes:
        table = [found for found in tables_in(tables) if found][int(where * len(list(filter(None, tables_in(tables)))))]
        name = list(table)[int(which * len(table))]
        table[name] = value
        if dropped and len(table) > 1:
            del table[name]
    with suppress(TypeError, ValueError):  # TOML has no null, and of numbers 64 bits
        return tomli_w.dumps(tables).encode("utf-8", "replace")
    return b""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toml")


def file(place: Path, content: bytes) -> Path:
    path = Path(tempfile.mkdtemp(dir=place)) / "knee.toml"
    path.write_bytes(content)
    return path


def made_or_refused(make: Callable[[], Any]) -> Any:
    """What ``make`` returns; None where it refuses, in words."""
    made: list[Any] = []
    problems = problems_of(lambda: made.append(make()))
    assert all(problem.strip() and len(problem) < 20_000 for problem in problems)
    assert bool(problems) != bool(made)
    return made[0] if made else None


@examples(400)
@given(_spoils)
def test_an_export(undisturbed: Path, place: Path, spoil: Any) -> None:
    path, out = file(place, spoil[0]((undisturbed / "exports" / "knee.toml").read_bytes(), spoil[1])), place / "out"
    if checked := made_or_refused(lambda: check_final(Final(path, epochs=1, out=out))):
        job, folder = checked
        assert folder.parent == out / "final"
        assert Path(job.folder).is_relative_to(folder.absolute())
        assert isinstance(job.config, TrialConfig)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"a = " + b"[" * 50_000,
        b"[" + b"a." * 20_000 + b"a]",
        b"[training]\nseed = 0x" + b"f" * 5000,
        b"[training]\nlearning_rate = 1e999",
        b"model = 1\ntraining = 2\ndata = 3",
        b"[data]\nsource = '/dev/zero'",
        b'[data]\nsource = "a\\u0000b"',
        b"[data]\nsource = '" + b"x/" * 5000 + b"'",
        b"[data]\nsource = 'cifar10-mini'\nhash = [1]\nimage_size = '8'",
        b"[data]\nsource = 'cifar10-mini'\nimage_size = 1000000000000",
        b"[model]\nchannels = 1000000000000\n[data]\nsource='cifar10-mini'",
        b"[model.quantizer]\ncodebook_size = 9223372036854775807\n[data]\nsource='cifar10-mini'",
        b"[training]\nseed = 2020-01-01T00:00:00\n",
    ],
)
def test_a_file_made_to_deceive(place: Path, content: bytes) -> None:
    path = file(place, content)
    assert made_or_refused(lambda: check_final(Final(path, out=place / "out"))) is None
    with pytest.raises(ConfigError):
        sweep_of(path)


@examples(400)
@given(_spoils)
def test_a_sweep_of_ones_own(place: Path, spoil: Any) -> None:
    made_or_refused(lambda: sweep_of(file(place, spoil[0](OWN, spoil[1]))))


@examples(80)
@given(_spoils)
def test_a_run_of_which_sweep_toml_alone_is_left(undisturbed: Path, place: Path, sweep: Sweep, spoil: Any) -> None:
    """Its journal is empty: the flags come from ``sweep.toml``."""
    run = Path(tempfile.mkdtemp(dir=place)) / "beta_ablation" / "run"
    run.mkdir(parents=True)
    (run / "journal.jsonl").touch()
    flags = read_toml(undisturbed / "sweep.toml")["flags"] | {"plan": False}
    (run / "sweep.toml").write_bytes(spoil[0](tomli_w.dumps({"flags": flags}).encode(), spoil[1]))
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        try:
            code = sweep(run.parents[1], "--resume", "run", "--plan")
        except SystemExit as left:  # tyro's own words
            code = left.code
    assert code in (0, 2), out.getvalue()
    assert code == 0 or errors.getvalue().strip()
