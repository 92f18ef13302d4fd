"""One table, two shapes: Markdown for files and a rich table for the terminal. Cells are text, never markup."""

import re
from dataclasses import dataclass

from rich.console import Group as Stack
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text


@dataclass(frozen=True)
class Table:
    """Rows under a title, and the notes without which they would mislead."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: int = 1
    """So many columns hold words, set to the left; the others hold numbers, set to the right."""

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


def shown(text: str, style: str = "") -> Text:
    """``text`` for a terminal: no markup, and none of the characters that command it."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text), style=style)


def markdown_text(text: str) -> str:
    """``text`` so that Markdown shows it as it is, on one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|~$]|\](?=\s?[\[(]))", r"\\\1", flat)
