"""When each trial trained, on how many slots, and at which epochs who went on. Pure.

The journal has the end of each epoch and how long it took, and no slots: trials are laid onto the fewest that hold
them. Times are seconds since the sweep's start, without the pauses between an interruption and its resume.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from analysis.layout import counted
from analysis.results import Results, estimator_first, seed_of
from analysis.stopping import EARLY
from trainables.commands import duration
from trainables.journal import TrialRecord
from trainables.runs import described

_OVERLAP = 0.05
"""By how much two epochs on one slot may overlap, in seconds and as a share of the later one: times are rounded."""


@dataclass(frozen=True)
class Bar:
    """A stay of a trial on a slot; times in seconds since the sweep's start, without its pauses."""

    slot: int
    """From 0."""
    trial: str
    """The trial's key."""
    label: str
    """Its configuration: ``rotation, beta 0.25``."""
    seed: int
    start: float
    end: float
    """The start itself of a trial that ended before its first epoch did."""
    epochs: tuple[int, int]
    """The first and the last that it trained here; 0 and 0 of a trial that ended before its first epoch did."""
    status: str = ""
    """Of the trial's last bar: ``running``, ``waiting`` at a rung, or how the trial ended; of the others nothing."""
    reason: str = ""
    """Why the trial ended, in words, where that is recorded."""


@dataclass(frozen=True)
class Pause:
    """From an interruption to the resume."""

    at: float
    """In the seconds of the bars, where it takes no time."""
    seconds: float
    """That it took."""


@dataclass(frozen=True)
class Timeline:
    """The trials of a run over slots."""

    bars: tuple[Bar, ...]
    """By start."""
    slots: int
    """The fewest that hold them."""
    seconds: float
    """From the sweep's start to the end of the last bar, without pauses."""
    busy: float
    """The share of the slots' time in which a trial trained, 0 to 1; epochs that a kill cut off are not recorded."""
    pauses: tuple[Pause, ...]
    sentence: str
    """What to conclude."""


@dataclass
class _Stay:
    """An epoch of a trial, or several without a break, in seconds since 1970."""

    trial: TrialRecord
    start: float
    end: float
    epochs: tuple[int, int]
    trained: float
    """Seconds."""
    returns: float = math.inf
    """When the trial's next epoch begins."""
    slot: int = 0


class _Clock:
    """Seconds since 1970 as seconds of the sweep, in which pauses take no time."""

    def __init__(self, origin: float, pauses: Sequence[tuple[float, float]]) -> None:
        """``pauses``: start and end of each, ascending and apart."""
        self.origin, self.pauses = origin, pauses
        self._ends = [end for _, end in pauses]
        self._out = [0.0, *accumulate(end - start for start, end in pauses)]

    def __call__(self, time: float) -> float:
        place = bisect_right(self._ends, time)
        if place < len(self.pauses):
            time = min(time, self.pauses[place][0])
        return max(time - self.origin - self._out[place], 0.0)


def timeline(results: Results) -> Timeline | None:
    """The trials over slots; None before the first epoch has ended."""
    trials = [trial for trial in results.trials if trial.epochs]
    epochs = [epoch for trial in trials for epoch in _epochs(trial)]
    if not epochs:
        return None
    first, record = min(epoch.start for epoch in epochs), results.record
    origin = record.started if 0 < record.started <= first else first
    clock = _Clock(origin, _pauses(epochs, origin, record.sessions))
    epochs += (mark for trial in results.trials if (mark := _mark(trial, origin)) is not None)
    epochs.sort(key=lambda epoch: (epoch.start, epoch.end))
    slots = _assign(epochs)
    stays = _joined(epochs)
    seconds = clock(max(stay.end for stay in stays))
    trained = sum(stay.trained for stay in stays)
    busy = min(1.0, trained / (slots * seconds)) if seconds > 0 else 1.0
    pauses = tuple(Pause(clock(end), end - start) for start, end in clock.pauses)
    bars = tuple(_bars(results, stays, clock))
    return Timeline(bars, slots, seconds, busy, pauses, _sentence(bars, slots, seconds, busy, pauses))


def _epochs(trial: TrialRecord) -> Iterator[_Stay]:
    """Each epoch of a trial. Where a clock was set back, an epoch begins when the one before it ended."""
    before: _Stay | None = None
    for epoch, metrics in sorted(trial.epochs.items()):
        took, end = max(metrics.get("seconds", 0.0), 0.0), trial.times[epoch]
        start = end - took
        if before is not None:
            start = max(start, before.end)
            end = end if end > start else start + took
            before.returns = start
            yield before
        before = _Stay(trial, start, end, (epoch, epoch), end - start)
    if before is not None:
        yield before


def _mark(trial: TrialRecord, origin: float) -> _Stay | None:
    """The end of a trial that had no epoch; when its training began is not recorded well enough to draw."""
    if trial.epochs or trial.status == "running" or trial.end_time is None:
        return None
    at = max(trial.end_time, origin)
    return _Stay(trial, at, at, (0, 0), 0.0)


def _pauses(epochs: Sequence[_Stay], origin: float, sessions: Sequence[float]) -> list[tuple[float, float]]:
    """From the last epoch before a resume to the resume, where nothing trained meanwhile."""
    pauses: dict[float, float] = {}
    last = max(epoch.start for epoch in epochs)
    for began in sorted(sessions):
        if origin < began <= last and not any(epoch.start < began < epoch.end for epoch in epochs):
            before = max((epoch.end for epoch in epochs if epoch.end <= began), default=origin)
            pauses[before] = began  # of several resumes in which nothing was trained, the last
    return sorted(pauses.items())


