"""The configuration of one training: frozen dataclasses, checked as they are made, to and from flat columns and TOML.

Field names are unique across the dataclasses, so a configuration can also be read and written flat: one column a field,
under the name that command lines, ``results.parquet`` and MLflow use.
"""

import dataclasses
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from vqcore.errors import ConfigError as ConfigError
from vqcore.errors import Problems
from vqcore.errors import problems_of as problems_of
from vqcore.fields import MOST, Checked, name_from, number, whole
from vqcore.registry import ARCHITECTURES, GUMBEL, estimator_names, reads

Precision = Literal["auto", "fp32", "bf16"]
Layer = Literal["vq", "fsq"]
Preset = Literal["compact", "paper"]
Codebook = Literal["ema", "ema_debiased", "gradient"]
Init = Literal["uniform", "normal", "kmeans++"]
Normalize = Literal["none", "inputs", "codes", "cosine"]
Affine = Literal["none", "learned", "statistics"]
Obtuse = Literal["rotate", "ste"]
Scalar = str | int | float | bool

MAX_SEED = 2**32 - 1
"""Leaves room in torch's 64 bits for mixing in the epoch."""

_AT_LEAST_0, _ABOVE_0, _SHARE = "a finite number, 0 or more", "a finite number above 0", "a share, 0 to 1"


