"""What the journal lost to lines that are damaged or gone, taken again from the trials' checkpoints."""

from collections.abc import Callable
from typing import Any

from trainables.checkpoint import load_checkpoint, whole_checkpoints
from trainables.recorder import Recorder
from trainables.storage import open_store


def mend(recorder: Recorder, folder_of: Callable[[str], str]) -> str:
    """Write into the journal what damaged lines held and checkpoints still know; what was done, in words.

    A trial of which neither knows all is opened again, and trained to the same numbers. ``folder_of`` leads from a
    trial's key to its location. Empty words if nothing was lost: half a line at the end, which a killed driver leaves,
    loses nothing. ``StorageError`` if nobody can tell.
    """
    run = recorder.run
    if not run.orphans and all(trial.whole for trial in run.trials.values()):
        return ""
    lost: list[str] = []
    for key in list(run.orphans):
        identity = _identity(folder_of(key), key)
        if identity is not None:
            recorder.write("start", trial=key, **identity)
        else:
            lost.append(key)
    filled = reopened = 0
    for trial in [trial for trial in run.trials.values() if not trial.whole]:
        checkpoint = load_checkpoint(open_store(folder_of(trial.key)), trial.key).checkpoint
        for event in checkpoint.facts["history"] if checkpoint else ():
            if event["epoch"] not in trial.epochs:
                recorder.write(**{**event, "trial": trial.key})
                filled += 1
        if not trial.whole and trial.status != "running":
            recorder.write("start", trial=trial.key, number=trial.number, config=trial.config)
            reopened += 1
    return _words(run.damaged, filled, reopened, lost)


def _identity(location: str, key: str) -> dict[str, Any] | None:
    """The number and the configuration of a trial, from its newest checkpoint that has both; None if none has."""
    for checkpoint in whole_checkpoints(open_store(location), key, []):
        if {"number", "config"} <= checkpoint.facts.keys():
            return {name: checkpoint.facts[name] for name in ("number", "config")}
    return None


def _words(damaged: int, filled: int, reopened: int, lost: list[str]) -> str:
    words = [f"{filled} epochs taken again from checkpoints"] if filled else []
    words += [f"{reopened} trials opened again"] if reopened else []
    words += [f"{len(lost)} trials begin anew: {' '.join(lost)}"] if lost else []
    what = f"has {damaged} damaged lines" if damaged else "lacks lines"
    return f"the journal {what}: {', '.join(words)}" if words else ""
