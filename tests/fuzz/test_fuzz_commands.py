"""Command lines of any words: a sweep that could run, or words and exit code 2."""

import io
import typing
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from damage import examples, texts
from hypothesis import given
from hypothesis import strategies as st

from sweeps import beta_ablation, codebook_sizes, estimators, pareto
from sweeps.cli import Start, command

SWEEPS = {
    beta_ablation: beta_ablation.BetaAblation,
    codebook_sizes: codebook_sizes.CodebookSizes,
    estimators: estimators.Estimators,
    pareto: pareto.Pareto,
}
LEFT_OUT = {"plan", "resume", "out", "data", "address"}

_wholes = st.sampled_from([0, -1, 1, 2, 3, 7, 10**6, 2**31, 10**18, 10**30]).map(str)
_reals = _wholes | st.floats().map(str)
_strings = texts | st.sampled_from(
    [
        "mse", "mse:max", "total:min", "perplexity >= 200", "mse <= nan", "parameters <= 1e400", "x >= 1", "nu=nan",
        "codebook_size=7", "levels=8,5", "channels=99999999999", "layer=fsq", "sqlite:///", "http://", "s3://",
        "s3://b/../x", "file:///etc", "latest", "http://user:pw@127.0.0.1:9", "~nobody/x", "rotation", "ste", "\ud800",
        "auto", "none", "grid", "random", "compact", "paper",
    ]
)  # fmt: skip


def _flag(name: str, kind: str) -> st.SearchStrategy[list[str]]:
    value = _wholes if "int" in kind and "float" not in kind else _reals if "float" in kind else _strings
    values = st.lists(value, min_size=1, max_size=3 if "tuple" in kind else 1)
    return values.map(lambda words: [f"--{name.replace('_', '-')}", *words])


def _lines(module: Any) -> st.SearchStrategy[tuple[Any, list[str]]]:
    hints = typing.get_type_hints(SWEEPS[module])
    names = [field.name for field in fields(SWEEPS[module]) if field.name not in LEFT_OUT]
    flag = st.sampled_from(names).flatmap(lambda name: _flag(name, str(hints[name])))
    return st.tuples(st.just(module), st.lists(flag, max_size=3).map(lambda flags: list(chain(*flags))))


def exit_of(run: Callable[[], int]) -> tuple[int | str | None, str]:
    """Exit code and standard error."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as errors:
        try:
            return run(), errors.getvalue()
        except SystemExit as left:  # tyro's own words
            return left.code, errors.getvalue()


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("commands"))
        yield


@examples(100)
@given(st.sampled_from(list(SWEEPS)).flatmap(_lines))
def test_flags_of_any_value(line: tuple[Any, list[str]]) -> None:
    module, words = line
    start = Start(module.__name__.rpartition(".")[2], (module.__name__,))
    wanted = ["--address", "inline", "--plan", *words]
    code, errors = exit_of(lambda: command(start, SWEEPS[module], module.spec, wanted))
    assert code in (0, 2), errors
    assert code == 0 or errors.strip()
    assert "Traceback" not in errors
    assert not list(Path("runs").glob("*/*")), "a plan leaves nothing"


@examples(25)
@given(texts)
def test_a_run_that_is_not_there(name: str) -> None:
    start = Start("pareto", ("sweeps.pareto",))
    code, errors = exit_of(lambda: command(start, pareto.Pareto, pareto.spec, ["--resume", name]))
    assert code == 2
    assert errors.strip()