@dataclass(frozen=True)
class QuantizerConfig(Checked):
    """One quantization layer. A field that does not apply to a choice must keep its default."""

    codebook_size: int = whole(512, 2)
    """Number of codes K, at least 2. With ``fsq`` it follows from ``levels``."""
    dim: int = whole(64, 1)
    """Length D of a code. With ``fsq`` it follows from ``levels``."""
    estimator: str = name_from("rotation", estimator_names)
    """How the gradient crosses the quantizer: a name in ``vqcore.registry.estimator_names()``."""
    commitment_weight: float = number(0.25, f"{_AT_LEAST_0}; 0.25 is usual", lambda v: v >= 0)
    """β of van den Oord et al. 2017, equation 3: the weight of ‖z − sg q‖²."""
    decay: float = number(
        0.99, "strictly between 0 and 1; 0.99 is usual, 0.8 to 0.9 for short runs", lambda v: 0 < v < 1
    )
    """γ of the moving averages, between 0 and 1; with ``gradient`` only those of how often a code is used."""
    layer: Layer = "vq"
    """``vq``: a learned codebook. ``fsq``: finite scalar quantization (Mentzer et al. 2023), a fixed grid."""
    levels: str = ""
    """``fsq`` alone: values a dimension can take, such as ``8,5,5,5``; K is their product, D their number."""
    symmetric: bool = False
    """``fsq`` alone: a grid symmetric about 0, its outermost values at -1 and 1."""
    max_rescale: float = number(10.0, _ABOVE_0, lambda v: v > 0)
    """``rotation`` alone: bound on the rescaling ‖q‖/‖z‖, without which a z near 0 gets a gradient without bound."""
    obtuse: Obtuse = "rotate"
    """Rotations alone: where z and its code are more than 90° apart, rotate all the same, or ``ste``
    (arXiv 2410.06424, section 6, names them as the trick's limitation)."""
    temperature: float = number(1.0, _ABOVE_0, lambda v: v > 0)
    """``gumbel`` alone: of the softmax over squared distances, above 0."""
    nu: float = number(0.0, _AT_LEAST_0, lambda v: v >= 0)
    """Share of the task's gradient that each code receives (Huh et al. 2023, synchronised commitment)."""
    codebook: Codebook = "ema"
    """How the codes move: ``ema``, ``ema_debiased`` (started from zero, corrected as in Adam), ``gradient``."""
    codebook_weight: float = number(1.0, _AT_LEAST_0, lambda v: v >= 0)
    """``gradient`` alone: the weight of ‖sg z − q‖²; 1 in van den Oord et al. 2017, equation 3."""
    init: Init = "uniform"
    """The first codes: ``uniform`` on (-1/K, 1/K), ``normal``, or ``kmeans++`` of the first training batch."""
    normalize: Normalize = "none"
    """To unit length: ``inputs`` before they are quantized, ``codes`` in effect, or both, the ``cosine`` codebook."""
    affine: Affine = "none"
    """Affine reparameterisation of the codes (Huh et al. 2023): ``learned``, or from running ``statistics``."""
    affine_groups: int = whole(1, 1)
    """Groups of consecutive codes, each with its own affine map; divides K."""
    affine_rate: float = number(1.0, _ABOVE_0, lambda v: v > 0)
    """``learned`` alone: η in (1 + η s) c + η b, a learning rate of the map relative to the codes'."""
    revive_below: float = number(0.0, _SHARE, lambda v: 0 <= v <= 1)
    """A code used less than this share of the average N/K is moved to a vector of the batch; 0 leaves it dead."""
    revive_share: float = number(0.1, _SHARE, lambda v: 0 <= v <= 1)
    """At most this share of the codes is moved in one step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer == "fsq":
            object.__setattr__(self, "codebook_size", math.prod(self.level_counts))
            object.__setattr__(self, "dim", len(self.level_counts))

    @property
    def level_counts(self) -> tuple[int, ...]:
        """``levels`` as numbers."""
        return tuple(int(part) for part in self.levels.split(",")) if self.levels else ()

    @property
    def loss_weight(self) -> float:
        """Weight of the quantization error in the layer's loss: β, and the codebook's where a gradient trains it."""
        return self.commitment_weight + (self.codebook_weight if self.codebook == "gradient" else 0.0)

    def _contradictions(self) -> Iterable[str]:
        if self.layer == "fsq":
            yield from self._fsq_problems()
            return
        for name, (condition, met) in _needs(vars(self)).items():
            if getattr(self, name) != DEFAULTS[name] and not met:
                yield f"{name} = {getattr(self, name)!r}: has a meaning only with {condition}; leave it out"
        sizes = (self.codebook_size, self.affine_groups)
        if all(isinstance(size, int) and size > 0 for size in sizes) and sizes[0] % sizes[1]:
            yield f"affine_groups = {self.affine_groups}: must divide codebook_size = {self.codebook_size}"
        if self.affine == "statistics" and self.affine_groups == self.codebook_size:
            yield f"affine_groups = {self.affine_groups}: statistics need at least two codes a group"

    def _fsq_problems(self) -> Iterable[str]:
        least = 2 if self.symmetric else 3  # an asymmetric pair gives all but the largest inputs one value
        parts = str(self.levels).split(",")
        counts = [int(part) for part in parts if part.strip().isdecimal() and len(part) < 10]
        if len(counts) < len(parts) or min(counts) < least or math.prod(counts) > MOST:
            rule = f"fsq needs whole numbers, each at least {least}{'' if self.symmetric else ' (2 if symmetric)'}"
            yield f"levels = {self.levels!r}: {rule}, such as 8,5,5,5: 1,000 codes of at most {MOST:,}"
        for name, value in meaningless(vars(self)).items():
            if name not in ("codebook_size", "dim", "decay", "alternate") and getattr(self, name) != value:
                yield f"{name} = {getattr(self, name)!r}: fsq, which learns nothing, takes {name} = {value!r}"


DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(QuantizerConfig)}


def _needs(flat: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """By field of a ``vq`` layer: the condition under which it has a meaning, and whether ``flat`` meets it."""
    estimator, by_gradient = flat["estimator"], flat["codebook"] == "gradient"
    return {
        "levels": ("layer = 'fsq'", False),
        "symmetric": ("layer = 'fsq'", False),
        "max_rescale": ("estimator = 'rotation', which alone rescales", reads(estimator, "max_rescale")),
        "obtuse": ("an estimator that rotates", reads(estimator, "obtuse")),
        "temperature": (f"estimator = {GUMBEL!r}", reads(estimator, "temperature")),
        "nu": (
            "codebook = 'gradient', since averages overwrite gradients, and not with 'gumbel', which has its own share",
            by_gradient and estimator != GUMBEL,
        ),
        "codebook_weight": ("codebook = 'gradient': moving averages have no loss", by_gradient),
        "affine": ("codebook = 'gradient': moving averages undo the map", by_gradient),
        "affine_groups": ("affine", flat["affine"] != "none"),
        "affine_rate": ("affine = 'learned'", flat["affine"] == "learned"),
        "revive_share": ("revive_below above 0", flat["revive_below"] != 0),
    }


def meaningless(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Flat fields that change nothing beside the others of ``flat``, and the one value that each then has."""
    if flat["layer"] == "fsq":
        usual = {name: value for name, value in DEFAULTS.items() if name not in ("layer", "levels", "symmetric")}
        return {**usual, "estimator": "ste", "commitment_weight": 0.0, "alternate": False}
    by_gradient = flat["codebook"] == "gradient"
    idle = {name for name, (_, met) in _needs(flat).items() if not met}
    idle |= {"decay"} if by_gradient and not flat["revive_below"] else set()
    return {name: DEFAULTS[name] for name in idle} | ({} if by_gradient else {"alternate": False})


