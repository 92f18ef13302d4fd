"""The command line that every sweep has: check, run, analyse, say what was found."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from rich.console import Console

from sweeps.engine.plan import print_plan
from sweeps.engine.request import Request, check_request
from sweeps.engine.session import INTERRUPTED, run_session
from trainables.runs import find_run
from trainables.sources import KNOWN
from trainables.tracking import default_uri, without_password
from vqcore.config import PRESETS, ConfigError, Precision, TrainingConfig, TrialConfig, read_settings, read_toml


@dataclass(frozen=True)
class Flags:
    """What every sweep can be told."""

    data: str = "cifar10-mini"
    """cifar10-mini (2,500 real images, embedded), cifar10 (downloaded), or a folder: a Parquet export,
    cifar-10-batches-py, or train/ and test/ with images."""
    image_size: int | None = None
    """Resize images to this side, in pixels; a multiple of 4."""
    preset: Literal["compact", "paper"] = "compact"
    """The model: compact (64/128 channels, 512 codes of 64), paper (128/256 channels, 1,024 codes of 256)."""
    codebook_size: int | None = None
    """Number of codes; the preset's unless given."""
    decay: float = 0.99
    """Of the codebook's moving averages. 0.99 is the textbook's; runs of under some 2,000 steps want 0.8 to 0.9."""
    epochs: int = 10
    """Passes of each trial over the training images."""
    batch_size: int = 128
    """Images a step."""
    learning_rate: float = 2e-4
    """Adam's."""
    precision: Precision = "auto"
    """auto is bf16 where the hardware has it."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE ...")] = ()
    """Any other field of the model and its training, such as codebook=gradient init=kmeans++ revive_below=0.05; a wrong
    name lists them all."""
    seeds: int = 3
    """Repetitions of each configuration, with seeds 0, 1, ..."""
    num_gpus: int | None = None
    """GPUs to use; all there are unless given, 0 trains on the CPU."""
    trials_per_gpu: float = 1
    """Trials that share a GPU; each may take its share of the memory and no more."""
    num_cpus: int | None = None
    """CPUs to use; all there are unless given."""
    address: str | None = None
    """A running Ray cluster to join, as host:port or auto, or inline: one trial at a time in this process, without
    Ray. Ray is started on this machine unless given."""
    name: str | None = None
    """Name of the run; the time of its start unless given."""
    out: Path = Path("runs")
    """Folder of all runs."""
    storage: Path | None = None
    """Folder for checkpoints; the run's own unless given. On a cluster, one that every node reaches."""
    tracking_uri: str | None = None
    """MLflow: a server's URL or sqlite:///file; <out>/mlflow.db unless given."""
    plan: bool = False
    """Say what the sweep would cost and stop."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Go on with a run, with its own flags; those given beside it win, so more --epochs or --seeds extend it."""


F = TypeVar("F", bound=Flags)
FIXED = (
    "data",
    "image_size",
    "preset",
    "codebook_size",
    "decay",
    "batch_size",
    "learning_rate",
    "precision",
    "set",
    "storage",
)
"""Flags that a run keeps: what its trials have in common, and where they lie."""


def base_config(flags: Flags, space: Mapping[str, tuple[Any, ...]]) -> TrialConfig:
    """What all trials share, from the flags, and the first value of what varies. ``ConfigError`` with every problem."""
    shared = {name: getattr(flags, name) for name in ("decay", "epochs", "batch_size", "learning_rate", "precision")}
    if flags.codebook_size is not None:
        shared["codebook_size"] = flags.codebook_size
    own = {field.name for field in dataclasses.fields(flags)} | {"seed"}
    set_here = read_settings(flags.set)
    problems = [f"--set {name}: has a flag of its own, --{name.replace('_', '-')}" for name in set_here if name in own]
    problems += [f"--set {name}: this sweep varies it; name its values there" for name in set_here if name in space]
    if problems:
        raise ConfigError(problems)
    # fields are judged together, so what varies must be there
    first = {name: values[0] for name, values in space.items() if values}
    return TrialConfig(PRESETS[flags.preset], TrainingConfig()).replace(**{**shared, **set_here, **first})


def request_of(sweep: str, flags: Flags, space: dict[str, tuple[Any, ...]]) -> Request:
    """The flags as the engine takes them."""
    return Request(
        sweep=sweep,
        base=lambda: base_config(flags, space),
        space=space,
        seeds=flags.seeds,
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
        flags=_kept(flags),
    )


def _kept(flags: Flags) -> dict[str, Any]:
    """The flags as ``sweep.toml`` keeps them for a resume, which may be typed in another folder."""
    kept = {name: value for name, value in dataclasses.asdict(flags).items() if value is not None}
    for name in ("plan", "resume", "name", "out"):
        kept.pop(name, None)
    if flags.data not in KNOWN and Path(flags.data).is_dir():
        kept["data"] = str(Path(flags.data).absolute())
    if flags.storage is not None:
        kept["storage"] = str(flags.storage.absolute())
    if flags.tracking_uri is not None:
        kept["tracking_uri"] = without_password(flags.tracking_uri)
    return kept


def main(sweep: str, flags_type: type[F], space: Callable[[F], dict[str, tuple[Any, ...]]]) -> None:
    """Run a sweep from the command line and exit: 0, 2 for what was asked wrongly, 130 after Ctrl-C."""
    code = command(sweep, flags_type, space, sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # all is written and closed; taking torch, ray and mlflow apart module by module costs another second or two
    os._exit(code)


def command(
    sweep: str, flags_type: type[F], space: Callable[[F], dict[str, tuple[Any, ...]]], arguments: Sequence[str]
) -> int:
    """``main`` as a function of the arguments; the exit code."""
    console = Console(highlight=False)
    try:
        flags = _parse(sweep, flags_type, arguments)
        ready = check_request(request_of(sweep, flags, space(flags)))
        if flags.plan:
            print_plan(console, ready.configs, ready.data, ready.booking)
            return 0
        return run_session(ready, console)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be written, a disk that is gone
        print(f"{error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted before the first trial.")
        return INTERRUPTED


def _parse(sweep: str, flags_type: type[F], arguments: Sequence[str]) -> F:
    """Flags from the command line, over those of the resumed run if there is one."""
    prog = f"python -m sweeps.{sweep}"
    flags = tyro.cli(flags_type, prog=prog, args=arguments)
    if flags.resume is None:
        return flags
    folder = find_run(flags.resume, flags.out)
    if flags.name is not None:
        raise ConfigError([f"--name {flags.name}: a resumed run keeps its name, {folder.name}; leave it out"])
    if folder.parent.name != sweep:
        raise ConfigError([f"--resume {flags.resume}: is a run of python -m sweeps.{folder.parent.name}"])
    saved = _flags_from_toml(flags_type, read_toml(folder / "sweep.toml").get("flags", {}))
    resumed = tyro.cli(flags_type, prog=prog, args=arguments, default=saved)
    changed = [name for name in FIXED if getattr(resumed, name) != getattr(saved, name)]
    if changed:
        raise ConfigError(
            f"--{name.replace('_', '-')} {getattr(resumed, name)}: run {folder.name} has {getattr(saved, name)}, and "
            "a run keeps what its trials have in common; leave it out, or start a new run"
            for name in changed
        )
    return dataclasses.replace(resumed, name=folder.name, out=folder.parent.parent, resume=folder.name)


def _flags_from_toml(flags_type: type[F], saved: dict[str, Any]) -> F:
    known = {field.name for field in dataclasses.fields(flags_type)}
    values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in saved.items() if n in known}
    if "storage" in values:
        values["storage"] = Path(values["storage"])
    return flags_type(**values)
