from __future__ import annotations

import pytest

from pipelines.dicom.sources import patience
from pipelines.dicom.sources.patience import PassingError, Patience
from pipelines.errors import ServiceError


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    return slept


class Server:
    """Fails so often, then answers."""

    def __init__(self, failures: int, error: ServiceError) -> None:
        self.failures, self.error, self.asked = failures, error, 0

    def __call__(self) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error
        return "answer"


def test_what_may_pass_is_tried_again_with_growing_pauses(pauses: list[float]) -> None:
    server = Server(3, PassingError("refused"))
    assert Patience(1, 4, 0.5).ask(server) == "answer"
    assert pauses == [0.5, 1.0, 2.0]


def test_a_server_that_names_a_pause_gets_it(pauses: list[float]) -> None:
    Patience(1, 2, 0.5).ask(Server(1, PassingError("busy", after_s=7)))
    assert pauses == [7]


def test_no_pause_is_longer_than_a_minute(pauses: list[float]) -> None:
    Patience(1, 3, 50).ask(Server(2, PassingError("busy", after_s=86400)))
    assert pauses == [60, 60]


@pytest.mark.parametrize(("attempts", "words"), [(1, "tried once"), (3, "tried 3 times")])
def test_it_gives_up_and_says_how_often_it_tried(pauses: list[float], attempts: int, words: str) -> None:
    with pytest.raises(ServiceError, match=f"refused; {words}"):
        Patience(1, attempts, 0).ask(Server(9, PassingError("refused")))
    assert len(pauses) == attempts - 1


def test_what_does_not_pass_is_not_tried_again(pauses: list[float]) -> None:
    server = Server(1, ServiceError("no such server"))
    with pytest.raises(ServiceError, match=r"^no such server$"):
        Patience(1, 4, 0).ask(server)
    assert (server.asked, pauses) == (1, [])
