"""Programs that this process starts and that never outlive it: servers, and DVC with the stage that it runs.

Run as a script, this file is the guard that stands between the two, in a process group of its own together with the program:
its standard input closes when the program is to end, or when the process that wants it is gone, whatever ended that one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

ENDS_WITHIN_S = 20


@contextlib.contextmanager
def started(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path | None = None,
    out: int | IO[bytes],
    err: IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program out of reach of the terminal's Ctrl-C; on leaving it is interrupted, where it still runs, and waited for.

    Args:
        folder: where it works (default: here).
        out: its standard output.
        err: its standard error (default: this process's).
    """
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *command],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )
    try:
        yield guard
    finally:
        if guard.stdin:
            guard.stdin.close()
        guard.wait()


def _guard(command: Sequence[str]) -> int:
    """Run a program and give its exit code."""
    # the background jobs of a script are started with it ignored
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_left, daemon=True).start()
    code = program.wait()
    return code if code >= 0 else 128 - code


def _end_when_left() -> None:
    """Wait until standard input closes, then interrupt the group, and kill what does not end."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGINT)
    time.sleep(ENDS_WITHIN_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
