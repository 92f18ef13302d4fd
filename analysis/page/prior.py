"""Learned priors: what codes cost under each, how it was learned, and what the best of them draws."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from analysis.layout import Row, Table
from analysis.page.curves import epoch_ticks
from analysis.page.pictures import Picture, data_address
from analysis.page.svg import Chart, Figure, mark, path
from analysis.page.view import SHAPES, View
from analysis.priors import LearnedPrior, Priors, Rate, Rates, priors_of, sentences

_PICTURES = {
    "samples": "Drawn from the prior at temperature 1 and decoded; with classes a row for each class in turn.",
    "completions": "Rows: test images, their reconstructions, the upper half of their codes alone, and four "
    "completions of it.",
    "interpolations": "In each row from one test image to another: outputs of the encoder are mixed, then quantized. "
    "It shows what lies between codes, and needs no prior.",
}
_CURVES = (("validation_bits", "held out", ""), ("train_bits", "training", "dashed "))
_OF_SAMPLES = (
    "Each set beside real test images, in the space of this model's encoder. It can tell whether samples have the "
    "colours, textures and coarse layout of the data, and not whether they show anything: read it between other real "
    "images, as good as samples can be, and codes without neighbours."
)
_MEASURES = {
    "precision": "precision: the share of the set that lies among the real images",
    "recall": "recall: the share of the real images that lies among the set",
    "coverage": "coverage: the share of the real images that have one of the set among their neighbours",
}
_MOST_PIXELS = 4_000_000
"""Of a picture that the page holds: those of ``trainables.prior`` have a tenth of it."""


@dataclass(frozen=True)
class Section:
    """What the page says of priors."""

    lead: list[str]
    tables: list[Table]
    figures: list[Figure]
    pictures: list[Picture]
    samples: Table | None


def section(view: View) -> Section | None:
    """Of a full training whose codes have a prior, and of a prior's own run; None of others."""
    priors = priors_of(view.results)
    view.problems.extend(priors.problems)
    if not priors.runs:
        return None
    told = [(prior, prior.rates) for prior in priors.runs if prior.rates]
    best = min(told, key=lambda pair: pair[0].held_out, default=None)
    return Section(
        sentences(priors),
        [*_rates(priors), *_over_seeds(priors)],
        _curves(priors),
        list(_pictures(best[0], view.problems)) if best else [],
        _samples(*best) if best else None,
    )


def _over_seeds(priors: Priors) -> list[Table]:
    """A row a configuration; none where the sentences say all of it."""
    rows: list[Row] = [
        (one.label, str(one.bits.n), one.bits.text, one.bits.interval_text(), one.under.text, one.under.interval_text())
        for one in priors.configurations
        if one.measured
    ]
    if not any(len(one.measured) > 1 for one in priors.configurations):
        return []
    columns = ("configuration", "seeds", "bits an image", "95 % interval", "% under entropy", "95 % interval")
    note = "Mean ± sd over seeds of the prior, with Student's t interval of the mean; the model is the same."
    return [Table("Over seeds", columns, tuple(rows), (note,))]


def _rates(priors: Priors) -> list[Table]:
    """Of each set of test images one, since priors on the same codes have the same rates without them."""
    sets = dict.fromkeys(prior.rates.rows[:3] for prior in priors.runs if prior.rates)
    return [_rates_of(priors, baselines) for baselines in sets]


def _rates_of(priors: Priors, baselines: tuple[Rate, ...]) -> Table:
    rows: list[Row] = [(*_cells(rate.prior, rate), "") for rate in baselines]
    images = 0
    for prior in priors.runs:
        if prior.rates and prior.rates.rows[:3] == baselines:
            images = prior.rates.test_images
            if prior.rates.under:
                under = "{:.1f} [{:.1f}, {:.1f}]".format(*prior.rates.under)
                rows.append((*_cells(_name(priors, prior), prior.rates.rows[-1]), under))
    columns = ("prior", "bits an image", "95 % interval", "bits a dimension", "% under the unigram entropy")
    note = (
        f"Means over {images:,} test images, with 95 % intervals over them. The unigram entropy is that of the test "
        "codes' own frequencies, which no decoder knows; the unigram code knows those of the training codes."
    )
    return Table("Rates", columns, tuple(rows), (note,))


