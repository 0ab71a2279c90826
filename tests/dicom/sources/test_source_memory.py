from __future__ import annotations

import stat
from datetime import date
from pathlib import Path

import pytest

from pipelines.dicom.sources.inbox import Waiting
from pipelines.dicom.sources.memory import Memory, Visit
from pipelines.dicom.sources.protocol import Taken

HELD = Waiting("a.fa.dcm", "a", "fa")
ASIDE = Waiting("b.fb.dcm", "b", "fb")
NOTHING = Taken(frozenset(), frozenset())
BOTH = Taken(frozenset({"a"}), frozenset({"fb"}))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    made = Memory(tmp_path / "private" / "seen.sqlite", "settings")
    made.remember([(HELD, "a"), (ASIDE, None)], [Visit("study", 2, "query", frozenset("ab"))])
    return made


def test_what_the_data_set_and_the_quarantine_hold_is_known(memory: Memory) -> None:
    assert memory.known(BOTH) == {"a", "b"}
    assert memory.settled([HELD, ASIDE], BOTH) == [HELD, ASIDE]


@pytest.mark.parametrize(
    ("taken", "known"),
    [(NOTHING, set()), (Taken(frozenset({"a"}), frozenset()), {"a"}), (Taken(frozenset(), frozenset({"fb"})), {"b"})],
)
def test_what_was_lost_there_is_asked_for_again(memory: Memory, taken: Taken, known: set[str]) -> None:
    assert memory.known(taken) == known
    assert {file.image for file in memory.settled([HELD, ASIDE], taken)} == known


def test_what_came_from_a_folder_is_known_too(memory: Memory) -> None:
    assert "c" in memory.known(Taken(frozenset({"a", "c"}), frozenset()))


def test_what_was_set_aside_under_other_settings_is_asked_for_again(memory: Memory) -> None:
    assert Memory(memory.path, "other settings").known(BOTH) == {"a"}


def test_an_image_that_came_under_another_uid_is_known_by_the_one_it_was_asked_for(memory: Memory) -> None:
    memory.remember([(Waiting("asked.fx.dcm", "asked", "fx"), "a")], [])
    assert "asked" in memory.known(BOTH)


def test_other_bytes_of_a_known_image_are_not_settled(memory: Memory) -> None:
    assert memory.settled([Waiting("a.fz.dcm", "a", "fz")], BOTH) == []


@pytest.mark.parametrize(
    ("instances", "query", "known", "seen"),
    [
        (2, "query", "abc", 2),
        (3, "query", "abc", None),
        (None, "query", "abc", None),
        (2, "other", "abc", None),
        (2, "query", "a", None),
    ],
)
def test_a_study_is_passed_over_only_while_nothing_about_it_changed(
    memory: Memory, instances: int | None, query: str, known: str, seen: int | None
) -> None:
    assert memory.visited("study", instances, query, set(known)) == seen
    assert memory.visited("unheard of", 2, "query", set("abc")) is None


def test_the_last_day_on_which_all_came_is_known_for_each_wish(memory: Memory) -> None:
    memory.complete("all of a PACS", date(2026, 3, 1))
    memory.complete("all of a PACS", date(2026, 3, 2))
    assert (memory.completed("all of a PACS"), memory.completed("another")) == (date(2026, 3, 2), None)


def test_it_is_private_and_holds_pseudonyms_only(memory: Memory) -> None:
    assert stat.S_IMODE(memory.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(memory.path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("damage", [b"no database", b""])
def test_a_damaged_table_costs_questions_and_no_run(memory: Memory, damage: bytes) -> None:
    memory.path.write_bytes(damage)
    memory.mend()
    assert memory.known(NOTHING) == set()
    memory.remember([(HELD, "a")], [])
    memory.mend()
    assert memory.settled([HELD], BOTH) == [HELD]


def test_a_table_that_is_whole_is_kept(memory: Memory) -> None:
    memory.mend()
    assert memory.known(BOTH) == {"a", "b"}
