"""Alarms about comparisons that do not hold: a field that is not wired, unequal trials, values that are missing."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from analysis.alarms.alarm import Alarm, compared_trials, named
from analysis.layout import counted, enumerated
from analysis.results import Results, estimator_first, seed_of
from trainables.journal import TrialRecord
from trainables.runs import described

_COMPARED = ("codebook_size", "estimator")
"""Fields whose values are what a sweep compares, so that a value without an end is a gap."""

_FEW_VALUES = 12
"""Values that a field has at most if they are named one by one, and not drawn."""


def identical_metrics(results: Results) -> Alarm | None:
    """Different configurations of one seed with the same metrics to the last digit: their difference does nothing."""
    same: dict[tuple[float, ...], list[TrialRecord]] = defaultdict(list)
    for trial in compared_trials(results):
        report = trial.epochs[results.epoch]
        metrics = [report[name] for name in ("mse", "perplexity", "train_mse") if name in report]
        same[(seed_of(trial), *metrics)].append(trial)
    twins = [trials for trials in same.values() if len(trials) > 1]
    if not twins:
        return None
    trials = [trial for group in twins for trial in group]
    names = list(dict.fromkeys(name for group in twins for name in _differing(results, group)))
    fields = ", ".join(names) or "no swept field"
    return Alarm(
        "different configurations have identical metrics",
        f"{counted(len(trials), 'trial')} share MSE and perplexity to the last digit with another of their seed, and "
        f"differ in {fields}: {named(results, trials)}.",
        f"Check that {fields} reaches the model." if len(names) == 1 else "Check that these fields reach the model.",
    )


def _differing(results: Results, trials: Sequence[TrialRecord]) -> Iterator[str]:
    for name in estimator_first(results.swept):
        if len({trial.config.get(name) for trial in trials}) > 1:
            yield name


def mixed_machines(results: Results) -> Alarm | None:
    """Compared trials of several precisions or devices, whose numbers are not the same training's."""
    kinds = Counter(
        f"{trial.info.get('precision')} on {trial.info.get('device')}"
        for trial in compared_trials(results)
        if {"precision", "device"} <= trial.info.keys()
    )
    if len(kinds) < 2:
        return None
    shares = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return Alarm(
        "compared trials did not all run alike",
        f"Of {counted(kinds.total(), 'trial')}: {shares}.",
        "A difference between them may be the machine's: name one --precision, and run the fewer ones again.",
    )


def mixed_budgets(results: Results) -> Alarm | None:
    """Compared trials with different batch sizes or numbers of epochs, which nobody asked to compare."""
    trials, asked = compared_trials(results), results.record.sweep.get("swept") or ()
    told = []
    batches = sorted({trial.config["batch_size"] for trial in trials if "batch_size" in trial.config})
    if len(batches) > 1 and "batch_size" not in asked:
        told.append(f"were trained with batches of {' and '.join(map(str, batches))}")
    epochs = sorted({trial.last_epoch for trial in trials})
    if len(epochs) > 1:
        told.append(f"had {epochs[0]} to {epochs[-1]} epochs and are compared after {results.epoch}")
    if not told:
        return None
    return Alarm(
        "compared trials had unequal budgets",
        f"{counted(len(trials), 'compared trial')} {', and '.join(told)}, which is no field of this sweep.",
        "Resume the run until all have the same, or compare only those that do.",
    )


def values_without_end(results: Results) -> Alarm | None:
    """Values of a compared field, none of whose trials came through; of any other field, all of whose trials failed.

    That early stopping leaves a value of another field behind is what it is for.
    """
    found = [told for name in estimator_first(results.swept) for told in _lost(results, name)]
    if not found:
        return None
    return Alarm(
        "values of which no trial came through",
        f"Not one trial was trained to the end with {enumerated(found, most=3)}.",
        "Nothing is known of their ends: see the reasons in tables/results.md, and stop within each value "
        "(--compare-within) or not at all (--early-stopping none).",
    )


def _lost(results: Results, name: str) -> Iterator[str]:
    """Each value with the number of its trials and what became of them: ``K 64 (12 trials: 12 stopped)``."""
    flags = (results.record.sweep.get("toml") or {}).get("flags") or {}
    compared = name in (*_COMPARED, flags.get("compare_within"))
    by_value: dict[Any, Counter[str]] = defaultdict(Counter)
    for trial in results.trials:
        by_value[trial.config.get(name)][trial.status] += 1
    if not 1 < len(by_value) <= _FEW_VALUES or not any(became["completed"] for became in by_value.values()):
        return
    for value, became in by_value.items():
        ended = not became["completed"] and not became["running"]
        if ended and became.total() > 1 and (compared or not became["stopped"]):
            each = ", ".join(f"{count} {status}" for status, count in became.most_common())
            yield f"{described({name: value}, [name])} ({each})"
