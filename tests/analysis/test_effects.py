"""Effects of fields: how often their intervals hold is counted over simulated runs whose effects are known."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.effects import FieldEffect, field_effects
from analysis.results import Group, Results, load
from tests.analysis.conftest import MakeRun, RunMaker
from trainables.journal import RunRecord, TrialRecord

LAST = 8


def trial(
    number: int, config: Mapping[str, Any], end: float, early: Mapping[int, float] = {}, **ended: Any
) -> TrialRecord:
    """Its MSE and perplexity, which is its inverse, are ``end`` in the end, and ``early`` before."""
    levels = {**early, **({} if ended else {LAST: end})}
    epochs = {epoch: {"mse": math.exp(value), "perplexity": math.exp(-value)} for epoch, value in levels.items()}
    how = {"status": "completed", **ended}
    return TrialRecord(str(number), number, dict(config), epochs=epochs, last_epoch=max(epochs), **how)


def run(trials: list[TrialRecord], swept: tuple[str, ...], **params: Any) -> Results:
    record = RunRecord({"params": params}, {one.key: one for one in trials})
    by_config: dict[frozenset[Any], list[TrialRecord]] = {}
    for one in trials:
        if one.status == "completed":
            by_config.setdefault(frozenset(one.config.items() - {("seed", one.config.get("seed"))}), []).append(one)
    groups = (Group("", dict(config), tuple(some), LAST) for config, some in by_config.items())
    return Results(Path(), record, swept, tuple(groups), LAST, ())


def holds(effect: FieldEffect, truth: Mapping[str, float]) -> bool:
    """Whether all intervals of a field are true; ``truth`` is of logarithms."""
    best = truth[effect.levels[effect.best].label]
    for one in effect.levels:
        if one.interval is not None:
            low, high = one.interval
            if not low <= 100 * math.expm1(truth[one.label] - best) <= high:
                return False
    return True


def test_in_a_grid_all_intervals_of_a_field_hold_together_in_95_percent() -> None:
    betas = {"0.1": 0.0, "0.5": 0.02, "1.0": 0.05, "2.0": 0.3}
    estimators = {"rotation": 0.0, "ste": 0.1}
    held: dict[str, list[bool]] = {"commitment_weight": [], "estimator": []}
    for number in range(150):
        dice = np.random.default_rng(number)
        of_seed = dice.normal(0, 0.2, 3)
        trials = []
        for beta, effect in betas.items():
            for estimator, more in estimators.items():
                for seed in range(3):
                    end = -4 + effect + more + of_seed[seed] + dice.normal(0, 0.03 + effect / 10)
                    config = {"commitment_weight": float(beta), "estimator": estimator, "seed": seed}
                    trials.append(trial(len(trials), config, end))
        for effect_of in field_effects(run(trials, ("commitment_weight", "estimator"))):
            assert effect_of.paired
            truth = {"0.1": 0.0, "0.5": 0.02, "1": 0.05, "2": 0.3} if effect_of.field != "estimator" else estimators
            if effect_of.objective.column == "mse":
                held[effect_of.field].append(holds(effect_of, truth))
    for of_field in held.values():
        assert np.mean(of_field) >= 0.92


def search(dice: np.random.Generator, stops: bool) -> Results:
    """48 configurations drawn by chance. What a trial comes to, its second epoch tells, but for some noise; where it
    stops the worse half of those that were not first, of the worse estimator the luckiest are left."""
    trials = []
    for number in range(48):
        config = {
            "estimator": str(dice.choice(["rotation", "ste"])),
            "codebook_size": int(dice.choice([256, 512])),
            "decay": float(dice.uniform(0.8, 0.99)),
            "seed": 0,
        }
        luck = dice.normal(0, 0.15)
        end = -4 + 0.3 * (config["estimator"] == "ste") - 0.2 * (config["codebook_size"] == 512) + luck
        early = {1: end + 0.8, 2: end + 0.5 + dice.normal(0, 0.05)}
        if stops and number >= 6 and early[2] > -3.4:
            trials.append(trial(number, config, end, early, status="stopped", reason="rung 2: rank 9 of 9"))
        else:
            trials.append(trial(number, config, end, early))
    return run(trials, ("estimator", "codebook_size", "decay"), sampler="random")


@pytest.mark.parametrize("stops", [False, True], ids=["all trained in full", "the worse half stopped"])
def test_in_a_search_the_intervals_hold_in_95_percent_also_of_what_was_stopped_for_being_bad(stops: bool) -> None:
    truths = {"estimator": {"rotation": 0.0, "ste": 0.3}, "codebook_size": {"256": 0.2, "512": 0.0}}
    held: dict[str, list[bool]] = {"estimator": [], "codebook_size": [], "decay": []}
    for number in range(60):
        for effect in field_effects(search(np.random.default_rng(number), stops)):
            assert not effect.paired
            if effect.objective.column == "mse":
                truth = truths.get(effect.field) or {one.label: 0.0 for one in effect.levels}
                held[effect.field].append(holds(effect, truth))
    for of_field in held.values():
        assert np.mean(of_field) >= 0.88


def of(results: Results, field: str, column: str = "mse") -> FieldEffect:
    (effect,) = [e for e in field_effects(results) if (e.field, e.objective.column) == (field, column)]
    return effect


def test_the_sentence_says_what_is_best_and_by_how_much(ablation: Path) -> None:
    effect = of(load(ablation), "commitment_weight")
    assert [one.label for one in effect.levels] == ["0.1", "0.25", "1"]
    assert [one.trials for one in effect.levels] == [3, 3, 3]
    worst = effect.levels[2]
    assert worst.difference == pytest.approx(50, abs=6)
    assert worst.interval is not None
    assert worst.interval[0] < worst.difference < worst.interval[1]
    assert effect.sentence.startswith("commitment weight: MSE is lowest at 0.1")
    assert re.fullmatch(r".*; at 1 it is 4\d % higher \(3\d to 5\d %\)\.", effect.sentence)
    assert effect.note.startswith("Paired over 3 seeds;")
    other = of(load(ablation), "commitment_weight", "perplexity")
    assert other.sentence.startswith("commitment weight: perplexity is highest at 0.25; at 1 it is 32 % lower (")


def grid(make_run: MakeRun, effect_of_beta: Mapping[str, float], seeds: int = 3) -> RunMaker:
    made = make_run(swept=("commitment_weight", "estimator"))
    dice = np.random.default_rng(3)
    for estimator, effect in effect_of_beta.items():
        for beta in (0.1, 2.0):
            mses = [0.02 * (1 + effect * (beta > 1)) * math.exp(dice.normal(0, 0.01)) for _ in range(seeds)]
            made.seeds(mses, [100.0] * seeds, commitment_weight=beta, estimator=estimator)
    return made


def test_an_effect_within_noise_is_none_and_what_is_not_ruled_out_is_said(make_run: MakeRun) -> None:
    effect = of(load(grid(make_run, {"rotation": 0.0, "ste": 0.0}).done()), "commitment_weight")
    assert not effect.told
    assert effect.sentence.startswith("commitment weight: no effect on MSE beyond noise; differences of up to ")


def test_an_effect_that_another_field_decides_is_not_averaged_away(make_run: MakeRun) -> None:
    effect = of(load(grid(make_run, {"rotation": -0.2, "ste": 0.25}).done()), "commitment_weight")
    said = r".* It depends on the other fields: at 2 it is \d+ % lower with rotation and \d+ % higher with ste\."
    assert re.fullmatch(said, effect.sentence)


def test_an_effect_that_is_the_same_everywhere_depends_on_nothing(make_run: MakeRun) -> None:
    for effect in field_effects(load(grid(make_run, {"rotation": 0.25, "ste": 0.25}).done())):
        assert "depends" not in effect.sentence


def test_of_too_few_trials_nothing_is_claimed(make_run: MakeRun) -> None:
    made = make_run()
    assert field_effects(load(made.folder)) == ()
    made.seeds([0.02], [100.0], commitment_weight=0.1)
    only = of(load(made.folder), "commitment_weight")
    assert only.sentence == "commitment weight: only 0.1 was trained to the end."
    made.seeds([0.04], [100.0], commitment_weight=1.0)
    effect = of(load(made.done()), "commitment_weight")
    assert (effect.told, effect.levels[1].interval) == (False, None)
    assert effect.levels[1].difference == pytest.approx(100)
    assert effect.sentence.endswith("cannot be told from noise by 2 configurations.")


def test_fields_that_vary_together_are_not_told_apart() -> None:
    dice = np.random.default_rng(0)
    trials = []
    for number in range(30):
        size = int(dice.choice([256, 512]))
        config = {"codebook_size": size, "dim": size // 8, "decay": float(dice.choice([0.8, 0.9])), "seed": 0}
        trials.append(trial(number, config, -4 + 0.3 * (size == 256) + dice.normal(0, 0.1)))
    results = run(trials, ("codebook_size", "dim", "decay"), sampler="random")
    assert "cannot be told from those of fields it varies with" in of(results, "dim").sentence
    assert "no effect" in of(results, "decay").sentence


def test_equal_results_are_said_to_be_equal(make_run: MakeRun) -> None:
    made = make_run()
    for beta in (0.1, 0.5):
        made.seeds([0.3, 0.31, 0.32], [1.0, 1.0, 1.0], commitment_weight=beta)
    told = field_effects(load(made.done()))
    assert told[0].sentence == "commitment weight: MSE is the same at every value."
