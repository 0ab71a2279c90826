from __future__ import annotations

import threading
import time

from pipelines.dicom.sources.gate import Gate


class Walker:
    """A thread that passes a gate again and again; `passed` grows whenever it does."""

    def __init__(self, gate: Gate) -> None:
        self.gate, self.passed, self.ended = gate, 0, False
        self.thread = threading.Thread(target=self.walk, daemon=True)
        self.thread.start()

    def walk(self) -> None:
        while not self.ended:
            self.gate.wait()
            self.passed += 1

    def end(self) -> None:
        self.ended = True
        self.gate.set()
        self.thread.join(5)


def test_whoever_is_on_the_way_through_is_waited_for() -> None:
    gate = Gate()
    walker = Walker(gate)
    for _ in range(200):
        gate.close(lambda: False, 5)
        before = walker.passed
        time.sleep(0.0005)
        assert walker.passed == before
        gate.set()
    walker.end()
    assert walker.passed > 0


def test_a_closed_gate_is_passed_when_it_opens() -> None:
    gate = Gate()
    walker = Walker(gate)
    gate.close(lambda: False, 5)
    assert not gate.is_set()
    before = walker.passed
    walker.end()
    assert gate.is_set()
    assert walker.passed > before


def test_nobody_is_waited_for_who_has_ended() -> None:
    started = time.monotonic()
    Gate().close(lambda: True, 60)
    Gate().close(lambda: False, 0.1)
    assert time.monotonic() - started < 5


def test_a_wait_may_end_by_itself() -> None:
    gate = Gate()
    gate.clear()
    assert gate.wait(0.01) is False
    gate.set()
    assert gate.wait() is True
