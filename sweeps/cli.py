"""The command line that every sweep has: check, run, analyse, say what was found."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from sweeps.engine.ray_settings import prepare_environment
from sweeps.engine.spec import SweepSpec
from sweeps.flags import FIXED, Flags, arguments_of, kept
from trainables.commands import Terminal, exit_code
from trainables.interruption import leave
from trainables.journal import read
from trainables.runs import JOURNAL, ONE_TRAINING, command_line, find_run
from trainables.tracking import without_password
from vqcore.config import ConfigError, read_toml

F = TypeVar("F", bound=Flags)


def main(sweep: str, flags_type: type[F], spec: Callable[[F], SweepSpec]) -> None:
    """Run a sweep from the command line and exit.

    The code: 0; 1 if no trial completed or the machinery failed; 2 for what was asked wrongly; 75 after SIGTERM, 130
    after Ctrl-C: ``--resume`` then goes on.
    """
    module = sys.modules["__main__"].__spec__
    leave(command(sweep, (module.name if module else sys.argv[0],), flags_type, spec, sys.argv[1:]))


def command(
    sweep: str,
    argv: tuple[str, ...],
    flags_type: type[F],
    spec: Callable[[F], SweepSpec],
    arguments: Sequence[str],
    file_flags: Sequence[str] = (),
) -> int:
    """``main`` as a function of the arguments; the exit code.

    ``argv`` is how the sweep is started, for ``command_line``; ``file_flags`` are the flags that a sweep's file gives.
    """

    def work() -> int:
        flags = _parse(sweep, command_line(*argv), flags_type, arguments, file_flags)
        terminal = Terminal()
        for warning in prepare_environment(flags.address):
            terminal.print(warning, style="yellow")
        # ray and the others take seconds to import: after the flags have turned out to be right
        from sweeps.engine.request import SweepRequest, check_request
        from sweeps.engine.session import run_session

        checked = check_request(SweepRequest(sweep, argv, flags, spec(flags)), terminal.print)
        if flags.plan:
            from sweeps.engine.plan import print_plan  # and torch, which a sweep leaves to its trials' processes

            print_plan(terminal, checked)
            return 0
        return run_session(checked, terminal)

    return exit_code(work, " before the first trial")


def _parse(sweep: str, prog: str, flags_type: type[F], arguments: Sequence[str], file_flags: Sequence[str]) -> F:
    """The flags of a new run: the command line's over the file's. Of a resumed one: the command line's over its own."""
    flags = tyro.cli(flags_type, prog=prog, args=[*file_flags, *arguments])
    if flags.resume is None:
        return flags
    folder = find_run(flags.resume, flags.out)
    if flags.name is not None:
        raise ConfigError([f"--name {flags.name}: a resumed run keeps its name, {folder.name}; leave it out"])
    recorded = read(folder / JOURNAL).sweep
    if recorded.get("sweep") in ONE_TRAINING:
        begun = recorded.get("tags", {}).get("command", f"python -m trainables.{recorded['sweep']}")
        rule = "is one training and no sweep; the command that began it goes on with it"
        raise ConfigError([f"--resume {flags.resume}: {folder} {rule}: {begun}"])
    tables = recorded.get("toml") or read_toml(folder / "sweep.toml")
    _check_home(sweep, folder, recorded.get("sweep", folder.parent.name), tables)
    names = {field.name for field in dataclasses.fields(flags_type)}  # an earlier version may have had others
    own = arguments_of({name: value for name, value in tables.get("flags", {}).items() if name in names})
    saved, resumed = (tyro.cli(flags_type, prog=prog, args=[*own, *further]) for further in ([], arguments))
    before, now = kept(saved), kept(resumed)
    changed = [name for name in FIXED if before.get(name) != now.get(name)]
    if changed:
        raise ConfigError(
            f"--{name.replace('_', '-')} {without_password(str(getattr(resumed, name)))}: run {folder.name} has "
            f"{getattr(saved, name)}, and a run keeps what its trials have in common; leave it out, or start a new run"
            for name in changed
        )
    return dataclasses.replace(resumed, name=folder.name, out=folder.parent.parent, resume=folder.name)


def _check_home(resumed_as: str, folder: Path, sweep: str, tables: Mapping[str, Any]) -> None:
    """``ConfigError`` if the run in ``folder``, one of ``sweep``, is resumed as another's, or lies in its folder."""
    if sweep != resumed_as:
        begun = tables.get("provenance", {}).get("command")
        how = f", begun with `{begun}`" if begun else ""
        raise ConfigError([f"--resume {folder}: is a run of the sweep {sweep}{how}; resume it with that command"])
    if folder.absolute().parent.name != sweep:
        home = folder.absolute().parent / sweep / folder.name
        raise ConfigError([f"--resume {folder}: a run of {sweep} lies in a folder of that name; move it to {home}"])
