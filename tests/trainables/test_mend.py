"""What a journal lost is taken from the checkpoints, as far as they can be believed."""

from pathlib import Path
from typing import Any

import pytest

from trainables.checkpoint import save_checkpoint
from trainables.journal import Journal, read
from trainables.mend import mend
from trainables.recorder import Recorder
from trainables.runs import JOURNAL
from trainables.storage import Folder, join
from vqcore.config import TrialConfig

KEY = "0123456789ab"
CONFIG = TrialConfig().flat()


def facts(epochs: int, **more: Any) -> dict[str, Any]:
    history = [{"event": "epoch", "epoch": n, "metrics": {"mse": 1 / n}, "time": 1.5} for n in range(1, epochs + 1)]
    return {"trial": KEY, "precision": "fp32", "history": history, **more}


def mended(run: Path) -> str:
    recorder = Recorder(run)
    words = mend(recorder, lambda key: join(str(run), "trials", key))
    recorder.close()
    return words


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of one trial whose start is lost, and its first epoch."""
    journal = Journal(tmp_path / JOURNAL)
    journal.write("sweep", name="run", id="1")
    journal.write("epoch", trial=KEY, epoch=2, metrics={"mse": 0.5})
    journal.close()
    (tmp_path / "trials").mkdir()
    return tmp_path


def test_a_trial_is_what_its_checkpoint_says(run: Path) -> None:
    save_checkpoint(Folder(str(run / "trials" / KEY)), 2, {}, facts(2, number=7, config=CONFIG))
    assert mended(run) == "the journal lacks lines: 1 epochs taken again from checkpoints"
    trial = read(run / JOURNAL).trials[KEY]
    assert (trial.number, trial.config) == (7, CONFIG)
    assert trial.epochs == {1: {"mse": 1.0}, 2: {"mse": 0.5}}
    assert trial.whole
    assert mended(run) == "", "nothing is left to mend"


@pytest.mark.parametrize("told", [{}, {"number": 7}, {"config": CONFIG}])
def test_a_checkpoint_that_does_not_say_whose_it_is_is_passed_over(run: Path, told: dict[str, Any]) -> None:
    store = Folder(str(run / "trials" / KEY))
    save_checkpoint(store, 2, {}, facts(2, **told))
    assert mended(run) == f"the journal lacks lines: 1 trials begin anew: {KEY}"
    assert read(run / JOURNAL).trials == {}
    (run / "trials" / KEY / "epoch-00004 (copy).safetensors").touch()
    save_checkpoint(store, 1, {}, facts(1, number=7, config=CONFIG))
    assert mended(run) == "the journal lacks lines: 1 epochs taken again from checkpoints", "an older one may say it"


def test_epochs_are_taken_from_one_that_does_not(run: Path) -> None:
    journal = Journal(run / JOURNAL)
    journal.write("start", trial=KEY, number=7, config=CONFIG)
    journal.close()
    save_checkpoint(Folder(str(run / "trials" / KEY)), 2, {}, facts(2))
    assert mended(run) == "the journal lacks lines: 1 epochs taken again from checkpoints"
    assert read(run / JOURNAL).trials[KEY].whole
