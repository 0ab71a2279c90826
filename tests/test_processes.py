"""What a process is told about its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prerequisites import absent

from pipelines import processes

STEPS = """
import ctypes, resource, sys
from pipelines.processes import keep_memory
import torch

if not hasattr(ctypes.CDLL(None), "mallopt"):
    sys.exit(3)
if sys.argv[1] == "kept":
    keep_memory()
    keep_memory()

def faults():
    for _ in range(20):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = faults()
print(faults() - before)
"""


def test_memory_that_is_kept_is_not_asked_for_again() -> None:
    pages = []
    for how in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=False)
        if done.returncode == 3:
            absent("the C library has no mallopt")
        assert done.returncode == 0, done.stderr
        pages.append(int(done.stdout))
    kept, given_back = pages
    assert kept < given_back / 10


def test_a_system_without_the_switch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.ctypes, "CDLL", lambda name: object())
    processes.keep_memory.__wrapped__()


@pytest.mark.parametrize(
    ("most", "asked"), [(2**30, [(-3, 2**30), (-1, 2**31 - 1)]), (2**25, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)])]
)
def test_an_older_library_is_asked_for_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, most: int, asked: list[tuple[int, int]]
) -> None:
    heard: list[tuple[int, int]] = []

    class Library:
        @staticmethod
        def mallopt(name: int, value: int) -> int:
            heard.append((name, value))
            return int(name == processes.M_TRIM_THRESHOLD or value <= most)

    monkeypatch.setattr(processes.ctypes, "CDLL", lambda name: Library)
    processes.keep_memory.__wrapped__()
    assert heard == asked
