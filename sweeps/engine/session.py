"""One run of a sweep, checked before: run, analysed, its findings said."""

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console
from rich.text import Text

from analysis.report import analyse
from sweeps.engine.driver import Driver
from sweeps.engine.inline import run_inline
from sweeps.engine.progress import Screen
from sweeps.engine.provenance import fingerprint, provenance
from sweeps.engine.queue import TrialQueue
from sweeps.engine.request import INLINE, Ready
from sweeps.engine.resources import fitting
from sweeps.engine.trials import TrialPlan
from trainables.errors import one_line, run_log
from trainables.interruption import INTERRUPTED, PREEMPTED, Interruption, Preempted
from trainables.mend import mend
from trainables.recorder import Recorder
from trainables.runs import JOURNAL, LOCK, TOML_HEADER, command_line
from trainables.storage import is_bucket, join
from trainables.tracking import Tracker, browse_command, check, default_uri, sync_command
from vqcore.config import ConfigError, read_toml, write_toml

logger = logging.getLogger(__name__)


def run_session(ready: Ready, console: Console) -> int:
    """Run what is not finished yet, analyse, say what was found. One driver a run at a time.

    The exit code: 0; 1 if no trial completed or the machinery failed; 75 after SIGTERM; 130 after Ctrl-C.
    """
    folder = ready.request.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0), Interruption() as signals, run_log(folder):
            return _Session(ready, console, signals).run()
    except Timeout:
        raise ConfigError([f"{folder}: another driver is at work on this run; wait for it, or end it"]) from None


