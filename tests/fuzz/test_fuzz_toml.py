"""TOML files cut, changed and made to deceive: an export, a sweep of one's own, what a run kept of itself."""

import io
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from damage import absurd, blows, damaged, examples
from hypothesis import given
from hypothesis import strategies as st

from sweeps.run import sweep_of
from trainables.final import Final, check_final
from vqcore.config import ConfigError, TrialConfig, problems_of, read_toml

Sweep = Callable[..., int]

OWN = """\
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toml")


def file(place: Path, content: bytes) -> Path:
    path = Path(tempfile.mkdtemp(dir=place)) / "knee.toml"
    path.write_bytes(content)
    return path


_share = st.floats(0, 1, exclude_max=True)
_values = absurd.filter(lambda value: "null" not in repr(value))
changes = st.lists(st.tuples(_share, st.sampled_from(["set", "drop", "add"]), absurd), min_size=1, max_size=3)


def changed(tables: dict[str, Any], changes: list[tuple[float, str, Any]]) -> bytes:
    """The same file with values replaced, names dropped, and tables where none belongs."""
    tables = deepcopy(tables)
    for share, kind, value in changes:
        places = list(_places(tables))
        if not places:
            break
        table, name = places[int(share * len(places))]
        match kind:
            case "set":
                table[name] = value
            case "drop":
                del table[name]
            case "add":
                table[f"{name}x"] = value
    with suppress(TypeError, ValueError):  # TOML has no null, and of numbers 64 bits
        return tomli_w.dumps(tables).encode("utf-8", "replace")
    return b""


def _places(table: dict[str, Any]) -> Any:
    for name, value in table.items():
        yield table, name
        if isinstance(value, dict):
            yield from _places(value)


def check_export(path: Path, out: Path) -> None:
    checked: list[Any] = []
    problems = problems_of(lambda: checked.extend(check_final(Final(path, epochs=1, out=out))))
    assert all(problem.strip() for problem in problems)
    assert bool(problems) != bool(checked)
    if problems:
        return
    job, folder = checked
    assert folder.parent == out / "final"
    assert Path(job.folder).is_relative_to(folder.absolute())
    assert isinstance(job.config, TrialConfig)


@examples(300)
@given(blows)
def test_an_export_damaged_anywhere(undisturbed: Path, place: Path, blows: list[Any]) -> None:
    check_export(file(place, damaged((undisturbed / "exports" / "knee.toml").read_bytes(), blows)), place / "out")


@examples(300)
@given(changes)
def test_an_export_that_says_something_else(undisturbed: Path, place: Path, changes: list[Any]) -> None:
    check_export(file(place, changed(read_toml(undisturbed / "exports" / "knee.toml"), changes)), place / "out")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"a = " + b"[" * 50_000,
        b"a = " + b"{b=" * 50_000,
        b"[" + b"a." * 20_000 + b"a]",
        b"[training]\nseed = 0x" + b"f" * 5000,
        b"[training]\nseed = " + b"9" * 5000,
        b"[training]\nlearning_rate = " + b"9" * 400,
        b"[training]\nlearning_rate = 1e999",
        b"model = 1\ntraining = 2\ndata = 3",
        b"[data]\nsource = '/dev/zero'",
        b"[data]\nsource = '\\u0000'\n",
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
    with pytest.raises(ConfigError) as told:
        check_final(Final(path, out=place / "out"))
    assert all(len(problem) < 20_000 for problem in told.value.problems)
    with pytest.raises(ConfigError):
        sweep_of(path)


def sweep_or_words(path: Path) -> None:
    found: list[Any] = []
    problems = problems_of(lambda: found.extend(sweep_of(path)))
    assert all(problem.strip() for problem in problems)
    assert bool(problems) != bool(found)


@examples(400)
@given(blows)
def test_a_sweep_of_ones_own_damaged_anywhere(place: Path, blows: list[Any]) -> None:
    sweep_or_words(file(place, damaged(OWN.encode(), blows)))


@examples(400)
@given(changes)
def test_a_sweep_of_ones_own_that_says_something_else(place: Path, changes: list[Any]) -> None:
    (place / "own.toml").write_text(OWN)
    sweep_or_words(file(place, changed(read_toml(place / "own.toml"), changes)))


@examples(100)
@given(st.one_of(blows.map(lambda b: ("damaged", b)), changes.map(lambda c: ("changed", c))))
def test_a_run_whose_sweep_toml_is_all_there_is_left(
    undisturbed: Path, place: Path, sweep: Sweep, how: tuple[str, Any]
) -> None:
    """Its journal is empty: the flags come from ``sweep.toml``, whatever that says by now."""
    run = Path(tempfile.mkdtemp(dir=place)) / "beta_ablation" / "run"
    run.mkdir(parents=True)
    (run / "journal.jsonl").touch()
    tables = read_toml(undisturbed / "sweep.toml")
    tables["flags"]["plan"] = False
    kept = tomli_w.dumps({"flags": tables["flags"]}).encode()
    content = damaged(kept, how[1]) if how[0] == "damaged" else changed({"flags": tables["flags"]}, how[1])
    (run / "sweep.toml").write_bytes(content)
    shutil.rmtree(run / "trials", ignore_errors=True)
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as wrong:
        try:
            code = sweep(run.parents[1], "--resume", "run", "--plan")
        except SystemExit as left:  # tyro's own words
            code = left.code
    assert code in (0, 2), said.getvalue()
    assert code == 0 or wrong.getvalue().strip()
