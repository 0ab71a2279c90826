from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.config_sources import QuerySection
from pipelines.dicom.sources.inbox import Inbox, Waiting
from pipelines.dicom.sources.memory import Memory
from pipelines.dicom.sources.patience import PassingError
from pipelines.dicom.sources.protocol import Collected, Counts, Instance, Study, Taken, UndeliveredError
from pipelines.dicom.sources.query import Query
from pipelines.dicom.sources.remote import FAILURES_IN_A_ROW, RemoteSource
from pipelines.errors import ServiceError

QUERY = Query(("CR",))
TODAY = date(2026, 3, 20)


@dataclass
class FakeArchive:
    """An archive in memory: instances by study.

    Attributes:
        counted: whether it says how many instances a study has.
        days: when studies were made, as far as it says.
        queries: what it was asked for.
        broken: instances that it names and does not deliver.
        falls_silent_after: instances that it delivers before it answers no more.
    """

    holdings: dict[str, list[str]]
    counted: bool = True
    broken: set[str] = field(default_factory=set)
    falls_silent_after: int = 10**9
    asked: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)
    repeats: int = 1
    days: dict[str, date] = field(default_factory=dict)
    queries: list[Query] = field(default_factory=list)

    def check(self) -> str:
        return "answers"

    def studies(self, query: Query) -> Iterator[Study]:
        self.queries.append(query)
        for _ in range(self.repeats):
            for uid, instances in self.holdings.items():
                yield Study(uid, len(instances) if self.counted else None, self.days.get(uid))

    def instances(self, study: Study, query: Query) -> list[Instance]:
        self.asked.append(study.uid)
        return [Instance(study.uid, "1", uid) for uid in self.holdings[study.uid] for _ in range(self.repeats)]

    def fetch(self, instance: Instance, inbox: Inbox) -> None:
        if len(self.fetched) >= self.falls_silent_after:
            raise PassingError("no answer; tried 4 times")
        if instance.uid in self.broken:
            raise UndeliveredError("HTTP status 404")
        self.fetched.append(instance.uid)
        with inbox.arriving() as path:
            path.write_bytes(f"file {instance.uid}".encode())
            inbox.deliver(path, instance.uid)

    def close(self) -> None:
        pass


class DataSet:
    """What the stage does between `collect` and `settle`: takes files in, or sets them aside."""

    def __init__(self, inbox: Inbox, tmp_path: Path) -> None:
        self.inbox, self.memory = inbox, Memory(tmp_path / "seen.sqlite", "settings")
        self.images: set[str] = set()
        self.set_aside: set[str] = set()
        self.refused: set[str] = set()

    @property
    def taken(self) -> Taken:
        return Taken(frozenset(self.images), frozenset(self.set_aside))

    def take_in(self, folder: Path) -> dict[str, str]:
        images: dict[str, str] = {}
        for file in self.inbox.waiting():
            uid = (folder / file.name).read_text().removeprefix("file ")
            if uid in self.refused:
                self.set_aside.add(file.content)
            else:
                images[file.name] = file.image
                self.images.add(file.image)
        return images

    def source(self, archive: FakeArchive, query: Query = QUERY, part: int = 100, today: date = TODAY) -> RemoteSource:
        return RemoteSource(archive, query, self.inbox, self.memory, part, "the PACS", today)

    def run(self, archive: FakeArchive, query: Query = QUERY, part: int = 100, today: date = TODAY) -> list[Collected]:
        """A whole ingest."""
        source = self.source(archive, query, part, today)
        archive.asked.clear()
        archive.fetched.clear()
        collected: list[Collected] = []
        while not collected or collected[-1].more:
            collected.append(source.collect(self.taken, lambda _: None))
            source.settle(self.take_in(collected[-1].folder), self.taken)
        return collected


@pytest.fixture
def data(inbox: Inbox, tmp_path: Path) -> DataSet:
    return DataSet(inbox, tmp_path)


def total(collected: list[Collected]) -> Counts:
    return sum((part.counts for part in collected), Counts())


