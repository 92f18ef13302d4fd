import errno
import subprocess
import sys

import pytest

from trainables.commands import Terminal, exit_code
from trainables.interruption import Preempted
from vqcore.errors import ConfigError


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError(["trials = 0: must be at least 1", "epochs = -1: must be at least 1"]), 2, 2),
        (OSError(errno.ENOSPC, "No space left on device", "runs/a"), 2, 1),
        (KeyboardInterrupt(), 130, 0),
        (Preempted(), 75, 0),
    ],
    ids=["a wrong flag", "a full disk", "Ctrl-C", "SIGTERM"],
)
def test_errors_that_a_user_can_act_on_are_lines_and_an_exit_code(error, code, lines, capsys):
    def work():
        raise error

    assert exit_code(work) == code
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_terminal_of_no_width_is_80_columns_wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    assert Terminal().width == 80
    monkeypatch.setenv("COLUMNS", "120")
    assert Terminal().width == 120


PRINTS_MUCH = """
from trainables.commands import Terminal, run_command
def main() -> None:
    for _ in range(20_000):
        {line}
    open("written", "w").write("all of it")
run_command(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "shell", "written"),
    [
        ("Terminal().print('a line')", "{} | head -n 1; exit ${{PIPESTATUS[0]}}", True),
        ("Terminal().print('a line')", "{} >&-", True),
        ("print('a line')", "{} | head -n 1; exit ${{PIPESTATUS[0]}}", False),
    ],
    ids=["a reader that leaves", "closed from the start", "a plain print"],
)
def test_output_that_nobody_reads_is_no_error(tmp_path, line, shell, written):
    script = tmp_path / "script.py"
    script.write_text(PRINTS_MUCH.format(line=line))
    command = shell.format(f"{sys.executable} {script}")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "written").exists() is written
