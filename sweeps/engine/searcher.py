"""Optuna's samplers over a space of configurations.

Only a training to the end is COMPLETE; one that was stopped early is PRUNED and has no values, one that failed,
diverged or is not finite is FAIL: so no two budgets are compared. Each draw is made by a new sampler over a new study
of all known trials, seeded by the search's seed and their number. So it follows from the history alone, and a resumed
sweep goes on as if it had not stopped: its sampler is told of the trials as ``running`` in the order in which they
began, then of their ends in the order in which they ended, which is how NSGA-II fills its generations.
"""

import math
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeps.engine import space as spaces
from sweeps.engine.space import SIZE, Choice, Range, Space, numbers, resolve
from sweeps.engine.spec import Search, SweepSpec
from vqcore.config import MAX_SEED, ConfigError, Scalar, TrialConfig, meaningless, problems_of
from vqcore.sizes import parameters

POPULATION = 20
"""Completed trials in a generation of NSGA-II. Optuna's 50 would make most sweeps a random search."""
GUIDED, TRIES = 8, 64
"""Draws for a configuration that is new: this many by the sampler, and with those by chance."""

_STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


class GenerationsByEnd(NSGAIISampler):
    """NSGA-II in generations of completed trials, in the order of the study, whichever sampler drew them.

    Optuna marks the trials that a sampler drew with their generation, and a study made from a journal has no marks.
    """

    def get_trial_generation(self, study: optuna.Study, trial: FrozenTrial) -> int:
        """The generation that is to be filled."""
        return len(_completed(study)) // POPULATION

    def get_population(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """The trials of a generation."""
        return _completed(study)[generation * POPULATION : (generation + 1) * POPULATION]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from reporting each new study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


class Sampler:
    """Draws configurations of ``space`` over ``base``, none twice, and learns from the trials that it is given.

    Their seed and epochs are those of ``base``. Raises ``ConfigError`` with every problem.
    """

    @_quiet()
    def __init__(self, space: Space, base: TrialConfig, search: Search) -> None:
        problems = [*problems_of(lambda: spaces.check_space(space, base))]
        if not 1 <= len(search.objectives) <= 2:
            problems.append(f"objectives = {' '.join(map(str, search.objectives))}: a sampler takes one or two")
        if not 0 <= search.seed <= MAX_SEED:
            problems.append(f"seed = {search.seed}: must be 0 to {MAX_SEED}")
        if problems:
            raise ConfigError(problems)
        self._space, self._base, self._search = dict(space), base, search
        self._size_bounds = [constraint for constraint in search.constraints if constraint.column == SIZE]
        self._distributions = {name: distribution(name, choice) for name, choice in space.items()}
        self._trials: dict[TrialConfig, FrozenTrial] = {}
        """By configuration, in the order in which they began; for NSGA-II, of the latest news of each."""
        if self._size_bounds and not any(map(self._is_new, self._draws())):
            bounds = ", ".join(map(str, self._size_bounds))
            size = f"that with the first values has {parameters(base.model):,} parameters"
            raise ConfigError([f"constraint {bounds}: no configuration of this sweep was found to meet it; {size}"])

    @_quiet()
    def study(self) -> optuna.Study:
        """All recorded trials as a new study, with Optuna's own parameters (``distribution``)."""
        sides = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}
        study = optuna.create_study(directions=[sides[one.direction] for one in self._search.objectives])
        study.add_trials(self._trials.values())
        return study

    @_quiet()
    def ask(self) -> TrialConfig | None:
        """A new configuration, from now on running; None if none is left."""
        config = next(filter(self._is_new, self._draws()), None)
        if config is not None:
            self._record(config, "running", {})
        return config

    def tell(self, config: TrialConfig, status: str, metrics: Mapping[str, float]) -> bool:
        """Learn how the trial of ``config`` stands: ``running``, or the status of its end as in the journal.

        The configuration need not have been drawn here. Returns whether this was taken: not if the configuration is no
        point of the space, is of another budget, has completed, or is recorded already and only ``running``.
        """
        drawn = config if config in self._trials else self._as_drawn(config)
        before = self._trials.get(drawn) if drawn else None
        if drawn is None or (before and (before.state == TrialState.COMPLETE or status == "running")):
            return False
        self._record(drawn, status, metrics)
        return True

    def _as_drawn(self, config: TrialConfig) -> TrialConfig | None:
        """As ``ask`` gives it, with the seed of the base, since others only repeat it; None if ``ask`` never does."""
        with suppress(ConfigError):  # of two fields that contradict each other
            config = resolve(config, {"seed": self._base.training.seed})
            values = self._varied(config)
            inside = all(spaces.contains(self._space[name], value) for name, value in values.items())
            return config if inside and config == resolve(self._base, values) else None
        return None

    def _varied(self, config: TrialConfig) -> dict[str, Any]:
        """The fields of the space that have a meaning in ``config``."""
        flat = config.flat()
        idle = meaningless(flat)
        return {name: flat[name] for name in self._space if name not in idle}

    def _record(self, config: TrialConfig, status: str, metrics: Mapping[str, float]) -> None:
        """Keep a trial for the studies; metrics of one that did not come to its end say nothing of constraints."""
        state = _STATES[status]
        values = [float(metrics.get(objective.column, math.nan)) for objective in self._search.objectives]
        bounds = self._search.constraints if state == TrialState.COMPLETE else self._size_bounds
        sizes = {SIZE: parameters(config.model)} if self._size_bounds else {}
        violations = {str(bound): bound.violation({**metrics, **sizes}.get(bound.column, math.nan)) for bound in bounds}
        if state == TrialState.COMPLETE and not all(map(math.isfinite, (*values, *violations.values()))):
            state = TrialState.FAIL
        if self._search.sampler == "nsga2":
            self._trials.pop(config, None)
        varied = self._varied(config)
        self._trials[config] = create_trial(
            state=state,
            values=values if state == TrialState.COMPLETE else None,
            params={name: _parameter(self._space[name], value) for name, value in varied.items()},
            distributions={name: self._distributions[name] for name in varied},
            constraints=violations if state != TrialState.FAIL else None,
        )

    def _is_new(self, config: TrialConfig) -> bool:
        return config not in self._trials and all(
            bound.violation(parameters(config.model)) <= 0 for bound in self._size_bounds
        )

    def _draws(self) -> Iterator[TrialConfig]:
        """Configurations, some of them not new: drawn, then all there are."""
        study = self.study()
        for attempt in range(TRIES):
            study.sampler = self._sampler(attempt)
            trial = study.ask(self._distributions)
            study.tell(trial, state=TrialState.FAIL)  # samplers pass over failed trials
            with suppress(ConfigError):  # within a range two fields may contradict each other
                values = {name: _value(choice, trial.params[name]) for name, choice in self._space.items()}
                yield resolve(self._base, values)
        if spaces.is_finite(self._space):
            rest = [config for config in spaces.every(self._space, self._base) if config not in self._trials]
            yield from random.Random(f"{self._search.seed}/{len(self._trials)}").sample(rest, len(rest))

    def _sampler(self, attempt: int) -> BaseSampler:
        entropy = np.random.SeedSequence([self._search.seed, len(self._trials), attempt])
        seed = int(entropy.generate_state(1)[0])
        if self._search.sampler == "random" or attempt >= GUIDED:
            return RandomSampler(seed=seed)
        if self._search.sampler == "nsga2":
            return GenerationsByEnd(population_size=POPULATION, seed=seed)
        if self._search.sampler == "gp":
            return GPSampler(seed=seed, warn_independent_sampling=False)
        return TPESampler(seed=seed, constant_liar=True)


def samplers(spec: SweepSpec) -> dict[Scalar, Sampler]:
    """One for each stratum; none for a grid. Raises ``ConfigError`` with every problem."""
    if spec.search is None or not spec.drawn:
        return {}
    return {value: Sampler(space, spec.base, spec.search) for value, space in spec.strata.items()}


def distribution(name: str, choice: Choice) -> BaseDistribution:
    """Optuna's, of a field. Numbers that are named one by one keep their order: the parameter is the place in it."""
    if isinstance(choice, Range):
        if spaces.is_whole(name):
            return IntDistribution(int(choice.low), int(choice.high), log=choice.log)
        return FloatDistribution(float(choice.low), float(choice.high), log=choice.log)
    return IntDistribution(0, len(choice) - 1) if numbers(choice) else CategoricalDistribution(choice)


def _parameter(choice: Choice, value: Any) -> Any:
    """Optuna's parameter for a field's value."""
    return ordered.index(value) if (ordered := numbers(choice)) else value


def _value(choice: Choice, parameter: Any) -> Any:
    """The field's value for Optuna's parameter."""
    return ordered[parameter] if (ordered := numbers(choice)) else parameter


def _completed(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
