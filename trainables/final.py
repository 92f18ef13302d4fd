"""Full-length training of one configuration: ``python -m trainables.final exports/knee.toml --epochs 100``.

Leaves ``model.safetensors`` and ``model.toml``, which ``vqcore.load`` reads. Started again with the same words it goes
on from its checkpoint, to the last bit on the CPU.
"""

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from trainables.checkpoint import AT_MOST, check_disk, checkpoint_bytes, load_checkpoint
from trainables.data import DataSet, prepare
from trainables.errors import one_line
from trainables.interruption import INTERRUPTED, PREEMPTED, Interruption, Preempted, leave
from trainables.journal import Event, read
from trainables.recorder import Recorder
from trainables.runs import JOURNAL, LOCK, NAME, usable_cpus
from trainables.storage import open_store
from trainables.tracking import Tracker, accept, check, default_uri, sync_command, without_password
from trainables.trial import Trial, TrialJob
from vqcore.config import ConfigError, TrialConfig, problems_of, read_toml
from vqcore.metrics import psnr
from vqcore.training import Trainer
from vqcore.vqvae import load, save


@dataclass(frozen=True)
class Final:
    """Train one exported configuration at full length."""

    config: Annotated[Path, tyro.conf.Positional]
    """A TOML file that ``analysis.export`` wrote."""
    epochs: int = 100
    """Passes over the training images; more than at the last start extends the training."""
    data: str | None = None
    """Data set; the one named in the file unless given."""
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

    0; 1 for a training that failed; 2 for what was asked wrongly; 75 after SIGTERM, 130 after Ctrl-C: the same command
    then goes on.
    """
    flags = tyro.cli(Final, prog="python -m trainables.final", args=arguments)
    try:
        job, folder = check_final(flags)
        with FileLock(folder / LOCK, timeout=0), Interruption("the same command") as signals:
            return _train(job, folder, flags, signals)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except Timeout:
        print(f"{flags.config}: another process trains it; wait for it, or choose another --name", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted before the first epoch.")
        return INTERRUPTED
    except Preempted:
        print("Asked to end (SIGTERM) before the first epoch; the same command goes on.")
        return PREEMPTED


def check_final(flags: Final) -> tuple[TrialJob, Path]:
    """The training that the flags ask for, and its folder. Raises one ``ConfigError`` with all that is wrong."""
    tables = read_toml(flags.config)
    if wrong := [name for name in ("model", "training", "data") if not isinstance(tables.get(name, {}), dict)]:
        raise ConfigError(f"{flags.config}: {name} must be a table; export the configuration anew" for name in wrong)
    changes = {"epochs": flags.epochs} | ({} if flags.seed is None else {"seed": flags.seed})
    tables["training"] = tables.get("training", {}) | changes
    problems = list(problems_of(lambda: TrialConfig.from_toml(tables)))
    problems += problems_of(lambda: _data(flags, tables))
    problems += problems_of(lambda: accept(flags.tracking_uri or default_uri(flags.out)))
    problems += _flag_problems(flags)
    if problems:
        raise ConfigError(problems)
    config, data = TrialConfig.from_toml(tables), _data(flags, tables)
    key = config.key(data.hash)
    folder = flags.out / "final" / (flags.name or f"{flags.config.stem}-{key}")
    _check_folder(folder, key, config.training.epochs)
    check_disk(str(folder / "trials"), AT_MOST * checkpoint_bytes(config))
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    gpus = min(1, torch.cuda.device_count()) if flags.num_gpus is None else flags.num_gpus
    cpus = flags.num_cpus or usable_cpus()
    return TrialJob(key, 0, config, data, str((folder / "trials" / key).absolute()), float(cpus), float(gpus)), folder


def _data(flags: Final, tables: dict[str, Any]) -> DataSet:
    table = tables.get("data", {})
    source = flags.data or table.get("source")
    if not isinstance(source, str):
        raise ConfigError([f"{flags.config}: names no data set; add --data, or export it anew"])
    if flags.data is not None:
        return prepare(source)
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
    gpus, cores = torch.cuda.device_count(), usable_cpus()
    if flags.num_gpus is not None and not 0 <= flags.num_gpus <= min(1, gpus):
        yield f"--num-gpus {flags.num_gpus}: one training uses 0 or 1; this machine has {gpus}"
    if flags.num_cpus is not None and not 1 <= flags.num_cpus <= cores:
        yield f"--num-cpus {flags.num_cpus}: this machine has {cores}; ask for 1 to {cores}"
    if flags.name is not None and not NAME.fullmatch(flags.name):
        yield f"--name {flags.name!r}: must be a plain name, without path separators"


def _train(job: TrialJob, folder: Path, flags: Final, signals: Interruption) -> int:
    console, uri = Console(highlight=False), flags.tracking_uri or default_uri(flags.out)
    recorder, tracker = Recorder(folder), Tracker(folder, uri)
    _record(recorder, job, folder, uri)
    if warning := check(uri):
        console.print(Text(f"MLflow: {warning}. The training goes on.", style="yellow"))
    for note in job.data.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    tracker.start()
    console.print(f"{folder}: {job.config.training.epochs} epochs on {job.data.source}")
    code, trouble = 0, ""
    try:
        if not recorder.run.finished(job.key, job.config.training.epochs):
            _run(job, recorder, console, signals)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Preempted:
        code = PREEMPTED
    except OSError as error:  # storage, which may be there again at the next start
        code, trouble = 1, one_line(error)
    except Exception as error:
        recorder.ended(job, "failed", one_line(error))
    signals.finish()
    trial = recorder.run.trials.get(job.key)
    completed = code == 0 and trial is not None and trial.status == "completed"
    if completed:
        _keep_model(job, folder)
    with suppress(OSError):  # a full disk has been told of
        recorder.write("pause" if code else "done")
    recorder.close()
    if not tracker.close(timeout=5 if code or tracker.problem else 60):
        console.print(Text(f"MLflow is behind: {tracker.problem or 'it is slow'}", style="yellow"))
        console.print(Text(f"  tell it: {sync_command(folder, uri)}"), soft_wrap=True)
    return _farewell(console, folder, trouble or (trial.reason if trial else ""), completed, code)


def _run(job: TrialJob, recorder: Recorder, console: Console, signals: Interruption) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("training", total=job.config.training.epochs)

        def show(event: Event) -> None:
            if event["event"] != "epoch":
                return
            m = event["metrics"]
            said = f"MSE {m['mse']:.5f} ({psnr(m['mse']):.1f} dB)  perplexity {m['perplexity']:.0f}"
            progress.update(bar, completed=event["epoch"], description=said)
            if not console.is_terminal:
                console.print(f"epoch {event['epoch']}/{job.config.training.epochs}  {said}")

        recorder.listeners.append(show)
        progress.update(bar, completed=recorder.run.last_epoch(job.key))
        trial, running = Trial.open(job, recorder.run.known(job.key)), True
        while running:
            report = trial.step()
            recorder.report(job, report)
            running = report.status == "running"
            if signals.terminating and running:
                raise Preempted


def _record(recorder: Recorder, job: TrialJob, folder: Path, uri: str) -> None:
    data: DataSet = job.data
    facts: dict[str, Any] = {"data": data.source, "data_hash": data.hash, "image_size": data.image_size}
    recorder.write(
        "sweep",
        sweep="final",
        name=folder.name,
        id=recorder.run.sweep.get("id") or uuid.uuid4().hex,
        swept=[],
        trials=1,
        epochs=job.config.training.epochs,
        tags={"data": data.source, "data_hash": data.hash, "torch": torch.__version__},
        params={**facts, "started": time.strftime("%Y-%m-%d")},
        **({} if uri == default_uri(folder.parents[1]) else {"tracking_uri": without_password(accept(uri))}),
    )


def _keep_model(job: TrialJob, folder: Path) -> None:
    checkpoint = load_checkpoint(open_store(job.folder), job.key).checkpoint
    if checkpoint is None:
        raise ConfigError([f"{job.folder}: the checkpoint is damaged; start again to train anew"])
    trainer = Trainer(job.config, "cpu")
    trainer.load_state(checkpoint.tensors)
    save(trainer.model, job.config, folder / "model.safetensors")
    load(folder / "model.safetensors")  # a model that cannot be read back must not be called done


def _farewell(console: Console, folder: Path, reason: str, completed: bool, code: int) -> int:
    if completed:
        console.print("Next:")
        console.print(Text(f'  use it:  vqcore.load("{folder}/model.safetensors")'), soft_wrap=True)
        return 0
    if code in (INTERRUPTED, PREEMPTED):
        console.print("Interrupted; the same command goes on from the last epoch.")
        return code
    console.print(Text(f"The training ended early: {reason}", style="red"), soft_wrap=True)
    return 1


if __name__ == "__main__":
    leave(main())
