"""One run of a sweep, checked before: run, analysed, its findings said."""

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from threadpoolctl import threadpool_limits

from analysis.layout import counted
from analysis.report import analyse
from sweeps.engine.driver import Driver
from sweeps.engine.live import LiveReport
from sweeps.engine.progress import Screen
from sweeps.engine.provenance import provenance
from sweeps.engine.queue import TrialQueue
from sweeps.engine.request import INLINE, CheckedSweep
from sweeps.engine.resources import fitting
from sweeps.engine.trials import TrialPlan
from sweeps.flags import kept
from trainables.interruption import PREEMPTED, Preempted
from trainables.journal import FINAL
from trainables.runs import JOURNAL, TOML_HEADER, command_line
from trainables.session import RunSession, open_session
from trainables.storage import is_bucket, replace_file
from trainables.tracking import browse_command, default_uri
from vqcore.config import toml_text


def run_session(ready: CheckedSweep, console: Console) -> int:
    """Run what is not finished yet, analyse, print the findings. One driver a run at a time.

    The exit code: 0; 1 if no trial completed or the machinery failed; 75 after SIGTERM; 130 after Ctrl-C.
    """
    request = ready.request
    one_thread = threadpool_limits(limits=1, user_api="blas")  # for forecasts: the cores are the trials'
    with one_thread, open_session(request.folder, request.trials_folder, request.tracking_uri, console) as session:
        return _SweepSession(ready, session).run()


