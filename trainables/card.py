"""The model card of a trained model, from what its training recorded: ``python -m trainables.card NAME``.

``README.md`` in the model's folder, as model hubs read it. Everything above ``KEPT`` is made of the journal,
``model.toml`` and the files of a prior beside them; what a person writes below it stays.
"""

import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

import tyro

from trainables.commands import duration, run_command
from trainables.graphs import DECODER, ENCODER, graphs_of
from trainables.models import MODEL, PRIOR, RATES, find_model
from trainables.runs import NAME, value_text
from trainables.sources import KNOWN
from trainables.storage import replace_file
from trainables.training_record import TrainingRecord, finals, training_of
from vqcore.config import TrialConfig, read_toml, toml_text
from vqcore.errors import ConfigError
from vqcore.psnr import psnr
from vqcore.registry import ARCHITECTURES
from vqcore.sizes import parameters

CARD = "README.md"
"""The file's name: where model hubs look for a card."""

KEPT = "<!-- What stands below this line is yours: it is kept when the card is written again. -->"
"""The line that ends what this module writes."""

_CIFAR10 = "uoft-cs/cifar10"
"""The data sets of ``KNOWN`` on the Hugging Face hub."""


def main(name: Annotated[str, tyro.conf.Positional], /, out: Path = Path("runs")) -> None:
    """Write the model card of a trained model again, such as after another seed was trained.

    Args:
        name: A full training's name or folder, or a model.safetensors.
        out: Folder of all runs.
    """
    print(write_card(find_model(name, out).folder))


def write_card(folder: Path) -> Path:
    """Write the card of the model in ``folder``, and of the prior beside it if there is one; its path.

    ``ConfigError`` if a ``README.md`` of somebody else's is there, or a file that the card is made of is damaged.
    """
    path = folder / CARD
    _, ours, kept = path.read_bytes().partition(KEPT.encode()) if path.exists() else (b"", KEPT.encode(), b"\n")
    if not ours:
        raise ConfigError([f"{path}: is no card of this command, which would overwrite it; move it away"])
    config = TrialConfig.from_toml(read_toml((folder / MODEL).with_suffix(".toml")))
    training = training_of(folder)
    sections = [_use(folder, config), _model(config)]
    sections += [] if training is None else [_data(training), _training(training), _metrics(training)]
    sections += [] if training is None else [_seeds(training, folder), _choice(training)]
    sections += [_prior(folder), _limits(training, folder), _configuration(config)]
    text = "\n".join([_head(training), _opening(folder, config, training), *filter(None, sections), KEPT])
    replace_file(path, text.encode() + kept)
    return path


def _head(training: TrainingRecord | None) -> str:
    """YAML; what is not known, such as a license, is left out."""
    lines = ["library_name: vqcore", "tags:", "- vq-vae", "- image-tokenizer"]
    if training is not None and training.params.get("data") in KNOWN:
        lines += ["datasets:", f"- {_CIFAR10}"]
    return "\n".join(["---", *lines, "---", ""])


def _opening(folder: Path, config: TrialConfig, training: TrainingRecord | None) -> str:
    quantizer = config.model.quantizer
    layer = "finite scalar quantization" if quantizer.layer == "fsq" else "vector quantization"
    said = f"A VQ-VAE: an encoder, {layer} with {quantizer.codebook_size:,} codes, and a decoder."
    if training is None:
        said += " The record of its training is not here, so its data, metrics and seeds are not known."
    else:
        side, codes = training.params["image_size"], _codes(training)
        said += f" An image of {side} x {side} pixels becomes {codes} codes, and these an image."
    name = folder.absolute().name
    return f"# {name if NAME.fullmatch(name) else _code(name)}\n\n{said}\n"


