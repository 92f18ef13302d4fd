"""Learned priors over the codes of a model, as their runs left them: rates in bits, curves, and seeds together."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from analysis.results import Results
from analysis.stats import Estimate
from trainables.journal import TrialRecord, read
from trainables.models import MODEL, PRIOR, RATES, model_hash
from trainables.runs import JOURNAL, PRIOR_RUN, described
from vqcore.config import ConfigError, read_toml

_SIZES = ("width", "layers", "heads")
_NOT_COMPARED = ("seed", "best_epoch")


class Rate(NamedTuple):
    """What test images cost under a prior."""

    prior: str
    bits: float
    """An image, on average."""
    low: float
    """End of the 95 % interval over test images."""
    high: float
    """The other end."""
    per_dimension: float
    """Bits a number of the image."""


class Rates(NamedTuple):
    """The content of ``rates.json``."""

    test_images: int
    rows: tuple[Rate, ...]
    """Uniform, unigram entropy, unigram code, and the learned one of a prior that learns more than counts."""
    under: tuple[float, float, float] | None
    """Per cent of the unigram entropy that the learned rate saves, with the 95 % interval over test images."""
    samples: tuple[Mapping[str, float | str], ...]
    """Of each set of images its name, ``images``, and how close it is to real ones: precision, recall."""

    @property
    def entropy(self) -> float:
        """Of the test codes' own frequencies, bits an image."""
        return self.rows[1].bits


@dataclass(frozen=True)
class LearnedPrior:
    """One training of a prior."""

    folder: Path
    config: Mapping[str, Any]
    """Of prior and training, flat, with ``model`` and ``data``, the hashes of what it was trained on."""
    trial: TrialRecord | None
    """None where the journal is lost."""
    rates: Rates | None
    """None before it is completed."""

    @property
    def seed(self) -> int:
        """Of its weights and the order of its data."""
        return int(self.config.get("seed", 0))

    @property
    def held_out(self) -> float:
        """The fewest bits an image that it needed for the held-out training images; infinite where none are known."""
        return min(self.curve("validation_bits").values(), default=float("inf"))

    def curve(self, metric: str) -> dict[int, float]:
        """The metric by epoch."""
        epochs = self.trial.epochs if self.trial else {}
        return {epoch: report[metric] for epoch, report in sorted(epochs.items()) if metric in report}


@dataclass(frozen=True)
class Configuration:
    """Priors that differ in their seeds alone."""

    label: str
    priors: tuple[LearnedPrior, ...]
    """By seed, one of each."""

    @property
    def measured(self) -> list[Rates]:
        """The rates of each seed that learned more than counts."""
        return [prior.rates for prior in self.priors if prior.rates and prior.rates.under]

    @property
    def bits(self) -> Estimate:
        """The learned rate over seeds, bits an image."""
        return Estimate.of([rates.rows[-1].bits for rates in self.measured], 0.0)

    @property
    def under(self) -> Estimate:
        """Per cent under the unigram entropy, over seeds."""
        return Estimate.of([rates.under[0] for rates in self.measured if rates.under])


class Priors(NamedTuple):
    """The priors of a model that are shown, and what could not be read."""

    configurations: tuple[Configuration, ...]
    problems: tuple[str, ...]

    @property
    def runs(self) -> tuple[LearnedPrior, ...]:
        """All of them, configuration by configuration."""
        return tuple(prior for one in self.configurations for prior in one.priors)


def priors_of(results: Results) -> Priors:
    """Of a full training, the priors over the codes of its very model; of a prior's run, itself and its other seeds.

    They lie in ``<out>/prior`` beside it. Of a seed that was trained twice the first by name counts, of a prior's run
    its own.
    """
    folder, problems = results.folder.absolute(), list[str]()
    if results.kind == PRIOR_RUN:
        own = read_prior(folder, problems)
        others = [prior for prior in _kept(folder.parent, None, problems) if _identity(prior) == _identity(own)]
        return Priors(_configurations([own, *others]), tuple(dict.fromkeys(problems)))
    if results.kind != "final" or not (folder / MODEL).is_file():
        return Priors((), ())
    found = _kept(folder.parent.parent / PRIOR_RUN, folder / MODEL, problems)
    return Priors(_configurations(list(found)), tuple(problems))


def sentences(priors: Priors) -> list[str]:
    """What each configuration saves, and how sure that is."""
    return [_sentence(one) for one in priors.configurations]


