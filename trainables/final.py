"""Full-length training of one configuration: ``python -m trainables.final exports/knee.toml --epochs 100``.

Leaves ``model.safetensors`` and ``model.toml``, which ``vqcore.load`` reads, and ``README.md``, a model card. Started
again with the same words it goes on from its checkpoint, to the last bit on the CPU.
"""

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import tyro
from rich.text import Text

from trainables.card import CARD, write_card
from trainables.checkpoint import AT_MOST
from trainables.commands import Terminal, duration, exit_code
from trainables.data import DataSet, prepare
from trainables.device import device_problems
from trainables.errors import one_line
from trainables.interruption import Preempted, leave
from trainables.job import TrialJob
from trainables.journal import Event, read
from trainables.revision import commit
from trainables.runs import JOURNAL, NAME, command_line, usable_cpus
from trainables.session import RunSession, open_session
from trainables.snapshots import USUAL, snapshot_epochs
from trainables.storage import check_disk, sync_folder
from trainables.tracking import accept, default_uri, without_password
from trainables.tracking_uri import started_with
from trainables.trial import Trial
from vqcore.config import ConfigError, TrialConfig, read_toml
from vqcore.errors import Problems
from vqcore.psnr import psnr
from vqcore.sizes import state_bytes
from vqcore.vqvae import save

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Final:
    """Train one exported configuration at full length."""

    config: Annotated[Path, tyro.conf.Positional]
    """A TOML file of a run's ``exports/``."""
    epochs: int = 100
    """Passes over the training images; more than at the last start extends the training."""
    data: str | None = None
    """Data set; the one named in the file unless given."""
    snapshots: tuple[float, ...] = USUAL
    """Per cent of the epochs after which to keep a snapshot for pictures of the codebook; 0 is before training."""
    snapshot_epochs: tuple[int, ...] = ()
    """Numbers of epochs after which to keep one as well."""
    seed: int | None = None
    """Seed; the file's unless given."""
    name: str | None = None
    """Name of the training; the file's name and its configuration's key unless given."""
    out: Path = Path("runs")
    """Folder of all runs; this one's is <out>/final/<name>."""
    num_gpus: int | None = None
    """1 or 0; a GPU if there is one unless given."""
    num_cpus: int | None = None
    """Threads on the CPU; all there are unless given."""
    tracking_uri: str | None = None
    """MLflow: a server's URL or sqlite:///file; <out>/mlflow.db unless given."""


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code.

    0; 1 for a training that failed; 2 for a wrong flag or file; 75 after SIGTERM, 130 after Ctrl-C: the same command
    then goes on.
    """
    flags = tyro.cli(Final, prog="python -m trainables.final", args=arguments)

    def work() -> int:
        job, folder = check_final(flags)
        uri = flags.tracking_uri or default_uri(flags.out)
        with open_session(folder, str(Path(job.folder).parent), uri, Terminal()) as session:
            return _run(job, session, _origin(flags.config))

    return exit_code(work, " before the first epoch; the same command goes on")


def check_final(flags: Final) -> tuple[TrialJob, Path]:
    """The training that the flags ask for, and its folder. Raises one ``ConfigError`` with all that is wrong."""
    tables = read_toml(flags.config)
    if wrong := [name for name in ("model", "training", "data") if not isinstance(tables.get(name, {}), dict)]:
        raise ConfigError(f"{flags.config}: {name} must be a table; export the configuration anew" for name in wrong)
    changes = {"epochs": flags.epochs} | ({} if flags.seed is None else {"seed": flags.seed})
    tables["training"] = tables.get("training", {}) | changes
    problems = Problems()
    config = problems.of(lambda: TrialConfig.from_toml(tables))
    data = problems.of(lambda: _data(flags, tables.get("data", {})))
    problems.of(lambda: accept(flags.tracking_uri or default_uri(flags.out)))
    problems.add(*_flag_problems(flags))
    snapshots = problems.of(lambda: snapshot_epochs(flags.snapshots, flags.snapshot_epochs, flags.epochs)) or ()
    problems.raise_any()
    assert config is not None
    assert data is not None
    key = config.key(data.hash)
    folder = flags.out / "final" / (flags.name or f"{flags.config.stem}-{key}")
    _check_folder(folder, key, config.training.epochs)
    check_disk(str(folder / "trials"), AT_MOST * state_bytes(config.model))
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    gpus = min(1, torch.cuda.device_count()) if flags.num_gpus is None else flags.num_gpus
    cpus = flags.num_cpus or usable_cpus()
    trial = str((folder / "trials" / key).absolute())
    return TrialJob(key, 0, config, data, trial, float(cpus), float(gpus), snapshots=snapshots), folder


def _data(flags: Final, table: dict[str, Any]) -> DataSet:
    """The data set; unless it is named by a flag, the file's, as it was when the file was exported."""
    if flags.data is not None:
        return prepare(flags.data)
    source = table.get("source")
    if not isinstance(source, str):
        raise ConfigError([f"{flags.config}: names no data set; add --data, or export it anew"])
    data = prepare(source, table.get("image_size"))
    if table.get("hash", data.hash) != data.hash:
        raise ConfigError(
            [
                f"{flags.config}: its evidence is from other images than {source} holds now "
                f"(content {table['hash']}, now {data.hash}); put them back, or say --data {source} to train on these"
            ]
        )
    return data


