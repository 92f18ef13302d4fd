"""Ray: started on this machine, or joined where it runs; what its nodes offer, and the code that they run.

A Ray of our own listens on loopback only, behind a token that nobody else has. Every trial's process, also one started
days later on a node that has only just joined, imports the code as it was when the sweep began.
"""

import gc
import ipaddress
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_STATE_REFRESH_PERIOD", "1e9")  # it would ask the head, and wait for a dead one
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "1e9")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "0")
os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")  # a job of Ray's may bring code of its own

import ray
from filelock import FileLock, Timeout
from ray._private import ray_constants, services
from ray._private.node import Node
from ray._raylet import AuthenticationTokenLoader, Config, GcsClient  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError, RayError, RpcError

from sweeps.engine.resources import Available
from trainables.interruption import PREEMPTED
from vqcore.config import ConfigError
from vqcore.estimators import ESTIMATORS

PACKAGES = ("vqcore", "trainables", "analysis", "sweeps")
"""Ours, that trials' processes import from."""

ANSWER_SECONDS = 10.0
"""How long the head of a cluster may take to answer. Ray itself would try for 40."""

LOST_SECONDS = 20.0
"""How long the head may be silent before it is taken for dead."""

LAST_SECONDS = 25.0
"""How long this process may then take to hear of it: it may wait inside Ray for what never comes."""

HURRIED_SECONDS = 3.0
"""Both of these, after SIGTERM; the first also where there is nothing to wait for."""

_CODE = "vqsweep-code-"
"""How folders of copied code are called."""

_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"
"""How long a process waits for a dead head."""

_leaving, _copies = ExitStack(), ExitStack()
"""What ``disconnect`` has to put back, and to remove."""

_lost = threading.Event()
"""Set once the head is dead: whatever is asked of Ray now would wait for it."""


class _Head:
    """Of the cluster that is joined. Asked by Ray's own functions, a dead one would let us wait for ever."""

    def __init__(self) -> None:
        self.address = ""
        self.nodes: list[Any] = []
        """Those that live, as it said last."""

    def join(self) -> None:
        """Ask this one from now on."""
        context = ray.get_runtime_context()
        self.address, self.own = context.gcs_address, context.get_node_id()
        self.client = GcsClient(address=self.address)

    @property
    def died(self) -> bool:
        """Whether what Ray consists of on this machine is dead for certain; of a Ray of our own we can tell."""
        ours = ray._private.worker._global_node
        return ours is not None and bool({"raylet", "gcs_server"} & {name for name, _ in ours.dead_processes()})

    def ask(self) -> bool:
        """Learn which nodes there are; whether it answers in time, and this machine's own is among them."""
        if self.died:
            return False  # which the head itself would find out in half a minute
        try:
            found = self.client.get_all_node_info(timeout=LOST_SECONDS / 10).values()
        except RpcError:
            return False
        self.nodes = [node for node in found if node.state == GcsNodeInfo.ALIVE]
        return any(node.node_id.hex() == self.own for node in self.nodes)


_head = _Head()


class _LostError(BaseException):  # as KeyboardInterrupt: no `except Exception` may take it
    """The head is dead."""


def connect(address: str | None, num_cpus: int, num_gpus: int) -> Available:
    """Start Ray on this machine, or join the cluster at ``address``; what can be booked there.

    Raises ``ConfigError`` if no cluster can be joined there.
    """
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is told by the journal and the screen
    warnings.filterwarnings("ignore", module="ray")
    # raylets push pages about each worker that dies onto the driver's screen, past every logging level
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    # on SIGTERM Ray would end this process with code 15 or 1, whatever it is at, the start of Ray included
    ray._private.utils.set_sigterm_handler = lambda *_: None
    _travel_by_value()
    _lost.clear()
    # Ray's C++ ends a process that has lost its head; a minute is short for what is made of a run
    _leaving.enter_context(_environment({_PATIENCE: "600"}))
    if address:
        _join(address)
    else:
        _start(num_cpus, num_gpus)
    _head.join()
    return available_now(address)


def available_now(address: str | None) -> Available:
    """What the live nodes offer now: of a cluster, nodes leave and join. Takes under a millisecond.

    Of a head that does not answer, what it said last: ``watched`` takes care of that.
    """
    _head.ask()
    totals = [node.resources_total for node in _head.nodes]
    cpus, gpus = (int(sum(total.get(kind, 0) for total in totals)) for kind in ("CPU", "GPU"))
    return Available(cpus, gpus, f"the cluster at {address}" if address else "this machine")


