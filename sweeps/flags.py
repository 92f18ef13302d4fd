"""The flags of sweeps, and what they mean to the engine."""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from analysis.objectives import HELP, RATES, Objective, metric_of, objectives, reported
from sweeps.engine.scheduler import Halving
from sweeps.engine.space import SIZE, Constraint, Range, Space, resolve
from sweeps.engine.spec import MOST_TRIALS, Search
from sweeps.engine.stopping import FreezeThaw, Rule
from trainables.job import Collapse, Rate
from trainables.journal import read
from trainables.runs import JOURNAL, PRIOR_RUN, find_run
from trainables.sources import KNOWN
from trainables.storage import is_bucket
from trainables.tracking import accept, without_password
from vqcore.config import (
    PRESETS,
    ConfigError,
    Precision,
    Preset,
    Scalar,
    TrainingConfig,
    TrialConfig,
    meaningless,
    read_settings,
)
from vqcore.errors import Problems
from vqcore.registry import estimator_names

EstimatorNames = Annotated[tuple[str, ...], tyro.conf.arg(help=f"Gradient estimators: {', '.join(estimator_names())}.")]
"""The type of a flag that names some."""


@dataclass(frozen=True)
class Flags:
    """The flags of every sweep."""

    data: str = "cifar10-mini"
    """cifar10-mini (2,500 real images, embedded), cifar10 (downloaded), or a folder: a Parquet export,
    cifar-10-batches-py, or train/ and test/ with images."""
    image_size: int | None = None
    """Resize images to this side, in pixels; a multiple of 4."""
    preset: Preset = "compact"
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
    """Any other field of the model and its training, such as init=kmeans++; a wrong name lists them all."""
    snapshots: tuple[float, ...] = ()
    """Per cent of the epochs after which each trial keeps a snapshot for pictures of its codebook, such as
    0 25 50 75 99; 0 is before training."""
    snapshot_epochs: tuple[int, ...] = ()
    """Numbers of epochs after which to keep one as well."""
    rate: Rate = "unigram"
    """learned trains a small prior on each trial's codes after its last epoch, for the column bits_learned: the bits an
    image that it leaves. The rates of simpler codes are always there."""
    seeds: int = 3
    """Repetitions of each configuration, with seeds 0, 1, ..."""
    num_gpus: int | None = None
    """GPUs to use; all there are unless given, 0 trains on the CPU."""
    trials_per_gpu: float | Literal["auto"] = 1
    """Trials that share a GPU; each may take its share of the memory and no more. auto measures which of 1, 2, 4, 8 and
    16 trains most, within two minutes; a resume keeps that while GPU, torch and model are the same."""
    pack: int = 1
    """Trials that train in one process as one fused model, in each place that --trials-per-gpu gives; without a GPU, on
    each CPU, where it does not pay. Their numbers differ from those of trials alone by rounding."""
    num_cpus: int | None = None
    """CPUs to use; all there are unless given."""
    address: str | None = None
    """A running Ray cluster to join, as host:port or auto, or inline: one trial at a time in this process, without
    Ray. Ray is started on this machine unless given."""
    name: str | None = None
    """Name of the run; the time of its start unless given."""
    out: Path = Path("runs")
    """Folder of all runs."""
    storage: str | None = None
    """For checkpoints: a folder, or s3://bucket/prefix; the run's own folder unless given. On a cluster of several
    machines, one that each of them reaches."""
    tracking_uri: str | None = None
    """MLflow: a server's URL or sqlite:///file; <out>/mlflow.db unless given."""
    plan: bool = False
    """Say what the sweep would cost and stop."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Go on with a run, with its own flags; those given beside it win, so more --epochs or --seeds extend it."""


