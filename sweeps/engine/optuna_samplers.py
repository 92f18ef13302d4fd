"""Optuna's NSGA-II and Gaussian processes, without memory: what they propose follows from the study and a seed.

Optuna finds the fields by intersecting those of all trials, anew for each sampler, and lets NSGA-II count generations
by marks on trials that it sampled itself. Here the fields are given, and a generation is the next so many that
completed, whoever asked for them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler, NSGAIISampler
from optuna.trial import FrozenTrial, TrialState

Distributions = Mapping[str, BaseDistribution]


class NSGA2(NSGAIISampler):
    """NSGA-II in generations of ``population`` completed trials."""

    def __init__(self, distributions: Distributions, population: int, seed: int) -> None:
        super().__init__(population_size=population, seed=seed)
        self._distributions, self._size = dict(distributions), population

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All fields."""
        return self._distributions

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The generation that is to be filled."""
        return len(_completed(study)) // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The trials of a generation, in the order they were told."""
        return _completed(study)[generation * self._size : (generation + 1) * self._size]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation, in the order they were told; the first time Optuna has another."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


class GP(GPSampler):
    """Gaussian processes, and the expected improvement of the hypervolume they promise."""

    def __init__(self, distributions: Distributions, seed: int) -> None:
        super().__init__(seed=seed)
        self._distributions = dict(distributions)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All fields."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point, on one thread: on several, matrices this small mostly wait, four times as long beside a training."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return super().sample_relative(study, trial, search_space)
        finally:
            torch.set_num_threads(threads)


def _completed(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
