from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PosixPath
from typing import Any

import hostile_dicom
import numpy as np
import pytest
from hostile_paths import Deadly

from pipelines.errors import ServiceError
from pipelines.imaging import workers
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.imaging.workers import ahead, prepare_file, prepare_files
from pipelines.records import Reason

RECIPE = Recipe(32, "uint8", (0.5, 99.5))
Make = Callable[..., Any]


class Endless(PosixPath):
    """A file whose decoding never ends, and hears nothing, as a loop in C does."""

    def open(self, *arguments: Any, **options: Any) -> Any:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        while True:
            sum(range(10_000))


class Greedy(PosixPath):
    """A file whose decoding asks for more memory than one file may take."""

    def open(self, *arguments: Any, **options: Any) -> Any:
        np.ones(workers.MEMORY_BYTES // 8)


class Sleeping(PosixPath):
    """A file whose decoding waits for ever, as a deadlock does."""

    def open(self, *arguments: Any, **options: Any) -> Any:
        time.sleep(600)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, scene: Make, make_dataset: Make, dicom_bytes: Make) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"image{number}" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(dicom_bytes(make_dataset(np.roll(scene(12), number, axis=0), 12)))
    return paths


def test_outcomes_come_in_the_order_of_the_files_and_equal_those_of_one_process(sources: list[Path]) -> None:
    outcomes = list(prepare_files(sources, RECIPE, workers=2))
    assert len(outcomes) == len(sources)
    for outcome, path in zip(outcomes, sources, strict=True):
        alone = prepare(read(path), RECIPE)
        assert outcome.prepared is not None
        np.testing.assert_array_equal(outcome.prepared.array, alone.array)
        assert outcome.prepared.pixel_hash == alone.pixel_hash
        assert outcome.bytes == path.stat().st_size


def test_a_file_that_crashes_its_process_is_left_out_and_stops_no_other(sources: list[Path]) -> None:
    mixed = [*sources[:3], Deadly(sources[3]), *sources[4:]]
    outcomes = list(prepare_files(mixed, RECIPE, workers=2))
    assert [outcome.left_out for outcome in outcomes] == [None] * 3 + [Reason.UNDECODABLE] + [None] * 8


def test_a_file_that_hangs_its_process_is_left_out_and_stops_no_other(sources: list[Path]) -> None:
    mixed = [*sources[:3], Endless(sources[3]), *sources[4:]]
    outcomes = list(prepare_files(mixed, RECIPE, workers=2, seconds=1))
    assert [outcome.left_out for outcome in outcomes] == [None] * 3 + [Reason.TIMEOUT] + [None] * 8


def test_a_file_that_waits_for_ever_is_left_out_too(sources: list[Path]) -> None:
    outcomes = list(prepare_files([Sleeping(sources[0]), sources[1]], RECIPE, workers=1, seconds=0.1))
    assert [outcome.left_out for outcome in outcomes] == [Reason.TIMEOUT, None]


def test_a_file_that_asks_for_too_much_memory_is_left_out_and_ends_no_process(sources: list[Path]) -> None:
    outcomes = list(prepare_files([sources[0], Greedy(sources[1]), sources[2]], RECIPE, workers=1))
    assert [outcome.left_out for outcome in outcomes] == [None, Reason.SIZE, None]


@pytest.mark.parametrize(
    ("size", "depth", "processes", "files"),
    [(224, "uint8", 2, 16), (512, "uint8", 64, 256), (2048, "uint16", 2, 8), (2048, "uint16", 64, 128)],
)
def test_fewer_files_are_under_way_where_their_arrays_are_large(size: int, depth: str, processes: int, files: int) -> None:
    assert ahead(Recipe(size, depth, (0, 100)), processes) == files


def test_files_are_taken_up_only_as_outcomes_are_taken_away(sources: list[Path]) -> None:
    """Outcomes that nobody takes do not pile up, however many files there are."""
    taken = 0

    def endless() -> Iterator[Path]:
        nonlocal taken
        while True:
            taken += 1
            yield sources[taken % len(sources)]

    outcomes = prepare_files(endless(), RECIPE, workers=1)
    for count in range(1, 41):
        next(outcomes)
        assert taken <= count + ahead(RECIPE, 1)
    outcomes.close()


def test_a_file_that_cannot_be_used_gives_its_reason(tmp_path: Path, make_dataset: Make, dicom_bytes: Make) -> None:
    (tmp_path / "flat").write_bytes(dicom_bytes(make_dataset(np.full((40, 40), 9, np.uint8))))
    (tmp_path / "text").write_bytes(b"Erika Mustermann, 1970-01-01 " * 20)
    assert prepare_file(tmp_path / "flat", RECIPE).left_out is Reason.CONSTANT
    assert prepare_file(tmp_path / "text", RECIPE).left_out is Reason.NOT_DICOM


def test_mutated_files_give_an_image_or_a_reason_and_nothing_is_said_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    """As they come to `predict`, past no other door."""
    files = [hostile_dicom.small(0, syntax) for syntax in hostile_dicom.SYNTAXES.values()]
    outcomes = [prepare_file(hostile_dicom.mutated(seed, files), RECIPE) for seed in range(200)]
    assert {(outcome.prepared is None, outcome.left_out is None) for outcome in outcomes} == {(True, False), (False, True)}
    assert len({outcome.left_out for outcome in outcomes}) >= 5
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_gone_stops_the_work(sources: list[Path]) -> None:
    with pytest.raises(FileNotFoundError):
        list(prepare_files([*sources[:2], sources[0].with_name("gone")], RECIPE, workers=1))


def test_workers_that_cannot_start_are_an_error_and_not_the_files_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "_start", _abort)
    with pytest.raises(ServiceError, match=r"prepare: worker processes end as they start"):
        list(prepare_files([tmp_path / "any.dcm"], RECIPE, 1))


def _abort(*_: object) -> None:
    os.abort()
