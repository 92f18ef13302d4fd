"""A configuration is right or refused, whole, with every problem; it survives every form it is written in."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcore.config import (
    FIELDS,
    MAX_SEED,
    PRESETS,
    ConfigError,
    ModelConfig,
    QuantizerConfig,
    TrialConfig,
    problems_of,
    read_settings,
    read_toml,
    write_toml,
)
from vqcore.registry import ARCHITECTURES

WHOLE = ("codebook_size", "dim", "channels", "hidden_channels", "residual_channels", "epochs", "batch_size")
NOT_WHOLE = (0, -1, 2.0, True, "64", None, float("nan"))
NOT_NUMBERS = (float("nan"), float("inf"), -float("inf"), True, False, "0.5", None)


sizes = {name: st.integers(2, 10_000) for name in (*WHOLE, "residual_blocks")}
trials = st.fixed_dictionaries(
    {
        **sizes,
        "estimator": st.sampled_from(["ste", "rotation"]),
        "commitment_weight": st.floats(0, 1e6) | st.integers(0, 9),
        "decay": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "learning_rate": st.floats(0, 10, exclude_min=True),
        "precision": st.sampled_from(["auto", "fp32", "bf16"]),
        "seed": st.integers(0, MAX_SEED),
    }
).map(TrialConfig.from_flat)


BAD: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(WHOLE, NOT_WHOLE),
    "codebook_size": (1, *NOT_WHOLE),
    "residual_blocks": (-1, True),
    "seed": (-1, 0.0, False, MAX_SEED + 1),
    "commitment_weight": (-1e-9, *NOT_NUMBERS),
    "decay": (0, 1, 1.5, -0.5, *NOT_NUMBERS),
    "learning_rate": (0, -1.0, *NOT_NUMBERS),
    "revive_below": (1.5,),
    "revive_share": (-0.1, *NOT_NUMBERS),
    "alternate": (1,),
    "obtuse": ("reflect",),
    "estimator": ("STE", "", 3, ["ste"]),
    "precision": ("fp16", None, ["bf16"]),
    "architecture": ("residuals", ["residual"]),
    "levels": (8,),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_with_the_value_and_the_rule(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig().replace(**{"revive_below": 0.1, name: value})
    problem = caught.value.problems[0]
    assert problem.startswith(name)
    assert f"{value!r}: " in problem
    assert any(rule in problem for rule in ("must ", "there are "))


def test_all_problems_of_all_parts_come_at_once() -> None:
    bad: dict[str, Any] = {
        "codebook_size": 1,
        "decay": 1.0,
        "commitment_weight": -1.0,
        "estimator": "x",
        "channels": 0,
        "epochs": 0,
    }
    problems = problems_of(lambda: TrialConfig.from_flat({**bad, "batch_size": 0, "precision": "x", "beta": 1.0}))
    assert {problem.split(maxsplit=1)[0].rstrip(":") for problem in problems} == {
        *bad, "batch_size", "precision", "beta",
    }  # fmt: skip
    assert "\n".join(problems) == str(ConfigError(problems))


def test_an_unknown_field_is_answered_with_the_fields() -> None:
    (problem,) = problems_of(lambda: TrialConfig().replace(codes=512))
    assert problem.startswith("codes: no such field")
    assert "codebook_size" in problem


@pytest.mark.parametrize("tables", [{"model": 3}, {"model": {"quantizer": "rotation"}}, {"training": [1]}])
def test_a_field_where_a_table_belongs(tables: dict[str, Any]) -> None:
    (problem,) = problems_of(lambda: TrialConfig.from_toml(tables))
    assert "must be a table" in problem


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        QuantizerConfig().dim = 3  # type: ignore[misc]


@given(trials)
def test_flat_and_back(config: TrialConfig) -> None:
    assert tuple(config.flat()) == FIELDS
    assert TrialConfig.from_flat(config.flat()) == config


@given(trials)
def test_toml_and_back(tmp_path_factory: pytest.TempPathFactory, config: TrialConfig) -> None:
    path = tmp_path_factory.getbasetemp() / "config.toml"
    write_toml(path, {**config.toml(), "evidence": {"seeds": [0, 1]}}, header="found by\n\na sweep")
    assert path.read_text(encoding="utf-8").startswith("# found by\n#\n# a sweep\n\n")
    assert TrialConfig.from_toml(read_toml(path)) == config
    assert TrialConfig.from_toml(read_toml(path)).key("d") == config.key("d")


def test_what_is_not_named_keeps_its_default() -> None:
    assert TrialConfig.from_toml({}) == TrialConfig() == TrialConfig.from_flat({})
    assert TrialConfig.from_toml({"model": {"quantizer": {"dim": 8}}}) == TrialConfig().replace(dim=8)


@pytest.mark.parametrize("content", [b"model = ", b"\xff\xfe", b"[model]\n[model]"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml: is not valid TOML"):
        read_toml(tmp_path / "x.toml")
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read \(No such file"):
        read_toml(tmp_path / "gone.toml")


OTHER: dict[str, Any] = {
    "codebook_size": 513, "dim": 65, "estimator": "ste", "commitment_weight": 0.26, "decay": 0.98, "channels": 65,
    "hidden_channels": 129, "residual_channels": 33, "residual_blocks": 3, "batch_size": 127, "learning_rate": 3e-4,
    "precision": "fp32", "seed": 1,
}  # fmt: skip


GRADIENT = {"codebook": "gradient"}
LATER: list[dict[str, Any]] = [
    {"layer": "fsq", "levels": "8,5,5,5", "estimator": "ste", "commitment_weight": 0},
    {"layer": "fsq", "levels": "8,5,5,5", "estimator": "ste", "commitment_weight": 0, "symmetric": True},
    {"max_rescale": 2.0}, {"obtuse": "ste"}, {"estimator": "gumbel"}, {"estimator": "gumbel", "temperature": 0.5},
    GRADIENT, {"codebook": "ema_debiased"}, GRADIENT | {"nu": 0.1}, GRADIENT | {"codebook_weight": 0.5},
    {"init": "normal"}, {"init": "kmeans++"}, {"normalize": "inputs"}, {"normalize": "codes"}, {"normalize": "cosine"},
    GRADIENT | {"affine": "learned"}, GRADIENT | {"affine": "learned", "affine_groups": 2},
    GRADIENT | {"affine": "learned", "affine_rate": 2.0}, GRADIENT | {"affine": "statistics"},
    {"revive_below": 0.1}, {"revive_below": 0.1, "revive_share": 0.5}, GRADIENT | {"alternate": True},
    {"architecture": "eighth"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def eighth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another architecture, of the usual networks in name only."""
    monkeypatch.setitem(ARCHITECTURES, "eighth", dataclasses.replace(ARCHITECTURES["residual"], downsampling=8))


