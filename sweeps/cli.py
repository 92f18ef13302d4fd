"""The command line that every sweep has: check, run, analyse, say what was found."""

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tyro

from sweeps.engine.ray_settings import prepare_environment
from sweeps.engine.spec import Search, SweepSpec
from sweeps.flags import FIXED, Flags, SearchFlags, base_config, flags_from_toml, kept, search_of
from trainables.commands import Terminal, exit_status
from trainables.interruption import leave
from trainables.journal import latest_sweep
from trainables.runs import JOURNAL, command_line, find_run
from trainables.tracking import default_uri, without_password
from vqcore.config import ConfigError, read_toml

if TYPE_CHECKING:
    from sweeps.engine.request import Request

F = TypeVar("F", bound=Flags)


@dataclass(frozen=True)
class Start:
    """A sweep, and how it is started."""

    sweep: str
    """Its name, and that of the folder of its runs."""
    words: tuple[str, ...]
    """What follows ``python -m``, or ``python`` if it ends in ``.py``: a module, and words of its own."""


def request_of(start: Start, flags: Flags, spec: SweepSpec) -> "Request":
    """The flags as the engine takes them."""
    from sweeps.engine.request import Request

    return Request(
        sweep=start.sweep,
        words=start.words,
        spec=lambda: replace(spec, seeds=flags.seeds, search=_search(flags, spec)),
        base=lambda: base_config(flags, spec.space),
        data=flags.data,
        image_size=flags.image_size,
        num_gpus=flags.num_gpus,
        trials_per_gpu=flags.trials_per_gpu,
        num_cpus=flags.num_cpus,
        address=flags.address,
        name=time.strftime("%Y%m%d-%H%M%S") if flags.name is None else flags.name,
        out=flags.out,
        storage=flags.storage,
        tracking_uri=flags.tracking_uri or default_uri(flags.out),
        resume=flags.resume is not None,
        flags=kept(flags),
    )


def _search(flags: Flags, spec: SweepSpec) -> Search | None:
    if not isinstance(flags, SearchFlags):
        return None
    search = search_of(flags)
    if (
        spec.stratify_by and search.rule is not None and flags.compare_within == "auto"
    ):  # what is searched apart is not stopped by what the others do
        return replace(search, rule=replace(search.rule, group_by=spec.stratify_by))
    return search


def main(sweep: str, flags_type: type[F], spec: Callable[[F], SweepSpec]) -> None:
    """Run a sweep from the command line and exit.

    The code: 0; 1 if no trial completed or the machinery failed; 2 for what was asked wrongly; 75 after SIGTERM, 130
    after Ctrl-C: ``--resume`` then goes on.
    """
    module = sys.modules["__main__"].__spec__
    leave(command(Start(sweep, (module.name if module else sys.argv[0],)), flags_type, spec, sys.argv[1:]))


def command(
    start: Start,
    flags_type: type[F],
    spec: Callable[[F], SweepSpec],
    arguments: Sequence[str],
    file_flags: Sequence[str] = (),
) -> int:
    """``main`` as a function of the arguments; the exit code. ``file_flags`` are those that a sweep's file gives."""
    words = "Interrupted before the first trial.", "Ended by SIGTERM; everything recorded is kept."
    with exit_status(*words) as status:
        flags = _parse(start, flags_type, arguments, file_flags)
        terminal = Terminal()
        for warning in prepare_environment(flags.address):
            terminal.print(warning, style="yellow")
        # torch, ray and the others take seconds to import: after the flags have turned out to be right
        from sweeps.engine.plan import print_plan
        from sweeps.engine.request import check_request
        from sweeps.engine.session import run_session

        ready = check_request(request_of(start, flags, spec(flags)))
        if flags.plan:
            print_plan(terminal, ready)
            return 0
        return run_session(ready, terminal)
    return status.code


def _parse(start: Start, flags_type: type[F], arguments: Sequence[str], file_flags: Sequence[str]) -> F:
    """The flags of a new run: the command line's over the file's. Of a resumed one: the command line's over its own."""
    prog = command_line(*start.words)
    flags = tyro.cli(flags_type, prog=prog, args=[*file_flags, *arguments])
    if flags.resume is None:
        return flags
    folder = find_run(flags.resume, flags.out)
    if flags.name is not None:
        raise ConfigError([f"--name {flags.name}: a resumed run keeps its name, {folder.name}; leave it out"])
    recorded = latest_sweep(folder / JOURNAL)
    tables = recorded.get("toml") or read_toml(folder / "sweep.toml")
    _check_home(start, folder, recorded, tables)
    saved = flags_from_toml(flags_type, tables.get("flags", {}))
    resumed = tyro.cli(flags_type, prog=prog, args=arguments, default=saved)
    before, now = kept(saved), kept(resumed)
    changed = [name for name in FIXED if before.get(name) != now.get(name)]
    if changed:
        raise ConfigError(
            f"--{name.replace('_', '-')} {without_password(str(getattr(resumed, name)))}: run {folder.name} has "
            f"{getattr(saved, name)}, and a run keeps what its trials have in common; leave it out, or start a new run"
            for name in changed
        )
    return dataclasses.replace(resumed, name=folder.name, out=folder.parent.parent, resume=folder.name)


def _check_home(start: Start, folder: Path, recorded: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """``ConfigError`` if the run in ``folder`` is of another sweep, or lies in another sweep's folder."""
    sweep = recorded.get("sweep") or tables.get("sweep", {}).get("sweep") or folder.parent.name
    if sweep != start.sweep:
        begun = tables.get("provenance", {}).get("command")
        how = f", begun with `{begun}`" if begun else ""
        raise ConfigError([f"--resume {folder}: is a run of the sweep {sweep}{how}; resume it with that command"])
    if folder.absolute().parent.name != sweep:
        home = folder.absolute().parent / sweep / folder.name
        raise ConfigError([f"--resume {folder}: a run of {sweep} lies in a folder of that name; move it to {home}"])