def test_the_second_run_asks_only_for_what_is_new(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"], "1.2": ["1.2.1"]})
    assert total(data.run(archive)) == Counts(fetched=3)
    assert data.inbox.waiting() == []
    archive.holdings["1.2"] = ["1.2.1", "1.2.2"]
    archive.holdings["1.3"] = ["1.3.1"]
    assert total(data.run(archive)) == Counts(fetched=2, seen=3)
    assert archive.fetched == ["1.2.2", "1.3.1"]
    assert archive.asked == ["1.2", "1.3"]


def test_a_server_that_counts_nothing_is_asked_for_every_study_and_still_fetches_only_what_is_new(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"], "1.2": ["1.2.1"]}, counted=False)
    data.run(archive)
    assert total(data.run(archive)) == Counts(seen=2)
    assert (archive.asked, archive.fetched) == (["1.1", "1.2"], [])


def test_what_the_server_names_twice_is_fetched_once(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"]}, repeats=3)
    assert total(data.run(archive)) == Counts(fetched=2)
    assert archive.asked == ["1.1"]


def test_what_was_set_aside_is_not_fetched_again(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"]})
    data.refused.add("1.1.2")
    data.run(archive)
    assert data.inbox.waiting() == []
    assert total(data.run(archive)) == Counts(seen=2)


def test_what_the_data_set_lost_is_fetched_again(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"]})
    data.run(archive)
    data.images.clear()
    assert total(data.run(archive)) == Counts(fetched=1)


def test_another_wish_asks_again_and_fetches_only_what_is_new(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"]})
    data.run(archive)
    assert total(data.run(archive, Query(("CR", "DX")))) == Counts(seen=1)
    assert archive.asked == ["1.1"]


@pytest.mark.parametrize(("age", "found"), [(0, True), (6, True), (7, False), (400, False)])
def test_an_image_that_was_replaced_is_found_while_its_study_is_young(data: DataSet, age: int, found: bool) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"]}, days={"1.1": TODAY - timedelta(days=age)})
    data.run(archive)
    archive.holdings["1.1"] = ["1.1.1", "1.1.3"]
    assert total(data.run(archive)).fetched == found


def night(data: DataSet, archive: FakeArchive, day: int) -> date:
    """Run the query of `last_days: 2` on a day of March; from which study date on it asks."""
    today = date(2026, 3, day)
    data.run(archive, Query.of(QuerySection(last_days=2), ("CR",), today), today=today)
    first = archive.queries[-1].first
    assert first is not None
    return first


def test_nights_that_were_left_out_are_made_up_for(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"]})
    asked = [night(data, archive, day).day for day in (10, 11, 20)]
    assert asked == [8, 8, 9]
    assert night(data, archive, 5).day == 3  # a clock that was set back


def test_an_image_that_is_never_delivered_does_not_hold_the_window_open_for_ever() -> None:
    query = Query.of(QuerySection(last_days=3), ("CR",), date(2026, 12, 31))
    assert query.since(date(2026, 12, 20)).first == date(2026, 12, 17)
    assert query.since(date(2026, 1, 5)).first == date(2026, 12, 28) - timedelta(days=30)


@pytest.mark.parametrize("trouble", [{"broken": {"1.1.1"}}, {"falls_silent_after": 0}])
def test_a_night_that_did_not_bring_all_does_not_count(data: DataSet, trouble: dict[str, Any]) -> None:
    night(data, FakeArchive({}), 10)
    night(data, FakeArchive({"1.1": ["1.1.1"]}, **trouble), 12)
    assert night(data, FakeArchive({}), 15) == date(2026, 3, 8)


def test_a_run_killed_before_the_last_part_was_taken_in_does_not_count(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"]})
    data.source(archive, today=date(2026, 3, 12)).collect(data.taken, lambda _: None)  # and dies here
    assert data.memory.completed("the PACS") is None


def test_a_large_archive_passes_through_the_inbox_in_parts(data: DataSet) -> None:
    archive = FakeArchive({f"1.{study}": [f"1.{study}.{image}" for image in range(3)] for study in range(5)})
    collected = data.run(archive, part=4)
    assert [part.counts.fetched for part in collected] == [6, 6, 3]
    assert [part.more for part in collected] == [True, True, False]
    assert len(set(archive.fetched)) == len(archive.fetched) == 15


def test_one_instance_that_is_not_delivered_does_not_hold_up_the_others_and_is_asked_for_again(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2", "1.1.3"]}, broken={"1.1.2"})
    assert total(data.run(archive)) == Counts(fetched=2, failed=1)
    archive.broken.clear()
    assert total(data.run(archive)) == Counts(fetched=1, seen=2)


def test_a_server_that_delivers_nothing_is_left_for_another_time(data: DataSet) -> None:
    archive = FakeArchive({"1.1": [f"1.1.{number}" for number in range(20)]}, broken={f"1.1.{number}" for number in range(20)})
    (collected,) = data.run(archive)
    assert isinstance(collected.trouble, ServiceError)
    assert f"HTTP status 404; so went {FAILURES_IN_A_ROW} images in a row" in str(collected.trouble)


def test_what_came_before_the_server_fell_silent_is_taken_in_and_the_next_run_goes_on(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2", "1.1.3"]}, falls_silent_after=2)
    (collected,) = data.run(archive)
    assert "no answer" in str(collected.trouble)
    assert collected.counts.fetched == 2
    assert len(data.images) == 2
    archive.falls_silent_after = 10**9
    assert total(data.run(archive)) == Counts(fetched=1, seen=2)


def test_a_run_killed_before_its_files_were_taken_in_fetches_none_of_them_again(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"]})
    data.source(archive).collect(data.taken, lambda _: None)  # and dies here
    assert total(data.run(archive)) == Counts(seen=2)
    assert archive.fetched == []
    assert len(data.images) == 2
    assert data.inbox.waiting() == []


def test_a_run_killed_while_letting_go_takes_nothing_in_twice(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"]})
    data.refused |= {"1.1.1", "1.1.2"}
    unlink = Path.unlink
    source = data.source(archive)
    collected = source.collect(data.taken, lambda _: None)
    images = data.take_in(collected.folder)

    def die(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            source.settle(images, data.taken)
    assert len(data.inbox.waiting()) == 1
    assert total(data.run(archive)).fetched == 0
    assert data.inbox.waiting() == []


def test_a_file_that_nobody_took_in_waits_on(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"]})
    source = data.source(archive)
    source.collect(data.taken, lambda _: None)
    source.settle({}, data.taken)
    assert [file.image for file in data.inbox.waiting()] == [data.inbox.pseudonyms.uid("1.1.1")]


def test_what_was_pushed_meanwhile_waits_for_the_next_run(data: DataSet) -> None:
    archive = FakeArchive({"1.1": ["1.1.1"]})
    source = data.source(archive)
    images = data.take_in(source.collect(data.taken, lambda _: None).folder)
    with data.inbox.arriving() as path:
        path.write_bytes(b"file 9.9")
        data.inbox.deliver(path, "9.9")
    source.settle(images, data.taken)
    assert [file.image for file in data.inbox.waiting()] == [data.inbox.pseudonyms.uid("9.9")]


def test_progress_is_told_as_images_come(data: DataSet) -> None:
    told: list[Counts] = []
    archive = FakeArchive({"1.1": ["1.1.1", "1.1.2"], "1.2": ["1.2.1"]}, broken={"1.1.2"})
    data.source(archive).collect(data.taken, told.append)
    assert told == [Counts(1), Counts(1, 0, 1), Counts(2, 0, 1)]


def test_the_memory_holds_no_identifier(data: DataSet) -> None:
    data.refused.add("1.2.3.987654321.2")
    data.run(FakeArchive({"1.2.3.123456789": ["1.2.3.987654321.1", "1.2.3.987654321.2"]}))
    content = data.memory.path.read_bytes()
    assert b"123456789" not in content
    assert b"987654321" not in content
    assert data.memory.settled([Waiting("", "", "")], data.taken) == []
