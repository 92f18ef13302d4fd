"""Configurations, TOML files and command lines of any value and type: what is valid runs, the rest is refused."""

import math
import tempfile
import tomllib
import typing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import tomli_w
from damage import absurd, blows, damaged, examples, exit_code, fraction, made_or_refused, tables_in, texts
from hypothesis import given
from hypothesis import strategies as st

from sweeps import beta_ablation, codebook_sizes, estimators, pareto
from sweeps.cli import command
from sweeps.run import sweep_of
from trainables.final import Final, check_final
from vqcore.config import FIELDS, TrialConfig, read_settings, toml_text

TYPES = {name: type(value) for name, value in TrialConfig().flat().items()}

_names = texts | st.sampled_from(
    ["rotation", "ste", "gumbel", "fsq", "vq", "gradient", "ema", "cosine", "learned", "8,5,5,5", "2,2", "9" * 5000,
     "9" * 5000 + ",5", "٣,٤", "\ud800"]
)  # fmt: skip
_odd = (
    st.integers(-3, 9)
    | st.floats()
    | st.sampled_from(
        [10**18, 10**400, -(10**400), 2**32, 1e308, math.nan, math.inf, -math.inf, -0.0, True, False],
    )
)
_anything = st.one_of(_names, _odd, st.none(), st.binary(max_size=3), st.lists(_odd, max_size=2), st.just({}))
_bases: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"codebook": "gradient"},
        {"codebook": "gradient", "affine": "learned"},
        {"layer": "fsq", "estimator": "ste", "commitment_weight": 0},
        {"layer": "fsq", "estimator": "ste", "commitment_weight": 0, "symmetric": True, "levels": "2,2"},
    ]
)
_fields = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), _anything, max_size=4)
_model = st.fixed_dictionaries({"quantizer": _fields | _anything}, optional={"channels": _odd})
_tables = st.fixed_dictionaries(
    {}, optional={"model": _anything | _fields | _model, "training": _fields | _anything, "data": _anything}
)
_settings = st.builds("{}={}".format, st.sampled_from(FIELDS), _names | _odd.map(str)) | st.text(max_size=12)


@examples(3000)
@given(
    st.one_of(
        st.tuples(_bases, _fields).map(lambda made: lambda: TrialConfig.from_flat(made[0] | made[1])),
        _tables.map(lambda tables: lambda: TrialConfig.from_toml(tables)),
        st.lists(_settings, max_size=3).map(lambda given: lambda: TrialConfig().replace(**read_settings(given))),
    )
)
def test_any_fields_tables_and_settings(make: Callable[[], TrialConfig]) -> None:
    if config := made_or_refused(make):
        flat = config.flat()
        assert {name: type(value) for name, value in flat.items()} == TYPES
        assert all(math.isfinite(value) for value in flat.values() if isinstance(value, float))
        assert TrialConfig.from_flat(flat) == config
        assert TrialConfig.from_toml(tomllib.loads(toml_text(config.toml()))) == config
        assert len(config.key("0" * 16)) == 12


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
    tables = tomllib.loads(content.decode())
    for where, which, dropped, value in changes:
        found = [table for table in tables_in(tables) if table]
        table = found[int(where * len(found))]
        name = list(table)[int(which * len(table))]
        table[name] = value
        if dropped and len(table) > 1:
            del table[name]
    with suppress(TypeError, ValueError):  # TOML has no null, and of numbers 64 bits
        return tomli_w.dumps(tables).encode("utf-8", "replace")
    return b""


def file(place: Path, content: bytes) -> Path:
    path = Path(tempfile.mkdtemp(dir=place)) / "knee.toml"
    path.write_bytes(content)
    return path


@examples(400)
@given(_spoils)
def test_an_export(undisturbed: Path, place: Path, spoil: Any) -> None:
    path, out = file(place, spoil[0]((undisturbed / "exports" / "knee.toml").read_bytes(), spoil[1])), place / "out"
    if checked := made_or_refused(lambda: check_final(Final(path, epochs=1, out=out))):
        job, folder = checked
        assert folder.parent == out / "final"
        assert Path(job.folder).is_relative_to(folder.absolute())
        assert isinstance(job.config, TrialConfig)


@examples(400)
@given(_spoils)
def test_a_sweep_of_ones_own(place: Path, spoil: Any) -> None:
    made_or_refused(lambda: sweep_of(file(place, spoil[0](OWN, spoil[1]))))


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
    return values.map(lambda given: [f"--{name.replace('_', '-')}", *given])


def _lines(module: Any) -> st.SearchStrategy[tuple[Any, list[str]]]:
    hints = typing.get_type_hints(SWEEPS[module])
    names = [field.name for field in fields(SWEEPS[module]) if field.name not in LEFT_OUT]
    flag = st.sampled_from(names).flatmap(lambda name: _flag(name, str(hints[name])))
    return st.tuples(st.just(module), st.lists(flag, max_size=3).map(lambda flags: list(chain(*flags))))


@examples(100)
@given(st.sampled_from(list(SWEEPS)).flatmap(_lines))
def test_flags_of_any_value(line: tuple[Any, list[str]]) -> None:
    module, flags = line
    name = module.__name__.rpartition(".")[2]
    wanted = ["--address", "inline", "--plan", *flags]
    assert exit_code(lambda: command(name, (module.__name__,), SWEEPS[module], module.spec, wanted)) in (0, 2)
    assert not list(Path("runs").glob("*/*")), "a plan leaves nothing"
