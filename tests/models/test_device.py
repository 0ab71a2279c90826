from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pipelines.errors import ConfigurationError
from pipelines.models import device
from pipelines.models.device import choose_device


@pytest.fixture
def only_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("only_a_cpu")
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    assert choose_device("auto") == torch.device("cpu")


@pytest.mark.usefixtures("only_a_cpu")
def test_auto_takes_cuda_before_mps_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


@pytest.mark.usefixtures("only_a_cpu")
@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_absent_device_is_refused_with_a_remedy(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"train\.device.*\(cpu\), got '{name}'; use auto"):
        choose_device(name)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"expected auto, cuda, mps, cpu, got 'tpu'"):
        choose_device("tpu")


STEPS = """
import ctypes, resource, sys
from pipelines.models.device import keep_memory
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
            pytest.skip("the C library has no mallopt")
        assert done.returncode == 0, done.stderr
        pages.append(int(done.stdout))
    kept, given_back = pages
    assert kept < given_back / 10


def test_a_system_without_the_switch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: object())
    device.keep_memory.__wrapped__()