def _assign(stays: Sequence[_Stay]) -> int:
    """Give each a slot, in the order of their starts; how many there are.

    Its trial's own; else, of those that are free, the one whose trial comes back last. A new slot is opened only where
    none is free, which makes them the fewest.
    """
    on: list[_Stay] = []
    """The latest on each slot."""
    own: dict[str, int] = {}

    def free(slot: int, stay: _Stay) -> bool:
        return on[slot].end <= stay.start + _OVERLAP * (1 + stay.end - stay.start)

    def left_for(slot: int, now: float) -> tuple[float, float]:
        back = on[slot].returns
        return back if back > now else math.inf, on[slot].end  # it came back already, and found its slot taken

    for stay in stays:
        slot = own.get(stay.trial.key, -1)
        if slot < 0 or not free(slot, stay):
            candidates = (slot for slot in range(len(on)) if free(slot, stay))
            slot = max(candidates, key=lambda slot: left_for(slot, stay.start), default=len(on))
        if slot == len(on):
            on.append(stay)
        else:
            stay.start = max(stay.start, on[slot].end)
            stay.end = max(stay.end, stay.start)
        stay.slot = own[stay.trial.key] = slot
        on[slot] = stay
    return len(on)


def _joined(epochs: Sequence[_Stay]) -> list[_Stay]:
    """Those of a trial that follow each other on one slot, with no other between and no longer wait than an epoch."""
    stays: list[_Stay] = []
    latest: dict[int, _Stay] = {}
    for epoch in epochs:
        stay = latest.get(epoch.slot)
        if (
            stay is not None
            and stay.trial is epoch.trial
            and stay.epochs[1] + 1 == epoch.epochs[0]
            and epoch.start - stay.end <= epoch.trained
        ):
            stay.end, stay.epochs = epoch.end, (stay.epochs[0], epoch.epochs[1])
            stay.trained += epoch.trained
        else:
            latest[epoch.slot] = epoch
            stays.append(epoch)
    return stays


def _bars(results: Results, stays: Sequence[_Stay], clock: _Clock) -> Iterator[Bar]:
    names = estimator_first(results.swept)
    last = {stay.trial.key: stay for stay in sorted(stays, key=lambda stay: stay.epochs)}
    for stay in stays:
        trial = stay.trial
        label = described(trial.config, names) or "the configuration"
        bar = Bar(stay.slot, trial.key, label, seed_of(trial), clock(stay.start), clock(stay.end), stay.epochs)
        if last[trial.key] is stay:
            bar = replace(bar, status="waiting" if trial.waits else trial.status, reason=trial.reason)
        yield bar


def _sentence(bars: Sequence[Bar], slots: int, seconds: float, busy: float, pauses: Sequence[Pause]) -> str:
    said = f"{counted(slots, 'slot')} trained {busy:.0%} of {duration(seconds)}"
    if pauses:
        out = duration(sum(pause.seconds for pause in pauses))
        said += f", {counted(len(pauses), 'pause')} before a resume left out ({out} in all)"
    ended = [bar.status for bar in bars]
    counts = {"stopped early": ended.count("stopped"), "diverged": ended.count("diverged")}
    counts["failed"] = ended.count("failed")
    told = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
    return f"{said}; of {counted(sum(map(bool, ended)), 'trial')} {told or 'none was stopped'}."


@dataclass(frozen=True)
class Rung:
    """What became, after an epoch, of the trials that reached it; trials by their keys, in the order of the plan."""

    epoch: int
    came: tuple[str, ...]
    """All that have had the epoch."""
    went_on: tuple[str, ...]
    """Those that trained further, or are about to."""
    stopped: tuple[str, ...]
    """Those that early stopping took no further."""
    waiting: tuple[str, ...]
    """Those that may yet go on, in a run that is not finished."""
    ended: tuple[str, ...]
    """Those that ended here in another way: complete, collapsed, diverged, failed, or with the budget spent."""


def survival(results: Results) -> tuple[Rung, ...]:
    """Every epoch: how many reached it and how many of them ended there.

    Of the seed that screens: more seeds of the best are never stopped early.
    """
    trials = _screened(results)
    return tuple(_rung(epoch, trials) for epoch in range(1, max((t.last_epoch for t in trials), default=0) + 1))


def _rung(epoch: int, trials: Sequence[TrialRecord]) -> Rung:
    came = [trial for trial in trials if trial.last_epoch >= epoch]
    parts: dict[str, list[str]] = {"went_on": [], "stopped": [], "waiting": [], "ended": []}
    for trial in came:
        early = trial.status == "stopped" and trial.reason.startswith(EARLY)
        if trial.last_epoch > epoch or (trial.status == "running" and not trial.waits):
            part = "went_on"
        else:
            part = "waiting" if trial.waits else "stopped" if early else "ended"
        parts[part].append(trial.key)
    return Rung(epoch, tuple(trial.key for trial in came), **{name: tuple(keys) for name, keys in parts.items()})


def _screened(results: Results) -> list[TrialRecord]:
    screens = min(map(seed_of, results.trials), default=0)
    return [trial for trial in results.trials if seed_of(trial) == screens]
