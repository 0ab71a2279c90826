from __future__ import annotations

import pytest
import torch

from pipelines.errors import ConfigurationError
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
