"""Tables for the terminal, as Markdown, LaTeX and CSV, their cells text and never markup; and files written whole."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from analysis.latex import latex_text
from trainables.storage import replace_file

Row = tuple[str, ...]
Record = Mapping[str, str | float | bool | None]
"""What a row holds, by the name of the CSV's column: numbers as numbers, nothing where nothing is known."""


@dataclass(frozen=True)
class Table:
    """Rows under a title, and the notes without which they would mislead."""

    title: str
    columns: Row
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    left: int = 1
    """The number of columns that hold text, set to the left; the others hold numbers, set to the right."""
    records: tuple[Record, ...] = ()
    """The same for programs: numbers in full, a column each."""

    def markdown(self) -> str:
        """The table as GitHub's Markdown, everything a name could smuggle in escaped."""
        rule = ["---" if index < self.left else "---:" for index in range(len(self.columns))]
        lines = [self.columns, *self.rows]
        escaped = [" | ".join(markdown_text(cell) for cell in line) for line in lines]
        body = [f"| {escaped[0]} |", f"| {' | '.join(rule)} |", *(f"| {line} |" for line in escaped[1:])]
        notes = [f"- {markdown_text(note)}" for note in self.notes]
        return "\n".join([f"## {markdown_text(self.title)}", "", *body, *([""] if notes else []), *notes]) + "\n"

    def rich(self) -> RenderableType:
        """The table for a terminal."""
        table = RichTable(title=shown(self.title), title_justify="left", header_style="bold", box=None)
        table.pad_edge, table.padding = False, (0, 1, 0, 0)  # 80 columns are few
        for index, column in enumerate(self.columns):
            table.add_column(Text(column), justify="left" if index < self.left else "right", vertical="top")
        for row in self.rows:
            table.add_row(*map(shown, row))
        return Stack(table, *(shown(note, "dim") for note in self.notes))

    def latex(self, label: str) -> str:
        r"""The table as a float of LaTeX with its notes below, for ``\ref{label}``. It needs booktabs and nothing else.

        Everything a name could smuggle in is escaped.
        """
        # a table of text alone has sentences in its cells, which break into lines
        sentences = self.left >= len(self.columns)
        left = rf"p{{{0.88 / len(self.columns):.2f}\linewidth}}" if sentences else "l"
        head, *rows = (
            " & ".join(map(cell, line)) + r" \\"
            for line, cell in [(self.columns, _stacked), *((row, latex_text) for row in self.rows)]
        )
        notes = [r"\par\smallskip\raggedright\footnotesize", *(rf"{latex_text(note)}\par" for note in self.notes)]
        lines = [
            r"\begin{table}  % \usepackage{booktabs}",
            r"\centering",
            rf"\caption{{{latex_text(self.title)}}}",
            rf"\label{{{label}}}",
            r"\small",
            rf"\begin{{tabular}}{{{left * self.left}{'r' * (len(self.columns) - self.left)}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}"),
            *(notes if self.notes else ()),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def csv(self) -> str:
        """The records as CSV with a head, floats in full and NaN left empty; of a table without records, its text."""
        buffer = StringIO()
        names = dict.fromkeys(name for record in self.records for name in record)
        rows = [[_plain(record.get(name)) for name in names] for record in self.records] if names else self.rows
        csv.writer(buffer, lineterminator="\n").writerows([tuple(names) or self.columns, *rows])
        return buffer.getvalue()


def _stacked(head: str) -> str:
    """A head for LaTeX, its lines above each other."""
    lines = r" \\ ".join(map(latex_text, head.split("\n")))
    return rf"\shortstack[r]{{{lines}}}" if "\n" in head else lines


def _plain(value: str | float | bool | None) -> str | float | bool | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def write_file(path: Path, content: bytes) -> Path:
    """Write a file of a run, and its folder; a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content, durable=False)
    return path


def shown(text: str, style: str = "") -> Text:
    """``text`` for a terminal: no markup, and none of the control characters."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), style=style)


def markdown_text(text: str) -> str:
    """``text`` so that Markdown shows it as it is, on one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|~$]|\](?=\s?[\[(]))", r"\\\1", flat)


def counted(number: int, noun: str) -> str:
    """``1 trial``, ``12 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def enumerated(names: Sequence[str], most: int = 8) -> str:
    """The names, or the first of them and how many more there are."""
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more" if rest > 0 else "")


def shortened(name: str, most: int) -> str:
    """The last ``most`` letters of a name: runs of one day begin alike."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
