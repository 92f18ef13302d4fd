"""A run of one training: what the full training of a model and that of its prior share."""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, Generic, TypeVar

import torch
from rich.text import Text

from trainables.commands import Terminal, duration, exit_code
from trainables.data import DataSet
from trainables.errors import one_line
from trainables.flags import TrainingFlags
from trainables.interruption import Preempted
from trainables.job import Job
from trainables.journal import Event, read
from trainables.resumable import ResumableTraining
from trainables.revision import commit
from trainables.runs import JOURNAL
from trainables.session import RunSession, open_session
from trainables.tracking import accept, default_uri, without_password
from trainables.tracking_uri import started_with
from vqcore.errors import ConfigError

logger = logging.getLogger(__name__)

TrainingT = TypeVar("TrainingT", bound=ResumableTraining[Any, Any])


@dataclass(frozen=True)
class SingleRun(Generic[TrainingT]):
    """One training, and what is particular to its kind."""

    kind: str
    """As the journal names it: ``final``, ``prior``."""
    job: Job
    data: DataSet
    epochs: int
    """At most."""
    open_training: Callable[[], TrainingT]
    """The training as its newest checkpoint left it."""
    figures: Callable[[Mapping[str, float]], str]
    """An epoch's metrics on the screen."""
    keep: Callable[[TrainingT, RunSession], None]
    """Keeps what a completed training leaves, and says what it is."""
    origin: Mapping[str, Any]
    """Where what is trained comes from."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """What is recorded beside the data set."""

    def drive(self, session: RunSession, next_steps: Sequence[tuple[str, str]]) -> int:
        """Train, keep what is left, record the end, print what to do next; the exit code.

        ``next_steps`` are commands, each with what it does, for who has a completed training.
        """
        self._record(session)
        session.check_tracking()
        session.warn(session.gaps, *self.data.notes)
        session.tracker.start()
        session.console.print(f"{session.folder}: {self.epochs} epochs on {self.data.source}")
        code = session.run(lambda: self._train(session))
        recorded = session.record_end(complete=code == 0)
        behind = session.close_tracking(patient=code == 0)
        trial = session.writer.run.trials.get(self.job.key)
        completed = code == 0 and trial is not None and trial.status == "completed"
        if code == 0 and trial is not None and not completed:
            where = f" (in full: {session.log})" if trial.status == "failed" else ""
            session.console.print(Text(f"The training ended early: {trial.reason}{where}", style="red"), soft_wrap=True)
        steps = list(next_steps) if completed else []
        session.print_next([*steps, ("go on with", "the same command" if code else None), ("tell MLflow", behind)])
        return code or (0 if completed and recorded else 1)

    def _train(self, session: RunSession) -> None:
        """Train what is left. An error of the training's own ends it as failed; what a user can mend, a full disk or
        a folder that cannot be written, passes through."""
        writer, seconds = session.writer, list[float]()

        def show(event: Event) -> None:
            if event["event"] == "epoch":
                metrics, epoch = event["metrics"], event["epoch"]
                seconds.append(
                    metrics["seconds"]
                )  # of this process: after a resume elsewhere, those before say nothing
                left = f"  about {duration(mean(seconds) * (self.epochs - epoch))} left" if epoch < self.epochs else ""
                session.console.print(f"epoch {epoch}/{self.epochs}  {self.figures(metrics)}{left}")

        writer.listeners.append(show)
        try:
            # also of epochs that are all recorded, since a damaged checkpoint trains them again
            training = self.open_training()
            while (report := training.step()).status == "running":
                writer.report(self.job, report)
                if session.signals.terminating:
                    raise Preempted
            writer.report(self.job, report)
        except (OSError, ConfigError):
            raise
        except Exception as error:
            logger.exception("the training failed")
            writer.ended(self.job, "failed", one_line(error))
            return
        if report.status == "completed":
            self.keep(training, session)

    def _record(self, session: RunSession) -> None:
        """The training as a sweep of one trial."""
        data, uri = self.data, session.tracking_uri
        facts = {"data": data.source, "data_hash": data.hash}
        usual = uri == default_uri(session.folder.parents[1])
        sizes = {name: getattr(data, name) for name in ("image_size", "train_images", "test_images")}
        session.writer.write(
            "sweep",
            sweep=self.kind,
            name=session.folder.name,
            id=session.writer.run.sweep.get("id") or uuid.uuid4().hex,
            swept=[],
            trials=1,
            epochs=self.epochs,
            tags={**facts, "commit": commit(), "command": started_with(), "torch": torch.__version__},
            params={**facts, **sizes, **self.params},
            origin=dict(self.origin),
            **({} if usual else {"tracking_uri": without_password(accept(uri))}),
        )


JobT = TypeVar("JobT", bound=Job)


def run_alone(
    flags: TrainingFlags,
    terminal: Terminal,
    check: Callable[[], tuple[JobT, Path]],
    run: Callable[[JobT, RunSession], int],
) -> int:
    """Check what ``flags`` ask for, and run it; the exit code of the command.

    0; 1 for a training that failed; 2 for a wrong flag or file; 75 after SIGTERM, 130 after Ctrl-C: the same command
    then goes on.
    """

    def work() -> int:
        job, folder = check()
        with open_session(folder, str(Path(job.folder).parent), flags.uri, terminal) as session:
            return run(job, session)

    return exit_code(work, " before the first epoch; the same command goes on")


def check_folder(folder: Path, key: str, epochs: int) -> None:
    """``ConfigError`` if the folder holds another training, or this one at more epochs than are asked for."""
    trials = read(folder / JOURNAL).trials
    if trials and key not in trials:
        raise ConfigError([f"{folder}: holds the training of another configuration; choose another --name"])
    if trials and trials[key].last_epoch > epochs:
        raise ConfigError([f"--epochs {epochs}: this training has {trials[key].last_epoch} already; ask for more"])