def _sentence(one: Configuration) -> str:
    rates, (first, *_) = one.measured, one.priors
    if not rates and first.rates:
        row = first.rates.rows[-1]
        counts = "counts codes, " if first.config.get("kind") == "unigram" else ""
        return f"{one.label}: {counts}{row.bits:.2f} bits an image [{row.low:.2f}, {row.high:.2f}] over images."
    if not rates:
        epochs = first.trial.last_epoch if first.trial else 0
        return (
            f"{one.label}: not completed, {epochs} of at most {first.config.get('epochs', '?')} epochs; no rates yet."
        )
    under = f"under the unigram entropy of the test codes, {rates[0].entropy:.2f}"
    if len(rates) > 1:
        return (
            f"{one.label}: {one.bits.text} bits an image over {len(rates)} seeds, 95 % interval of the mean "
            f"{one.bits.interval_text()}; {one.under.text} % {one.under.interval_text()} {under}."
        )
    (percent, low, high), row = rates[0].under or (0.0, 0.0, 0.0), rates[0].rows[-1]
    told = "" if low > 0 else ", which is not told from no saving"
    return (
        f"{one.label}: {row.bits:.2f} bits an image, {percent:.1f} % [{low:.1f}, {high:.1f}] {under}{told}; the "
        "interval is over test images. One seed: how far others spread is not known."
    )


def _kept(folder: Path, model: Path | None, problems: list[str]) -> Iterator[LearnedPrior]:
    """The completed priors in ``folder``, of the model in the file ``model`` where that is given, by name."""
    paths = sorted(path.with_suffix(".toml") for path in folder.glob(f"*/{PRIOR}"))
    digest = model_hash(model) if paths and model else None
    for path in paths:
        prior = read_prior(path.parent, problems)
        if prior.rates and digest in (None, prior.config["model"]):
            yield prior


def read_prior(folder: Path, problems: list[str]) -> LearnedPrior:
    """A prior's run; what of it cannot be read becomes a sentence."""
    record = read(folder / JOURNAL)
    trial = next(iter(record.trials.values()), None)
    params = record.sweep.get("params") or {}
    config = {**(trial.config if trial else {}), "model": params.get("model_hash"), "data": params.get("data_hash")}
    try:
        if (folder / PRIOR).is_file():
            tables = read_toml((folder / PRIOR).with_suffix(".toml"))
            config = {**tables["prior"], **tables["training"]}
            config |= {name: str(tables[name]["hash"]) for name in ("model", "data")}
            return LearnedPrior(folder, config, trial, _rates(folder / RATES))
    except ConfigError as error:
        problems += error.problems
    except (OSError, ValueError, KeyError, TypeError) as error:
        again = "the command that trained it writes its files again"
        problems.append(f"{folder}: the prior is not shown, its files are damaged ({type(error).__name__}); {again}.")
    return LearnedPrior(folder, config, trial, None)


def _rates(path: Path) -> Rates:
    """``ValueError``, ``KeyError``, ``TypeError`` or ``OSError`` if the file does not hold what is measured."""
    content = json.loads(path.read_text(encoding="utf-8"))
    numbers = ("bits", "low", "high", "bits_per_dimension")
    rows = tuple(Rate(str(row["prior"]), *(float(row[name]) for name in numbers)) for row in content["rates"])
    if len(rows) < 3:
        raise ValueError(f"{path}: {len(rows)} rates, and there are three without a learned one")
    percent = [content.get(name) for name in ("percent_under_entropy", "percent_low", "percent_high")]
    under = None if None in percent else (float(percent[0]), float(percent[1]), float(percent[2]))
    samples = tuple(
        {name: str(value) if name == "images" else float(value) for name, value in row.items()}
        for row in content.get("samples", ())
    )
    return Rates(int(content["test_images"]), rows, under, samples)


def _identity(prior: LearnedPrior) -> tuple[Any, ...]:
    """What trainings that differ in their seeds alone have in common."""
    precision = prior.trial.info.get("precision") if prior.trial else None
    return precision, *sorted((name, str(value)) for name, value in prior.config.items() if name not in _NOT_COMPARED)


def _configurations(priors: Sequence[LearnedPrior]) -> tuple[Configuration, ...]:
    """The one with the fewest held-out bits first."""
    members: dict[tuple[Any, ...], dict[int, LearnedPrior]] = defaultdict(dict)
    for prior in priors:
        members[_identity(prior)].setdefault(prior.seed, prior)
    groups = [tuple(group[seed] for seed in sorted(group)) for group in members.values()]
    groups.sort(key=lambda group: min(prior.held_out for prior in group))
    firsts = [group[0].config for group in groups if group[0].config.get("kind") != "unigram"]
    varying = [
        name
        for name in dict.fromkeys(name for config in firsts for name in config)
        if name not in (*_NOT_COMPARED, *_SIZES, "kind", "classes")
        and len({str(config.get(name)) for config in firsts}) > 1
    ]
    return tuple(Configuration(_label(group[0].config, varying), group) for group in groups)


def _label(config: Mapping[str, Any], varying: Sequence[str]) -> str:
    """``causal prior given the class, width 128, layers 4, heads 4``."""
    given = " given the class" if config.get("classes") else ""
    fields = "" if config.get("kind") == "unigram" else described(dict(config), [*_SIZES, *varying])
    return f"{config.get('kind', 'unknown')} prior{given}" + (f", {fields}" if fields else "")
