"""Timelines and rungs of journals with the times that real ones have: resumed, on clocks that were set, unfinished."""

from pathlib import Path
from typing import Any

import pytest

from analysis.page import write_page
from analysis.results import load
from analysis.timeline import Timeline, survival, timeline
from trainables.journal import Journal
from vqcore.config import TrialConfig

BEGAN = 1_800_000_000.0


class Times:
    """Writes a journal with times: seconds since the sweep began."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.journal, self.keys = folder, Journal(folder / "journal.jsonl"), list[str]()
        self.session(0)

    def write(self, event: str, at: float, **fields: Any) -> None:
        self.journal.write(event, time=BEGAN + at, **fields)

    def session(self, at: float) -> None:
        self.write("sweep", at, sweep="pareto", name="r", swept=["decay"], params={"sampler": "tpe"})

    def start(self, at: float) -> int:
        number = len(self.keys)
        config = TrialConfig.from_flat({"decay": 0.5 + number / 100})
        self.keys.append(config.key("data"))
        self.write("start", at, trial=self.keys[-1], number=number, config=config.flat(), info={})
        return number

    def epochs(self, number: int, *ends: float, took: float = 10.0, first: int = 1) -> None:
        for epoch, end in enumerate(ends, first):
            metrics = {"mse": 0.1, "perplexity": 9.0, "seconds": took}
            self.write("epoch", end, trial=self.keys[number], epoch=epoch, metrics=metrics)

    def rung(self, number: int, epoch: int) -> None:
        self.write("rung", 0, trial=self.keys[number], epoch=epoch)

    def end(self, number: int, at: float, epoch: int, status: str = "completed", reason: str = "") -> None:
        self.write("end", at, trial=self.keys[number], status=status, reason=reason, epoch=epoch)

    def timeline(self) -> Timeline:
        found = timeline(load(self.folder))
        assert found is not None
        return found

    def places(self) -> dict[tuple[int, tuple[int, int]], tuple[int, float, float]]:
        """By trial and epochs: slot, start, end."""
        bars = self.timeline().bars
        return {(self.keys.index(b.trial), b.epochs): (b.slot, round(b.start, 3), round(b.end, 3)) for b in bars}


@pytest.fixture
def times(tmp_path: Path) -> Times:
    return Times(tmp_path)


def test_trials_take_the_fewest_slots_and_a_trial_keeps_its_own(times: Times) -> None:
    first, second, third = (times.start(0) for _ in range(3))
    times.epochs(first, 12, 22.02, 32)  # a rounding of two hundredths
    times.epochs(second, 12)
    times.epochs(third, 22, 32)
    times.end(second, 12, 1, "diverged", "loss is not finite")
    assert times.places() == {(0, (1, 3)): (0, 2, 32), (1, (1, 1)): (1, 2, 12), (2, (1, 2)): (1, 12, 32)}
    found = times.timeline()
    assert found.slots == 2
    assert found.busy == pytest.approx(60 / 64, abs=0.001)
    ends = {times.keys.index(bar.trial): (bar.status, bar.reason) for bar in found.bars}
    assert ends == {0: ("running", ""), 1: ("diverged", "loss is not finite"), 2: ("running", "")}
    assert found.sentence == "2 slots trained 94% of 35 s; of 3 trials 1 diverged."


def test_a_trial_that_waited_at_a_rung_gives_its_slot_away_and_its_end_is_told_once(times: Times) -> None:
    first, second = times.start(0), times.start(0)
    times.epochs(first, 10)
    times.rung(first, 1)
    times.epochs(second, 20)
    times.epochs(first, 30, first=2)
    times.end(first, 30, 2, "stopped", "rung 2: rank 9 of 9, kept 1 in 3")
    assert times.places() == {(0, (1, 1)): (0, 0, 10), (1, (1, 1)): (0, 10, 20), (0, (2, 2)): (0, 20, 30)}
    assert [bar.status for bar in times.timeline().bars] == ["", "running", "stopped"]


def test_a_night_between_interruption_and_resume_takes_no_time(times: Times) -> None:
    number = times.start(0)
    times.epochs(number, 12)
    times.session(40_000)  # and once more, in which nothing was trained
    times.session(50_000)
    times.epochs(number, 50_013, first=2)
    found = times.timeline()
    assert times.places() == {(0, (1, 1)): (0, 2, 12), (0, (2, 2)): (0, 15, 25)}
    assert [(round(pause.at), round(pause.seconds)) for pause in found.pauses] == [(12, 49_988)]
    assert round(found.busy, 2) == 0.8
    assert "1 pause before a resume left out" in found.sentence


def test_a_clock_that_was_set_back_leaves_the_epochs_in_their_order(times: Times) -> None:
    number = times.start(0)
    times.epochs(number, 12, -3_600, -3_590, 42)
    assert times.places() == {(0, (1, 4)): (0, 2, 42)}


def test_a_trial_without_an_epoch_is_marked_where_it_ended(times: Times) -> None:
    ran, broke = times.start(0), times.start(0)
    times.epochs(ran, 10, 20)
    times.end(broke, 10, 0, "failed", "out of memory")
    assert times.places()[1, (0, 0)][1:] == (10, 10)
    assert "1 failed" in times.timeline().sentence


def test_of_a_run_without_an_epoch_there_is_no_timeline_and_no_survival(times: Times) -> None:
    assert timeline(load(times.folder)) is None
    times.start(0)
    assert timeline(load(times.folder)) is None
    assert survival(load(times.folder)) == ()


def test_a_run_that_took_no_time_is_drawn(times: Times) -> None:
    times.epochs(times.start(0), 0.0, took=0.0)
    assert times.timeline().seconds == 0
    assert "Trials over slots" in write_page(load(times.folder)).read_text()


def test_a_rung_tells_who_came_and_what_became_of_them(times: Times) -> None:
    for _ in range(5):
        times.start(0)
    times.epochs(0, 10, 20, 30)
    times.end(0, 30, 3)
    for number in (1, 2):
        times.epochs(number, 10, 20)
        times.rung(number, 2)
    times.end(1, 40, 2, "stopped", "forecast: 1.2% probable to end on the front")
    times.epochs(3, 10, 20)
    times.end(3, 20, 2, "stopped", "collapsed: usage 0.1%, under 1.0% for 3 epochs")
    times.epochs(4, 10)
    results = load(times.folder)
    rung = survival(results)[1]
    named = [[times.keys.index(key) for key in keys] for keys in (rung.came, rung.went_on, rung.stopped, rung.waiting)]
    assert (rung.epoch, named) == (2, [[0, 1, 2, 3], [0], [1], [2]])
    assert [times.keys.index(key) for key in rung.ended] == [3]
    assert [(r.epoch, len(r.came), len(r.went_on), len(r.ended)) for r in survival(results)] == [
        (1, 5, 5, 0),
        (2, 4, 1, 1),
        (3, 1, 0, 1),
    ]
