"""Alarms about trainings: which collapsed, learned nothing, lost codes, saw the wrong images, or took too long."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from analysis.alarms.alarm import Alarm, compared_trials, many, named
from analysis.alarms.effects import seed_noise
from analysis.layout import counted
from analysis.results import Results, configuration, estimator_first
from trainables.journal import TrialRecord
from trainables.runs import described

_COLLAPSED_CODES, _COLLAPSED_USAGE = 2.0, 0.01
"""A codebook of which less than two codes are in use, or less than 1 %, is none."""

_LEARNED = 0.01
"""The share by which a test MSE falls at least where anything is learned."""

_LOST = 0.2
"""The share of the perplexity whose loss is an alarm."""

_SLOW = 3
"""How many times as long as its siblings' an epoch may take."""

_ALIKE = ("seed", "epochs", "commitment_weight", "decay", "learning_rate")
"""Fields that an epoch's time does not depend on."""


def collapsed(results: Results) -> Alarm | None:
    """Codebooks of which nearly nothing is in use, at the end or when they were stopped for it."""
    ended = [trial for trial in results.trials if trial.status in ("completed", "stopped")]
    found = [trial for trial in ended if _collapsed(trial)]
    if not many(found, ended):
        return None
    share = _shared(results, found, ended)
    return Alarm(
        "codebooks collapsed",
        f"{len(found)} of {counted(len(ended), 'trial')} ended with a perplexity below 2 or a usage below 1 %, or were "
        f"stopped as collapsed{share}: {named(results, found)}.",
        "Try a smaller decay or commitment_weight, init = kmeans++, or revive_below = 0.05 (docs/vqcore.md).",
    )


def _collapsed(trial: TrialRecord) -> bool:
    if trial.status == "stopped":
        return trial.reason.startswith("collapsed")
    last = trial.epochs.get(trial.last_epoch, {})
    few = last.get("perplexity", _COLLAPSED_CODES) < _COLLAPSED_CODES
    return few or last.get("usage", _COLLAPSED_USAGE) < _COLLAPSED_USAGE


def _shared(results: Results, found: Sequence[TrialRecord], among: Sequence[TrialRecord]) -> str:
    """The swept values that all of the trials share, and not all of the others."""
    names = []
    for name in estimator_first(results.swept):
        ours, all_ = ({trial.config.get(name) for trial in trials} for trials in (found, among))
        names += [name] if len(ours) == 1 < len(all_) else []
    return f", all with {described(found[0].config, names)}" if names and len(found) > 1 else ""


def nothing_learned(results: Results) -> Alarm | None:
    """Trials whose test MSE is at the end what it was after their first epoch."""
    ended = [trial for trial in compared_trials(results) if len(_mse(trial)) > 2]
    found = [trial for trial in ended if _mse(trial)[-1] > (1 - _LEARNED) * _mse(trial)[0]]
    if not many(found, ended):
        return None
    values = [_mse(trial)[-1] for trial in found]
    equal = len({configuration(results, trial) for trial in found}) > 1 and max(values) <= 1.001 * min(values)
    same = f" All of them end at the same MSE, {values[0]:.4g}: the mean image, perhaps." if equal else ""
    return Alarm(
        "nothing was learned",
        f"The test MSE of {len(found)} of {counted(len(ended), 'trial')} fell by less than 1 % from the first epoch to "
        f"the last: {named(results, found)}.{same}",
        "Look at their reconstructions; a collapsed codebook, or a learning rate that is too small or too large, does "
        "this.",
    )


def _mse(trial: TrialRecord) -> list[float]:
    """The test MSE of each epoch that has one."""
    return [metrics["mse"] for _, metrics in sorted(trial.epochs.items()) if "mse" in metrics]