def _use(folder: Path, config: TrialConfig) -> str:
    step, dim = ARCHITECTURES[config.model.architecture].downsampling, config.model.quantizer.dim
    lines = [
        "## Use",
        "",
        f"`images` is a float tensor (b, 3, h, w) on [-1, 1], its sides multiples of {step}.",
        "",
        "```python",
        "import vqcore",
        "",
        'model = vqcore.load("model.safetensors")    # in eval mode, on the CPU',
        f"codes = model.encode(images)                # (b, h/{step}, w/{step}) int64",
        f"vectors = model.quantize(images).quantized  # (b, {dim}, h/{step}, w/{step}): what the decoder sees",
        "images = model.decode(codes)                # (b, 3, h, w) on [-1, 1]",
        "```",
        "",
        "`model.safetensors` holds the weights, `model.toml` the configuration. Loading them runs no code of theirs.",
    ]
    graphs = graphs_of(folder)
    if graphs == {find_model(str(folder), folder).hash}:
        lines += [
            "`encoder.pt2` and `decoder.pt2` hold the same as graphs that need only torch:",
            '`torch.export.load("encoder.pt2").module()(images)`. They hold no pickle, but torch would unpickle what',
            "another file of that kind asks it to: load them from a place that you trust.",
        ]
    elif graphs:
        lines.append(f"The graphs beside it, `{ENCODER}` and `{DECODER}`, are not of these weights: export them again.")
    return "\n".join([*lines, ""])


def _model(config: TrialConfig) -> str:
    quantizer, model = config.model.quantizer, config.model
    step = ARCHITECTURES[model.architecture].downsampling
    codes = f"{quantizer.codebook_size:,} of {quantizer.dim} dimensions"
    rows = [
        ("architecture", f"`{model.architecture}`, a code for {step} x {step} pixels"),
        ("codes", f"{codes}, levels {quantizer.levels}" if quantizer.layer == "fsq" else codes),
    ]
    if quantizer.layer == "vq":
        rows.append(("gradient estimator", f"`{quantizer.estimator}`, beta {value_text(quantizer.commitment_weight)}"))
        decay = f", decay {value_text(quantizer.decay)}" if quantizer.codebook != "gradient" else ""
        rows.append(("codebook", f"`{quantizer.codebook}`{decay}"))
    rows.append(("parameters", f"{parameters(model):,}, the codebook's among them"))
    return _section("Model", _table(("", ""), rows))


def _data(training: TrainingRecord) -> str:
    params = training.params
    rows = [
        ("source", _code(params.get("data"))),
        ("hash of its pixels", _code(params.get("data_hash"))),
        ("training images", _count(params.get("train_images"))),
        ("test images", _count(params.get("test_images"))),
        ("size", f"{params['image_size']} x {params['image_size']} pixels, RGB"),
    ]
    return _section("Data", _table(("", ""), rows))


def _training(training: TrainingRecord) -> str:
    config, info, facts = training.config.training, training.trial.info, training.run.sweep.get("tags", {})
    seconds = sum(m.get("seconds", 0.0) for epoch, m in training.trial.epochs.items() if epoch <= training.epoch)
    sessions = len(training.run.sessions)
    rows = [
        ("epochs", f"{training.epoch:,}, batches of {config.batch_size:,}, Adam at {value_text(config.learning_rate)}"),
        ("seed", str(config.seed)),
        ("device", _code(info.get("device"))),
        ("precision", f"{_code(info.get('precision'))}; distances, codebook, losses and metrics are fp32"),
        ("time", f"{duration(seconds)} of training and evaluation"),
        ("torch", _code(facts.get("torch"))),
        ("commit", _code(facts.get("commit"))),
        ("command", _code(facts.get("command"))),
    ]
    rows += [("sessions", f"{sessions}; versions, commit and command are the last one's")] if sessions > 1 else []
    return _section("Training", _table(("", ""), rows))


def _metrics(training: TrainingRecord) -> str:
    m, side, codes = training.metrics, training.params["image_size"], _codes(training)
    size = training.config.model.quantizer.codebook_size
    rows = [
        ("MSE", f"{m['mse']:.5f}", "mean squared error of a channel's value, on [-1, 1]"),
        ("PSNR", f"{psnr(m['mse']):.2f} dB", "of that MSE: 10 log10(4 / MSE); no mean of the images' own"),
        ("perplexity", f"{m['perplexity']:.1f} of {size:,}", "exp of the codes' entropy: so many codes, equally used"),
        ("usage", f"{m['usage']:.1%}", f"codes used at least once: {_used(training):,} of {size:,}"),
        (
            "bits an image",
            f"{m['bits']:.1f}",
            f"{codes} codes of log2(perplexity) bits each: the size by a coder that knows how often each code is used",
        ),
        ("bits a dimension", f"{m['bits'] / (3 * side * side):.4f}", f"of the 3 x {side} x {side} values of an image"),
    ]
    images = _count(training.params.get("test_images"))
    what = f"After epoch {training.epoch:,}, on the whole test set ({images} images), from one histogram of all codes."
    return _section("Metrics", what, "", _table(("metric", "value", "what it is"), rows))


