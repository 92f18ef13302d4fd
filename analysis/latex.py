"""Text as pdflatex shows it with its standard encodings and no package."""

_MEANT = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "{''}", "`": "{`}",
    "[": "{[}", "*": "{*}",  # at the beginning of a row, after \\, they would be its options
    "±": r"$\pm$", "–": "--", "—": "---", "−": "$-$", "×": r"$\times$", "·": r"$\cdot$", "…": r"\dots{}", "²": "$^2$",
    "≤": r"$\leq$", "≥": r"$\geq$", "β": r"$\beta$", "→": r"$\to$", "←": r"$\leftarrow$",
}  # fmt: skip
_LIGATURES = "-',"
"""Two of one of these in a row would be shown as another character."""

_LETTERS = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ")
"""What pdflatex knows beyond ASCII in the font encoding that it starts with."""


def latex_text(text: str) -> str:
    """``text`` so that LaTeX shows it as it is, on one line, and reads nothing of it as a command.

    A character that pdflatex does not know is shown as its code point: ``U+4F60``.
    """
    flat = " ".join(text.split())
    pairs = zip(f" {flat}", flat, strict=False)
    return "".join(f"{{{c}}}" if c == before and c in _LIGATURES else _shown(c) for before, c in pairs)


def _shown(character: str) -> str:
    if meant := _MEANT.get(character):
        return meant
    known = character in _LETTERS or (character.isascii() and character.isprintable())
    return character if known else f"U+{ord(character):04X}"
