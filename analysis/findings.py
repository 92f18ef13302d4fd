"""What was found, in words: no claim from one seed, and none where the seeds' spread could make the difference."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.text import Text

from analysis.estimates import told_apart
from analysis.groups import Group, described
from analysis.layout import Table
from analysis.results import Results
from vqcore.metrics import psnr

_METRICS = {"mse": ("lowest MSE", "on [-1, 1]"), "perplexity": ("highest perplexity", "of the whole test set")}


@dataclass(frozen=True)
class Findings:
    """The last page of a sweep."""

    lines: tuple[str, ...]
    """What was found, a sentence or two a line; plain text."""
    folder: Path
    """The run's."""
    paths: tuple[Path, ...]
    """The files that were written, below ``folder``."""
    table: Table | None = None
    """The configurations compared."""

    def renderable(self) -> RenderableType:
        """The findings for a terminal; names in them are never taken for markup."""
        parts: list[RenderableType] = [self.table.rich(), Text("")] if self.table else []
        parts += map(Text, self.lines)
        if self.paths:
            names = ", ".join(path.relative_to(self.folder).as_posix() for path in self.paths)
            parts.append(Text(f"Written to {self.folder}: {names}", style="dim", overflow="fold"))
        return Stack(*parts)


def best(results: Results, metric: str) -> Group:
    """The group with the lowest mean MSE or the highest mean perplexity; of equals the first. There must be a group."""
    pick = min if metric == "mse" else max
    return pick(results.groups, key=lambda group: group.mean(metric))


def words(results: Results) -> tuple[str, ...]:
    """What the run shows, as far as it went."""
    lines = [_state(results)]
    if results.groups:
        lines += [_best(results, "mse"), _best(results, "perplexity"), front_words(results)]
    lines += [f"Not compared: {why}" for why in _left_out(results)]
    kinds = {(t.info.get("device"), t.info.get("precision")) for group in results.groups for t in group.trials}
    if len(kinds) > 1:
        named = "; ".join(sorted(f"{precision} on {device}" for device, precision in kinds))
        lines.append(f"Compared trials did not all run alike: {named}.")
    return tuple(lines)


def front_words(results: Results) -> str:
    """What the front of the means is, and whether there is a trade-off at all. There must be a group."""
    if len(results.groups) == 1:
        return "One configuration only: there is no front to speak of."
    by = "By the means" if all(len(group.seeds) > 1 for group in results.front) else "By a single seed, so no claim"
    names = _names(results.front)
    if len({(group.mean("mse"), group.mean("perplexity")) for group in results.front}) > 1:
        return f"{by}: a trade-off, {len(results.front)} configurations are on the front, lowest MSE first: {names}."
    equals = "" if len(results.front) == 1 else " (equal)"
    return f"{by}: best in both MSE and perplexity is {names}{equals}; the front is one point, no trade-off here."


def _state(results: Results) -> str:
    completed = sum(trial.status == "completed" for trial in results.trials)
    planned = results.record.sweep.get("trials") or len(results.trials)
    state = f"{completed} of {planned} trials completed"
    # Not by the journal's "done": the sweep asks for its findings before it writes that.
    if sum(trial.status != "running" for trial in results.trials) < planned:
        state += "; the run is not finished"
    if not results.groups:
        return f"{state}. Nothing to compare yet."
    return f"{state}. Compared after epoch {results.epoch} on {results.data}, {results.seeds} a configuration."


def _best(results: Results, metric: str) -> str:
    winner = best(results, metric)
    name, unit = _METRICS[metric]
    estimate = winner.estimate(metric)
    assert estimate is not None  # a compared trial has reported both objectives
    decibel = f", {psnr(estimate.mean):.1f} dB" if metric == "mse" else ""
    said = f"{name[0].upper()}{name[1:]}: {winner.label}, {estimate.text} {unit}{decibel}"
    if estimate.n == 1:
        return f"{said}. One seed: an order, not a claim."
    said += f" (95 % interval {estimate.interval_text}, n = {estimate.n})."
    others = [group for group in results.groups if group is not winner]
    alike = [group for group in others if not told_apart(winner.by_seed(metric), group.by_seed(metric))]
    if not others:
        return said
    if not alike:
        return f"{said} Its lead over each other one is more than the seeds' spread (paired 95 % t intervals)."
    return f"{said} Within the seeds' spread, so not told apart from: {_names(alike)}."


def _names(groups: Sequence[Group], most: int = 8) -> str:
    rest = len(groups) - most
    return "; ".join(group.label for group in groups[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _left_out(results: Results) -> list[str]:
    told = [
        f"{described(trial.config, [*results.swept, 'seed']) or trial.key}, {why}"
        for trial, why in results.left_out
        if trial.status != "running"
    ]
    counts = Counter(trial.status for trial, _ in results.left_out)
    if counts["running"]:
        told.append(f"{counts['running']} not finished")
    return told
