"""A journal that was cut, changed or shuffled: it is read, and never to a wrong result."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import blows, damaged, examples, exit_code, fraction
from hypothesis import given
from hypothesis import strategies as st

from trainables.journal import RunRecord, read

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


def written(place: Path, content: bytes) -> Path:
    """The journal of a run of its own."""
    path = Path(tempfile.mkdtemp(dir=place)) / "beta_ablation" / "run" / "journal.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


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
    path = written(place, spoilt(journal, damage))
    shutil.copytree(undisturbed / "trials", path.parent / "trials")
    shutil.copy(undisturbed / "sweep.toml", path.parent)
    assert exit_code(lambda: sweep(path.parents[2], "--resume", "run")) == 0
    assert numbers(read(path)) == numbers(truth)