def node_count() -> int:
    """Nodes of the cluster that is joined, as of the last ``available_now``."""
    return len(_head.nodes)


def disconnect() -> None:
    """Leave Ray, ending it if ``connect`` started it. Takes a second, in which nothing else may run.

    Ray's C++ ends the whole process if another thread lets go of one of Ray's objects meanwhile, be it by collecting
    garbage. So that is done before, and not again until Ray is gone.
    """
    _copies.close()
    if _lost.is_set():
        return  # it goes when this process does, and until then needs the token
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
    _leaving.close()


@contextmanager
def watched(asked: Callable[[], bool]) -> Iterator[None]:
    """Raise ``ConnectionError`` here, in the main thread, when the head of the cluster dies, or this machine's node.

    Ray's own driver would wait for it a minute, then end without a word. Once ``asked`` to end nobody waits long: who
    sends SIGTERM to every process of a job, Ray's own among them, kills soon.
    """
    over = threading.Event()
    words = (
        f"Ray has not answered: its head at {_head.address} is silent, or it is dead on this machine; what is "
        "recorded is kept"
    )

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _LostError

    def watch() -> None:
        heard = time.monotonic()
        while not over.wait(LOST_SECONDS / 10):
            if _head.ask():
                heard = time.monotonic()
            if time.monotonic() - heard > (HURRIED_SECONDS if asked() or _head.died else LOST_SECONDS):
                _lost.set()
                signal.pthread_kill(main, signal.SIGUSR2)  # as a Ctrl-C, which Ray lets through where it waits
                if not over.wait(HURRIED_SECONDS if asked() else LAST_SECONDS):
                    os.write(2, f"The sweep cannot go on: {words}; go on with --resume.\n".encode())
                    os._exit(PREEMPTED if asked() else 1)
                return

    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR2, interrupt)
    threading.Thread(target=watch, name="head", daemon=True).start()
    try:
        yield
    except (_LostError, SystemError):  # the latter is what Ray's C++ makes of the former
        if not _lost.is_set():
            raise
        raise ConnectionError(words) from None
    finally:
        over.set()
        signal.signal(signal.SIGUSR2, before)


def _start(num_cpus: int, num_gpus: int) -> None:
    """A Ray of our own, for this process and its trials."""
    code = _copies.enter_context(_snapshot())
    _leaving.enter_context(_token_of_its_own())
    with _on_loopback(), _only_what_trials_need(), _patience_for_us_alone():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            include_dashboard=False,
            runtime_env=_runtime_env(f"local://{code}"),  # used where it lies: an upload takes a second
            **_quiet(),
        )
    own: str = services.get_node_ip_address()  # type: ignore[no-untyped-call]
    if not ipaddress.ip_address(own).is_loopback:
        disconnect()
        raise RuntimeError(f"Ray {ray.__version__} would listen beyond this machine; install ray 2.60")


