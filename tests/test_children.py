"""What is started ends with who started it, however that one ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import children

# notes how it ends: at once when interrupted, of itself after a minute
PROGRAM = """
import pathlib, sys, time
note = pathlib.Path(sys.argv[1])
try:
    note.write_text("running")
    time.sleep(60)
    note.write_text("ended by itself")
except KeyboardInterrupt:
    note.write_text("interrupted")
"""
STARTER = """
import os, sys
from pipelines import children
with children.started([sys.executable, "-c", sys.argv[1], sys.argv[2]], os.environ, out=2) as process:
    process.wait()
"""


def comes_to(note: Path, text: str) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if note.exists() and note.read_text() == text:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started the program."""
    process = subprocess.Popen([sys.executable, "-c", STARTER, PROGRAM, str(tmp_path / "note")], stderr=subprocess.DEVNULL)
    assert comes_to(tmp_path / "note", "running")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_is_interrupted_with_whoever_started_it(
    end: signal.Signals, starter: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    starter.send_signal(end)
    assert comes_to(tmp_path / "note", "interrupted")


def test_an_interrupted_program_has_ended_before_the_one_that_started_it(
    starter: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    starter.send_signal(signal.SIGINT)
    starter.wait(30)
    assert (tmp_path / "note").read_text() == "interrupted"


@pytest.mark.parametrize(
    ("program", "code"), [("pass", 0), ("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_code_is_the_programs(program: str, code: int) -> None:
    with children.started([sys.executable, "-c", program], os.environ, out=2) as process:
        assert process.wait() == code


def test_what_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + PROGRAM
    impatient = tmp_path / "children.py"
    impatient.write_text(Path(children.__file__).read_text().replace("ENDS_WITHIN_S = 20", "ENDS_WITHIN_S = 0.1"))
    monkeypatch.setattr(children, "__file__", str(impatient))
    with children.started([sys.executable, "-c", stubborn, str(tmp_path / "note")], os.environ, out=2) as process:
        assert comes_to(tmp_path / "note", "running")
    assert process.returncode == -signal.SIGKILL