def test_images_that_an_architecture_does_not_divide_are_refused_with_a_size_that_it_does() -> None:
    assert not list(ModelConfig().size_problems(20))
    (problem,) = ModelConfig(architecture="eighth").size_problems(20)
    assert "20 x 20" in problem
    assert "multiples of 8" in problem
    assert "--image-size 16" in problem
    with pytest.raises(ConfigError, match="architecture = 'x': there are residual"):
        ModelConfig(architecture="x")


def test_the_key_names_the_training_but_not_its_length() -> None:
    base = TrialConfig()
    assert set(OTHER).union(*LATER) == set(FIELDS) - {"epochs"}
    changed = [*({n: v} for n, v in OTHER.items()), *LATER]
    keys = [base.key("data"), base.key("other data"), *(base.replace(**changes).key("data") for changes in changed)]
    assert len(set(keys)) == len(keys)
    assert base.replace(epochs=7).key("data") == base.key("data")
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)


def test_the_key_is_the_same_tomorrow() -> None:
    """Journals on disk hold keys: one that changes orphans every checkpoint."""
    assert TrialConfig().key("0123456789abcdef") == "d82ed1ae4a11"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nu": 0.5}, "nu = 0.5: has a meaning only with codebook = 'gradient'"),
        (GRADIENT | {"estimator": "gumbel", "nu": 0.5}, "nu = 0.5: has a meaning only with codebook = 'gradient'"),
        ({"codebook_weight": 2}, "codebook_weight = 2: has a meaning only with codebook = 'gradient'"),
        ({"affine": "learned"}, "affine = 'learned': has a meaning only with codebook = 'gradient'"),
        ({"affine_groups": 4}, "affine_groups = 4: has a meaning only with affine"),
        (GRADIENT | {"affine": "learned", "affine_groups": 3}, "affine_groups = 3: must divide codebook_size = 512"),
        ({"temperature": 2}, "temperature = 2: has a meaning only with estimator = 'gumbel'"),
        ({"levels": "8,8"}, "levels = '8,8': has a meaning only with layer = 'fsq'"),
        ({"estimator": "ste", "max_rescale": 2.0}, "max_rescale = 2.0: has a meaning only with estimator = 'rotation'"),
        ({"estimator": "reflection", "obtuse": "ste"}, "obtuse = 'ste': has a meaning only with an estimator"),
        ({"revive_share": 0.5}, "revive_share = 0.5: has a meaning only with revive_below above 0"),
    ],
    ids=str,
)
def test_what_has_no_effect_is_refused_with_what_would_give_it_one(changes: dict[str, Any], problem: str) -> None:
    (found,) = problems_of(lambda: TrialConfig().replace(**changes))
    assert found.startswith(problem)


def test_fsq_has_a_grid_and_nothing_else() -> None:
    config = QuantizerConfig(layer="fsq", levels="8,5,5,5", estimator="ste", commitment_weight=0)
    assert (config.codebook_size, config.dim) == (1000, 4)
    problems = problems_of(lambda: QuantizerConfig(layer="fsq", levels="8,1", revive_below=0.1))
    assert {line.split(" = ")[0] for line in problems} == {"levels", "estimator", "commitment_weight", "revive_below"}
    with pytest.raises(ConfigError, match="alternate = True"):
        TrialConfig().replace(alternate=True)


def test_a_whole_number_and_its_float_are_one_configuration() -> None:
    whole, real = TrialConfig().replace(commitment_weight=1), TrialConfig().replace(commitment_weight=1.0)
    assert whole.key("data") == real.key("data")
    assert repr(whole) == repr(real)


def test_the_papers_model() -> None:
    paper = PRESETS["paper"]
    assert (paper.channels, paper.hidden_channels, paper.residual_channels, paper.residual_blocks) == (128, 256, 256, 2)
    assert (paper.quantizer.codebook_size, paper.quantizer.dim) == (1024, 256)
    assert PRESETS["compact"] == ModelConfig(64, 128, 32, 2, QuantizerConfig(512, 64))


def test_settings_become_values_in_the_type_of_their_field() -> None:
    settings = ["codebook=gradient", "nu=0.5", "affine_groups=4", "alternate=True", "levels=8,5,5"]
    expected = {"codebook": "gradient", "nu": 0.5, "affine_groups": 4, "alternate": True, "levels": "8,5,5"}
    assert read_settings(settings) == expected
    with pytest.raises(ConfigError) as error:
        read_settings(["nu=much", "alternate=2", "depth=3", "nu"])
    refused = [problem.split(":")[0] for problem in error.value.problems]
    assert refused == ["nu=much", "alternate=2", "depth=3", "nu"]
