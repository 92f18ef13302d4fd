"""``VQTrial`` and ``ParetoASHA`` in anyone's own Tuner, as README shows them."""

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining
from ray.tune.search.optuna import OptunaSearch

from sweeps import ParetoASHA
from trainables import VQTrial

pytestmark = pytest.mark.service

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def own_ray() -> Iterator[None]:
    """A Ray that somebody started as Ray's documentation does."""
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'sweeps'}", "OMP_NUM_THREADS": "1"}
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": env})
    yield
    ray.shutdown()


@pytest.fixture
def space(images: Path) -> dict[str, Any]:
    fields = {"data": str(images), "epochs": 4, "codebook_size": 16, "batch_size": 32}
    return {**fields, "estimator": tune.choice(["rotation", "ste"]), "commitment_weight": tune.loguniform(0.05, 4)}


def run_config(folder: Path, **checkpoints: Any) -> tune.RunConfig:
    kept = tune.CheckpointConfig(checkpoint_frequency=1, **checkpoints)
    return tune.RunConfig(name="stock", storage_path=str(folder), checkpoint_config=kept, verbose=0)


def test_asha_and_optuna_of_rays_own(space: dict[str, Any], tmp_path: Path) -> None:
    tuner = tune.Tuner(
        VQTrial,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="mse", mode="min", scheduler=ASHAScheduler(max_t=4), search_alg=OptunaSearch(seed=0), num_samples=3
        ),
        run_config=run_config(tmp_path),
    )
    results = tuner.fit()
    assert not results.errors
    best = results.get_best_result().metrics
    assert best is not None
    assert best["training_iteration"] == 4
    assert {"mse", "perplexity", "usage", "bits", "loss", "train_mse"} <= best.keys()


class Flaky(VQTrial):
    """Breaks once, in its third epoch."""

    def step(self) -> dict[str, Any]:
        broken = Path(self.config["data"]).parent / "broken"
        if len(self.trial.history) == 2 and not broken.exists():
            broken.touch()
            raise RuntimeError("once")
        return super().step()


def test_a_restored_tuner_goes_on_from_tunes_checkpoints(space: dict[str, Any], images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "images")
    fixed = {**space, "data": str(tmp_path / "images"), "estimator": "rotation", "commitment_weight": 0.25}
    broken = tune.Tuner(Flaky, param_space=fixed, run_config=run_config(tmp_path)).fit()
    assert broken.errors
    restored = tune.Tuner.restore(str(tmp_path / "stock"), Flaky, resume_errored=True).fit()
    straight = VQTrial(fixed)
    results = [straight.train() for _ in range(4)]
    assert restored[0].metrics is not None
    assert restored[0].metrics["training_iteration"] == 4
    assert restored[0].metrics["iterations_since_restore"] == 2, "it began at its last checkpoint"
    assert restored[0].metrics["mse"] == results[-1]["mse"], "to the last bit"


def test_population_based_training_takes_weights_over_with_a_new_configuration(
    space: dict[str, Any], tmp_path: Path
) -> None:
    weights = [0.05, 0.5, 2.0, 4.0]
    mutations = {"commitment_weight": tune.loguniform(0.05, 4)}
    tuner = tune.Tuner(
        VQTrial,
        param_space={**space, "estimator": "rotation", "commitment_weight": tune.grid_search(weights)},
        tune_config=tune.TuneConfig(
            metric="mse",
            mode="min",
            scheduler=PopulationBasedTraining(
                time_attr="training_iteration", perturbation_interval=1, hyperparam_mutations=mutations
            ),
            reuse_actors=True,
        ),
        run_config=run_config(tmp_path),
    )
    results = tuner.fit()
    assert not results.errors
    assert all(result.metrics and result.metrics["training_iteration"] == 4 for result in results)
    assert {result.config["commitment_weight"] for result in results if result.config} - set(weights), "one exploited"


def test_a_wrong_field_is_an_error_of_the_trial_in_words(space: dict[str, Any], tmp_path: Path) -> None:
    results = tune.Tuner(VQTrial, param_space={**space, "codes": 3}, run_config=run_config(tmp_path)).fit()
    assert "codes: no such field; there are " in str(results[0].error)


class Toy(tune.Trainable):
    """Anyone's trainable: it counts its steps, and saves and loads."""

    def setup(self, config: dict[str, Any]) -> None:
        self.steps, self.level = 0, config["level"]

    def step(self) -> dict[str, Any]:
        self.steps += 1
        lost = float("nan") if self.level == 7 else self.level / self.steps
        return {"error": lost, "spread": -self.level, "steps": self.steps, "done": self.steps >= 9}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        Path(checkpoint_dir, "steps").write_text(str(self.steps))

    def load_checkpoint(self, checkpoint: Any) -> None:
        self.steps = int(Path(checkpoint, "steps").read_text())


def test_pareto_asha_with_anyones_trainable(tmp_path: Path) -> None:
    scheduler = ParetoASHA(
        metrics=("error", "spread"),
        modes=("min", "max"),
        max_t=9,
        grace_period=1,
        reduction_factor=3,
        time_attr="steps",
    )
    tuner = tune.Tuner(
        Toy,
        param_space={"level": tune.grid_search(list(range(1, 10)))},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=False),
        run_config=tune.RunConfig(name="toy", storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    steps = {result.config["level"]: result.metrics["steps"] for result in results if result.config and result.metrics}
    assert steps[1] == 9, "the best in both is never stopped"
    assert sorted(steps.values()).count(9) <= 3
    assert steps[7] == 1, "what is not finite goes no further"
    assert set(steps.values()) <= {1, 3, 9}
    assert sum(steps.values()) < 9 * 9 / 2
    assert all(math.isfinite(value) for value in steps.values())


def test_pareto_asha_says_which_metric_is_missing(tmp_path: Path) -> None:
    tuner = tune.Tuner(
        Toy,
        param_space={"level": 1},
        tune_config=tune.TuneConfig(scheduler=ParetoASHA(max_t=9)),
        run_config=tune.RunConfig(name="toy", storage_path=str(tmp_path), verbose=0),
    )
    with pytest.raises(Exception, match="mse, perplexity: not in the results") as raised:
        tuner.fit()
    assert raised.value is not None
