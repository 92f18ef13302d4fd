"""Configurations of any value and type: a valid one is made of them, or problems in words."""

import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from damage import examples, texts
from hypothesis import given
from hypothesis import strategies as st

from vqcore.config import FIELDS, ConfigError, TrialConfig, problems_of, read_settings, read_toml, write_toml

TYPES = {name: type(value) for name, value in TrialConfig().flat().items()}

_words = texts | st.sampled_from(
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
_anything = st.one_of(_words, _odd, st.none(), st.binary(max_size=3), st.lists(_odd, max_size=2), st.just({}))
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
_settings = st.builds("{}={}".format, st.sampled_from(FIELDS), _words | _odd.map(str)) | st.text(max_size=12)


@examples(3000)
@given(
    st.one_of(
        st.tuples(_bases, _fields).map(lambda made: lambda: TrialConfig.from_flat(made[0] | made[1])),
        _tables.map(lambda tables: lambda: TrialConfig.from_toml(tables)),
        st.lists(_settings, max_size=3).map(lambda words: lambda: TrialConfig().replace(**read_settings(words))),
    )
)
def test_any_fields_tables_and_settings(make: Callable[[], TrialConfig]) -> None:
    made: list[TrialConfig] = []
    problems = problems_of(lambda: made.append(make()))
    assert all(problem.strip() for problem in problems)
    assert bool(problems) != bool(made)
    for config in made:
        flat = config.flat()
        assert {name: type(value) for name, value in flat.items()} == TYPES
        assert all(math.isfinite(value) for value in flat.values() if isinstance(value, float))
        assert TrialConfig.from_flat(flat) == config
        assert TrialConfig.from_toml(config.toml()) == config
        assert len(config.key("0" * 16)) == 12


@examples(200)
@given(_bases, st.dictionaries(st.sampled_from(FIELDS), _words | _odd, max_size=2))
def test_what_is_written_is_read(tmp_path: Path, base: dict[str, Any], fields: dict[str, Any]) -> None:
    with suppress(ConfigError):
        config = TrialConfig.from_flat({**base, **fields})
        write_toml(tmp_path / "x.toml", config.toml())
        assert TrialConfig.from_toml(read_toml(tmp_path / "x.toml")) == config
