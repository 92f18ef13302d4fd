"""Command lines of any words: a sweep that could run, or words and exit code 2."""

import io
import typing
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from damage import examples, texts
from hypothesis import given
from hypothesis import strategies as st

from sweeps import beta_ablation, codebook_sizes, estimators, pareto, rebuild, replay, sync
from sweeps.cli import Start, command
from sweeps.flags import Flags, SearchFlags
from sweeps.run import run

MODULES = [beta_ablation, codebook_sizes, estimators, pareto]
NOT_HERE = {"plan", "resume", "out", "data", "address"}


def flags_of(module: Any) -> type[Flags]:
    own = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    return own[0] if own else SearchFlags


_wholes = st.sampled_from([0, -1, 1, 2, 3, 7, 10**6, 2**31, 10**18, 10**30]).map(str)
_reals = _wholes | st.floats().map(str)
_strings = texts | st.sampled_from(
    [
        "mse", "mse:max", "total:min", "perplexity >= 200", "mse <= nan", "parameters <= 1e400", "x >= 1", "nu=nan",
        "codebook_size=7", "levels=8,5", "channels=99999999999", "layer=fsq", "sqlite:///", "http://", "s3://",
        "s3://b/../x", "file:///etc", "latest", "http://user:pw@127.0.0.1:9", "~nobody/x", "rotation", "ste", "\ud800",
    ]
)  # fmt: skip


def _words(name: str, kind: Any) -> st.SearchStrategy[list[str]]:
    text = str(kind)
    one = _wholes if "int" in text and "float" not in text else _reals if "float" in text else _strings
    if "Literal" in text:
        one = st.sampled_from([word for word in ("auto", "none", "grid", "random", "compact", "paper", "x") if True])
    count = 3 if "tuple" in text else 1
    return st.lists(one, min_size=1, max_size=count).map(lambda words: [f"--{name.replace('_', '-')}", *words])


def _lines(module: Any) -> st.SearchStrategy[tuple[Any, list[str]]]:
    hints = typing.get_type_hints(flags_of(module))
    names = [field.name for field in fields(flags_of(module)) if field.name not in NOT_HERE]
    flag = st.sampled_from(names).flatmap(lambda name: _words(name, hints[name]))
    return st.tuples(
        st.just(module), st.lists(flag, max_size=3).map(lambda flags: [word for words in flags for word in words])
    )


def left(what: Any) -> tuple[Any, str]:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as wrong:
        try:
            code = what()
        except SystemExit as leaving:  # tyro has said why
            code = leaving.code
    return code, wrong.getvalue()


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory, sweep: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("commands"))
        yield


@examples(100)
@given(st.sampled_from(MODULES).flatmap(_lines))
def test_flags_of_any_value(line: tuple[Any, list[str]]) -> None:
    module, words = line
    name = module.__name__.rpartition(".")[2]
    start = Start(name, (module.__name__,))
    wanted = ["--address", "inline", "--plan", *words]
    code, wrong = left(lambda: command(start, flags_of(module), module.spec, wanted))
    assert code in (0, 2), wrong
    assert code == 0 or wrong.strip()
    assert "Traceback" not in wrong
    assert not list(Path("runs").glob("*/*")), "a plan leaves nothing"


@examples(25)
@given(texts)
def test_runs_that_are_not_there(name: str) -> None:
    for what in (
        lambda: sync.main(name, Path("runs")),
        lambda: rebuild.main(name, Path("runs")),
        lambda: run(["run", name]),
        lambda: command(Start("pareto", ("sweeps.pareto",)), SearchFlags, pareto.spec, ["--resume", name]),
    ):
        code, wrong = left(what)
        assert code == 2
        assert wrong.strip()
    with pytest.raises((ValueError, OSError)):
        list(replay.say(replay.Replay(name)))
