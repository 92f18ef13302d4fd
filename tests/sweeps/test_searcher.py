"""The sampler: honest states, no configuration twice, and the same draw again from the same history."""

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from test_space import CONDITIONAL

from analysis.objectives import objectives
from sweeps.engine.searcher import POPULATION, Sampler, distribution
from sweeps.engine.space import Constraint, Range, Space, every, resolve
from sweeps.engine.spec import Kind, Search
from vqcore.config import TrialConfig, problems_of
from vqcore.sizes import parameters

BASE = TrialConfig().replace(
    epochs=3, seed=0, channels=4, hidden_channels=4, residual_channels=2, residual_blocks=1, dim=4, codebook_size=16
)
KINDS: tuple[Kind, ...] = get_args(Kind)
CHEAP: tuple[Kind, ...] = ("tpe", "nsga2", "random")
SPACE: Space = {
    "estimator": ("rotation", "ste", "reflection"),
    "codebook": ("ema", "gradient"),
    "decay": Range(0.8, 0.999),
    "commitment_weight": Range(0.05, 4.0, log=True),
    "codebook_size": Range(8, 64, log=True),
}
GRID: Space = {"estimator": ("rotation", "ste"), "max_rescale": (2.0, 10.0), "codebook_size": (8, 16), "nu": (0.0, 0.1)}
GRADIENT = BASE.replace(codebook="gradient")


def sampler(kind: Kind = "tpe", space: Space = SPACE, base: TrialConfig = BASE, **search: Any) -> Sampler:
    return Sampler(space, base, Search(sampler=kind, **search))


def trained(config: TrialConfig) -> dict[str, float]:
    """As if: little commitment reconstructs well, and uses few codes."""
    quantizer = config.model.quantizer
    beta = math.log(quantizer.commitment_weight or 1.0) / 3
    off = (quantizer.decay - 0.9) ** 2 * 20 + 0.2 * (quantizer.estimator == "ste")
    return {"mse": beta**2 + off, "perplexity": quantizer.codebook_size * math.exp(beta - off), "extra": 1.0}


def ask(sampler: Sampler) -> TrialConfig:
    config = sampler.ask()
    assert config is not None
    return config


def train(sampler: Sampler, count: int, status_of: Callable[[int], str] = lambda i: "completed") -> list[TrialConfig]:
    configs = []
    for i in range(count):
        configs.append(ask(sampler))
        assert sampler.tell(configs[-1], status_of(i), trained(configs[-1]))
    return configs


def states(sampler: Sampler) -> list[TrialState]:
    return [trial.state for trial in sampler.study().get_trials(deepcopy=False)]


@pytest.mark.parametrize(
    ("status", "metrics", "state"),
    [
        ("completed", {"mse": 0.1, "perplexity": 9.0}, TrialState.COMPLETE),
        ("stopped", {"mse": 0.1, "perplexity": 9.0}, TrialState.PRUNED),
        ("stopped", {}, TrialState.PRUNED),
        ("failed", {}, TrialState.FAIL),
        ("diverged", {"mse": 0.1, "perplexity": 9.0}, TrialState.FAIL),
        ("completed", {"mse": math.nan, "perplexity": 9.0}, TrialState.FAIL),
        ("completed", {"mse": 0.1}, TrialState.FAIL),
        ("running", {}, TrialState.RUNNING),
    ],
)
def test_only_a_whole_training_with_finite_metrics_is_complete(
    status: str, metrics: dict[str, float], state: TrialState
) -> None:
    one = sampler()
    assert one.tell(BASE, status, metrics)
    (trial,) = one.study().trials
    assert trial.state == state
    assert trial.values == (list(metrics.values()) if state == TrialState.COMPLETE else None)


