"""What is to be said of several runs beside each other, in sentences and tables: the first run is the reference."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console, RenderableType
from rich.console import Group as Stack
from rich.text import Text

from analysis.layout import Row, Table, counted, enumerated, markdown_text, shortened, shown
from analysis.results import Results
from analysis.run_comparison import (
    NOT_TOLD_APART,
    Effect,
    Run,
    at_one_epoch,
    changed,
    covers,
    effects,
    objectives_of,
    replays,
)
from analysis.run_facts import Fact, facts
from trainables.runs import SHORT

LETTERS = "ABCDE"
"""One a run: names are long, and two sweeps may have runs of one name."""

_LINES = 36
"""Of a terminal, at most; four more say where the files are."""

_NAME = 36
"""The most letters of a run's name on a terminal."""


@dataclass(frozen=True)
class Comparison:
    """Runs, and what sets them apart."""

    runs: tuple[Run, ...]
    facts: tuple[Fact, ...]
    effects: tuple[Effect, ...]
    sentences: tuple[str, ...]
    """Is the difference real: what cannot be compared, what is equal to the last bit, what differs and how surely."""

    @property
    def differences(self) -> Table:
        """What the runs recorded differently."""
        rows = [(fact.kind, fact.name, fact.by_run(LETTERS)) for fact in self.facts if fact.differs or fact.untold]
        return Table("What differs", ("", "", "by run"), tuple(rows), left=3)

    def same(self, most: int) -> str:
        """What is the same in all, in one sentence; of more than ``most`` of a kind, how many."""
        alike = [fact for fact in self.facts if not fact.differs and not fact.untold]
        parts = []
        for kind in dict.fromkeys(fact.kind for fact in alike):
            names = [fact.name for fact in alike if fact.kind == kind]
            parts.append(f"{kind} ({', '.join(names) if len(names) <= most else f'{len(names)} entries'})")
        return f"The same: {', '.join(parts) or 'nothing'}."

    @property
    def effects_table(self) -> Table:
        """What the runs have in common and differs, the surest difference first."""
        found = [one for one in self.effects if not one.equal]
        rows = map(_row, sorted(found, key=lambda one: (math.isnan(one.test.p), one.test.p)))
        tests = [one.test.tests for one in found if math.isfinite(one.test.p)]
        how = f"paired t tests, Holm's correction for {counted(tests[0], 'test')}" if tests else "none from one seed"
        note = f"difference: the run minus {LETTERS[0]}, by the n seeds that both have; p: {how}"
        note += "; the intervals all hold at once with 95 % (Bonferroni)" if tests else ""
        columns = ("configuration", "metric", "run", "n", "difference", "95 % interval", "p")
        return Table("Configurations of both", columns, tuple(rows), (note,), left=3)

    def overview(self, most: int = 100) -> Table:
        """The runs by their letters, and as much of their names."""
        rows = []
        for run in self.runs:
            results, completed = run.results, sum(trial.status == "completed" for trial in run.results.trials)
            planned = max(int(results.record.sweep.get("trials") or 0), len(results.trials))
            state = (f"{completed} of {planned}", str(len(results.groups)), results.seeds, str(results.epoch))
            rows.append((run.letter, shortened(run.name, most), *state))
        return Table("Runs", ("", "run", "completed", "configurations", "seeds", "epoch"), tuple(rows), left=2)

    def markdown(self) -> str:
        """The whole comparison, with its picture beside it."""
        told = "\n".join(f"- {markdown_text(sentence)}" for sentence in self.sentences)
        parts = ["# Runs compared\n", self.overview().markdown(), "![the fronts](front.png)\n"]
        parts += [self.differences.markdown()] if self.differences.rows else []
        parts += [f"{markdown_text(self.same(100))}\n", f"## Is the difference real?\n\n{told}\n"]
        return "\n".join([*parts, *([self.effects_table.markdown()] if self.effects_table.rows else [])])

    def page(self, terminal: Console) -> RenderableType:
        """The same for a terminal: of each table as many rows as fit, the rest is in the file."""
        for rows in ((12, 12), (10, 8), (8, 6), (8, 4), (6, 2), (6, 0), (4, 0)):
            page = self._page(*rows)
            if len(terminal.render_lines(page)) <= _LINES:
                return page
        return self._page(2, 0)

    def _page(self, most_differences: int, most_effects: int) -> RenderableType:
        parts: list[RenderableType] = [self.overview(_NAME).rich(), Text("")]
        if self.differences.rows:
            parts.append(_cut(self.differences, most_differences, 1).rich())
        parts += [shown(self.same(5), "dim"), Text(""), *map(shown, self.sentences)]
        if self.effects_table.rows and most_effects:
            parts += [Text(""), _cut(self.effects_table, most_effects, 0).rich()]
        return Stack(*parts)