@dataclass(frozen=True)
class ModelConfig(Checked):
    """Encoder, quantizer, decoder."""

    channels: int = whole(64, 1)
    """Channels after the first convolution (half the image's sides)."""
    hidden_channels: int = whole(128, 1)
    """Channels after the second convolution (a quarter of the image's sides) and in the residual blocks."""
    residual_channels: int = whole(32, 1)
    """Channels between the two convolutions of a residual block."""
    residual_blocks: int = whole(2, 0, 10_000)
    """Residual blocks in the encoder, and again in the decoder."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """The layer between encoder and decoder."""
    architecture: str = name_from("residual", lambda: ARCHITECTURES)
    """Encoder and decoder: a name in ``vqcore.registry.ARCHITECTURES``."""

    def size_problems(self, image_size: int) -> Iterable[str]:
        """Problems of images of this side, in pixels, for this architecture: a line, or none."""
        step = ARCHITECTURES[self.architecture].downsampling
        if image_size % step:
            near = max(step, round(image_size / step) * step)
            rule = f"architecture {self.architecture!r} takes multiples of {step}"
            yield f"images of {image_size} x {image_size}: {rule}; --image-size {near} resizes them"


PRESETS: dict[Preset, ModelConfig] = {
    "compact": ModelConfig(),
    "paper": ModelConfig(128, 256, 256, 2, QuantizerConfig(codebook_size=1024, dim=256)),
}
"""Models by name. ``paper``: the anchor of *Rotational and Rescaling VQ-VAE*; ``compact``: a ninth of its work."""


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How the model is trained: Adam at a constant rate, on images scaled to [-1, 1]."""

    epochs: int = whole(50, 1, 10**9 - 1)
    """Passes over the training set: the budget. Not part of a trial's identity, so that a trial can be extended."""
    batch_size: int = whole(128, 1)
    """Images a step; what is left over at the end of an epoch is left out of it."""
    learning_rate: float = number(2e-4, f"{_ABOVE_0}; 2e-4 is usual", lambda v: v > 0)
    """Adam's."""
    precision: Precision = "auto"
    """``auto``: bf16 and channels-last where the hardware computes bf16 itself, else fp32. Distances, codebook, losses
    and metrics are fp32 either way."""
    seed: int = whole(0, 0, MAX_SEED)
    """Of the initial weights and the order of the data; the same for every configuration compared."""
    alternate: bool = False
    """First a step of the codebook on its own loss, then one of the rest on the task's (Huh et al. 2023)."""


