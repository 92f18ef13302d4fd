"""The command line that every sweep has: check, run, analyse, say what was found."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import tyro
from rich.console import Console

from sweeps.engine.plan import print_plan
from sweeps.engine.request import Request, check_request
from sweeps.engine.session import run_session
from sweeps.engine.spec import Search, SweepSpec
from sweeps.flags import FIXED, Flags, SearchFlags, base_config, flags_from_toml, kept, search_of
from trainables.interruption import INTERRUPTED, PREEMPTED, Preempted, leave
from trainables.journal import latest_sweep
from trainables.runs import JOURNAL, command_line, find_run
from trainables.tracking import default_uri, without_password
from vqcore.config import ConfigError, read_toml

F = TypeVar("F", bound=Flags)


@dataclass(frozen=True)
class Start:
    """A sweep, and how it is started."""

    sweep: str
    """Its name, and that of the folder of its runs."""
    words: tuple[str, ...]
    """What follows ``python -m``, or ``python`` if it ends in ``.py``: a module, and words of its own."""


def request_of(start: Start, flags: Flags, spec: SweepSpec) -> Request:
    """The flags as the engine takes them."""
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


def command(start: Start, flags_type: type[F], spec: Callable[[F], SweepSpec], arguments: Sequence[str]) -> int:
    """``main`` as a function of the arguments; the exit code."""
    console = Console(highlight=False)
    with telling_errors() as told:
        flags = _parse(start, flags_type, arguments)
        ready = check_request(request_of(start, flags, spec(flags)))
        if flags.plan:
            print_plan(console, ready)
            return 0
        return run_session(ready, console)
    return told.code


class Told:
    """What ``telling_errors`` came to."""

    code = 0


@contextmanager
def telling_errors() -> Iterator[Told]:
    """What is asked wrongly is said in plain lines, without a traceback."""
    told = Told()
    try:
        yield told
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        told.code = 2
    except OSError as error:  # a folder that cannot be written, a disk that is gone
        print(f"{error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        told.code = 2
    except KeyboardInterrupt:
        print("Interrupted before the first trial.")
        told.code = INTERRUPTED
    except Preempted:
        print("Asked to end (SIGTERM); everything recorded is kept.")
        told.code = PREEMPTED


def _parse(start: Start, flags_type: type[F], arguments: Sequence[str]) -> F:
    """Flags from the command line, over those of the resumed run if there is one."""
    prog = command_line(*start.words)
    flags = tyro.cli(flags_type, prog=prog, args=arguments)
    if flags.resume is None:
        return flags
    folder = find_run(flags.resume, flags.out)
    if flags.name is not None:
        raise ConfigError([f"--name {flags.name}: a resumed run keeps its name, {folder.name}; leave it out"])
    if folder.parent.name != start.sweep:
        raise ConfigError([f"--resume {flags.resume}: is a run of python -m sweeps.{folder.parent.name}"])
    # the journal has them too, should sweep.toml be lost
    tables = latest_sweep(folder / JOURNAL).get("toml") or read_toml(folder / "sweep.toml")
    saved = flags_from_toml(flags_type, tables.get("flags", {}))
    resumed = tyro.cli(flags_type, prog=prog, args=arguments, default=saved)
    changed = [name for name in FIXED if getattr(resumed, name, None) != getattr(saved, name, None)]
    if changed:
        raise ConfigError(
            f"--{name.replace('_', '-')} {without_password(str(getattr(resumed, name)))}: run {folder.name} has "
            f"{getattr(saved, name)}, and a run keeps what its trials have in common; leave it out, or start a new run"
            for name in changed
        )
    return dataclasses.replace(resumed, name=folder.name, out=folder.parent.parent, resume=folder.name)