def compare(runs: Sequence[Results]) -> Comparison:
    """Compare runs, each with a completed trial, with the first of them."""
    aligned = at_one_epoch(runs, LETTERS)
    found = effects(aligned)
    sentences = [*_sentences(aligned, found)]
    if any(NOT_TOLD_APART in sentence for sentence in sentences):
        sentences.append("Not told apart does not mean equal.")
    return Comparison(tuple(aligned), tuple(facts(runs)), tuple(found), tuple(sentences))


def _sentences(runs: Sequence[Run], found: Sequence[Effect]) -> Iterator[str]:
    first, *others = runs
    yield from (
        f"{run.letter} cannot be compared with {first.letter}: {run.obstacle}." for run in others if run.obstacle
    )
    alike = [run for run in others if not run.obstacle]
    if not alike:
        return
    trained = {run.letter: max(trial.last_epoch for trial in run.results.trials) for run in (first, *alike)}
    if len(set(trained.values())) > 1:
        each = ", ".join(f"{letter} {epoch}" for letter, epoch in trained.items())
        yield f"Compared after epoch {first.results.epoch}, the last that all have (trained to: {each})."
    if len({run.results.objectives for run in runs}) > 1:
        yield "The runs have different objectives: compared by MSE and perplexity, which all report."
    yield from _replay_sentences(runs)
    for run in alike:
        yield from _effect_sentences(run, first, [one for one in found if one.letter == run.letter])
    yield from _front_sentences(runs, alike)


def _replay_sentences(runs: Sequence[Run]) -> Iterator[str]:
    for replay in replays(runs):
        repeated = (
            f"{replay.letter} repeats {counted(replay.trials, 'trial')} of {runs[0].letter} (configuration, seed, data)"
        )
        equal = {0: "none", replay.trials: "all"}.get(replay.equal, str(replay.equal))
        yield f"{repeated}: {equal} equal to the last bit, in {counted(replay.epochs, 'epoch')}."


def _effect_sentences(run: Run, first: Run, found: Sequence[Effect]) -> Iterator[str]:
    names = [SHORT.get(name, name) for name in changed(run, first)]
    number = len({one.label for one in found if not one.mean})
    pair = f"{run.letter} against {first.letter} in {counted(number, 'configuration')}"
    if not found:
        yield f"{run.letter} and {first.letter} have no configuration in common, so none is tested."
    elif not all(one.equal for one in found):
        aims = dict.fromkeys(one.objective for one in found)
        each = "; ".join(f"{aim.name} {_verdicts([one for one in found if one.objective == aim])}" for aim in aims)
        yield f"{pair}{f', alike but for {enumerated(names, 4)}' if names else ''}: {each}."


def _verdicts(found: Sequence[Effect]) -> str:
    """``better in 2 and on average, not told apart in 1``."""
    single = Counter(one.verdict for one in found if not one.mean)
    average = "".join(one.verdict for one in found if one.mean)
    words = [f"{one} in {number}{' and on average' if one == average else ''}" for one, number in single.most_common()]
    return ", ".join([*words, *([f"{average} on average"] if average and average not in single else [])])


def _front_sentences(runs: Sequence[Run], others: Sequence[Run]) -> Iterator[str]:
    if without := ", ".join(run.letter for run in (runs[0], *others) if not run.results.several):
        yield f"No claim about the front of {without}: one seed a configuration."
    if (found := covers(runs)) is None:
        return
    at = " and ".join(f"{aim.name} {end:.4g}" for aim, end in zip(objectives_of(runs), found.reference, strict=True))
    each = "; ".join(
        f"{one.letter} {one.share:.3f} [{one.interval[0]:.3f}, {one.interval[1]:.3f}]" for one in found.each
    )
    yield f"Hypervolume up to {at}, as a share of the box from there to the best seeds: {each}."
    ahead = []
    for one in found.each:
        if one.lead:
            lead, low, high = one.lead
            verdict = "more than the seeds' spread" if low > 0 or high < 0 else NOT_TOLD_APART
            equal = not lead and low == high
            ahead.append(f"{one.letter} {'the same' if equal else f'{lead:+.3f} [{low:.3f}, {high:.3f}], {verdict}'}")
    yield f"Minus that of {runs[0].letter}: {'; '.join(ahead)}."


def _row(one: Effect) -> Row:
    difference, test = one.test.difference, one.test
    percent = f" ({100 * difference.mean / one.reference.mean:+.1f} %)" if one.reference.mean else ""
    effect = f"{'+' if difference.mean > 0 else ''}{difference.mean_text}{percent}" if difference.n else "–"
    p = "–" if math.isnan(test.p) else "<0.001" if test.adjusted < 0.001 else f"{test.adjusted:.3f}"
    interval = difference.interval_text(test.confidence)
    return one.label, one.objective.name, one.letter, str(difference.n), effect, interval, p


def _cut(table: Table, most: int, name: int) -> Table:
    """The first rows; of the others how many, and what their column ``name`` says."""
    rest = dict.fromkeys(row[name] for row in table.rows[most:])
    more = f"{len(table.rows) - most} more in compare.md: {enumerated(list(rest), 4)}"
    return replace(table, rows=table.rows[:most], notes=(*([more] if rest else []), *table.notes))