def _join(address: str) -> None:
    """The cluster at ``address``, with the token it wants. ``ConfigError`` where it cannot be joined."""
    try:
        head = services.canonicalize_bootstrap_address(address)  # auto means the one on this machine
        if head is None:
            raise ConnectionError("Ray does not run on this machine")
        nodes = _nodes(head)
        here: set[str] = services.find_node_ids()  # type: ignore[no-untyped-call]
        if not here & nodes:
            raise ConnectionError("this machine is no node of it; run the sweep on one, best on its head node")
        with _snapshot() as code:
            ray.init(address=head, runtime_env=_runtime_env(str(code)), **_quiet())
    except AuthenticationError as error:
        raise ConfigError(
            [
                f"--address {address}: the cluster takes no one without its token, and none was given or another; put "
                "the one it was started with into RAY_AUTH_TOKEN, into the file that RAY_AUTH_TOKEN_PATH names, or "
                "into ~/.ray/auth_token"
            ]
        ) from error
    except (RayError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        words = " ".join(str(error).split())[:200]
        raise ConfigError([f"--address {address}: no Ray cluster can be joined there ({words})"]) from error


def _nodes(head: str) -> set[str]:
    """The ids of the cluster's live nodes. ``AuthenticationError`` without the token that the cluster wants."""
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is None:
        try:
            return _ask(head)
        except AuthenticationError:
            _configure({"RAY_AUTH_MODE": "token"})  # only now: a cluster that wants no token is sent none
    if mode in (None, "token") and not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise AuthenticationError("no token was found")  # Ray's C++ would end this process
    return _ask(head)


def _ask(head: str) -> set[str]:
    answers: list[set[str] | Exception] = []

    def ask() -> None:
        try:
            found = GcsClient(address=head).get_all_node_info(timeout=ANSWER_SECONDS)
            answers.append({node.hex() for node in found})
        except Exception as error:
            answers.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    with _hushed():
        asking.start()
        asking.join(ANSWER_SECONDS)
    if not answers:
        raise TimeoutError(f"nothing that answers there within {ANSWER_SECONDS:g} s is the head of one")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _quiet() -> dict[str, Any]:
    return {"log_to_driver": False, "logging_level": logging.CRITICAL}


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray's C++ writes to file descriptor 2 what is said in words elsewhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Let Ray take loopback for this machine's address, as it does on macOS: it then listens nowhere else."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _only_what_trials_need() -> Iterator[None]:
    """Start no dashboard (there is one, of no pages, even if none is asked for), autoscaler or forwarder of logs.

    Nobody here asks them anything, and each is a Python to start and to end: half of the seconds that Ray takes.
    """
    names = ("start_api_server", "start_monitor", "start_log_monitor")
    before = {name: getattr(Node, name) for name in names}
    for name in names:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


@contextmanager
def _patience_for_us_alone() -> Iterator[None]:
    """Ray's own processes wait for a dead head as long as they do by themselves, and so leave after a minute."""
    own = Node.start_ray_processes

    def start(node: Node) -> None:
        ours = os.environ.pop(_PATIENCE)
        try:
            own(node)  # type: ignore[no-untyped-call]
        finally:
            os.environ[_PATIENCE] = ours

    Node.start_ray_processes = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.start_ray_processes = own  # type: ignore[method-assign]


@contextmanager
def _token_of_its_own() -> Iterator[None]:
    """Loopback is open to every user of this machine: without this run's token, Ray answers none of them.

    In the environment, which only this user's processes can read; Ray by itself would write it to a file at home.
    """
    if os.environ.get("RAY_AUTH_MODE") == "disabled":
        yield
        return
    with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These values for Ray in this process and in those that it starts."""
    before = {name: os.environ.get(name) for name in values}
    _configure(values)
    try:
        yield
    finally:
        _configure(before)


def _configure(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    Config.initialize("")  # Ray's C++ keeps what it read at first
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _snapshot() -> Iterator[Path]:
    """A copy of our packages' code as it is now, for as long as it is needed, beside a lock that dies with us."""
    _remove_left_over()
    folder = Path(tempfile.mkdtemp(prefix=_CODE))
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire()
        for package in PACKAGES:
            spec = find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin).parent
            # what Python compiled goes along, valid since times are kept: a trial's process starts sooner
            shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("embedded"))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _remove_left_over() -> None:
    """Copies whose driver was killed outright: nobody holds their lock any more."""
    for file in Path(tempfile.gettempdir()).glob(f"{_CODE}*.lock"):
        with suppress(Timeout, OSError):  # it is at work, or was removed just now
            if file.lstat().st_uid != os.getuid():
                continue  # another user's; it might also be a link, and to take a lock empties the file
            with FileLock(file, timeout=0):
                shutil.rmtree(file.with_suffix(""), ignore_errors=True)
                file.unlink()


def _runtime_env(code: str) -> dict[str, Any]:
    """``code`` before all else; then, as ever, where this process would find a module of the user's own.

    With a ``working_dir`` Ray leaves the two folders out, which it would put before any other way to ship code.
    """
    script = str(Path(sys.argv[0]).absolute().parent)
    folders = [str(Path.cwd()), *([script] if script in sys.path else [])]  # with `python -m` it is not
    return {"working_dir": code, "env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}


def _travel_by_value() -> None:
    """Let estimators of the user's own travel whole, as they are now: no node need have their module."""
    for name in {function.__module__ for function in ESTIMATORS.values()}:
        if name.partition(".")[0] not in PACKAGES and name != "__main__" and name in sys.modules:
            ray.cloudpickle.register_pickle_by_value(sys.modules[name])  # type: ignore[no-untyped-call]
