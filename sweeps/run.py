"""A sweep from a TOML file, without a line of Python.

[space]
estimator = ["rotation", "ste"]
commitment_weight = {low = 0.05, high = 4.0, log = true}

[flags]          # for a new run; a resumed one has its own, and the command line wins over both
epochs = 20
trials = 60
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from sweeps.cli import command
from sweeps.engine.space import Range
from sweeps.engine.spec import SweepSpec
from sweeps.flags import SearchFlags, arguments_of
from trainables.commands import exit_code
from trainables.runs import NAME
from vqcore.config import ConfigError, read_toml
from vqcore.errors import Problems

USAGE = (
    "python -m sweeps run FILE.toml [flags]: FILE has a table [space] and, if wanted, one [flags]; --help lists them"
)


def run(arguments: Sequence[str]) -> int:
    """``python -m sweeps``: the exit code."""

    def work() -> int:
        if {"-h", "--help"} & {*arguments[:2]}:
            print(USAGE)
            tyro.cli(SearchFlags, prog="python -m sweeps run FILE.toml", args=["--help"])
        if len(arguments) < 2 or arguments[0] != "run":
            raise ConfigError([USAGE])
        path = Path(arguments[1])
        spec, flags = sweep_of(path)
        return command(path.stem, ("sweeps", "run", str(path)), SearchFlags, lambda _: spec, arguments[2:], flags)

    return exit_code(work)


def sweep_of(path: Path) -> tuple[SweepSpec, list[str]]:
    """The sweep of a file, and its flags as arguments. ``ConfigError`` with every problem."""
    tables = read_toml(path)
    space, flags = tables.pop("space", None), tables.pop("flags", {})
    problems = Problems(f"{path}: [{name}] is not known; {USAGE}" for name in tables)
    if not NAME.fullmatch(path.stem):
        problems.add(f"{path}: its name becomes the sweep's; use letters, digits, '.', '_' and '-'")
    if not isinstance(space, dict) or not isinstance(flags, dict):
        problems.add(f"{path}: has no table [space], or flags that are no table; {USAGE}")
        space, flags = {}, {}
    choices = {name: problems.of(partial(_choice, name, value)) for name, value in space.items()}
    problems.raise_any()
    return SweepSpec({name: choice for name, choice in choices.items() if choice is not None}), arguments_of(flags)


def _choice(name: str, value: Any) -> tuple[Any, ...] | Range:
    if isinstance(value, Mapping) and {"low", "high"} <= value.keys() <= {"low", "high", "log"}:
        return Range(**value)
    if isinstance(value, list) and not any(isinstance(one, list | dict) for one in value):
        return tuple(value)
    raise ConfigError([f"{name} = {value!r}: must be a list of values, or {{low = 0.05, high = 4.0, log = true}}"])
