"""A journal that was cut, changed, shuffled or forged: it is read, and never to a wrong result."""

import io
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest
from damage import absurd, blows, damaged, examples, exit_code, fraction, sealed, tables_in, texts
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.report import analyse
from trainables.journal import RunRecord, latest_sweep, read

Sweep = Callable[..., int]


def numbers(run: RunRecord) -> dict[str, Any]:
    """Status and metrics of each trial."""
    return {
        key: (trial.status, {e: {n: v for n, v in m.items() if n != "seconds"} for e, m in trial.epochs.items()})
        for key, trial in run.trials.items()
    }


@pytest.fixture(scope="session")
def journal(undisturbed: Path) -> bytes:
    return (undisturbed / "journal.jsonl").read_bytes()


@pytest.fixture(scope="session")
def truth(undisturbed: Path) -> RunRecord:
    return read(undisturbed / "journal.jsonl")


def written(place: Path, content: bytes, trials_of: Path | None = None) -> Path:
    """A run with this journal, and the files of another one's trials."""
    path = Path(tempfile.mkdtemp(dir=place)) / "beta_ablation" / "run" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if trials_of is not None:
        shutil.copytree(trials_of / "trials", path.parent / "trials")
        shutil.copy(trials_of / "sweep.toml", path.parent)
    return path


def resumed(sweep: Sweep, path: Path) -> int:
    return exit_code(lambda: sweep(path.parents[2], "--resume", "run"))


_moves = st.lists(st.tuples(st.sampled_from(["remove", "double", "swap"]), fraction, fraction), max_size=4)
_damages = st.tuples(_moves, blows | st.just([]))


def spoilt(content: bytes, damage: tuple[list[tuple[str, float, float]], list[Any]]) -> bytes:
    """Lines removed, doubled and swapped, and then bytes damaged."""
    lines = content.splitlines(keepends=True)
    for kind, first, second in damage[0]:
        i, j = int(first * len(lines)), int(second * len(lines))
        match kind:
            case "remove":
                del lines[i]
            case "double":
                lines.insert(j, lines[i])
            case "swap":
                lines[i], lines[j] = lines[j], lines[i]
    return damaged(b"".join(lines), damage[1])


@examples(800)
@given(_damages)
def test_what_is_read_of_a_damaged_journal_is_true(place: Path, journal: bytes, truth: RunRecord, damage: Any) -> None:
    run = read(written(place, spoilt(journal, damage)))
    for key, trial in run.trials.items():
        assert (trial.config, trial.number) == (truth.trials[key].config, truth.trials[key].number)
        assert trial.status in ("running", "completed")
        assert trial.epochs.items() <= truth.trials[key].epochs.items()
    assert run.sweep in ({}, truth.sweep)


@examples(40)
@given(_damages)
def test_a_resume_of_a_damaged_journal_ends_with_the_same_numbers(
    place: Path, undisturbed: Path, journal: bytes, truth: RunRecord, sweep: Sweep, damage: Any
) -> None:
    path = written(place, spoilt(journal, damage), undisturbed)
    assert resumed(sweep, path) == 0
    assert numbers(read(path)) == numbers(truth)


_how = st.one_of(
    st.tuples(st.just("set"), fraction, fraction, absurd),
    st.tuples(st.just("drop"), fraction, fraction, st.none()),
    st.tuples(st.just("add"), fraction, fraction, st.dictionaries(texts, absurd, max_size=2)),
)
_forgeries = st.lists(_how, min_size=1, max_size=3)


def forged(content: bytes, how: list[tuple[str, float, float, Any]]) -> bytes:
    """The events with facts changed, taken away and added, at any depth; every line has its right checksum."""
    events = [orjson.loads(line) for line in content.splitlines()]
    for event in events:
        del event["crc"]
    for kind, where, which, value in how:
        event = events[int(where * len(events))]
        tables = [table for table in tables_in(event) if table] or [{"-": 0}]
        table = tables[int(which * len(tables))]
        name = list(table)[int(which * 977 % 1 * len(table))]
        match kind:
            case "set":
                table[name] = value
            case "drop":
                del table[name]
            case "add":
                events.insert(int(which * len(events)), {**deepcopy(event), **value})
    return b"".join(map(sealed, (event for event in events if event)))


@examples(300)
@given(_forgeries)
def test_a_forged_journal_is_read_as_a_sound_run(place: Path, journal: bytes, how: list[Any]) -> None:
    path = written(place, forged(journal, how))
    run = read(path)
    assert latest_sweep(path) in ({}, run.sweep)
    for key, trial in run.trials.items():
        assert Path(path, key).parent == path, "keys name folders"
        assert min(trial.epochs, default=1) > 0
        assert all(isinstance(value, float) for metrics in trial.epochs.values() for value in metrics.values())


@examples(80)
@given(_forgeries)
def test_a_forged_journal_is_analysed(place: Path, sweep: Sweep, journal: bytes, how: list[Any]) -> None:
    findings = analyse(written(place, forged(journal, how)).parent)
    Console(file=io.StringIO()).print(findings.renderable())
    failed = [line for line in findings.lines if "could not be written" in line]
    assert all("no trial has completed" in line for line in failed), failed


@examples(50)
@given(_forgeries)
def test_a_resume_of_a_forged_journal_ends_in_words(
    place: Path, undisturbed: Path, journal: bytes, sweep: Sweep, how: list[Any]
) -> None:
    assert resumed(sweep, written(place, forged(journal, how), undisturbed)) in (0, 1, 2)
