"""Which configuration to try next: samplers over a space, told honestly how every trial ended.

A trial that was stopped early is PRUNED and has no values, one that failed, diverged or is not finite is FAIL: only
trainings to the end are COMPLETE, so that no two budgets are compared. What is asked next depends on the seed and on
what is known: a sampler that is told the trials of a journal goes on as the one that wrote it would have. They have to
be told in the order in which they began, as ``running``, then in the order in which they ended: NSGA-II counts its
generations so.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, get_args

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from analysis.objectives import Objective
from sweeps.engine.constraints import SIZE, Constraint, never_met, parameters
from sweeps.engine.optuna_samplers import GP, NSGA2
from sweeps.engine.space import Space, check_space, every, is_finite, resolve, share_of, value_at, words
from sweeps.engine.tpe import IDLE, good, propose
from vqcore.config import MAX_SEED, ConfigError, TrialConfig, meaningless, problems_of

__all__ = ["Constraint", "Kind", "Sampler"]

Kind = Literal["tpe", "nsga2", "gp", "qmc", "random"]
"""Tree-structured Parzen estimators, a genetic algorithm, Gaussian processes, Sobol' points, chance."""

POPULATION = 20
"""Completed trials in a generation of NSGA-II. Optuna's 50 would make most sweeps a random search."""
STARTUP = {
    "tpe": ((TrialState.COMPLETE, TrialState.PRUNED), 10),
    "nsga2": ((TrialState.COMPLETE,), POPULATION),
    "gp": ((TrialState.COMPLETE,), 10),
}
"""Trials that must have ended before one is drawn from them; until then Sobol' points, which spread evenly."""
GUIDED, TRIES = 8, 64
"""Draws for a configuration that is new: this many by the sampler, and with those by chance."""

optuna.logging.set_verbosity(optuna.logging.ERROR)

_STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}


class _Trial(NamedTuple):
    """What is known of a configuration."""

    state: TrialState
    row: int
    """In the sampler's table."""


class _Note(NamedTuple):
    """What the study has still to be told."""

    config: TrialConfig
    state: TrialState
    values: list[float] | None
    point: tuple[float, ...]
    violations: dict[str, float]