def _seeds(training: TrainingRecord, folder: Path) -> str:
    """The figures of every seed, and mean and interval of those that had no part in choosing the configuration."""
    by_seed = training.by_seed(finals(folder))
    chose = set(training.origin.get("seeds", ()))
    if len(by_seed) == 1:
        told = "One seed: these are the figures of one training, and no claim about its configuration."
        return _section("Seeds", f"{told} {_chosen(chose & by_seed.keys())}".rstrip())
    columns = {"mse": 5, "perplexity": 1, "usage": 3, "bits": 1}  # and digits behind the point
    names = ("seed", "MSE", "perplexity", "usage", "bits an image")
    rows = [
        (f"{seed} (chose)" if seed in chose else str(seed), *(f"{m[c]:.{digits}f}" for c, digits in columns.items()))
        for seed, m in by_seed.items()
    ]
    counted = [m for seed, m in by_seed.items() if seed not in chose]
    if len(counted) > 1:
        rows.append(("mean", *(_rounded(fmean(values), values) for values in _columns(counted, columns))))
        rows.append(("95 % interval", *(_interval(values) for values in _columns(counted, columns))))
        claim = f"The interval is Student's t, of the mean over {len(counted)} seeds."
    else:
        claim = "Fewer than two seeds had no part in choosing the configuration, so there is no mean and no claim."
    if not chose:
        claim += " Whether one of them had a part in choosing the configuration is not recorded."
    said = (
        f"Full trainings of this configuration on the same images, each after epoch {training.epoch:,}. "
        f"{claim} {_chosen(chose & by_seed.keys())}"
    )
    return _section("Seeds", said.rstrip(), "", _table(names, rows))


def _chosen(seeds: Iterable[int]) -> str:
    told = ", ".join(map(str, sorted(seeds)))
    return f"A part in choosing the configuration was had by: seed {told}." if told else ""


def _choice(training: TrainingRecord) -> str:
    """The evidence that the export gave for its configuration."""
    origin = training.origin
    if not origin:
        return ""
    said = f"It is {_code(origin.get('export'))} of the sweep {_code(origin.get('sweep'))}, {_code(origin.get('name'))}"
    evidence = [f"    {_plain(line)}" for line in origin.get("evidence", ()) if line]
    if not evidence:
        return _section("Why this configuration", f"{said}. The file that was trained held no evidence.")
    return _section("Why this configuration", f"{said}, which gave as evidence:", "", *evidence)


def _prior(folder: Path) -> str:
    """What the prior beside the model is, and what codes cost under it."""
    if not (folder / PRIOR).exists():
        return ""
    tables = read_toml((folder / PRIOR).with_suffix(".toml"))
    config = tables.get("prior", {})
    given = f", given one of {_cell(config['classes'])} classes" if config.get("classes") else ""
    lines = [
        f"A prior over the codes lies beside the model: {_code(config.get('kind'))}{given}.",
        "",
        "```python",
        "from vqcore.prior import load_prior",
        "",
        f'prior = load_prior("{PRIOR}")           # in eval mode, on the CPU',
        "images = model.decode(prior.sample(16))             # drawn, (16, 3, h, w) on [-1, 1]",
        "bits = prior.bits(codes)                            # (b,), what the codes of each image cost",
        "```",
        "",
    ]
    if (folder / RATES).exists():
        lines += [*_rates(folder / RATES), ""]
    return _section("Prior", *lines, "```toml", toml_text(tables).strip(), "```")


