from __future__ import annotations

import logging
import threading
import warnings

import pytest

from pipelines.dicom.sources.quiet import LOGGERS, quiet


@pytest.mark.parametrize("name", [*LOGGERS, "pynetdicom.acse", "dicomweb_client.web", "urllib3.connectionpool"])
def test_libraries_that_quote_identifiers_say_nothing_until_they_may_again(name: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(name)
    with caplog.at_level(logging.DEBUG, name):
        with quiet():
            logger.critical("secret")
            threading.Thread(target=logger.critical, args=("secret",)).start()
        logger.critical("open")
    assert caplog.messages == ["open"]


def test_others_are_heard_all_the_while(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        logging.getLogger("pipelines.somewhere").warning("open")
    assert caplog.messages == ["open"]


def test_warnings_that_quote_values_are_not_shown_in_any_thread(recwarn: pytest.WarningsRecorder) -> None:
    with quiet():
        warnings.warn("Invalid value for VR UI: 'secret'", stacklevel=1)
        other = threading.Thread(target=warnings.warn, args=("secret",))
        other.start()
        other.join()
    assert not recwarn.list


def test_a_thread_of_another_library_that_dies_is_still_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: told.append(str(what.exc_value)))

    def die() -> None:
        raise ValueError("open")

    with quiet():
        thread = threading.Thread(target=die)
        thread.start()
        thread.join()
    assert told == ["open"]