class Sampler:
    """Draws configurations of ``space`` over ``base``, none twice, and learns from what it is told of them.

    Their seed and epochs are those of ``base``. Raises ``ConfigError`` with every problem.
    """

    def __init__(
        self,
        space: Space,
        base: TrialConfig,
        objectives: Sequence[Objective],
        kind: Kind = "tpe",
        seed: int = 0,
        constraints: Sequence[Constraint] = (),
    ) -> None:
        _check(space, base, objectives, kind, seed, constraints)
        self._space, self._base, self._kind, self._seed = dict(space), base, kind, seed
        self._objectives, self._constraints = tuple(objectives), tuple(dict.fromkeys(constraints))
        self._words = [words(choice) for choice in space.values()]
        self._distributions = dict(zip(space, map(_distribution, self._words), strict=True))
        self._usual = base.flat()
        self._known: dict[TrialConfig, _Trial] = {}
        # state, violation of all constraints together, two losses (a single objective twice), the share of each field
        self._table = np.empty((0, 4 + len(space)))
        self._sobol = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        self._sobol_points: list[list[float]] = []
        self._every: tuple[TrialConfig, ...] | None = None
        self._notes: list[_Note] = []
        self._numbers: dict[TrialConfig, int] = {}
        """In the study."""
        self._study = optuna.create_study(
            directions=["minimize" if objective.direction == "min" else "maximize" for objective in objectives]
        )

    @property
    def study(self) -> optuna.Study:
        """All that is known, for Optuna's own analyses. Its parameters are shares (``sweeps.engine.space``).

        Told only when somebody looks: TPE as it is here does not, and a resume would wait for seconds.
        """
        notes, self._notes = self._notes, []
        for note in notes:
            self._tell_study(note)
        return self._study

    def ask(self) -> TrialConfig | None:
        """A configuration that was neither asked for nor told before, from now on running; None if none is left."""
        config = next(filter(self._wanted, self._draws()), None)
        if config is not None:
            self._note(config, "running", {})
        return config

    def tell(self, config: TrialConfig, status: str, metrics: Mapping[str, float]) -> bool:
        """Learn how the trial of ``config`` stands: ``running``, or the status of its end as in the journal.

        The configuration need not have been asked for. Returns whether this was taken: not if the configuration is no
        point of the space, is of another budget, or is known, completed or ``running`` being all that is said.
        """
        if status not in _STATES:
            raise ConfigError([f"status {status!r}: there are {', '.join(_STATES)}"])
        drawn = config if config in self._known else self._as_drawn(config)
        known = self._known.get(drawn) if drawn else None
        if drawn is None or (known and (known.state == TrialState.COMPLETE or status == "running")):
            return False
        self._note(drawn, status, metrics)
        return True

    def front(self) -> list[TrialConfig]:
        """Completed configurations that meet the constraints and that no other such one dominates."""
        best = self.study.best_trials
        configs = {number: config for config, number in self._numbers.items()}
        return [configs[trial.number] for trial in best]

    def _as_drawn(self, config: TrialConfig) -> TrialConfig | None:
        """As ``ask`` gives it, with the seed of the base, since others only repeat it; None if ``ask`` never does."""
        flat = config.flat()
        idle = meaningless(flat)
        settled = flat["seed"] == self._base.training.seed and flat == {**flat, **idle}
        if not settled:
            config = resolve(config, {"seed": self._base.training.seed})
            flat = config.flat()
            idle = meaningless(flat)
        held = {name: flat[name] for name in self._space if name not in idle}
        with suppress(ConfigError):
            # what is settled and differs from the base in nothing else needs no resolving, which takes time
            if self._point(config) and (flat == {**self._usual, **held} or resolve(self._base, held) == config):
                return config
        return None

    def _point(self, config: TrialConfig) -> tuple[float, ...] | None:
        """The share of each field, ``IDLE`` where it has no meaning; None if one has a value that is none of its."""
        flat, point = config.flat(), []
        idle = meaningless(flat)
        for name, choice in self._space.items():
            share = IDLE if name in idle else share_of(name, choice, flat[name])
            if share is None:
                return None
            point.append(share)
        return tuple(point)

    def _note(self, config: TrialConfig, status: str, metrics: Mapping[str, float]) -> None:
        known = self._known.get(config)
        point = tuple(self._table[known.row, 4:].tolist()) if known else self._point(config)
        assert point is not None
        state, losses, violations = self._judged(config, status, metrics)
        values = [float(metrics[o.column]) for o in self._objectives] if state == TrialState.COMPLETE else None
        self._notes.append(_Note(config, state, values, point, violations))
        violation = sum(max(0.0, missed) for missed in violations.values())
        row = self._known[config].row if config in self._known else len(self._known)
        if row == len(self._table):
            self._table = np.append(self._table, np.empty((256, self._table.shape[1])), axis=0)
        self._table[row] = (state, violation, losses[0], losses[-1], *point)
        self._known[config] = _Trial(state, row)

    def _tell_study(self, note: _Note) -> None:
        before = self._numbers.get(note.config)
        if before is not None and self._study.get_trials(deepcopy=False)[before].state == TrialState.RUNNING:
            self._study.tell(before, state=TrialState.FAIL)  # what is known since comes as a trial of its own
        shares = self._shares(note.config, note.point)
        trial = create_trial(
            state=note.state,
            values=note.values,
            params=shares,
            distributions={name: self._distributions[name] for name in shares},
            constraints=note.violations,
        )
        self._study.add_trial(trial)
        self._numbers[note.config] = len(self._study.get_trials(deepcopy=False)) - 1

    def _judged(
        self, config: TrialConfig, status: str, metrics: Mapping[str, float]
    ) -> tuple[TrialState, list[float], dict[str, float]]:
        """State, losses and violations. Metrics of a trial that did not come to its end say nothing of constraints."""
        state = _STATES[status]
        losses = [objective.minimised(metrics) for objective in self._objectives]
        violations = {str(c): c.violation(metrics.get(c.column, math.nan)) for c in self._constraints}
        violations |= {str(c): c.violation(parameters(config)) for c in self._of_size()}
        if state == TrialState.COMPLETE and not all(map(math.isfinite, (*losses, *violations.values()))):
            state = TrialState.FAIL
        if state != TrialState.COMPLETE:
            violations = {str(c): violations[str(c)] for c in self._of_size()}
        return state, losses, violations

    def _of_size(self) -> Iterator[Constraint]:
        return (constraint for constraint in self._constraints if constraint.column == SIZE)

    def _shares(self, config: TrialConfig, point: tuple[float, ...]) -> dict[str, float]:
        """The parameters of a configuration in the study.

        Optuna's NSGA-II and GP know no trial without some of the fields: those without a meaning get a share by chance,
        as genes that are not expressed have, always the same for a configuration.
        """
        shares = {name: share for name, share in zip(self._space, point, strict=True) if share != IDLE}
        if self._kind not in ("nsga2", "gp"):
            return shares
        rng = random.Random(config.key(""))
        silent = {name: _cell(rng.random(), count) for name, count in zip(self._space, self._words, strict=True)}
        return silent | shares

    def _wanted(self, config: TrialConfig) -> bool:
        return config not in self._known and all(c.violation(parameters(config)) <= 0 for c in self._of_size())

    def _draws(self) -> Iterator[TrialConfig]:
        """Configurations, some of them known: drawn, then all there are."""
        for attempt in range(TRIES):
            shares = zip(self._space.items(), self._draw(attempt), strict=True)
            with suppress(ConfigError):  # within a range two fields may contradict each other
                yield resolve(self._base, {name: value_at(name, choice, share) for (name, choice), share in shares})
        if is_finite(self._space):
            self._every = self._every or tuple(every(self._space, self._base))
            rest = [config for config in self._every if config not in self._known]
            yield from random.Random(f"{self._seed}/{len(self._known)}").sample(rest, len(rest))

    def _draw(self, attempt: int) -> Sequence[float]:
        if self._kind == "qmc" or (self._starting() and attempt < GUIDED):
            return self._sobol_point(len(self._known) + attempt)
        rng = np.random.default_rng([self._seed, len(self._known), attempt])
        if self._kind == "random" or attempt >= GUIDED:
            return list(rng.random(len(self._space)))
        return self._from_tpe(rng) if self._kind == "tpe" else self._from_optuna(rng)

    def _starting(self) -> bool:
        states, needed = STARTUP.get(self._kind, ((), 0))
        return int(np.isin(self._table[: len(self._known), 0], states).sum()) < needed

    def _sobol_point(self, index: int) -> list[float]:
        while index >= len(self._sobol_points):
            self._sobol_points += self._sobol.draw(256, dtype=torch.float64).tolist()
        return self._sobol_points[index]

    def _from_tpe(self, rng: np.random.Generator) -> list[float]:
        table_N = self._table[: len(self._known)]
        table_N = table_N[table_N[:, 0] != TrialState.FAIL]
        good_N, points_ND = good(table_N[:, 0], table_N[:, 1], table_N[:, 2:4]), table_N[:, 4:]
        return propose(points_ND[good_N], points_ND[~good_N], self._words, rng)

    def _from_optuna(self, rng: np.random.Generator) -> list[float]:
        seed = int(rng.integers(2**32))
        nsga2 = self._kind == "nsga2"
        study = self.study
        study.sampler = NSGA2(self._distributions, POPULATION, seed) if nsga2 else GP(self._distributions, seed)
        trial = study.ask(self._distributions)
        study.tell(trial, state=TrialState.FAIL)  # it was only a question
        return [trial.params[name] for name in self._space]


def _distribution(count: int) -> BaseDistribution:
    """Of the shares of a field with ``count`` words, or with numbers."""
    return CategoricalDistribution([(i + 0.5) / count for i in range(count)]) if count else FloatDistribution(0, 1)


def _cell(share: float, count: int) -> float:
    """The share that stands for a word: the middle of those that mean it."""
    return (int(share * count) + 0.5) / count if count else share


def _check(
    space: Space,
    base: TrialConfig,
    objectives: Sequence[Objective],
    kind: str,
    seed: int,
    constraints: Sequence[Constraint],
) -> None:
    problems = [*problems_of(lambda: check_space(space, base))]
    if not 1 <= len(objectives) <= 2:
        problems.append(f"objectives = {' '.join(map(str, objectives))}: a sampler takes one or two")
    if kind not in get_args(Kind):
        problems.append(f"sampler = {kind!r}: there are {', '.join(get_args(Kind))}")
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        problems.append(f"seed = {seed!r}: must be a whole number, 0 to {MAX_SEED}")
    if not problems:
        problems += never_met(space, base, constraints)
    if problems:
        raise ConfigError(problems)
