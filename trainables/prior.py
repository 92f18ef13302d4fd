"""A learned prior over a trained model's codes: ``python -m trainables.prior MODEL``.

Leaves a folder from which all can be used: ``model.safetensors`` and ``prior.safetensors``, each with its TOML,
``rates.json`` and pictures. A tenth of the training set's codes chooses the epoch; the test set decides nothing.
Started again with the same words it goes on from its checkpoint, to the last bit on the CPU.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro

from trainables.card import CARD, write_card
from trainables.checkpoint import AT_MOST
from trainables.commands import Terminal
from trainables.encode import progress_lines
from trainables.fidelity import IMAGES, NEIGHBOURS, features, fidelity, spread
from trainables.flags import ModelFlags, TrainingFlags
from trainables.generated import decoded, encoded, sample_codes, write_pictures
from trainables.interruption import leave
from trainables.labels import Labels, required_labels
from trainables.models import MODEL, PRIOR, RATES, TrainedModel, find_model, model_hash
from trainables.prior_trial import PriorJob, PriorTrial, PriorTrialConfig
from trainables.rates import measure, metric_name, rate_lines
from trainables.runs import SUMMARY, command_line
from trainables.session import RunSession
from trainables.single_run import SingleRun, check_folder, run_alone
from trainables.storage import check_disk, replace_file, sync_folder
from vqcore.config import ConfigError, Precision, TrialConfig, read_toml
from vqcore.errors import Problems
from vqcore.prior import Kind, Prior, PriorConfig, make_prior, save_prior
from vqcore.prior_training import PriorTraining
from vqcore.registry import ARCHITECTURES
from vqcore.vqvae import VQVAE, load


@dataclass(frozen=True)
class PriorFlags(ModelFlags, TrainingFlags):
    """Learn a prior over the codes of a trained model: rates in bits, samples, and what the codec needs."""

    kind: Kind = "causal"
    """causal: an autoregressive transformer; masked: fills many positions a step; unigram: counts codes."""
    by_class: bool = False
    """Condition the prior on the classes of the data set."""
    width: int = 128
    """Of the transformer."""
    layers: int = 4
    """Of the transformer."""
    heads: int = 4
    """Of its attention."""
    dropout: float = 0.1
    """Share that is dropped in training."""
    epochs: int = 30
    """Passes over the training codes at most; the learning rate falls over them."""
    batch_size: int = 64
    """Grids a step."""
    learning_rate: float = 1e-3
    """AdamW's highest."""
    patience: int = 4
    """Epochs in a row without fewer validation bits that end the training."""
    precision: Precision = "auto"
    """auto, fp32 or bf16."""
    seed: int = 0
    """Of weights, order and pictures."""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code, as ``run_alone`` has it."""
    flags, terminal = tyro.cli(PriorFlags, prog="python -m trainables.prior", args=arguments), Terminal()
    return run_alone(flags, terminal, lambda: check_prior(flags, terminal), _run)


def check_prior(flags: PriorFlags, terminal: Terminal) -> tuple[PriorJob, Path]:
    """The training that the flags ask for, and its folder. Raises one ``ConfigError`` with all that is wrong."""
    problems = Problems()
    problems.add(*flags.problems())
    if flags.by_class and flags.kind == "unigram":
        problems.add("--by-class: a unigram prior has no classes; leave it out, or take --kind causal")
    training = problems.of(lambda: _training(flags))
    model = problems.of(lambda: find_model(flags.model, flags.out))
    data = problems.of(lambda: model.data(flags.data)) if model else None
    if data is not None and min(data.train_images, data.test_images) < 2:
        have = f"{data.train_images} training and {data.test_images} test images"
        problems.add(
            f"data = {data.source!r}: {have}; a prior trains and is chosen on two or more, and tested on as many"
        )
    labels = problems.of(lambda: required_labels(data)) if data and flags.by_class else None
    config = problems.of(lambda: _prior(flags, model, data.image_size, labels)) if model and data else None
    problems.raise_any()
    assert model is not None
    assert data is not None
    assert config is not None
    assert training is not None
    whole = PriorTrialConfig(config, training)
    key = whole.key(model.hash, data.hash)
    folder = flags.out / "prior" / (flags.name or f"{model.folder.absolute().name}-{flags.kind}-{key}")
    check_folder(folder, key, training.epochs)
    weights = sum(tensor.nbytes for tensor in make_prior(config).state_dict().values())
    check_disk(str(folder / "trials"), AT_MOST * 4 * weights)
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    trial, show = str((folder / "trials" / key).absolute()), progress_lines(terminal, "codes")
    return PriorJob(key, whole, model, data, labels, trial, *flags.booking, show), folder


def _training(flags: PriorFlags) -> PriorTraining:
    """Counting takes one pass."""
    names = ("batch_size", "learning_rate", "patience", "precision", "seed")
    own = {name: getattr(flags, name) for name in names}
    return PriorTraining(epochs=1 if flags.kind == "unigram" else flags.epochs, **own)


def _prior(flags: PriorFlags, model: TrainedModel, image_size: int, labels: Labels | None) -> PriorConfig:
    """The prior over the grids that the model makes of such images."""
    network = TrialConfig.from_toml(read_toml(model.path.with_suffix(".toml"))).model
    if problems := tuple(network.size_problems(image_size)):
        raise ConfigError(problems)
    side = image_size // ARCHITECTURES[network.architecture].downsampling
    size, classes = network.quantizer.codebook_size, len(labels.classes) if labels else 0
    return PriorConfig(flags.kind, size, side, side, classes, flags.width, flags.layers, flags.heads, flags.dropout)


def _run(job: PriorJob, session: RunSession) -> int:
    """Train, keep what can be used, record the end, print what to do next; the exit code."""
    folder, model = session.folder, job.model
    epochs, of = job.config.training.epochs, {"model": str(model.path), "model_hash": model.hash}
    run = SingleRun("prior", job, job.data, epochs, lambda: PriorTrial.open(job), _figures, _keep, of, of)
    more = command_line("trainables.samples", folder, "--count", 16, "--seed", 1)
    prior = job.config.prior  # without an order of its own, or with classes, it codes by its counts
    how = ("--prior", "unigram") if prior.kind == "masked" or prior.classes else ()
    codec = command_line("trainables.codec", "compress", folder, job.data.source, folder / "test.vqc", *how)
    return run.drive(
        session,
        [
            ("look at", str(folder / "figures/samples.png")),
            ("draw more", more),
            ("compress", codec),
            ("report", command_line("analysis.report", folder)),
            ("read its card", str(folder / CARD)),
        ],
    )


def _figures(metrics: Mapping[str, float]) -> str:
    return f"bits an image: {metrics['train_bits']:.1f} training, {metrics['validation_bits']:.1f} held out"


def _keep(training: PriorTrial, session: RunSession) -> None:
    """Model, prior, rates, pictures and card; what they say, on the screen."""
    job, folder = training.job, session.folder
    prior = training.trainer.take_best()
    _keep_both(training, prior, folder)
    model = load(folder / MODEL)
    with session.stage("Rates on the test set, and pictures"):
        rates = measure(training.trainer, training.test_set, 3 * job.data.image_size**2)
        prior.cpu()
        rates["samples"] = _fidelity(model, prior, training)
        labels = None if job.labels is None else job.labels.test
        write_pictures(folder / "figures", model, prior, job.data.test(), labels, job.config.training.seed)
    replace_file(folder / RATES, (json.dumps(rates, indent=1) + "\n").encode())
    lines = _said(rates, training)
    metrics = {metric_name(row["prior"]): row["bits"] for row in rates["rates"]}
    replace_file(folder / SUMMARY, json.dumps({"metrics": metrics, "findings": lines}, indent=1).encode())
    for line in lines:
        session.console.print(line, soft_wrap=True)
    try:
        write_card(folder)
    except ConfigError as error:  # a README of somebody's own
        session.warn(*error.problems)


def _keep_both(training: PriorTrial, prior: Prior, folder: Path) -> None:
    """Write beside their place, then rename into it: whoever loads them finds the old ones or the new ones.

    ``ConfigError`` if the model has been replaced since its codes were made.
    """
    job = training.job
    facts: dict[str, Any] = {
        "model": {"hash": job.model.hash},
        "data": {"source": job.data.source, "hash": job.data.hash},
        "training": {**vars(job.config.training), "best_epoch": training.trainer.best_epoch},
    }
    if job.labels is not None:
        facts["labels"] = {"classes": list(job.labels.classes)}
    with TemporaryDirectory(dir=folder, prefix=".prior-") as beside:
        save_prior(prior, Path(beside, PRIOR), facts)
        for source in (job.model.path, job.model.path.with_suffix(".toml")):
            shutil.copy(source, Path(beside, Path(MODEL).with_suffix(source.suffix)))
        if model_hash(Path(beside, MODEL)) != job.model.hash:
            rule = "is not any more the model that this prior was trained for; train the new one's under another --name"
            raise ConfigError([f"{job.model.path}: {rule}"])
        for path in sorted(Path(beside).iterdir()):
            path.replace(folder / path.name)
    sync_folder(folder)


def _fidelity(model: VQVAE, prior: Prior, training: PriorTrial) -> list[dict[str, Any]]:
    """Precision, recall and coverage of samples beside test images, and of what they are read by; none of so few
    images that they have not the neighbours. Samples by class have the classes of training images: a set in which one
    is rare is not covered by samples that have as many of it as of others."""
    data, config, classes = training.job.data, prior.config, training.job.labels
    count = min(IMAGES, data.test_images, data.train_images)
    if count <= NEIGHBOURS:
        return []
    real, others = spread(data.test(), count), spread(data.train(), count)
    counting = make_prior(PriorConfig("unigram", config.codebook_size, config.rows, config.columns))
    counting.count(prior.counts)
    rows = {"other real images": others}
    rows["reconstructions of others"] = decoded(model, encoded(model, others))
    if config.kind != "unigram":
        labels = None if classes is None else torch.from_numpy(spread(classes.train, count))
        rows["samples"] = decoded(model, sample_codes(prior, count, labels))
    rows["samples of codes without neighbours"] = decoded(model, sample_codes(counting, count))
    features_of_real = features(model, real)
    return [
        {"images": name, **fidelity(features_of_real, features(model, images))._asdict()}
        for name, images in rows.items()
    ]


def _said(rates: dict[str, Any], training: PriorTrial) -> list[str]:
    """What was found, a line each."""
    lines = rate_lines(rates["rates"])
    if "percent_under_entropy" in rates:
        low, high, epoch = rates["percent_low"], rates["percent_high"], training.trainer.best_epoch
        told = f"{rates['percent_under_entropy']:.1f} % under the unigram entropy"
        if low <= 0:
            told = "not told from the unigram entropy" if high > 0 else "above the unigram entropy: train it longer"
        given = "" if training.job.labels is None else ", without the class, which it is given,"
        lines.append(
            f"The learned rate{given} is {told} ({low:.1f} to {high:.1f} % under it over test images; one seed of the "
            f"prior), after epoch {epoch} of {training.trainer.epoch}, which the held-out codes chose."
        )
    lines += [
        f"{row['images']}: precision {row['precision']:.2f}, recall {row['recall']:.2f}, coverage {row['coverage']:.2f}"
        for row in rates["samples"]
    ]
    return lines


if __name__ == "__main__":
    leave(main())
