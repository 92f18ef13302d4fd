"""Configurations of any value and type: a valid one comes of them, or words that name what is wrong."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from damage import examples, texts
from hypothesis import given
from hypothesis import strategies as st

from vqcore.config import FIELDS, ConfigError, TrialConfig, problems_of, read_settings, read_toml, write_toml

USUAL = TrialConfig().flat()

words = st.one_of(
    texts,
    st.sampled_from(
        ["rotation", "ste", "gumbel", "fsq", "vq", "gradient", "ema", "cosine", "learned", "8,5,5,5", "2,2"]
    ),
    st.sampled_from(["9" * 5000, "9" * 5000 + ",5", "٣,٤", "\ud800"]),
)
odd = st.one_of(
    st.integers(-3, 9),
    st.sampled_from([10**18, 10**400, -(10**400), 2**32, 1e308, math.nan, math.inf, -math.inf, -0.0, True, False]),
    st.floats(),
)
anything = st.one_of(words, odd, st.none(), st.binary(max_size=3), st.lists(odd, max_size=2), st.just({}))
bases: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {"codebook": "gradient"},
        {"codebook": "gradient", "affine": "learned"},
        {"layer": "fsq", "estimator": "ste", "commitment_weight": 0},
        {"layer": "fsq", "estimator": "ste", "commitment_weight": 0, "symmetric": True, "levels": "2,2"},
    ]
)
fields = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), anything, max_size=4)


def valid_or_told(make: Callable[[], TrialConfig], given: object) -> None:
    made: list[TrialConfig] = []
    problems = problems_of(lambda: made.append(make()))
    assert all(problem.strip() for problem in problems)
    assert bool(problems) != bool(made), given
    if problems:
        return
    config = made[0]
    flat = config.flat()
    assert {name: type(value) for name, value in flat.items()} == {name: type(value) for name, value in USUAL.items()}
    assert all(math.isfinite(value) for value in flat.values() if isinstance(value, float))
    assert TrialConfig.from_flat(flat) == config
    assert TrialConfig.from_toml(config.toml()) == config
    assert len(config.key("0" * 16)) == 12


@examples(2000)
@given(bases, fields)
def test_flat_fields(base: dict[str, Any], fields: dict[str, Any]) -> None:
    valid_or_told(lambda: TrialConfig.from_flat({**base, **fields}), fields)
    valid_or_told(lambda: TrialConfig().replace(**{**base, **fields}), fields)


_tables = st.fixed_dictionaries(
    {},
    optional={
        "model": anything
        | fields
        | st.fixed_dictionaries({"quantizer": fields | anything}, optional={"channels": odd}),
        "training": fields | anything,
        "data": anything,
    },
)


@examples(1000)
@given(_tables)
def test_tables(tables: Mapping[str, Any]) -> None:
    valid_or_told(lambda: TrialConfig.from_toml(tables), tables)


_assignments = st.builds("{}={}".format, st.sampled_from(FIELDS), words | odd.map(str)) | st.text(max_size=12)


@examples(1000)
@given(st.lists(_assignments, max_size=3))
def test_words_of_a_command_line(assignments: list[str]) -> None:
    valid_or_told(lambda: TrialConfig().replace(**read_settings(assignments)), assignments)


@examples(300)
@given(bases, st.dictionaries(st.sampled_from(FIELDS), words | odd, max_size=2))
def test_what_is_written_is_read(tmp_path: Path, base: dict[str, Any], fields: dict[str, Any]) -> None:
    with suppress(ConfigError):
        config = TrialConfig.from_flat({**base, **fields})
        write_toml(tmp_path / "x.toml", config.toml())
        assert TrialConfig.from_toml(read_toml(tmp_path / "x.toml")) == config