@pytest.mark.parametrize("kind", CHEAP)
def test_nothing_is_asked_twice_and_all_fits(kind: Kind) -> None:
    one = sampler(kind)
    configs = train(one, 60, status_of=lambda i: ("completed", "completed", "stopped", "failed")[i % 4])
    assert len(set(configs)) == 60
    assert train(sampler(kind, seed=1), 5) != configs[:5]
    assert {(config.training.seed, config.training.epochs) for config in configs} == {(0, 3)}
    for config in configs:
        flat = config.flat()
        assert flat["codebook"] == "ema" or flat["decay"] == 0.99
        assert 0.8 <= float(flat["decay"]) <= 0.999
        assert 0.05 <= float(flat["commitment_weight"]) <= 4.0
        assert isinstance(flat["codebook_size"], int)
        assert 8 <= flat["codebook_size"] <= 64
        assert config == resolve(BASE, {name: flat[name] for name in SPACE})
    assert {config.model.quantizer.codebook for config in configs} == {"ema", "gradient"}


@pytest.mark.parametrize("kind", CHEAP)
def test_a_finite_space_is_given_whole_and_then_no_more(kind: Kind) -> None:
    one = sampler(kind, GRID, base=GRADIENT)
    assert set(train(one, 12)) == set(every(GRID, GRADIENT))
    assert one.ask() is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_sampler_with_the_beginnings_and_then_the_ends_goes_on_alike(kind: Kind) -> None:
    first, rebuilt = sampler(kind), sampler(kind)
    begun = 12 if kind == "gp" else POPULATION + 4  # GP takes its time
    configs = train(first, begun) + [ask(first) for _ in range(8)]
    ends = configs[begun:][:6]
    random.Random(0).shuffle(ends)
    for config in ends:
        first.tell(config, "completed", trained(config))
    for config in configs:
        assert rebuilt.tell(config, "running", {})
    for config in configs[:begun] + ends:  # two of them run still
        rebuilt.tell(config, "completed", trained(config))
    assert [ask(rebuilt), ask(rebuilt)] == [ask(first), ask(first)]


@pytest.mark.parametrize("base", [BASE, BASE.replace(decay=0.9), GRADIENT.replace(affine="learned", affine_groups=4)])
def test_where_most_fields_depend_on_others_it_knows_what_another_asked_for_whatever_the_seed(
    base: TrialConfig,
) -> None:
    first, other = (sampler("random", CONDITIONAL, base=base) for _ in range(2))
    configs = [ask(first) for _ in range(60)]
    assert {config.model.quantizer.layer for config in configs} == {"vq", "fsq"}
    assert all(other.tell(config.replace(seed=3), "running", {}) for config in configs)
    assert ask(other) == ask(first)


@pytest.mark.parametrize(
    "changes",
    [
        {"decay": 0.7},
        {"estimator": "gumbel"},
        {"codebook_size": 128},
        {"learning_rate": 1e-3},
        {"epochs": 50},
        {"codebook": "ema_debiased"},
    ],
)
def test_what_is_no_point_of_the_space_is_not_taken(changes: dict[str, Any]) -> None:
    one = sampler()
    assert not one.tell(BASE.replace(**changes), "completed", {"mse": 0.1, "perplexity": 9.0})
    assert states(one) == []


def test_a_seed_repeats_a_configuration_and_so_does_what_has_no_meaning() -> None:
    one, metrics = sampler(), {"mse": 0.1, "perplexity": 9.0}
    assert one.tell(BASE.replace(seed=1), "completed", metrics)
    assert not one.tell(BASE, "completed", metrics), "known, and completed"
    assert one.tell(GRADIENT.replace(decay=0.7), "completed", metrics), "nothing decays there"
    assert not one.tell(GRADIENT, "stopped", metrics)
    assert states(one) == [TrialState.COMPLETE] * 2