def _rates(path: Path) -> list[str]:
    """What ``trainables.rates`` measured. ``ConfigError`` if the file does not hold it."""
    try:
        rates = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            (
                _cell(rate["prior"]),
                f"{rate['bits']:.2f}",
                f"[{rate['low']:.2f}, {rate['high']:.2f}]",
                f"{rate['bits_per_dimension']:.4f}",
            )
            for rate in rates["rates"]
        ]
        under = [rates.get(name) for name in ("percent_under_entropy", "percent_low", "percent_high")]
        saved = "" if None in under else " The learned rate is {:.1f} % [{:.1f}, {:.1f}] under it".format(*under)
        saved += "" if None in under else "." if under[1] > 0 else ", which is not told from no saving."
        said = (
            f"Mean over {rates['test_images']:,} test images of what an ideal entropy coder needs, with 95 % intervals "
            f"over images, of this one training. The entropy is that of the test codes' own frequencies.{saved}"
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError([f"{path}: holds no rates ({error}); run the command again that wrote it"]) from error
    return [said, "", _table(("prior", "bits an image", "interval", "bits a dimension"), rows)]


def _limits(training: TrainingRecord | None, folder: Path) -> str:
    return _section("Limits", *(f"- {line}" for line in _limit_lines(training, folder)))


def _limit_lines(training: TrainingRecord | None, folder: Path) -> Iterator[str]:
    if training is not None:
        side, size = training.params["image_size"], training.config.model.quantizer.codebook_size
        yield f"Trained and measured on one data set at {side} x {side} pixels. Other images were not tried."
        if training.best_epoch < training.epoch:
            best, last = training.trial.epochs[training.best_epoch]["mse"], training.metrics["mse"]
            yield (
                f"The weights are the last epoch's, and not the best's: the MSE was {best:.5f} after epoch "
                f"{training.best_epoch:,} and {last:.5f} after epoch {training.epoch:,}."
            )
        elif training.epoch > 1:
            yield "The MSE was lowest after the last epoch: a longer training may lower it further."
        if (precision := training.trial.info.get("precision")) not in (None, "fp32"):
            yield f"Metrics were computed in {_code(precision)}; `vqcore.load` computes in fp32: not quite the same."
        if unused := size - _used(training):
            yield f"{unused:,} of {size:,} codes stand for nothing in the test set."
        if training.origin.get("data_hash") == training.params.get("data_hash"):
            yield "The configuration was chosen by figures on this very test set: new images may cost more."
    yield "MSE and PSNR reward blur. No perceptual measure, such as LPIPS or FID, was taken."
    if not (folder / PRIOR).exists():
        yield "It reconstructs. To generate images it needs a prior over its codes, and none lies beside it."


def _configuration(config: TrialConfig) -> str:
    return _section("Configuration", "```toml", toml_text(config.toml()).strip(), "```")


def _codes(training: TrainingRecord) -> int:
    """Codes of an image of the training."""
    step = ARCHITECTURES[training.config.model.architecture].downsampling
    return int((training.params["image_size"] // step) ** 2)


def _used(training: TrainingRecord) -> int:
    """Codes that the test set uses."""
    return round(training.metrics["usage"] * training.config.model.quantizer.codebook_size)


def _columns(rows: Sequence[Mapping[str, float]], names: Iterable[str]) -> Iterator[list[float]]:
    for name in names:
        yield [row[name] for row in rows]


def _interval(values: Sequence[float]) -> str:
    """The 95 % t interval of the mean of several values, none of which can be below 0; a dash of equal ones.

    All codes used with every seed, say, is a limit that was reached, and no measure of how seeds spread.
    """
    from scipy.special import stdtrit

    if not stdev(values):
        return "–"
    mean, half = fmean(values), float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    return f"[{_rounded(max(mean - half, 0.0), values)}, {_rounded(mean + half, values)}]"


def _rounded(value: float, values: Sequence[float]) -> str:
    """With two digits of the spread of ``values``."""
    spread = stdev(values)
    return f"{value:.{min(max(1 - math.floor(math.log10(spread)), 0), 7) if spread else 5}f}"


def _section(title: str, *lines: str) -> str:
    return "\n".join([f"## {title}", "", *lines, ""])


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    ruled = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def _code(value: object) -> str:
    """A recorded text as Markdown code, on one line, also in a table."""
    return "not recorded" if value is None else f"`{_plain(str(value)).replace('`', chr(39)).replace('|', '/')}`"


def _cell(value: object) -> str:
    """A recorded text as text, also in a table: neither Markdown's lines nor HTML."""
    return html.escape(_plain(str(value)), quote=False).replace("|", "/")


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "not recorded"


if __name__ == "__main__":
    run_command(main)