class _SweepSession:
    """A sweep's part of a session: which trials are wanted, on what they train, what is made of them."""

    def __init__(self, ready: CheckedSweep, session: RunSession) -> None:
        self.ready, self.request = ready, ready.request
        self.session, self.console = session, session.console
        self.writer, self.tracker = session.writer, session.tracker
        self.notes = [session.gaps, *ready.notes]
        """What the user is to know before the training."""
        self.plan = TrialPlan(ready, self.writer)

    def run(self) -> int:
        """The whole course; the exit code."""
        code = self.session.run(self.begin_and_train)
        recorded = self.finish(code)
        completed = any(trial.status == "completed" for trial in self.writer.run.trials.values())
        return code or (0 if completed and recorded else 1)

    def begin_and_train(self) -> None:
        """Record the sweep, print what is about to run, and train what is not finished."""
        self.record_sweep()
        self.session.lap("checks")
        queues = self.plan.queues()
        queue = next(queues, None)
        self.greet(queue is not None)
        if queue is None:
            self.tracker.start()
            return
        capacity, packed = self.capacity if self.request.on_cluster else None, self.ready.booking.pack > 1
        driver = Driver(queue, self.writer, lambda: self.session.signals.terminating, capacity, packed)
        if self.request.flags.address == INLINE:
            from sweeps.engine.inline import run_inline

            self.tracker.start()
            self.train(driver, queues, partial(run_inline, packed=packed))
        else:
            self.train_on_ray(driver, queues)

    def train_on_ray(self, driver: Driver, queues: Iterator[TrialQueue]) -> None:
        """Train on a Ray of this process's own, or on the cluster that the check has joined."""
        # before the tracker's process imports mlflow: two large imports at once get in each other's way
        from sweeps.engine import ray_cluster
        from sweeps.engine.packs import Packs
        from sweeps.engine.ray_runner import run_on_ray

        self.tracker.start()
        booking, data, arrays = self.ready.booking, self.ready.data, None
        try:
            if self.request.on_cluster:
                arrays = data.train(), data.test()
            else:
                processes = booking.processes
                ray_cluster.start(max(1, round(processes * booking.cpus)), round(processes * booking.gpus))
            self.session.lap("the start of Ray")
            self.session.signals.listen()  # Ray has put its own handlers before ours
            packs = Packs(booking.pack, arrays) if booking.pack > 1 else None
            self.train(driver, queues, partial(run_on_ray, arrays=arrays, packs=packs))
        finally:
            ray_cluster.disconnect()
            self.session.lap("the end of Ray")

    def train(self, driver: Driver, queues: Iterator[TrialQueue], run: Callable[[Driver], None]) -> None:
        """``run`` the driver's queue of trials and then the others, under one screen."""
        screen = Screen(self.console, self.writer.run, self.plan, self.ready.spec, lambda: driver.queue.slots)
        self.writer.listeners.append(screen)
        try:
            with screen, LiveReport(self.request.folder):
                while True:
                    run(driver)
                    if self.session.signals.terminating:
                        raise Preempted
                    if not driver.queue.finished:
                        raise RuntimeError("the trials' processes ended before their work did")
                    if (queue := next(queues, None)) is None:
                        return
                    queue.slots, driver.queue = driver.queue.slots, queue
        finally:
            self.session.lap("training")

    def capacity(self) -> int:
        """How many trials fit on the cluster now: what it has, or as much of it as was asked for."""
        from sweeps.engine.ray_cluster import available

        flags, booking = self.request.flags, self.ready.booking
        fit = fitting(available(str(flags.address)), booking)
        return fit if flags.num_gpus is None and flags.num_cpus is None else min(fit, booking.slots)

    def record_sweep(self) -> None:
        """``sweep.toml``, and the ``sweep`` event; a resumed run keeps its id."""
        request, data, spec, known = self.request, self.ready.data, self.ready.spec, self.writer.run
        facts = provenance() | {"data": data.source, "data_hash": data.hash}
        before, now = known.sweep.get("tags", {}).get("commit", facts["commit"]), facts["commit"]
        if before != now:
            mixed = "if that changes how trials train, they mix"
            self.notes.append(f"This run was last driven by commit {before}, now by {now}: {mixed}.")
        identity = known.sweep.get("id") or uuid.uuid4().hex
        tables = {
            "sweep": {"sweep": request.sweep, "name": request.name, "id": identity},
            "space": spec.tables(),
            "base": spec.base.toml(),
            "provenance": facts,
            "flags": kept(request.flags),
            **({"sharing": self.ready.sharing.table()} if self.ready.sharing else {}),
        }
        self.link_storage()
        told = ("image_size", "train_images", "test_images")
        self.writer.write(
            "sweep",
            sweep=request.sweep,
            name=request.name,
            id=identity,
            swept=list(spec.swept),
            trials=self.plan.planned,
            epochs=spec.base.training.epochs,
            storage=request.flags.storage and request.trials_folder,
            toml=tables,
            tags=facts,
            params={
                "data": data.source,
                "data_hash": data.hash,
                **{name: getattr(data, name) for name in told},
                "seeds": spec.seeds,
                "epochs": spec.base.training.epochs,
                **(spec.search.summary() if spec.search else {}),
                **spec.tables(),
            },
        )
        replace_file(request.folder / "sweep.toml", toml_text(tables, TOML_HEADER).encode())

    def link_storage(self) -> None:
        """Make the folder of the trials; the run's leads to one in ``--storage``: whoever reads it need not know."""
        link, target = self.request.folder / "trials", self.request.trials_folder
        if is_bucket(target):
            return
        Path(target).mkdir(parents=True, exist_ok=True)  # a node that does not see it lacks the shared folder
        if self.request.flags.storage is not None and not link.is_symlink():
            link.symlink_to(target)

    def greet(self, trains: bool) -> None:
        """What is about to run, and whether MLflow will hear of it."""
        request, data, booking, trials = self.request, self.ready.data, self.ready.booking, self.plan.planned
        if not trains:
            self.console.print(f"{request.folder}: all {trials} trials have ended already; nothing to train.")
            return
        share = f"{booking.gpus:g} GPU" if booking.gpus else f"{booking.cpus:g} CPU"
        share = f"{share} each" if booking.pack == 1 else f"{share} for each {booking.pack}, which train as one"
        where = f", on the Ray cluster at {request.flags.address}" if request.on_cluster else ""
        ended = sum(trial.status in FINAL for trial in self.writer.run.trials.values())
        self.console.print(
            f"{request.sweep}: {counted(trials, 'trial')}{f' ({ended} have ended)' if ended else ''}, {self._each()}, "
            f"on {data.source} ({data.train_images:,} training images), {min(booking.slots, trials)} at once on "
            f"{share}{where}: {request.folder}"
        )
        if request.on_cluster:
            self.console.print("This process listens on all interfaces, as each of Ray's: the cluster's nodes call it.")
        self.console.print(f"Look at {request.folder}/report.html in a browser: written anew while the trials run.")
        self.session.warn(*self.notes)
        self.session.check_tracking()

    def _each(self) -> str:
        """How long each trial is trained, and how often the best are repeated."""
        spec, search = self.ready.spec, self.ready.spec.search
        upto = "up to " if search and (search.rule or search.budget) else ""
        words = f"{upto}{counted(spec.base.training.epochs, 'epoch')} each"
        words += f" and {search.budget:,} in all" if search and search.budget else ""
        more = counted(spec.seeds - 1, "more seed")
        return words + (f", then up to {more} of those near the front" if search and spec.seeds > 1 else "")

    def finish(self, code: int) -> bool:
        """Make what is made of a run, record how it ended, print the findings; whether its end could be recorded.

        After SIGTERM there is little time: what is made of a run is then left to the resume.
        """
        ended = not code and all(trial.status != "running" for trial in self.writer.run.trials.values())
        try:
            there = (self.request.folder / JOURNAL).exists()  # someone may have removed it
            with self.session.stage("Making tables and pictures"):
                findings = analyse(self.request.folder) if there and code != PREEMPTED else None
        finally:  # an error in a picture must not make a finished run look killed
            recorded = self.session.record_end(ended)
        self.session.lap("analysis")
        if findings is not None:
            self.console.print()
            self.console.print(findings.renderable())
        tell_mlflow = self.session.close_tracking(patient=ended)
        self.session.lap("MLflow")
        self.session.print_laps()
        self.print_next(ended and recorded, tell_mlflow)
        return recorded

    def print_next(self, ended: bool, tell_mlflow: str | None) -> None:
        """Print which commands to run next."""
        request, lines = self.request, list[tuple[str, str | None]]()
        knee, page = request.folder / "exports" / "knee.toml", request.folder / "report.html"
        lines.append(("look at", str(page) if page.exists() else None))
        if not ended:
            lines.append(("go on with", command_line(*request.argv, "--resume", request.folder)))
        elif knee.exists():
            lines.append(("train the knee", command_line("trainables.final", knee, "--epochs", 100)))
        failed = sum(trial.status == "failed" for trial in self.writer.run.trials.values())
        if ended and failed:
            lines.append((f"retry {failed} failed", command_line(*request.argv, "--resume", request.folder)))
        if tell_mlflow:
            lines.append(("tell MLflow", tell_mlflow))
        elif request.tracking_uri == default_uri(request.flags.out):
            lines.append(("browse", browse_command(request.flags.out)))
        self.session.print_next(lines)
