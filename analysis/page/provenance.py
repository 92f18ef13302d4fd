"""Where the numbers come from, and what is missing of them."""

import json
from typing import Any

from analysis.findings import not_begun
from analysis.layout import Row, Table, counted
from analysis.page.view import View
from trainables.journal import TrialRecord


def provenance_lead(view: View) -> str:
    """Commit and machine; of a single training, which does not record the machine, the device."""
    facts = view.results.record.sweep.get("tags") or {}
    machine = facts.get("hardware") or _seen(view.trials, "device") or "machine not recorded"
    return f"Commit {facts.get('commit', 'not recorded')}, {machine}."


def provenance_table(view: View) -> Table:
    """Data, code and machine, as the run recorded them."""
    results = view.results
    sweep = results.record.sweep
    facts: dict[str, Any] = {"sweep": sweep.get("sweep"), "run": results.name, "id": sweep.get("id")}
    facts |= {**(sweep.get("tags") or {}), **(sweep.get("params") or {})}
    seen = {"device": _seen(view.trials, "device"), "precision": _seen(view.trials, "precision")}
    facts |= {f"{name} of the trials": text for name, text in seen.items() if text}
    rows: list[Row] = [(name.replace("_", " "), _text(value)) for name, value in facts.items() if value is not None]
    return Table("Provenance", ("what", "as recorded"), tuple(rows), left=2)


def missing(view: View) -> list[str]:
    """A sentence for each thing that the page would show and cannot."""
    record = view.results.record
    lines = []
    if record.damaged:
        lines.append(f"{counted(record.damaged, 'line')} of the journal could not be read and are left out.")
    if broken := [trial for trial in view.trials if not trial.whole]:
        lines.append(f"{counted(len(broken), 'trial')} without epochs that the journal has lost.")
    if not record.sweep:
        lines.append("The journal does not say what was swept: its first line is missing.")
    if going := sum(trial.status == "running" for trial in view.trials):
        lines.append(f"{counted(going, 'trial')} had not ended when this page was made.")
    if number := not_begun(view.results):
        lines.append(f"{counted(number, 'trial')} of the plan had not begun: what follows is of the others.")
    return lines


def _seen(trials: tuple[TrialRecord, ...], name: str) -> str:
    return ", ".join(dict.fromkeys(str(trial.info[name]) for trial in trials if name in trial.info))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
