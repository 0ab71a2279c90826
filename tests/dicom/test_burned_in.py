from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from pipelines.dicom import text_reading
from pipelines.dicom.blanking import blank
from pipelines.dicom.burned_in import LIKELY, Kind, clean, find
from pipelines.dicom.markers import MARKERS, harmless
from pipelines.dicom.text_lines import WORKING_SIDE, Box, Line, find_lines, working_images
from pipelines.dicom.text_reading import check_models, read_line
from pipelines.errors import WeightsError
from pipelines.imaging.decode import decode

NAME = "ZEBRA CANARY 19840312"
ROWS, COLUMNS = 360, 420
WHITE = 4000

Pixels = NDArray[Any]


def radiograph(rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> Pixels:
    """Soft shapes and noise, 12 bits."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    body = 900 + 1400 * np.exp(-((x - 0.5) ** 2 + (y - 0.45) ** 2) * 6) + 200 * np.sin(24 * y) * np.exp(-((x - 0.5) ** 2) * 20)
    return (body + random.normal(0, 12, body.shape)).clip(0, 4095).astype(np.uint16)


def written(
    text: str = NAME, value: int = WHITE, scale: float = 0.6, at: tuple[int, int] = (12, 40), turns: int = 0, seed: int = 0
) -> tuple[Pixels, NDArray[np.bool_]]:
    """A radiograph with text, and where its ink is."""
    image = np.rot90(radiograph(seed=seed), -turns).copy()
    ink = np.zeros(image.shape, np.uint8)
    cv2.putText(ink, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), 1 + round(scale), cv2.LINE_AA)
    mixed = np.rint(image + (value - image.astype(float)) * (ink / 255)).astype(np.uint16)
    return np.ascontiguousarray(np.rot90(mixed, turns)), np.ascontiguousarray(np.rot90(ink > 127, turns))


def kinds(image: Pixels) -> list[Kind]:
    return [region.kind for region in find(image)]


def gone(before: Pixels, after: Pixels, ink: NDArray[np.bool_]) -> bool:
    return bool((before[ink] != after[ink]).mean() > 0.97)


@pytest.mark.parametrize(
    "look",
    [
        {},
        {"value": 0},
        {"value": 2700, "at": (70, 180)},
        {"scale": 0.4},
        {"scale": 1.0},
        {"turns": 1},
        {"turns": 3},
        {"turns": 2},
        {"text": "03.12.1984"},
        {"text": "MRN 4471902", "at": (150, 340)},
    ],
    ids=lambda look: ",".join(look) or "white",
)
def test_text_is_found_blanked_and_gone(look: dict[str, Any]) -> None:
    image, ink = written(**look)
    cleaned = clean(image)
    assert (cleaned.blanked > 0, cleaned.left) == (True, 0)
    assert gone(image, cleaned.stored, ink)
    assert kinds(cleaned.stored) == []


def test_a_radiograph_without_text_is_left_alone() -> None:
    image = radiograph()
    cleaned = clean(image, thorough=True)
    assert cleaned.stored is image
    assert (cleaned.blanked, cleaned.markers, cleaned.left) == (0, 0, 0)


@pytest.mark.parametrize("marker", ["AP PORTABLE", "SEMI-ERECT", "SUPINE", "kV:65", "mAs: 2.56"])
def test_a_marker_stays(marker: str) -> None:
    image, _ = written(marker, scale=0.8)
    cleaned = clean(image)
    assert cleaned.stored is image
    assert (cleaned.blanked, cleaned.markers) == (0, 1)


def test_a_marker_stays_where_a_name_goes() -> None:
    image, name = written(at=(12, 40))
    beside, marker = written("PORTABLE", at=(12, 300), scale=0.8)
    image[marker] = beside[marker]
    cleaned = clean(image)
    assert (cleaned.markers, cleaned.left) == (1, 0)
    assert gone(image, cleaned.stored, name)
    np.testing.assert_array_equal(image[marker], cleaned.stored[marker])


def test_a_name_between_lines_of_a_marker_goes() -> None:
    image, name = written(at=(40, 100), scale=0.4)
    for row in (70, 140):
        beside, marker = written("PORTABLE", at=(12, row), scale=1.2)
        image[marker & ~name] = beside[marker & ~name]
    assert gone(image, clean(image).stored, name)


def test_text_in_noise_is_found() -> None:
    image, ink = written(value=65535, scale=0.8, at=(12, 180))
    noisy = (image + np.random.default_rng(2).integers(0, 9000, image.shape)).clip(0, 65535).astype(np.uint16)
    assert gone(noisy, clean(noisy).stored, ink)


def test_text_that_cannot_be_read_counts_as_identifying() -> None:
    image, ink = written("PORTABLE PORTABLE", scale=0.7)
    mirrored, ink = image[:, ::-1].copy(), ink[:, ::-1]
    cleaned = clean(mirrored)
    assert gone(mirrored, cleaned.stored, ink)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int8])
def test_stored_values_of_any_type_are_cleaned(dtype: type[np.integer[Any]]) -> None:
    image, ink = written()
    bits = np.iinfo(dtype)
    stored = (image.astype(np.int64) * (int(bits.max) - int(bits.min)) // 4095 + int(bits.min)).astype(dtype)
    cleaned = clean(stored)
    assert cleaned.stored.dtype == dtype
    assert gone(stored, cleaned.stored, ink)


def test_inverting_an_image_changes_nothing() -> None:
    image, ink = written()
    inverted = (4095 - image).astype(np.uint16)
    assert gone(inverted, clean(inverted).stored, ink)


def test_faint_text_is_found_beside_values_that_take_most_of_the_range() -> None:
    image, ink = written(value=2700, at=(70, 180))
    image[:, -60:] = 65535
    assert gone(image, clean(image).stored, ink & (np.arange(COLUMNS) < COLUMNS - 60))


def test_what_is_blanked_looks_like_its_surroundings() -> None:
    plain = radiograph()
    image, _ = written(at=(70, 180))
    cleaned = clean(image).stored
    assert np.abs(cleaned.astype(int) - plain).max() < 150
    np.testing.assert_array_equal(cleaned[:120], image[:120])
    np.testing.assert_array_equal(cleaned[230:], image[230:])


def test_a_box_that_fills_the_height_of_an_image_is_blanked_from_its_sides() -> None:
    image = np.full((20, 60), 100, np.uint8)
    image[:, 20:40] = 255
    np.testing.assert_array_equal(blank(image, [Box(0, 20, 20, 40)]), 100)


def test_an_image_that_is_all_box_becomes_flat() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    assert np.ptp(blank(image, [Box(0, 0, 6, 8)])) <= 1


def test_blanking_changes_a_copy() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    blank(image, [Box(1, 1, 3, 5)])
    np.testing.assert_array_equal(image, np.arange(48, dtype=np.uint8).reshape(6, 8))


def test_what_two_rounds_cannot_blank_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = written()
    monkeypatch.setattr("pipelines.dicom.burned_in.blank", lambda stored, _boxes: stored)
    assert clean(image).left > 0


def test_the_detector_reads_again_what_was_blanked(monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = written()
    once = iter([find_lines(next(iter(working_images(image))).gray, LIKELY)])
    monkeypatch.setattr("pipelines.dicom.burned_in.find_lines", lambda *_: next(once, []))
    monkeypatch.setattr("pipelines.dicom.burned_in.blank", lambda stored, _boxes: stored)
    assert clean(image).left > 0


@pytest.mark.parametrize("turns", [0, 1])
def test_a_line_of_which_half_was_found_is_followed_to_its_end(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, ink = written(turns=turns, at=(12, 180))
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    top, left, bottom, right = map(int, (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
    half = Box((top + bottom) // 2, left, bottom, right) if turns else Box(top, left, bottom, (left + right) // 2)
    monkeypatch.setattr("pipelines.dicom.burned_in.find_lines", lambda *_: [Line(half, bool(turns), 9.0, 9)])
    (region,) = find(image)
    assert region.box.overlap(Box(top, left, bottom, right)) > 0.95 * Box(top, left, bottom, right).area


def test_nothing_that_was_read_is_shown() -> None:
    image, _ = written()
    regions = find(image)
    assert regions
    for shown in (regions, clean(image), read_line(next(iter(working_images(image))).gray[25:50, 5:280])):
        assert not re.search("ZEBRA|CANARY|1984", repr(shown))


@pytest.mark.parametrize("word", [word for words in MARKERS.values() for word in words])
def test_the_vocabulary_is_harmless(word: str) -> None:
    assert harmless(word)
    assert harmless(f"{word.lower()}.")


@pytest.mark.parametrize("text", ["A-P", "R", "k", "AP ERECT", "PORTABL", "KV59", "mA:320", "mAs:2.56", "70 kVp 2.5 mAs", "L →"])
def test_markers_are_told(text: str) -> None:
    assert harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "ZEBRA",
            "JD",
            "LI",
            "Le",
            "ROSS",
            "LORD",
            "DING",
            "王",
            "R ZEBRA",
            "AP 1984",
            "12",
            "18:31:16",
            "03.12.84",
            "2019",
            "MS 19840312",
            "KV 1984",
            "4471902",
        ),
        *("S M I T H", "1 9 8 4", "PORT 3B", "", "→", "PAL", "王小明"),
    ],
)
def test_everything_else_may_identify(text: str) -> None:
    assert not harmless(text)


def test_a_large_image_takes_bounded_time_and_is_cleaned_at_full_size() -> None:
    small, ink = written(scale=0.5)
    large = np.kron(small, np.ones((10, 10), np.uint16))
    assert max(large.shape) > 3 * WORKING_SIDE
    start = time.process_time()
    cleaned = clean(large)
    assert time.process_time() - start < 30
    assert gone(large, cleaned.stored, np.kron(ink, np.ones((10, 10), bool)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (9, 9), (40, 3000)])
def test_small_and_narrow_images_pass(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 4095, shape).astype(np.uint16)
    assert clean(image, thorough=True).left == 0


def test_noise_and_flat_images_pass() -> None:
    for image in (np.zeros((300, 300), np.uint16), np.random.default_rng(0).integers(0, 4095, (600, 600)).astype(np.uint16)):
        assert clean(image).left == 0


def test_reading_needs_no_network_and_leaves_no_file(tmp_path: Path) -> None:
    code = """
import socket
def refuse(*_): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
import numpy as np
from pipelines.dicom.text_reading import check_models, detect, read_line
check_models()
detect(np.zeros((64, 64), np.uint8)), read_line(np.zeros((24, 64), np.uint8))
import sys
assert "rapidocr" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_an_altered_model_is_refused() -> None:
    name, sha256 = text_reading.RECOGNISER
    with pytest.raises(WeightsError, match="not the one that was tested"):
        text_reading._content(name, "0" * len(sha256))


def test_a_missing_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"none\.onnx is missing"):
        text_reading._content("none.onnx", "0")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(WeightsError, match="pip install rapidocr"):
        check_models()


@pytest.mark.real
@pytest.mark.parametrize("number", range(0, 23, 8))
def test_names_on_real_radiographs_are_found_and_gone(shared: Path, number: int) -> None:
    files = sorted((shared / "data" / "paediatric_cxr").rglob("*.dcm"))
    flagged = [path for path in files if pydicom.dcmread(path, specific_tags=["BurnedInAnnotation"]).get("BurnedInAnnotation")]
    stored = decode(pydicom.dcmread(flagged[number]))
    cleaned = clean(stored)
    top = slice(0, stored.shape[0] // 10)
    assert cleaned.left == 0
    assert (cleaned.stored[top] != stored[top]).mean() > 0.05
    assert all(region.kind is Kind.MARKER for region in find(cleaned.stored, thorough=True))
