"""python -m trainables.follower: the process beside a driver that tells MLflow. ``Tracker`` starts it, nobody else.

It reads one line of JSON, what to follow and whom to tell, on its standard input, then a line when the sweep is over.
The end of that input without the line means that the driver died, and so it ends at once: whoever resumes the run goes
on. What it comes to it writes as lines of JSON to its standard output.
"""

import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from trainables.sender import GoneError, Sender
from trainables.tracking_uri import one_line

POLL, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two looks at the journal; the most between two attempts to reach a server that fails."""

AGAIN = 75
"""Exit code: begin anew, in a fresh process."""


@dataclass(frozen=True)
class Said:
    """How far MLflow is behind."""

    problem: str | None = None
    """Why nothing gets through, in one line without secrets; None if all does."""
    refused: str | None = None
    """What MLflow does not take."""
    caught_up: bool = False
    """Whether all was sent, after the sweep was over."""
    over: bool = False
    """Whether this was found out after the sweep was over."""


class Follower:
    """Follows the journal of a running sweep. Never gives up."""

    def __init__(self, folder: Path, uri: str, answer: TextIO) -> None:
        self._sender, self._uri, self._answer = Sender(folder, uri), uri, answer
        self._said: Said | None = None
        self._closing = threading.Event()

    def close(self) -> None:
        """What is in the journal now is all: return from ``follow`` when it is sent."""
        self._closing.set()

    def follow(self) -> None:
        """Send what comes, until it is all after ``close``. ``GoneError`` where only a fresh process can go on."""
        wait = POLL
        while True:
            last = self._closing.is_set()  # asked first: what was written before close() is then certainly read
            try:
                self._sender.update()
                self._say(Said(None, self._sender.refused, last, last))
                wait = POLL
                if last:
                    return
            except GoneError:
                raise
            except Exception as error:
                self._say(Said(one_line(error, self._uri), self._sender.refused, over=last))
                self._sender.disconnect()
                wait = min(2 * wait, LONGEST_WAIT)
            if last:
                threading.Event().wait(min(wait, POLL))
            else:
                self._closing.wait(wait)

    def _say(self, said: Said) -> None:
        if said != self._said:
            self._said = said
            print(json.dumps(asdict(said)), file=self._answer, flush=True)


def main() -> int:
    """Until the driver is done or dead."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the driver, which says what is to be done
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)  # trials first
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    told = json.loads(sys.stdin.readline())
    follower = Follower(Path(told["folder"]), told["uri"], answer)

    def listen() -> None:
        if sys.stdin.readline():
            follower.close()
            while sys.stdin.readline():
                pass
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    try:
        follower.follow()
    except GoneError:
        return AGAIN
    return 0


if __name__ == "__main__":
    os._exit(main())  # all is sent and flushed; taking mlflow apart module by module takes another second