def _check_folder(folder: Path, key: str, epochs: int) -> None:
    """``ConfigError`` if the folder holds another training, or this one at more epochs than are asked for."""
    trials = read(folder / JOURNAL).trials
    if trials and key not in trials:
        raise ConfigError([f"{folder}: holds the training of another configuration; choose another --name"])
    if trials and trials[key].last_epoch > epochs:
        raise ConfigError([f"--epochs {epochs}: this training has {trials[key].last_epoch} already; ask for more"])


def _flag_problems(flags: Final) -> Iterator[str]:
    yield from device_problems(flags.num_cpus, flags.num_gpus)
    if flags.name is not None and not NAME.fullmatch(flags.name):
        yield f"--name {flags.name!r}: must be a plain name, without path separators"


def _origin(config: Path) -> dict[str, Any]:
    """The sweep, its name and the export that a file comes from, as an export says; empty if it does not.

    Beside them the ``seeds`` that had a part in choosing and the ``data_hash`` of the images, where it names them, and
    its ``evidence``, line by line.
    """
    tables = read_toml(config)
    table = tables.get("origin")
    if not isinstance(table, dict):
        return {}
    names = {name: str(table.get(name)) for name in ("sweep", "name", "export")}
    if not all(map(NAME.fullmatch, names.values())):
        return {}
    seeds, lines = table.get("seeds"), config.read_text(encoding="utf-8-sig").splitlines()
    return {
        **names,
        "seeds": seeds if isinstance(seeds, list) and all(type(seed) is int for seed in seeds) else [],
        "data_hash": str(tables.get("data", {}).get("hash", "")),
        "evidence": [line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines)],
    }


def _run(job: TrialJob, session: RunSession, origin: dict[str, Any]) -> int:
    """Train, keep the model, record the end, print what to do next; the exit code."""
    _record(job, session, origin)
    session.check_tracking()
    session.warn(session.gaps, *job.data.notes)
    session.tracker.start()
    session.console.print(f"{session.folder}: {job.config.training.epochs} epochs on {job.data.source}")
    code = session.run(lambda: _train(job, session))
    recorded = session.record_end(complete=code == 0)
    behind = session.close_tracking(patient=code == 0)
    trial = session.writer.run.trials.get(job.key)
    completed = code == 0 and trial is not None and trial.status == "completed"
    if code == 0 and trial is not None and not completed:
        where = f" (in full: {session.log})" if trial.status == "failed" else ""
        session.console.print(Text(f"The training ended early: {trial.reason}{where}", style="red"), soft_wrap=True)
    session.print_next(
        [
            ("use it", f'vqcore.load("{session.folder}/model.safetensors")' if completed else None),
            ("read its card", f"{session.folder / CARD}" if completed else None),
            ("see the codebook", command_line("analysis.figures", session.folder) if completed else None),
            ("learn its prior", command_line("trainables.prior", session.folder) if completed else None),
            ("go on with", "the same command" if code else None),
            ("tell MLflow", behind),
        ]
    )
    return code or (0 if completed and recorded else 1)


def _train(job: TrialJob, session: RunSession) -> None:
    """Train what is left, and keep the model. An error of the training's own ends it as failed; a full disk, say,
    passes through."""
    writer, epochs, seconds = session.writer, job.config.training.epochs, list[float]()

    def show(event: Event) -> None:
        if event["event"] == "epoch":
            m, epoch = event["metrics"], event["epoch"]
            seconds.append(m["seconds"])  # of this process: after a resume elsewhere, those before say nothing
            figures = f"MSE {m['mse']:.5f} ({psnr(m['mse']):.1f} dB)  perplexity {m['perplexity']:.0f}"
            left = f"  about {duration(mean(seconds) * (epochs - epoch))} left" if epoch < epochs else ""
            session.console.print(f"epoch {epoch}/{epochs}  {figures}{left}")

    writer.listeners.append(show)
    try:
        trial = Trial.open(job)  # also of epochs that are all recorded, since a damaged checkpoint trains them again
        while (report := trial.step()).status == "running":
            writer.report(job, report)
            if session.signals.terminating:
                raise Preempted
        writer.report(job, report)
    except OSError:
        raise
    except Exception as error:
        logger.exception("the training failed")
        writer.ended(job, "failed", one_line(error))
        return
    if report.status == "completed":
        _keep_model(trial, session.folder)
        try:
            write_card(session.folder)
        except ConfigError as error:  # a README of somebody's own
            session.warn(*error.problems)


def _record(job: TrialJob, session: RunSession, origin: dict[str, Any]) -> None:
    """The training as a sweep of one trial."""
    data, uri = job.data, session.tracking_uri
    facts = {"data": data.source, "data_hash": data.hash}
    elsewhere = {} if uri == default_uri(session.folder.parents[1]) else {"tracking_uri": without_password(accept(uri))}
    session.writer.write(
        "sweep",
        sweep="final",
        name=session.folder.name,
        id=session.writer.run.sweep.get("id") or uuid.uuid4().hex,
        swept=[],
        trials=1,
        epochs=job.config.training.epochs,
        origin=origin,
        tags={**facts, "commit": commit(), "command": started_with(), "torch": torch.__version__},
        params={**facts, **{name: getattr(data, name) for name in ("image_size", "train_images", "test_images")}},
        **elsewhere,
    )


def _keep_model(trial: Trial, folder: Path) -> None:
    """Write the model beside its place and rename it into it: whoever loads it finds the old one or the new one."""
    with TemporaryDirectory(dir=folder, prefix=".model-") as beside:
        save(trial.trainer.model, trial.job.config, Path(beside, "model.safetensors"))
        for name in ("model.toml", "model.safetensors"):
            Path(beside, name).replace(folder / name)
    sync_folder(folder)


if __name__ == "__main__":
    leave(main())