@dataclass(frozen=True)
class SearchFlags(Flags):
    """The flags of a sweep that searches: trials are drawn, stopped early, and repeated near the front."""

    sampler: Literal["tpe", "nsga2", "gp", "random", "grid"] = "tpe"
    """Who chooses the configurations: Optuna's samplers, or every point of the grid."""
    trials: int = 60
    """Configurations to draw; grid takes them all."""
    objectives: Annotated[tuple[str, ...], tyro.conf.arg(help=HELP)] = ("mse", "perplexity")
    early_stopping: Literal["auto", "asha", "none"] = "auto"
    """auto forecasts how each trial ends and stops what is improbable to matter (docs/early-stopping.md); asha stops by
    rank at fixed rungs; none trains all in full."""
    stop_chance: float | None = None
    """auto: a trial is stopped that is less probable than this to end on the front, or with the best of one objective;
    0.05 unless given."""
    compare_within: Literal["auto", "codebook_size", "estimator", "all"] = "auto"
    """The trials that a trial is compared with: those with as many codes, of its estimator, or all. auto: as many
    codes; all where the rate is an objective; its estimator where sweeps.estimators compares those."""
    grace: int | None = None
    """asha: epochs before a trial is first compared; 1 unless given."""
    reduction: float | None = None
    """asha: of the trials compared, one in so many goes on; 3 unless given."""
    collapse_usage: float = 0.01
    """Stop a trial that used less than this share of its codes after three epochs in a row; 0 never does."""
    budget: int | None = None
    """Epochs that may be trained in all; what early stopping leaves of it goes to the best that wait."""
    constraints: tuple[str, ...] = ()
    """What a configuration must meet, such as "perplexity >= 200" "parameters <= 2e6"."""
    search_seed: int = 0
    """Of what the search draws by chance; the trials' own seeds are 0, 1, ..."""
    warm_start: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A run whose trials the sampler knows from the beginning."""
    seeds: int = 1
    """With more than 1, configurations near the front are trained with up to so many seeds."""


FIXED = (
    "data", "image_size", "preset", "codebook_size", "decay", "batch_size", "learning_rate", "precision", "set", "rate",
    "storage", "sampler", "objectives", "early_stopping", "stop_chance", "compare_within", "grace", "reduction",
    "collapse_usage", "constraints", "search_seed", "warm_start",
)  # fmt: skip
"""Flags that a run keeps: what its trials have in common, and where they lie."""


def base_config(flags: Flags, space: Space) -> TrialConfig:
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
    # fields are judged together, so what varies must be there, unless it has no meaning beside the others
    first = {n: values.low if isinstance(values, Range) else values[0] for n, values in space.items() if values}
    preset, idle = TrialConfig(PRESETS[flags.preset], TrainingConfig()), dict[str, Scalar]()
    with suppress(ConfigError):  # the contradiction is said with all else
        idle = meaningless(resolve(preset, {**set_here, **first}).flat())
    return preset.replace(**{**shared, **set_here, **{name: idle.get(name, value) for name, value in first.items()}})


def search_of(flags: Flags, stratify_by: str = "") -> Search | None:
    """The search that the flags describe; None of a plain grid. ``ConfigError`` with every problem."""
    if not isinstance(flags, SearchFlags):
        return None
    problems = Problems()
    aims = problems.of(lambda: objectives(flags.objectives)) or ()
    rule = problems.of(lambda: _rule(flags, aims, stratify_by)) if aims else None
    constraints = [found for text in flags.constraints if (found := problems.of(partial(Constraint.parse, text)))]
    warm_start = problems.of(partial(_warm_start, flags.warm_start, flags.out)) if flags.warm_start else None
    for column in [*(aim.column for aim in aims), *(c.column for c in constraints if c.column != SIZE)]:
        if column not in reported():
            problems.add(f"{column}: no trial reports it; there are {', '.join(reported())}, and {SIZE} in constraints")
        elif metric_of(column).at_end and flags.rate != "learned":
            problems.add(f"{column}: no trial reports it with --rate {flags.rate}; add --rate learned")
    problems.add(*_too_late(flags, aims))
    if not 1 <= flags.trials <= MOST_TRIALS:
        problems.add(f"trials = {flags.trials}: must be 1 to {MOST_TRIALS:,}")
    if flags.budget is not None and flags.budget < flags.epochs:
        problems.add(f"budget = {flags.budget}: not enough for one trial of {flags.epochs} epochs")
    if not 0 <= flags.collapse_usage <= 1:
        problems.add(f"collapse_usage = {flags.collapse_usage:g}: is a share of the codes, 0 to 1; 0.01 is usual")
    problems.raise_any()
    return Search(
        objectives=aims,
        sampler=None if flags.sampler == "grid" else flags.sampler,
        trials=flags.trials,
        rule=rule,
        budget=flags.budget,
        constraints=tuple(constraints),
        warm_start=warm_start,
        seed=flags.search_seed,
        collapse=Collapse(flags.collapse_usage) if flags.collapse_usage else None,
    )


def _warm_start(name: str, out: Path) -> Path:
    """The run to learn from, whose trials train models."""
    folder = find_run(name, out)
    if read(folder / JOURNAL).sweep.get("sweep") == PRIOR_RUN:
        rule = "is a prior's run, whose configurations are no model's"
        raise ConfigError([f"--warm-start {name}: {folder} {rule}; name a sweep"])
    return folder


def _too_late(flags: SearchFlags, aims: tuple[Objective, ...]) -> list[str]:
    """Objectives that are not known yet when early stopping decides by them."""
    rule = flags.early_stopping
    return [
        f"objective {aim.column}: is known after a trial's last epoch alone, and --early-stopping {rule} decides by "
        "earlier ones; add --early-stopping none, or take bits_unigram, which each epoch reports"
        for aim in aims
        if aim.metric.at_end and rule != "none"
    ]


def _rule(flags: SearchFlags, aims: tuple[Objective, ...], stratify_by: str) -> Rule | None:
    group = None if any(aim.column in RATES for aim in aims) else "codebook_size"
    if flags.compare_within != "auto":
        group = None if flags.compare_within == "all" else flags.compare_within
    elif stratify_by:  # strata are searched apart: none is stopped by the trials of another
        group = stratify_by
    of_asha, of_auto = {"grace": flags.grace, "reduction": flags.reduction}, {"stop_chance": flags.stop_chance}
    foreign = {"asha": of_auto, "auto": of_asha, "none": {**of_asha, **of_auto}}[flags.early_stopping]
    problems, useless = Problems(), f"does nothing with --early-stopping {flags.early_stopping}"
    problems.add(*(f"{name} = {value:g}: {useless}" for name, value in foreign.items() if value is not None))
    rule: Rule | None = None
    if flags.early_stopping == "asha":
        grace, reduction = 1 if flags.grace is None else flags.grace, flags.reduction
        rule = problems.of(lambda: Halving(aims, grace, 3.0 if reduction is None else reduction, group))
    elif flags.early_stopping == "auto":
        rule = problems.of(lambda: FreezeThaw(aims, group, 0.05 if flags.stop_chance is None else flags.stop_chance))
    problems.raise_any()
    return rule


def kept(flags: Flags) -> dict[str, Any]:
    """The flags as ``sweep.toml`` keeps them for a resume, which may be typed in another folder."""
    of_one_start = ("plan", "resume", "name", "out")
    kept = {n: v for n, v in dataclasses.asdict(flags).items() if v is not None and n not in of_one_start}
    if flags.data not in KNOWN and Path(flags.data).expanduser().is_dir():
        kept["data"] = str(Path(flags.data).expanduser().absolute())
    if flags.storage is not None and not is_bucket(flags.storage):
        kept["storage"] = str(Path(flags.storage).absolute())
    if flags.tracking_uri is not None:
        with suppress(ConfigError):  # what is wrong with it is said by the check
            kept["tracking_uri"] = accept(flags.tracking_uri)
        kept["tracking_uri"] = without_password(kept["tracking_uri"])
    if "warm_start" in kept:
        with suppress(ConfigError):
            kept["warm_start"] = str(find_run(kept["warm_start"], flags.out).absolute())
    return kept


def arguments_of(table: Mapping[str, Any]) -> list[str]:
    """The flags of a TOML table as arguments of a command line."""
    arguments = []
    for flag, value in table.items():
        name = f"--{flag.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(name if value else name.replace("--", "--no-", 1))
        elif isinstance(value, list):
            arguments += [name, *map(str, value)]
        else:
            arguments.append(f"{name}={value}")
    return arguments