def _cells(name: str, rate: Rate) -> Row:
    return name, f"{rate.bits:.2f}", f"[{rate.low:.2f}, {rate.high:.2f}]", f"{rate.per_dimension:.4f}"


def _name(priors: Priors, prior: LearnedPrior) -> str:
    label = next(one.label for one in priors.configurations if prior in one.priors)
    return f"{label}, seed {prior.seed} ({prior.folder.name})"


def _curves(priors: Priors) -> list[Figure]:
    """Bits by epoch of every prior; none before the first epoch."""
    lines = [
        (number % SHAPES, prior, name, dashes, values)
        for number, one in enumerate(priors.configurations)
        for prior in one.priors
        for column, name, dashes in _CURVES
        if (values := prior.curve(column))
    ]
    if not lines:
        return []
    last = max(max(values) for *_, values in lines)
    bits = [value for *_, values in lines for value in values.values()]
    chart = Chart.of([1, last] if last > 1 else [0.5, 1.5], bits, "epoch", "bits an image (less is better)")
    chart.x_ticks = [(epoch, str(epoch)) for epoch in epoch_ticks(last)]
    for number, _, _, dashes, values in lines:
        chart.add(path([chart.place(*point) for point in values.items()], f"curve {dashes}e{number}"))
        if not dashes:
            best = min(values, key=lambda epoch: (values[epoch], epoch))
            chart.add(mark(*chart.place(best, values[best]), number, f"mean e{number}"))
    title = "Bits by epoch"
    description = (
        "Solid: a tenth of the training images, held out; the mark is the epoch that was kept. Dashed: the other "
        "training images, during the epoch and with dropout; of a masked prior, its training objective and no rate."
    )
    legend = tuple(
        (f"line curve {dashes}e{number % SHAPES}", f"{one.label}: {name}")
        for number, one in enumerate(priors.configurations)
        for _, name, dashes in _CURVES
    )
    drawing = chart.svg("prior-curves", title, description)
    return [Figure("prior-curves", title, description, drawing, _table(priors, lines, last), legend)]


def _table(priors: Priors, lines: Sequence[tuple[int, LearnedPrior, str, str, dict[int, float]]], last: int) -> Table:
    epochs = epoch_ticks(last)
    rows: list[Row] = [
        (f"{_name(priors, prior)}, {name}", *(f"{values[e]:.2f}" if e in values else "–" for e in epochs))
        for _, prior, name, _, values in lines
    ]
    return Table("Bits by epoch", ("prior", *map(str, epochs)), tuple(rows))


def _pictures(prior: LearnedPrior, problems: list[str]) -> Iterator[Picture]:
    """Those that ``trainables.prior`` drew."""
    for name, description in _PICTURES.items():
        try:
            pixels = _pixels(prior.folder / "figures" / f"{name}.png")
        except FileNotFoundError:
            continue
        except (OSError, ValueError, SyntaxError) as error:  # which Pillow raises of a damaged PNG
            problems.append(f"{prior.folder.name}: its {name} are damaged and not shown ({type(error).__name__}).")
            continue
        yield Picture(f"{name.capitalize()}: {prior.folder.name}", description, data_address(pixels))


def _pixels(file: Path) -> np.ndarray:
    with Image.open(BytesIO(file.read_bytes()), formats=["PNG"]) as picture:
        if picture.width * picture.height > _MOST_PIXELS:
            raise ValueError(f"{file}: {picture.width} x {picture.height} pixels")
        return np.asarray(picture.convert("RGB"))


def _samples(prior: LearnedPrior, rates: Rates) -> Table | None:
    """Whatever was measured of each set of images; None where nothing was."""
    names = list(dict.fromkeys(name for row in rates.samples for name in row if name != "images"))
    if not names:
        return None
    rows: list[Row] = [
        (str(row.get("images", "–")), *(f"{row[name]:.2f}" if name in row else "–" for name in names))
        for row in rates.samples
    ]
    said = "; ".join(_MEASURES[name] for name in names if name in _MEASURES)
    title = f"How close samples are to real images: {prior.folder.name}"
    return Table(
        title,
        ("images", *(name.replace("_", " ") for name in names)),
        tuple(rows),
        (_OF_SAMPLES, *([f"{said}."] if said else ())),
    )
