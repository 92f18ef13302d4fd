"""What the screen says while a sweep runs, of sweeps whose trials only report and whose clock is moved by hand."""

import io
import random
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from reporting import Reporting
from rich.console import Console

from sweeps import cli
from sweeps.engine import inline, progress, session
from sweeps.engine.progress import LINE_SECONDS, MOST_FAILURES, MOST_LINES, Left, Screen, time_left
from trainables.job import Report
from trainables.journal import Event


class Told(NamedTuple):
    """What a sweep's screen said."""

    lines: list[tuple[float, str]]
    """The lines about its progress, each with the seconds since it began."""
    left: list[tuple[float, Left]]
    """The seconds left, as they were reckoned after each event, and those that were left."""
    screen: str


Tell = Callable[..., Told]


@pytest.fixture
def tell(search: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tell:
    """Run a search whose epochs take so many seconds."""

    def go(name: str, seconds: float, *words: str, trial: type[Reporting] = Reporting) -> Told:
        now, reckoned = [0.0], list[tuple[float, Left]]()

        class Timed(trial):  # type: ignore[misc,valid-type]
            def step(self) -> Report:
                now[0] += seconds
                report: Report = super().step()
                report.metrics["seconds"] = seconds
                return report

        class Watched(Screen):
            def __call__(self, event: Event) -> None:
                super().__call__(event)
                if self.summary().endswith(")"):
                    reckoned.append((now[0], self.seconds_left()))

        monkeypatch.setattr(inline, "Trial", Timed)
        monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
        monkeypatch.setattr(session, "Screen", Watched)
        assert search("--name", name, "--sampler", "random", *words) in (0, 1)
        screen = capsys.readouterr().out
        found: Any = (re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d)  (.*)", line) for line in screen.split("\n"))
        parts = [match.groups() for match in found if match]
        at = [86400 * int(d or 0) + 3600 * int(h) + 60 * int(m) + int(s) for d, h, m, s, _ in parts]
        lines = list(zip(at, (text for *_, text in parts), strict=True))
        return Told(lines, [(now[0] - at, left) for at, left in reckoned], screen)

    return go


class AllAlike(Reporting):
    """A trial of which only the seed and the luck of its configuration tell: each may be on the front."""

    def step(self) -> Report:
        report: Report = super().step()
        luck = random.Random(self.job.key)
        return replace(report, metrics={n: value and luck.uniform(1, 2) for n, value in report.metrics.items()})


@pytest.mark.parametrize(("trial", "stopping"), [(Reporting, "auto"), (AllAlike, "none")])
def test_the_time_left_holds_and_each_line_names_the_stage(tell: Tell, trial: type[Reporting], stopping: str) -> None:
    words = ("--trials", "15", "--epochs", "8", "--seeds", "3", "--early-stopping", stopping)
    told = tell(f"stages-{stopping}", 60.0, *words, trial=trial)
    stages = [text.split(":")[0] for _, text in told.lines]
    assert stages[0] == "screening"
    assert re.fullmatch("more seeds of [0-9]+ configurations?", stages[-1])
    assert stages == sorted(stages, key=lambda stage: stage != "screening")
    assert all(" left" in text and "0:00" not in text for _, text in told.lines)
    for truth, left in told.left:
        assert left.least <= truth + 1 <= left.most + 2, (truth, left)
        assert left.least <= left.likely <= left.most


def test_a_sweep_of_days_prints_no_more_lines_than_one_of_an_hour(tell: Tell) -> None:
    words = ("--trials", "12", "--epochs", "40", "--early-stopping", "none", "--seeds", "1")
    for name, epoch in (("an-hour", 8.0), ("days", 700.0)):
        told = tell(name, epoch, *words)
        times = [at for at, _ in told.lines]
        assert 10 <= len(times) <= MOST_LINES
        assert all(b - a >= LINE_SECONDS for a, b in pairwise(times))
        assert times[0] == round(epoch), "the first result is told at once"
        for truth, left in told.left:  # nothing is stopped: nothing is a range
            assert left.least == left.likely == left.most == pytest.approx(truth)


def test_many_failures_are_counted_and_the_first_are_named(tell: Tell) -> None:
    class Fails(Reporting):
        def step(self) -> Report:
            raise RuntimeError("out of luck")

    told = tell("fails", 1.0, "--trials", "12", "--early-stopping", "none", trial=Fails)
    named = [line for line in told.screen.splitlines() if "failed, RuntimeError: out of luck" in line]
    assert len(named) == MOST_FAILURES
    assert named[-1].endswith("(those that follow are counted, not named)")
    assert told.lines[-1][1] == "training: 10 of 12 trials ended, 10 of them failed, 0 of 8 epochs"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (Left(0, 0, 0), ""),
        (Left(0.1, 0.1, 0.1), "about 5 s left"),
        (Left(700, 710, 720), "about 12 min left"),
        (Left(300, 700, 1800), "about 12 min left (5 to 30 min)"),
        (Left(50, 700, 9000), "about 12 min left (50 s to 2 h 30 min)"),
        (Left(0, 700, 300_000), "about 12 min left (at most 3 d 12 h)"),
    ],
)
def test_time_left_is_an_estimate_in_words_and_never_nothing_while_there_is_some(seconds: Left, words: str) -> None:
    assert time_left(seconds) == words


def test_on_a_terminal_the_last_lines_are_those_that_tell(
    search: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=20, color_system=None)
    monkeypatch.setattr(cli, "Terminal", lambda: console)
    assert search("--name", "terminal", "--trials", "30", "--seeds", "2") == 0
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())  # type: ignore[attr-defined]
    last = screen[screen.rindex("┏") : screen.index("Took")].splitlines()
    assert len(last) <= 20
    assert "more trials" in screen
    assert re.search("more seeds of . configurations?: (.) of \\1 trials ended", screen)
