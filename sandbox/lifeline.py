"""Kills the processes that it was told of as soon as whoever told it is gone, even by SIGKILL.

The kernel's own means (PR_SET_PDEATHSIG) exists on Linux only, and follows the thread that started the child: a
service restarted from a worker thread would die with that thread.
"""

import atexit
import json
import signal
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from sandbox.process import Process


def tie(process: Process) -> None:
    """The process dies when this one does."""
    told = _rope().stdin
    if told is not None:
        told.write(json.dumps(asdict(process)).encode() + b"\n")
        told.flush()


@cache
def _rope() -> subprocess.Popen[bytes]:
    rope = subprocess.Popen(
        [sys.executable, "-m", "sandbox.lifeline"],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
        start_new_session=True,  # Ctrl-C on the terminal must not cut it
    )
    atexit.register(rope.communicate)  # closes its input and waits: an orderly end leaves nothing either
    return rope


def main() -> None:
    """Every process that a line of the standard input named has been killed, after its end."""
    for process in [Process(**json.loads(line)) for line in sys.stdin]:
        process.send(signal.SIGKILL)


if __name__ == "__main__":
    main()
