from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from awkward_work import CRASH, ERROR, HANG, MEMORY, WAIT, nothing, recorded, work

from pipelines.errors import ServiceError
from pipelines.isolation import Bounds, Crew, Lost


def crew(**changes: Any) -> Crew[int, int]:
    usual: Crew[int, int] = Crew(
        "ingest", work, Bounds(1, 256 << 20), nothing, (), work.__module__, workers=2, together=4, ahead=6
    )
    return replace(usual, **changes)


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(crew().results(range(100))) == [2 * number for number in range(100)]
    assert list(crew().results(())) == []


def test_an_item_that_crashes_its_process_costs_itself_alone() -> None:
    items = [*range(30), CRASH, *range(30), CRASH, CRASH, 7]
    expected = [Lost.CRASHED if item == CRASH else 2 * item for item in items]
    assert list(crew().results(items)) == expected


def test_an_item_that_works_for_ever_costs_itself_alone() -> None:
    assert list(crew().results([1, 2, HANG, 3, *range(20)])) == [2, 4, Lost.HUNG, 6, *(2 * number for number in range(20))]


def test_an_item_that_waits_for_ever_costs_itself_alone() -> None:
    assert list(crew(workers=1, bounds=Bounds(0.2, 256 << 20)).results([1, WAIT, 3])) == [2, Lost.HUNG, 6]


def test_an_item_cannot_take_more_memory_than_it_may() -> None:
    assert list(crew().results([MEMORY, 1])) == [0, 2]
    assert list(crew(bounds=Bounds(10, 2 << 30)).results([MEMORY, 1])) == [1 << 30, 2]


def test_only_the_items_that_were_worked_on_are_done_again_alone(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    items = [calls / str(number) for number in range(40)]
    results = list(crew(work=recorded).results(items))  # type: ignore[arg-type]
    assert [result is Lost.CRASHED for result in results] == [number == 13 for number in range(40)]
    alone = calls.with_suffix(".alone").read_text().split()
    assert "13" in alone
    assert len(alone) <= 2  # what each process was at


def test_what_an_item_raises_ends_the_work() -> None:
    with pytest.raises(OSError, match="no space left"):
        list(crew().results([1, 2, ERROR, 3]))


def test_processes_that_cannot_start_are_an_error_and_not_the_items_fault() -> None:
    with pytest.raises(ServiceError, match="ingest: worker processes end as they start"):
        list(crew(start=os.abort).results([1, 2]))
