"""The answer: which configurations to train in full, how sure that is, and the command that trains each."""

from dataclasses import dataclass

from analysis.export import recommendations
from analysis.findings import interval_of
from analysis.page.view import View
from analysis.results import Group, Results
from trainables.runs import command_line
from vqcore.psnr import psnr

FULL_EPOCHS = 100
"""Of the training that is proposed, as in the paper."""


@dataclass(frozen=True)
class Pick:
    """A configuration worth a full-length training."""

    names: tuple[str, ...]
    """Why, in a few words each: ``knee of the front``."""
    label: str
    group: int
    values: tuple[tuple[str, str, str], ...]
    """Of each objective its name, its value, its interval or why there is none."""
    sure: str
    command: str


def picks(view: View) -> list[Pick]:
    """The front's compromise first, then the best in each objective; a configuration stands once."""
    results = view.results
    words = {"knee": "knee of the front"} | {f"best_{one.column}": one.best for one in results.objectives}
    chosen: dict[str, list[str]] = {}
    for name, group, _ in recommendations(results)[0 if compromise(results) else bool(results.knee) :]:
        chosen.setdefault(group.label, []).append(name)
    groups = {group.label: group for group in results.groups}
    return [_pick(view, groups[label], names, tuple(words[name] for name in names)) for label, names in chosen.items()]


def compromise(results: Results) -> Group | None:
    """The knee where it is one: none of a front that does not bend, whose knee is its end, and of a single aim."""
    knee, front = results.knee, results.front
    if knee is None or len(results.aims) < 2:
        return None
    ends = [[group.mean(column) for column in results.columns] for group in (front[0], front[-1])]
    return None if [knee.mean(column) for column in results.columns] in ends else knee


def _pick(view: View, group: Group, names: list[str], words: tuple[str, ...]) -> Pick:
    results, values = view.results, []
    for objective in results.objectives:
        estimate = results.estimate(group, objective.column)
        decibel = f" ({psnr(estimate.mean):.2f} dB)" if objective.column == "mse" else ""
        certainty = interval_of(results, estimate) if estimate.n > 1 else "one seed: how far others spread is not known"
        values.append((objective.name, f"{estimate.text}{decibel}", certainty))
    export = results.folder / "exports" / f"{names[0]}.toml"
    command = command_line("trainables.final", export, "--epochs", FULL_EPOCHS)
    return Pick(words, group.label, view.group_numbers[group.label], tuple(values), _sure(results, group), command)


def _sure(results: Results, group: Group) -> str:
    seeds = f"{len(group.seeds)} seed{'s' if len(group.seeds) > 1 else ''}"
    if not results.several:
        return f"{seeds}: an order, not a claim"
    probable = dict(zip((one.label for one in results.estimated), results.on_front, strict=True)).get(group.label)
    return (
        seeds if probable is None or probable != probable else f"{seeds}; on the front with probability {probable:.2f}"
    )
