"""A journal that was cut, changed, shuffled or forged: read in peace, and never to a wrong result."""

import io
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
import pytest
from damage import absurd, blows, damaged, examples, sealed, texts
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analysis.report import analyse
from sweeps import replay
from sweeps.rebuild import described
from trainables.journal import JournalReader, RunRecord, latest_sweep, read
from trainables.mirror import Mirror
from vqcore.config import ConfigError

Numbers = dict[str, dict[int, dict[str, float]]]
Sweep = Callable[..., int]


def numbers(run: RunRecord) -> Numbers:
    return {
        key: {epoch: {n: v for n, v in m.items() if n != "seconds"} for epoch, m in trial.epochs.items()}
        for key, trial in run.trials.items()
    }


@pytest.fixture(scope="session")
def journal(undisturbed: Path) -> bytes:
    return (undisturbed / "journal.jsonl").read_bytes()


@pytest.fixture(scope="session")
def truth(undisturbed: Path) -> RunRecord:
    return read(undisturbed / "journal.jsonl")


def _shuffled(content: bytes, moves: list[tuple[str, float, float]]) -> bytes:
    """Lines removed, doubled and swapped."""
    lines = content.splitlines(keepends=True)
    for kind, first, second in moves:
        if lines:
            i, j = int(first * len(lines)), int(second * len(lines))
            match kind:
                case "remove":
                    del lines[i]
                case "double":
                    lines.insert(j, lines[i])
                case "swap":
                    lines[i], lines[j] = lines[j], lines[i]
    return b"".join(lines)


_share = st.floats(0, 1, exclude_max=True)
moves = st.lists(st.tuples(st.sampled_from(["remove", "double", "swap"]), _share, _share), max_size=4)


def written(content: bytes) -> Path:
    path = Path(tempfile.mkdtemp(dir=_FOLDER)) / "beta_ablation" / "run" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


_FOLDER = ""


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    global _FOLDER
    _FOLDER = str(tmp_path_factory.mktemp("journals"))


@examples(1500)
@given(moves, blows | st.just([]))
def test_what_is_read_of_a_damaged_journal_is_true(
    journal: bytes, truth: RunRecord, moves: list[Any], blows: list[Any]
) -> None:
    run = read(written(damaged(_shuffled(journal, moves), blows)))
    for key, trial in run.trials.items():
        assert trial.config == truth.trials[key].config
        assert trial.number == truth.trials[key].number
        assert trial.status in ("running", "completed")
        for epoch, metrics in trial.epochs.items():
            assert metrics == truth.trials[key].epochs[epoch]
    assert run.sweep in ({}, truth.sweep)


@examples(60)
@given(moves, blows | st.just([]))
def test_a_resume_of_a_damaged_journal_ends_with_the_same_numbers(
    undisturbed: Path, journal: bytes, truth: RunRecord, sweep: Sweep, moves: list[Any], blows: list[Any]
) -> None:
    path = written(damaged(_shuffled(journal, moves), blows))
    shutil.copytree(undisturbed / "trials", path.parent / "trials")
    shutil.copy(undisturbed / "sweep.toml", path.parent)
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as wrong:
        code = sweep(path.parents[2], "--resume", "run")
    assert code == 0, (said.getvalue(), wrong.getvalue())
    run = read(path)
    assert numbers(run) == numbers(truth)
    assert {(t.key, t.status, t.last_epoch) for t in run.trials.values()} == {
        (t.key, t.status, t.last_epoch) for t in truth.trials.values()
    }


_HOW = st.one_of(
    st.tuples(st.just("set"), _share, _share, absurd),
    st.tuples(st.just("deep"), _share, _share, absurd),
    st.tuples(st.just("drop"), _share, _share, st.none()),
    st.tuples(st.just("add"), _share, _share, st.dictionaries(texts, absurd, max_size=2)),
)


def forged(content: bytes, how: list[tuple[str, float, float, Any]]) -> bytes:
    """The events with facts changed, taken away and added; every line has its right checksum."""
    events = [orjson.loads(line) for line in content.splitlines()]
    for event in events:
        del event["crc"]
    for kind, where, which, value in how:
        event = events[int(where * len(events))]
        table = event
        if kind == "deep":  # somewhere below
            tables = [part for part in _tables(event) if part] or [event]
            table = tables[int(which * len(tables))]
        name = list(table or "-")[int(which * 977 % 1 * max(1, len(table)))]
        match kind:
            case "set" | "deep":
                table[name] = value
            case "drop":
                table.pop(name, None)
            case "add":
                events.insert(int(which * len(events)), {**deepcopy(event), **value})
    return b"".join(map(sealed, (event for event in events if event)))


def _tables(event: Any) -> list[dict[str, Any]]:
    if not isinstance(event, dict):
        return []
    return [event, *(inner for part in event.values() for inner in _tables(part))]


forgeries = st.lists(_HOW, min_size=1, max_size=3)


@examples(500)
@given(forgeries)
def test_whoever_reads_a_forged_journal_finds_it_sound(journal: bytes, how: list[Any]) -> None:
    path = written(forged(journal, how))
    run = read(path)
    assert latest_sweep(path) in ({}, run.sweep)
    assert described(path.parent, run)
    for key, trial in run.trials.items():
        assert Path(path, key).parent == path, "keys name folders"
        assert min(trial.epochs, default=1) > 0
        assert all(isinstance(value, float) for metrics in trial.epochs.values() for value in metrics.values())
    mirror = Mirror()
    for event in JournalReader(path).new():
        mirror.apply(event)
    mirror.abandon()
    for key in mirror.keys:
        view = mirror.view(key, None)
        assert 0 <= view.started < 1e11, "a database has no room for more"
    with suppress(ConfigError):
        replay.recorded(path.parent)


@examples(120)
@given(forgeries)
def test_what_is_made_of_a_forged_journal_is_made_in_peace(sweep: Sweep, journal: bytes, how: list[Any]) -> None:
    path = written(forged(journal, how))
    findings = analyse(path.parent)
    Console(file=io.StringIO()).print(findings.renderable())
    failed = [words for words in findings.lines if "could not be written" in words]
    assert all("no trial has completed" in words for words in failed), failed


@examples(80)
@given(forgeries)
def test_a_resume_of_a_forged_journal_ends_in_words(
    undisturbed: Path, journal: bytes, sweep: Sweep, how: list[Any]
) -> None:
    path = written(forged(journal, how))
    shutil.copytree(undisturbed / "trials", path.parent / "trials")
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()) as wrong:
        code = sweep(path.parents[2], "--resume", "run")
    assert code in (0, 1, 2)
    assert code != 2 or wrong.getvalue().strip()
    assert "Traceback" not in said.getvalue() + wrong.getvalue()