@dataclass(frozen=True)
class TrialConfig:
    """A training, whole: what a sweep varies and what an export holds."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        quantizer = self.model.quantizer
        if self.training.alternate and (quantizer.layer, quantizer.codebook) != ("vq", "gradient"):
            raise ConfigError(["alternate = True: needs codebook = 'gradient', whose steps alternate with the rest's"])

    def flat(self) -> dict[str, Scalar]:
        """Every field under its own name."""
        # not dataclasses.asdict: it copies every value deeply, seconds over the 10,000 trials of a resume
        flat = {**vars(self.model.quantizer), **vars(self.model), **vars(self.training)}
        del flat["quantizer"]
        return flat

    @classmethod
    def from_flat(cls, values: Mapping[str, Scalar]) -> "TrialConfig":
        """The inverse of ``flat``; what is not named keeps its default. Raises ``ConfigError`` with every problem."""
        unknown = [name for name in values if name not in FIELDS]
        problems = Problems(f"{name}: no such field; there are {', '.join(FIELDS)}" for name in unknown)

        def build(kind: type, **nested: object) -> Any:
            own = {f.name: values[f.name] for f in dataclasses.fields(kind) if f.name in values}
            return problems.of(lambda: kind(**own, **nested)) or kind(**nested)

        quantizer = build(QuantizerConfig)
        model, training = build(ModelConfig, quantizer=quantizer), build(TrainingConfig)
        problems.raise_any()
        return cls(model, training)

    def replace(self, **changes: Scalar) -> "TrialConfig":
        """A copy with flat fields changed, checked again."""
        return TrialConfig.from_flat({**self.flat(), **changes})

    def key(self, data_hash: str) -> str:
        """Twelve hex digits that name this training: every field but ``epochs``, and the content of the data set.

        A field that came later counts only where it has not its default: runs begun before it keep their keys.
        """
        fields = {n: v for n, v in self.flat().items() if n in _FIRST_FIELDS or v != _USUAL[n]}
        fields.pop("epochs", None)
        canonical = json.dumps({"data_hash": data_hash, **fields}, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def toml(self) -> dict[str, Any]:
        """Tables ``model``, ``model.quantizer`` and ``training``, ready for a TOML writer."""
        return dataclasses.asdict(self)

    @classmethod
    def from_toml(cls, tables: Mapping[str, Any]) -> "TrialConfig":
        """The inverse of ``toml``; other tables are left alone."""
        model, training = _table(tables, "model"), _table(tables, "training")
        flat = {**_table(model, "quantizer"), **model, **training}
        flat.pop("quantizer", None)
        return cls.from_flat(flat)


def read_settings(settings: Iterable[str]) -> dict[str, Scalar]:
    """``["codebook=gradient", "nu=0.1"]`` as flat fields, each in its type. ``ConfigError`` with every problem."""
    values: dict[str, Scalar] = {}
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        kind = type(_USUAL.get(name, ""))
        if not equals or name not in _USUAL:
            problems.append(f"{setting}: must be field=value; fields are {', '.join(FIELDS)}")
            continue
        try:
            values[name] = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
        except (ValueError, KeyError):
            problems.append(f"{setting}: {name} takes {'true or false' if kind is bool else 'a number'}")
    if problems:
        raise ConfigError(problems)
    return values


_FIRST_FIELDS = {
    "codebook_size", "dim", "estimator", "commitment_weight", "decay", "channels", "hidden_channels",
    "residual_channels", "residual_blocks", "batch_size", "learning_rate", "precision", "seed",
}  # fmt: skip


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, Mapping):
        raise ConfigError([f"{name} = {table!r}: must be a table of fields; write [{name}] and its fields below it"])
    return table


_USUAL = TrialConfig().flat()

FIELDS: tuple[str, ...] = tuple(_USUAL)
"""The names of all flat fields."""


def toml_text(tables: Mapping[str, Any], header: str = "") -> str:
    """``tables`` as TOML under ``header``, each of whose lines becomes a comment."""
    comments = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return comments + ("\n" if comments else "") + tomli_w.dumps(dict(tables))


def write_toml(path: Path, tables: Mapping[str, Any], header: str = "") -> None:
    """Write ``toml_text`` to a file."""
    path.write_text(toml_text(tables, header), encoding="utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ``ConfigError`` when it is not one."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a byte order mark first
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror}); name an existing TOML file"]) from error
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, and tables in tables without end
        raise ConfigError([f"{path}: is not valid TOML ({error})"]) from error