def test_a_trial_that_failed_or_stopped_may_be_tried_again() -> None:
    one = sampler()
    for status in ("failed", "running", "stopped", "completed"):
        assert one.tell(BASE, status, {"mse": 0.1, "perplexity": 9.0}) == (status != "running")
    assert states(one) == [TrialState.COMPLETE]
    assert BASE not in train(one, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_it_finds_better_configurations_than_chance(kind: Kind) -> None:
    def late(kind: Kind) -> float:
        found = [trained(config)["mse"] for seed in range(3) for config in train(sampler(kind, seed=seed), 80)[60:]]
        return sum(found) / len(found)

    assert late(kind) < 0.7 * late("random")


def test_a_constraint_is_read_and_its_violation_is_a_share_of_the_bound() -> None:
    constraint = Constraint.parse(" parameters<=4e6 ")
    assert constraint == Constraint("parameters", "<=", 4e6) == Constraint.parse(str(constraint))
    assert [constraint.violation(value) for value in (5e6, 4e6, 3e6)] == [0.25, 0, -0.25]
    assert Constraint.parse("perplexity >= 200").violation(150) == 0.25
    assert Constraint.parse("nu <= 0").violation(2) == 2
    for text in ("perplexity", "perplexity > 200", "perplexity >= many", ">= 3", "mse <= nan", "a b <= 1"):
        (problem,) = problems_of(partial(Constraint.parse, text))
        assert problem.startswith(f"constraint {text!r}: must be a column")


def test_what_misses_a_bound_is_infeasible_in_the_study() -> None:
    one = sampler(constraints=[Constraint("perplexity", ">=", 5.0), Constraint("extra", "<=", 1.0)])
    for beta, perplexity, extra in ((0.1, 4.0, 1.0), (0.2, 6.0, 1.0), (0.3, 9.0, 2.0)):
        metrics = {"mse": beta, "perplexity": perplexity, "extra": extra}
        one.tell(BASE.replace(commitment_weight=beta), "completed", metrics)
    assert [trial.params["commitment_weight"] for trial in one.study().best_trials] == [0.2]
    assert [trial.constraints for trial in one.study().trials] == [
        {"perplexity >= 5": 0.2, "extra <= 1": 0.0},
        {"perplexity >= 5": -0.2, "extra <= 1": 0.0},
        {"perplexity >= 5": -0.8, "extra <= 1": 1.0},
    ]
    one.tell(BASE, "completed", {"mse": 0.1, "perplexity": 9.0})
    assert states(one)[-1] == TrialState.FAIL, "a bound on what was not measured is not met by silence"


@pytest.mark.parametrize("kind", CHEAP)
def test_a_model_that_is_too_large_is_never_asked_for(kind: Kind) -> None:
    bound = Constraint("parameters", "<=", parameters(BASE.replace(codebook_size=20).model))
    configs = train(sampler(kind, constraints=[bound]), 15)
    assert all(config.model.quantizer.codebook_size <= 20 for config in configs)


def test_a_size_that_no_configuration_has_is_refused_before_the_first_trial() -> None:
    (problem,) = problems_of(lambda: sampler(constraints=[Constraint("parameters", "<=", 10)]))
    assert problem.startswith("constraint parameters <= 10: no configuration of this sweep was found to meet it")


def test_all_problems_at_once() -> None:
    problems = problems_of(lambda: sampler(space={"decay": (), "beta": (1.0,)}, objectives=(), seed=-1))
    assert [problem.split(" ")[0].rstrip(":") for problem in problems] == ["decay", "beta", "objectives", "seed"]
    three = objectives(["mse", "perplexity", "usage"])
    assert "a sampler takes one or two" in problems_of(lambda: sampler(objectives=three))[0]


def test_numbers_named_one_by_one_keep_their_order_and_words_have_none() -> None:
    distributions = [distribution("decay", (0.9, 0.8, 0.99)), distribution("estimator", ("ste", "rotation"))]
    assert distributions == [IntDistribution(0, 2), CategoricalDistribution(("ste", "rotation"))]
    one = sampler(space={"decay": (0.9, 0.8, 0.99)})
    one.tell(BASE.replace(decay=0.8), "running", {})
    assert one.study().trials[0].params == {"decay": 0}


def test_drawing_prints_nothing_and_leaves_the_logger_as_it_was(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    before = optuna.logging.get_verbosity()
    for kind in KINDS:
        train(sampler(kind), 12)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert optuna.logging.get_verbosity() == before
