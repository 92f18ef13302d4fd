"""What becomes of bytes on a bad disk, and of settings in careless hands."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from vqcore.config import problems_of


def examples(count: int) -> Callable[[Any], Any]:
    """So many inputs, the same ones each time: a change of the code alone makes a test fail."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),  # a failing input as it was found is telling enough
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


fraction = st.floats(0, 1, exclude_max=True)
"""A place in a file, or an element of a list."""
_blow = st.one_of(
    st.tuples(st.just("cut"), fraction, st.just(0)),
    st.tuples(st.just("flip"), fraction, st.integers(0, 7)),
    st.tuples(st.just("zero"), fraction, st.integers(1, 64)),
    st.tuples(st.just("remove"), fraction, st.integers(1, 64)),
    st.tuples(st.just("garbage"), fraction, st.integers(1, 64)),
)
blows = st.lists(_blow, min_size=1, max_size=3)
"""One to three of what can happen to a file, each at any place of it."""


def damaged(content: bytes, blows: list[tuple[str, float, int]]) -> bytes:
    """``content`` after ``blows``; it may be what it was."""
    for kind, place, size in blows:
        at = int(place * len(content))
        before, here, after = content[:at], content[at : at + size], content[at + size :]
        match kind:
            case "cut":
                content = before
            case "flip":
                content = before + bytes([content[at] ^ (1 << size)]) + content[at + 1 :] if content else b""
            case "zero":
                content = before + bytes(len(here)) + after
            case "remove":
                content = before + after
            case "garbage":
                content = before + bytes((at * 7 + i * 151) % 256 for i in range(size)) + here + after
    return content


texts = st.one_of(
    st.sampled_from(
        [
            "", " ", "x", "nan", "../../x", "/etc/passwd", "a\nb", "\x00", "\x1b[31m", "[red]x[/red]", "[/]",
            "<script>alert(1)</script>", "a|b", "$x$", "é", "🦉", "x" * 5000, "8,,5", "²,3",
        ]
    ),
    st.text(max_size=8),
)  # fmt: skip
numbers = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 10**9, 10**18, -(2**63), 2**63 - 1, 0.0, -0.5, 0.5, 1e308, 5e-324]),
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
)
absurd = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
)
"""Whatever JSON and TOML can say."""


def tables_in(value: object) -> Iterator[dict[str, Any]]:
    """A table and all those in it."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from tables_in(inner)


def made_or_refused(make: Callable[[], Any]) -> Any:
    """The result of ``make``; None where it refuses, with problems that a person can read."""
    made: list[Any] = []
    problems = problems_of(lambda: made.append(make()))
    assert all(problem.strip() and len(problem) < 20_000 and "Traceback" not in problem for problem in problems)
    assert bool(problems) != bool(made)
    return made[0] if made else None


def exit_code(run: Callable[[], int]) -> int:
    """The exit code of a command, which says why where it is 2, and never shows a traceback."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        try:
            code = run()
        except SystemExit as left:  # tyro's own words
            code = int(left.code or 0)
    assert code != 2 or errors.getvalue().strip()
    assert "Traceback" not in out.getvalue() + errors.getvalue()
    return code
