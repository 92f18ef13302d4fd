"""The registry of metrics: the columns that the epochs of a trial report, and which way each of them is better.

To add a metric: compute it where ``vqcore.training`` reports its metrics, and add one line to ``METRICS``. Flags, the
live screen, tables, figures, exports and the units in ``results.parquet`` read it here (docs/extending.md).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from vqcore.errors import ConfigError

Direction = Literal["min", "max"]
"""Whether less or more of a metric is better."""


def sign(direction: Direction) -> float:
    """The factor that makes less better."""
    return 1.0 if direction == "min" else -1.0


@dataclass(frozen=True)
class Metric:
    """A metric of the whole test set. Its column with ``train_`` in front is the same of the training set."""

    column: str
    name: str
    """The noun of sentences and table heads: ``MSE``."""
    unit: str
    """Its definition, as ``results.parquet`` has it in its metadata."""
    direction: Direction | None = None
    """The usual direction; none where no direction is better by itself, so that an objective must name one."""
    least: float = 0.0
    """The smallest possible value, where an interval is cut off."""
    axis: str | None = None
    """The end of an axis label, after the name; a colon and ``unit`` unless given."""
    scale: str = ""
    """The words that follow a number in a sentence, instead of the set of images."""
    head: str = ""
    """The head of its table column where ``name`` says too little."""
    ratio: bool = False
    """Whether two values are compared by their ratio, so that a forecast is of the logarithm; then all are positive."""
    live: str = ""
    """Its number format on the live screen, which shows only metrics that have one."""
    trained: bool = True
    """Whether there is the same of the training set."""
    at_end: bool = False
    """Whether it is known after a trial's last epoch alone, so that nothing can be decided by it before."""

    @property
    def label(self) -> str:
        """Name, unit and set of images, for an axis or a sentence."""
        images = "training set" if self.column.startswith("train_") else "whole test set"
        axis = (self.unit and f": {self.unit}") if self.axis is None else self.axis
        return f"{self.name}{axis}, {images}"


_DISTANCE = "unweighted mean squared distance of encoder outputs to their codes"
METRICS = {
    metric.column: metric
    for metric in (
        Metric(
            "mse", "MSE", "mean squared error on [-1, 1]", "min", 0, " on [-1, 1]", "on [-1, 1]", ratio=True,
            live=".4f",
        ),
        Metric(
            "perplexity", "perplexity",
            "codes: exp of the entropy of code use, from one histogram over the whole set",
            "max", least=1.0, axis="", ratio=True, live=".1f",
        ),
        Metric("usage", "usage", "share of the codes used at least once", "max", live=".0%"),
        Metric(
            "bits", "rate", "bits an image: log2 of perplexity times codes an image", "min",
            axis=", bits an image under an ideal entropy coder", scale="bits an image", head="entropy",
        ),
        Metric(
            "bits_uniform", "fixed-length rate", "bits an image: log2 of the codebook size times codes an image", "min",
            axis=", bits an image at log2 K a code", scale="bits an image", head="uniform", trained=False,
        ),
        Metric(
            "bits_unigram", "unigram rate",
            "bits an image: cross entropy under the training set's code counts of the epoch, plus one each", "min",
            axis=", bits an image under the training set's unigram code", scale="bits an image", head="unigram code",
            trained=False,
        ),
        Metric(
            "bits_learned", "learned rate",
            "bits an image: under a causal prior that was trained on the training set's codes after the last epoch",
            "min", axis=", bits an image under a learned prior", scale="bits an image", head="learned prior",
            trained=False, at_end=True,
        ),
        Metric("loss", "loss", "total training objective on [-1, 1]; not comparable across commitment_weight"),
        Metric("codebook_loss", "codebook loss", _DISTANCE),
        Metric("commitment_loss", "commitment loss", _DISTANCE),
    )
}  # fmt: skip
"""By column, in the order of the columns of ``results.parquet``."""


RATES = ("bits_uniform", "bits", "bits_unigram", "bits_learned")
"""The columns of rates, in bits an image: of an index of fixed length; of the entropy of the test set's own codes, a
bound for what knows frequencies alone; of a code with the training set's frequencies; of one with a learned prior."""


def reported() -> tuple[str, ...]:
    """The columns that a trial reports after each epoch; after the last alone those that are known ``at_end``."""
    trained = (f"train_{column}" for column, metric in METRICS.items() if metric.trained)
    return (*METRICS, *trained, "seconds")


def metric_of(column: str) -> Metric:
    """The metric of a column, ``train_`` columns included; an unknown column is a metric with that name alone."""
    base = column.removeprefix("train_")
    metric = METRICS.get(base, Metric(base, base, ""))
    return metric if base == column else replace(metric, column=column, name=f"training {metric.name}", scale="")


@dataclass(frozen=True)
class Objective:
    """A column of the results to be minimised or maximised."""

    column: str
    direction: Direction = "min"

    def minimised(self, metrics: Mapping[str, float]) -> float:
        """The column's value, its sign such that less is better; NaN if the metrics do not have it."""
        return self.signed(float(metrics.get(self.column, float("nan"))))

    def signed(self, value: float) -> float:
        """A value of the column, its sign such that less is better."""
        return sign(self.direction) * value

    @property
    def metric(self) -> Metric:
        """The column's entry in the registry."""
        return metric_of(self.column)

    @property
    def name(self) -> str:
        """The metric's name: ``MSE``."""
        return self.metric.name

    @property
    def best(self) -> str:
        """The superlative: ``lowest MSE``."""
        return f"{'lowest' if self.direction == 'min' else 'highest'} {self.name}"

    @property
    def unit(self) -> str:
        """The words that follow a value: ``on [-1, 1]``."""
        images = "of the training set" if self.column.startswith("train_") else "of the whole test set"
        return self.metric.scale or images

    def __str__(self) -> str:
        return f"{self.column}:{self.direction}"


DEFAULT = (Objective("mse", "min"), Objective("perplexity", "max"))
"""The objectives of a sweep that names none."""

_USUAL = [column for column, metric in METRICS.items() if metric.direction]
HELP = (
    "One or two columns of the results: mse perplexity, or mse bits for the rate; bits_learned takes --rate learned. "
    f"{', '.join(_USUAL)} have a usual direction; another is given one, as loss:min."
)
"""Help of the flag ``--objectives``."""


def objectives(specifications: Iterable[str]) -> tuple[Objective, ...]:
    """``["mse", "usage:max"]`` as objectives. ``ConfigError`` with every problem."""
    found: list[Objective] = []
    problems = []
    for text in specifications:
        column, _, given = text.partition(":")
        direction = given or (METRICS[column].direction if column in METRICS else None)
        if direction not in get_args(Direction):
            problems.append(f"objective {text!r}: say whether less or more is better, as {column}:min or {column}:max")
        elif column in (objective.column for objective in found):
            problems.append(f"objective {text!r}: {column} is there already; name each column once")
        else:
            found.append(Objective(column, direction))  # type: ignore[arg-type]
    if not found and not problems:
        problems.append("objectives: none is given; mse perplexity is usual")
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def recorded(text: Any) -> tuple[Objective, Objective]:
    """The two objectives of a run's front, from its record: ``"mse:min bits:min"``.

    ``DEFAULT`` fills in for what is missing (all of it in older runs) or cannot be read.
    """
    try:
        given = objectives(str(text or "").split())
    except ConfigError:
        given = ()
    missing = (objective for objective in DEFAULT if objective.column not in {found.column for found in given})
    first, second, *_ = (*given, *missing)
    return first, second
