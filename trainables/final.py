"""Full-length training of one configuration: ``python -m trainables.final exports/knee.toml --epochs 100``.

Leaves ``model.safetensors`` and ``model.toml``, which ``vqcore.load`` reads, and ``README.md``, a model card. Started
again with the same words it goes on from its checkpoint, to the last bit on the CPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from trainables.card import CARD, write_card
from trainables.checkpoint import AT_MOST
from trainables.commands import Terminal
from trainables.data import DataSet, prepare
from trainables.flags import TrainingFlags
from trainables.interruption import leave
from trainables.job import TrialJob
from trainables.runs import NAME, command_line
from trainables.session import RunSession
from trainables.single_run import SingleRun, check_folder, run_alone
from trainables.snapshots import USUAL, snapshot_epochs
from trainables.storage import check_disk, sync_folder
from trainables.trial import Trial
from vqcore.config import ConfigError, TrialConfig, read_toml
from vqcore.errors import Problems
from vqcore.psnr import psnr
from vqcore.sizes import state_bytes
from vqcore.vqvae import save


@dataclass(frozen=True)
class Final(TrainingFlags):
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


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit code, as ``run_alone`` has it."""
    flags = tyro.cli(Final, prog="python -m trainables.final", args=arguments)
    return run_alone(
        flags, Terminal(), lambda: check_final(flags), lambda job, session: _run(job, session, _origin(flags.config))
    )


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
    problems.add(*flags.problems())
    snapshots = problems.of(lambda: snapshot_epochs(flags.snapshots, flags.snapshot_epochs, flags.epochs)) or ()
    problems.raise_any()
    assert config is not None
    assert data is not None
    key = config.key(data.hash)
    folder = flags.out / "final" / (flags.name or f"{flags.config.stem}-{key}")
    check_folder(folder, key, config.training.epochs)
    check_disk(str(folder / "trials"), AT_MOST * state_bytes(config.model))
    (folder / "trials").mkdir(parents=True, exist_ok=True)
    trial = str((folder / "trials" / key).absolute())
    return TrialJob(key, 0, config, data, trial, *flags.booking, snapshots=snapshots), folder


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
    """Train, keep model and card, record the end, print what to do next; the exit code."""
    folder = session.folder
    out = folder.parents[1]
    elsewhere = () if out == Path("runs") else ("--out", out)
    run = SingleRun(
        "final", job, job.data, job.config.training.epochs, lambda: Trial.open(job), _figures, _keep, origin
    )
    return run.drive(
        session,
        [
            ("use it", f'vqcore.load("{folder}/model.safetensors")'),
            ("read its card", str(folder / CARD)),
            ("see the codebook", command_line("analysis.figures", folder)),
            ("learn its prior", command_line("trainables.prior", folder, *elsewhere)),
        ],
    )


def _figures(metrics: Mapping[str, float]) -> str:
    mse = metrics["mse"]
    return f"MSE {mse:.5f} ({psnr(mse):.1f} dB)  perplexity {metrics['perplexity']:.0f}"


def _keep(trial: Trial, session: RunSession) -> None:
    """The model and its card."""
    _keep_model(trial, session.folder)
    try:
        write_card(session.folder)
    except ConfigError as error:  # a README of somebody's own
        session.warn(*error.problems)


def _keep_model(trial: Trial, folder: Path) -> None:
    """Write the model beside its place and rename it into it: whoever loads it finds the old one or the new one."""
    with TemporaryDirectory(dir=folder, prefix=".model-") as beside:
        save(trial.trainer.model, trial.job.config, Path(beside, "model.safetensors"))
        for name in ("model.toml", "model.safetensors"):
            Path(beside, name).replace(folder / name)
    sync_folder(folder)


if __name__ == "__main__":
    leave(main())
