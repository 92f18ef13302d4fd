"""What one training is: frozen dataclasses, checked as they are made, to and from flat columns and TOML.

Field names are unique across the dataclasses, so a configuration can also be read and written flat: one column a field,
under the name that command lines, ``results.parquet`` and MLflow use.
"""

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from vqcore.estimators import ESTIMATORS

Precision = Literal["auto", "fp32", "bf16"]
Scalar = str | int | float | bool

MAX_SEED = 2**32 - 1
"""Leaves room in torch's 64 bits for mixing in the epoch."""


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, a line each: the value, the rule, the next step."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


def problems_of(make: Callable[[], object]) -> tuple[str, ...]:
    """The problems that ``make()`` raises as ``ConfigError``; none if it succeeds."""
    try:
        make()
    except ConfigError as error:
        return error.problems
    return ()


def _at_least(config: Any, minimum: int, *names: str) -> Iterable[str]:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            yield f"{name} = {value!r}: must be a whole number, at least {minimum}"


def _number(value: object, rule: Callable[[float], bool]) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and rule(value)


class _Checked:
    """A dataclass that refuses to exist with problems."""

    def __post_init__(self) -> None:
        if problems := tuple(self._problems()):
            raise ConfigError(problems)
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            if one.type is float:  # 1 and 1.0 are equal, and must give a trial one key
                object.__setattr__(self, one.name, float(getattr(self, one.name)))

    def _problems(self) -> Iterable[str]:
        raise NotImplementedError  # pragma: no cover - every config says what its rules are


@dataclass(frozen=True)
class QuantizerConfig(_Checked):
    """One quantization layer."""

    codebook_size: int = 512
    """Number of codes K, at least 2."""
    dim: int = 64
    """Length D of a code."""
    estimator: str = "rotation"
    """How the gradient crosses the quantizer: a name in ``vqcore.estimators.ESTIMATORS``."""
    commitment_weight: float = 0.25
    """β of van den Oord et al. 2017, equation 3: the weight of ‖z − sg q‖². The codebook's weight is 1."""
    decay: float = 0.99
    """γ of the codebook's moving averages, between 0 and 1."""

    def _problems(self) -> Iterable[str]:
        yield from _at_least(self, 2, "codebook_size")
        yield from _at_least(self, 1, "dim")
        if not isinstance(self.estimator, str) or self.estimator not in ESTIMATORS:
            yield f"estimator = {self.estimator!r}: there are {', '.join(sorted(ESTIMATORS))}"
        if not _number(self.commitment_weight, lambda v: v >= 0):
            beta = f"commitment_weight (beta) = {self.commitment_weight!r}"
            yield f"{beta}: must be a finite number, 0 or more; 0.25 is usual"
        if not _number(self.decay, lambda v: 0 < v < 1):
            yield f"decay = {self.decay!r}: must lie strictly between 0 and 1; 0.99 is usual, 0.8 to 0.9 for short runs"


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """Encoder, quantizer, decoder. The encoder halves the image's sides twice."""

    channels: int = 64
    """Channels after the first convolution (half the image's sides)."""
    hidden_channels: int = 128
    """Channels after the second convolution (a quarter of the image's sides) and in the residual blocks."""
    residual_channels: int = 32
    """Channels between the two convolutions of a residual block."""
    residual_blocks: int = 2
    """Residual blocks in the encoder, and again in the decoder."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """The layer between encoder and decoder."""

    def _problems(self) -> Iterable[str]:
        yield from _at_least(self, 1, "channels", "hidden_channels", "residual_channels")
        yield from _at_least(self, 0, "residual_blocks")


PRESETS: dict[str, ModelConfig] = {
    "compact": ModelConfig(),
    "paper": ModelConfig(128, 256, 256, 2, QuantizerConfig(codebook_size=1024, dim=256)),
}
"""Models by name. ``paper``: the anchor of *Rotational and Rescaling VQ-VAE*; ``compact``: a ninth of its work."""


@dataclass(frozen=True)
class TrainingConfig(_Checked):
    """How the model is trained: Adam at a constant rate, on images scaled to [-1, 1]."""

    epochs: int = 50
    """Passes over the training set: the budget. Not part of a trial's identity, so that a trial can be extended."""
    batch_size: int = 128
    """Images a step; what is left over at the end of an epoch is left out of it."""
    learning_rate: float = 2e-4
    """Adam's."""
    precision: Precision = "auto"
    """``auto``: bf16 and channels-last where the hardware computes bf16 itself, else fp32. Distances, codebook, losses
    and metrics are fp32 either way."""
    seed: int = 0
    """Of the initial weights and the order of the data; the same for every configuration compared."""

    def _problems(self) -> Iterable[str]:
        yield from _at_least(self, 1, "epochs", "batch_size")
        yield from _at_least(self, 0, "seed")
        if isinstance(self.seed, int) and self.seed > MAX_SEED:
            yield f"seed = {self.seed!r}: must be at most {MAX_SEED}; 0, 1, 2 are usual"
        if not _number(self.learning_rate, lambda v: v > 0):
            yield f"learning_rate = {self.learning_rate!r}: must be a finite number above 0; 2e-4 is usual"
        if self.precision not in get_args(Precision):
            yield f"precision = {self.precision!r}: there are {', '.join(get_args(Precision))}"