def training_like_test(results: Results) -> Alarm | None:
    """A training MSE that equals the test's, or is above it: the sets are one, or swapped."""
    trials = [
        trial
        for trial in compared_trials(results)
        if trial.last_epoch > 1 and {"mse", "train_mse"} <= _last(trial).keys()
    ]
    equal = [t for t in trials if abs(_last(t)["train_mse"] - _last(t)["mse"]) < 1e-6 * _last(t)["mse"]]
    if equal:
        return Alarm(
            "training and test images look alike",
            f"The training MSE of {len(equal)} of {counted(len(trials), 'trial')} equals the test MSE to six digits: "
            f"{named(results, equal)}.",
            "Check that the test set is not the training set.",
        )
    noise = seed_noise(results.several, "mse").sd
    above = min(max(0.05, 3 * noise), 0.1) if noise > 0 else 0.1
    worse = [trial for trial in trials if _last(trial)["train_mse"] > (1 + above) * _highest(trial)]
    if 2 * len(worse) <= len(trials):
        return None
    ratio = median(_last(trial)["train_mse"] / max(_highest(trial), 1e-12) for trial in worse) - 1
    return Alarm(
        "the test images are easier than the training images",
        f"In {len(worse)} of {counted(len(trials), 'trial')} the training MSE of the last epoch is above the test MSE "
        f"both before and after that epoch, by {ratio:.0%} in the median.",
        "Check that the two sets are not swapped; training metrics are averages while the model still learns, so only "
        "the last epoch was looked at.",
    )


def _last(trial: TrialRecord) -> dict[str, float]:
    return trial.epochs.get(trial.last_epoch, {})


def _highest(trial: TrialRecord) -> float:
    """The test MSE before or after the last epoch, whichever is more: the training MSE lies between in a healthy trial.

    A training metric is the average over an epoch in which the model still learns.
    """
    return max(_mse(trial)[-2:])


def codes_lost(results: Results) -> Alarm | None:
    """Trials in which ever fewer codes are in use, whether the reconstructions still get better or do not."""
    long = [trial for trial in compared_trials(results) if trial.last_epoch >= 4]
    found = [trial for trial in long if _loses_codes(trial)]
    if not many(found, long):
        return None
    worse = [trial for trial in found if _last(trial)["mse"] >= _half(trial)["mse"]]
    beside = f"MSE did not fall in {len(worse)} of these" if worse else "MSE fell"
    return Alarm(
        "codes are being lost",
        f"Over the last half of the epochs perplexity fell by more than 20 % in {len(found)} of "
        f"{counted(len(long), 'trial')}, while {beside}: {named(results, found)}.",
        "Longer training may lose more of them; try revive_below = 0.05, a smaller commitment_weight or a smaller "
        "learning_rate (docs/vqcore.md).",
    )


def _loses_codes(trial: TrialRecord) -> bool:
    half, last = _half(trial), _last(trial)
    if not {"mse", "perplexity"} <= half.keys() & last.keys() or _collapsed(trial):  # which has an alarm of its own
        return False
    return last["perplexity"] < (1 - _LOST) * half["perplexity"]


def _half(trial: TrialRecord) -> dict[str, float]:
    return trial.epochs.get(trial.last_epoch // 2, {})


def slow_trials(results: Results) -> Alarm | None:
    """Trials whose epochs take far longer than those of others of the same shape."""
    shapes: dict[frozenset[object], list[tuple[TrialRecord, float]]] = defaultdict(list)
    for trial in results.trials:
        seconds = [metrics["seconds"] for metrics in trial.epochs.values() if "seconds" in metrics]
        if len(seconds) > 2:  # the first epoch warms up
            shape = frozenset((name, value) for name, value in trial.config.items() if name not in _ALIKE)
            shapes[shape].append((trial, median(seconds)))
    found = []
    for members in shapes.values():
        usual = median(seconds for _, seconds in members)
        found += [(t, s, usual) for t, s in members if len(members) > 3 and s > _SLOW * usual and s - usual > 1]
    if not found:
        return None
    slowest, took, usual = max(found, key=lambda one: one[1] - one[2])
    host = f" on {slowest.info['host']}" if slowest.info.get("host") else ""
    return Alarm(
        "some trials were far slower than others of their shape",
        f"{counted(len(found), 'trial')} took more than three times as long an epoch, the slowest {took:.1f} s where "
        f"{usual:.1f} s is usual: {configuration(results, slowest)}, seed {slowest.config.get('seed', 0)}{host}.",
        "Look at what else ran on that machine; metrics do not depend on it, times and costs do.",
    )