class _Session:
    """What a run needs from its first event to its last word."""

    def __init__(self, ready: Ready, console: Console, signals: Interruption) -> None:
        self.ready, self.request, self.console, self.signals = ready, ready.request, console, signals
        self.recorder = Recorder(self.request.folder)
        self.mended = mend(self.recorder, lambda key: join(self.request.trials_folder, key))
        self.begun_with: dict[str, Any] = self.recorder.run.sweep.get("tags", {})
        """Facts about the code that this run was last driven by; none of a new one."""
        self.tracker = Tracker(self.request.folder, self.request.tracking_uri)
        self.plan = TrialPlan(ready, self.recorder.run)
        self.recorder.listeners.append(self.plan.on_event)
        self.unreachable: str | None = None
        """Why MLflow could not be told anything at the start."""
        self.queue: TrialQueue | None = None
        """What is to be trained next; None when nothing is."""

    def run(self) -> int:
        """The whole course; the exit code."""
        failed = False
        try:
            self.record_sweep()
            self.queue = self.plan.queue()
            if self.queue.finished:
                self.next_queue()
            self.greet()
            if self.queue is None:
                self.tracker.start()
            else:
                self.train()
        except KeyboardInterrupt:
            self.console.print("Stopping; everything recorded is kept.")
            return self.finish(INTERRUPTED)
        except Preempted:
            self.console.print("Asked to end (SIGTERM); everything recorded is kept.")
            return self.finish(PREEMPTED)
        except Exception as error:  # Ray lost, its folder full: the run can go on later, and must say so
            if self.signals.terminating:  # whoever ends all processes of a job at once has ended Ray's too
                self.console.print("Asked to end (SIGTERM); everything recorded is kept.")
                return self.finish(PREEMPTED)
            failed = True
            logger.exception("the run ended")
            self.console.print(Text(f"The sweep cannot go on: {one_line(error)}", style="red"), soft_wrap=True)
        completed = any(trial.status == "completed" for trial in self.recorder.run.trials.values())
        return self.finish(1 if failed or not completed else 0, failed)

    def train(self) -> None:
        """Run all that is wanted, on Ray or in this process."""
        if self.request.address == INLINE:
            self.tracker.start()
            self.train_all(run_inline)
            return
        # before the tracker's process imports mlflow: two large imports at once get in each other's way
        from sweeps.engine import ray_cluster
        from sweeps.engine.ray_runner import run_on_ray

        self.tracker.start()
        booking, address = self.ready.booking, self.request.address
        try:
            if address is None:
                ray_cluster.start(max(1, round(booking.slots * booking.cpus)), round(booking.slots * booking.gpus))
            self.signals.listen()  # Ray has put its own handlers before ours
            arrays = None if address is None else (self.ready.data.train(), self.ready.data.test())
            self.train_all(lambda driver: run_on_ray(driver, arrays))
        finally:
            ray_cluster.disconnect()

    def train_all(self, run: Callable[[Driver], None]) -> None:
        """``run`` one queue of trials after the other, under one screen."""
        screen = Screen(self.console, self.recorder.run, self.plan, self.ready.spec.swept, self._slots)
        self.recorder.listeners.append(screen)
        with screen:
            while self.queue is not None:
                run(Driver(self.queue, self.recorder, self._asked, self._capacity()))
                if self.queue.halted:
                    raise Preempted
                if not self.queue.finished:
                    raise RuntimeError("the trials' processes ended before their work did")
                self.next_queue()

    def _capacity(self) -> Callable[[], int] | None:
        """How many trials fit on the cluster now: what it has, or as much of it as was asked for."""
        request, booking, address = self.request, self.ready.booking, self.request.address
        if address in (None, INLINE):
            return None
        from sweeps.engine.ray_cluster import available

        def capacity() -> int:
            fit = fitting(available(str(address)), booking)
            return fit if request.num_gpus is None and request.num_cpus is None else min(fit, booking.slots)

        return capacity

    def _slots(self) -> int:
        """Trials at once, as many as there are room and memory for now."""
        return self.queue.slots if self.queue is not None else self.ready.booking.slots

    def _asked(self) -> bool:
        return self.signals.terminating

    def next_queue(self) -> None:
        """Record which trials go no further now that a queue is finished; find what comes next."""
        assert self.queue is not None
        for job, reason in self.queue.stopped():
            if job.key in self.recorder.run.trials:  # else it never began
                self.recorder.ended(job, "stopped", reason)
        self.queue = self.plan.more_seeds(self.recorder.decided)

    def record_sweep(self) -> None:
        """``sweep.toml``, and the ``sweep`` event; a resumed run keeps its id."""
        request, data, spec, known = self.request, self.ready.data, self.ready.spec, self.recorder.run
        facts = provenance() | {"code": fingerprint(), "data": data.source, "data_hash": data.hash}
        identity = known.sweep.get("id") or _id_in(request.folder / "sweep.toml") or uuid.uuid4().hex
        tables = {
            "sweep": {"sweep": request.sweep, "name": request.name, "id": identity},
            "space": spec.tables(),
            "base": spec.base.toml(),
            "provenance": facts,
            "flags": dict(request.flags),
        }
        self.link_storage()
        told = ("image_size", "train_images", "test_images")
        self.recorder.write(
            "sweep",
            sweep=request.sweep,
            name=request.name,
            id=identity,
            swept=list(spec.swept),
            trials=self.plan.planned,
            epochs=spec.base.training.epochs,
            storage=request.storage and request.trials_folder,
            toml=tables,
            tags=facts,
            params={
                "data": data.source,
                "data_hash": data.hash,
                **{name: getattr(data, name) for name in told},
                "seeds": spec.seeds,
                "epochs": spec.base.training.epochs,
                **(spec.search.told() if spec.search else {}),
                **spec.tables(),
            },
        )
        write_toml(request.folder / "sweep.toml", tables, header=TOML_HEADER)

    def link_storage(self) -> None:
        """Make the folder of the trials; the run's leads to one in ``--storage``: whoever reads it need not know."""
        link, target = self.request.folder / "trials", self.request.trials_folder
        if is_bucket(target):
            return
        Path(target).mkdir(parents=True, exist_ok=True)  # a node that does not see it lacks the shared folder
        if self.request.storage is not None and not link.is_symlink():
            link.symlink_to(target)

    def greet(self) -> None:
        """What is about to run, and whether MLflow will hear of it."""
        request, data, booking, trials = self.request, self.ready.data, self.ready.booking, self.plan.planned
        if self.queue is None:
            self.console.print(f"{request.folder}: all {trials} trials have ended already; nothing to train.")
            return
        share = f"{booking.gpus:g} GPU" if booking.gpus else f"{booking.cpus:g} CPU"
        self.console.print(
            f"{request.sweep}: {trials} trials, epochs: {self.ready.spec.base.training.epochs}, on {data.source} "
            f"({data.train_images:,} images), {min(booking.slots, trials)} at once on {share} each"
            f"{self._where()}: {request.folder}"
        )
        if request.address not in (None, INLINE):
            self.console.print("This process listens on all interfaces, as each of Ray's: the cluster's nodes call it.")
        for words in filter(None, (self.mended, self.changed_code())):
            self.console.print(Text(f"{words}.", style="yellow"), soft_wrap=True)
        self.unreachable = check(request.tracking_uri)
        if warning := self.unreachable:
            words = f"MLflow: {warning}. The sweep goes on; what is missing is sent later."
            self.console.print(Text(words, style="yellow"))

    def _where(self) -> str:
        return "" if self.request.address in (None, INLINE) else f", on the Ray cluster at {self.request.address}"

    def changed_code(self) -> str:
        """Words for a resume by other code than before."""
        before, now = self.begun_with.get("code"), fingerprint()
        if before in (None, now):
            return ""
        return (
            f"The code that trains has changed since this run was last driven ({before}, now {now}): trials that go on "
            f"may not equal those of an undisturbed run; go back to commit {self.begun_with.get('commit')}, or start a "
            "new run"
        )

    def finish(self, code: int, failed: bool = False) -> int:
        """Make what is made of a run, record how it ended, say what was found; the exit code.

        Whoever preempts kills soon: what is made of a run is then left to the resume.
        """
        trials = self.recorder.run.trials.values()
        interrupted = failed or code in (INTERRUPTED, PREEMPTED)  # also where nothing runs, of what was to come
        ended = not interrupted and all(trial.status != "running" for trial in trials)
        self.signals.finish()
        try:
            there = (self.request.folder / JOURNAL).exists()  # someone may have removed it
            findings = analyse(self.request.folder) if there and code != PREEMPTED else None
        finally:  # an error in a picture must not make a finished run look killed
            recorded = self.record_end(ended)
        if findings is not None:
            self.console.print()
            self.console.print(findings.renderable())
        # nobody waits long for a server that has been failing, or after Ctrl-C: what is missing can be sent later
        short = self.unreachable or self.tracker.problem or not ended
        sent = self.tracker.close(timeout=5 if short else 60)
        self.say_next(ended and recorded, sent)
        return code if recorded else code or 1

    def record_end(self, ended: bool) -> bool:
        """Record how the run ended; whether it could be recorded."""
        try:
            self.recorder.write("done" if ended else "pause")
        except OSError as error:
            self.console.print(Text(f"Its end could not be recorded: {one_line(error)}", style="red"), soft_wrap=True)
            return False
        finally:
            self.recorder.close()
        return True

    def say_next(self, ended: bool, sent: bool) -> None:
        """Which commands to run next."""
        request, lines = self.request, []
        knee = request.folder / "exports" / "knee.toml"
        if not ended:
            lines.append(("go on with", command_line(*request.words, "--resume", request.folder)))
        elif knee.exists():
            lines.append(("train the best", command_line("trainables.final", knee, "--epochs", 100)))
        if not sent:
            self.console.print(Text(f"MLflow is behind: {self.tracker.problem or 'it is slow'}", style="yellow"))
            lines.append(("tell MLflow", sync_command(request.folder, request.tracking_uri)))
        elif request.tracking_uri == default_uri(request.out):
            lines.append(("browse", browse_command(request.out)))
        if lines:
            self.console.print("Next:")
        for what, how in lines:
            # soft_wrap: a command that the terminal breaks cannot be copied
            self.console.print(Text(f"  {what + ':':<16}{how}"), soft_wrap=True)


def _id_in(sweep_toml: Path) -> str | None:
    """The run's id, where the journal has lost it."""
    try:
        found = read_toml(sweep_toml).get("sweep", {}).get("id")
    except ConfigError:
        return None
    return found if isinstance(found, str) else None