@dataclass(frozen=True)
class TrialConfig:
    """A training, whole: what a sweep varies and what an export holds."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def flat(self) -> dict[str, Scalar]:
        """Every field under its own name."""
        parts = dataclasses.asdict(self)
        model, training = parts["model"], parts["training"]
        return {**model.pop("quantizer"), **model, **training}

    @classmethod
    def from_flat(cls, values: Mapping[str, Scalar]) -> "TrialConfig":
        """The inverse of ``flat``; what is not named keeps its default. Raises ``ConfigError`` with every problem."""
        problems = [f"{name}: no such field; there are {', '.join(FIELDS)}" for name in values if name not in FIELDS]

        def build(kind: type, **nested: object) -> Any:
            own = {f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values}
            try:
                return kind(**own, **nested)
            except ConfigError as error:
                problems.extend(error.problems)
                return kind(**nested)

        quantizer = build(QuantizerConfig)
        trial = cls(build(ModelConfig, quantizer=quantizer), build(TrainingConfig))
        if problems:
            raise ConfigError(problems)
        return trial

    def replace(self, **changes: Scalar) -> "TrialConfig":
        """A copy with flat fields changed, checked again."""
        return TrialConfig.from_flat({**self.flat(), **changes})

    def key(self, data_hash: str) -> str:
        """Twelve hex digits that name this training: every field but ``epochs``, and the content of the data set."""
        identity = {name: value for name, value in self.flat().items() if name != "epochs"}
        canonical = json.dumps({**identity, "data_hash": data_hash}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def toml(self) -> dict[str, Any]:
        """Tables ``model``, ``model.quantizer`` and ``training``, ready for a TOML writer."""
        return dataclasses.asdict(self)

    @classmethod
    def from_toml(cls, tables: Mapping[str, Any]) -> "TrialConfig":
        """The inverse of ``toml``; other tables are left alone."""
        model, training = _table(tables, "model"), _table(tables, "training")
        quantizer = _table(model, "quantizer")
        return cls.from_flat({**quantizer, **{n: v for n, v in model.items() if n != "quantizer"}, **training})


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError([f"{name} = {table!r}: must be a table of fields; write [{name}] and its fields below it"])
    return table


FIELDS: tuple[str, ...] = tuple(TrialConfig().flat())
"""The names of all flat fields."""


def write_toml(path: Path, tables: Mapping[str, Any], header: str = "") -> None:
    """Write ``tables`` under ``header``, each of whose lines becomes a comment."""
    comments = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    path.write_text(comments + ("\n" if comments else "") + tomli_w.dumps(dict(tables)), encoding="utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ``ConfigError`` when it is not one."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); name an existing TOML file"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: is not valid TOML ({error})"]) from error
