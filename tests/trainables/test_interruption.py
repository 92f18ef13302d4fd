"""What a run does when it is asked to end: by Ctrl-C, twice, and by SIGTERM."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables import interruption
from trainables.commands import exit_code
from trainables.interruption import INTERRUPTED, PREEMPTED, Interruption, Preempted


@pytest.fixture
def signals() -> Iterator[Interruption]:
    with Interruption() as entered:
        yield entered


def test_sigterm_waits_no_longer_than_its_grace(signals: Interruption, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "GRACE_SECONDS", 0.05)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Preempted):
        time.sleep(30)


def test_once_it_finishes_sigterm_is_not_heard_any_more(signals: Interruption) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    signals.finish()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_the_first_ctrl_c_can_be_caught_the_second_ends_the_process_at_once() -> None:
    program = """
import time
from trainables.interruption import Interruption
with Interruption() as signals:
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        signals.finish()
        print("finishing", flush=True)
        time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "finishing\n"
        process.send_signal(signal.SIGINT)
        assert "a resume goes on" in process.communicate(timeout=20)[0]
    assert process.returncode == INTERRUPTED


def test_sigterm_asks_once_a_second_one_ends_the_work_and_then_all_is_as_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]

    def work() -> None:
        with Interruption() as signals:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does
            signals.listen()
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.terminating
            os.kill(os.getpid(), signal.SIGTERM)

    assert exit_code(work, " before the first epoch") == PREEMPTED
    assert capsys.readouterr().out == "Ended by SIGTERM before the first epoch.\n"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_an_import_keeps_the_signals_of_the_process(tmp_path: Path) -> None:
    """Also of a user's package that is run with ``python -m``: its ``finally`` is its own."""
    (tmp_path / "mine").mkdir()
    # a shell's background job begins with SIGINT ignored
    begin = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    (tmp_path / "mine" / "__init__.py").write_text(f"{begin}import sweeps, trainables, trainables.journal\n")
    (tmp_path / "mine" / "tool.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nfinally:\n    print('cleaned up')\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(interruption.__file__).parents[1]}"}
    run = subprocess.run(
        [sys.executable, "-m", "mine.tool"], env=environment, capture_output=True, text=True, check=False
    )
    assert run.stdout == "cleaned up\n"
    assert "KeyboardInterrupt" in run.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_command_whose_output_is_closed_exits_with_its_own_code(closed: str) -> None:
    program = "print('done'); from trainables.interruption import leave; leave(0)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {closed}"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
