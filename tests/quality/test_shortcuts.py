"""What each shortcut sees, and what it must not."""

from __future__ import annotations

from pathlib import Path

import made_cohort
import numpy as np
import pandas as pd
import pytest

from pipelines.imaging import store
from pipelines.imaging.radiograph import Recipe
from pipelines.imaging.resample import centred
from pipelines.imaging.store import ArrayStore
from pipelines.quality.shortcuts import CORNER, RIM, SHORTCUTS, SIDE, pictures
from pipelines.records import INDEX

BLIND = [name for name, shortcut in SHORTCUTS.items() if shortcut.blind]
COARSE = [name for name, shortcut in SHORTCUTS.items() if not shortcut.blind]


def hidden() -> np.ndarray:
    """Where findings may lie, (64, 64): all but the rim and the corners."""
    inside = np.zeros((SIDE, SIDE), dtype=bool)
    inside[RIM:-RIM, RIM:-RIM] = True
    for rows in (slice(CORNER), slice(-CORNER, None)):
        for columns in (slice(CORNER), slice(-CORNER, None)):
            inside[rows, columns] = False
    return inside


@pytest.mark.parametrize("name", SHORTCUTS)
def test_every_shortcut_gives_numbers_whatever_the_header_lacks(name: str) -> None:
    rows, images, _ = made_cohort.make(patients=6)
    bare = rows.assign(**dict.fromkeys([*INDEX], None))
    for given in (rows, bare, rows.assign(age_years=np.where(rows.index < 4, np.nan, 50.0))):
        features = SHORTCUTS[name].features(given, images)
        assert features.shape[0] == len(given)
        assert features.ndim == 2
        assert np.isfinite(features.astype(np.float64)).all()


@pytest.mark.parametrize("name", BLIND)
def test_a_blind_shortcut_cannot_see_where_findings_lie(name: str) -> None:
    rows, images, _ = made_cohort.make(patients=6)
    ill = np.where(hidden(), 255, images).astype(np.uint8)
    np.testing.assert_array_equal(SHORTCUTS[name].features(rows, ill), SHORTCUTS[name].features(rows, images))


@pytest.mark.parametrize("name", COARSE)
def test_a_coarse_shortcut_sees_the_whole_picture(name: str) -> None:
    rows, images, _ = made_cohort.make(patients=6)
    ill = np.where(hidden(), 255, images).astype(np.uint8)
    assert not np.array_equal(SHORTCUTS[name].features(rows, ill), SHORTCUTS[name].features(rows, images))


@pytest.mark.parametrize(
    ("name", "column", "value"),
    [
        ("shape", "rows", 5000),
        ("shape", "columns", 5000),
        ("shape", "pixel_aspect", 1.4),
        ("shape", "spacing_mm", 0.9),
        ("shape", "crop", "0 0 100 100"),
        ("view", "view", "LL"),
        ("view", "body_part", "CHEST"),
        ("view", "laterality", "L"),
        ("equipment", "site", "c"),
        ("equipment", "manufacturer", "GE"),
        ("equipment", "modality", "DX"),
        ("equipment", "photometric", "MONOCHROME1"),
        ("equipment", "transfer_syntax", "1.2.840.10008.1.2.4.90"),
        ("equipment", "bits_stored", 8),
        ("equipment", "window", "percentiles"),
        ("person", "sex", "O"),
        ("person", "age_years", 3.0),
    ],
)
def test_a_shortcut_sees_its_fields_of_the_header_and_no_other_does(name: str, column: str, value: object) -> None:
    rows, images, _ = made_cohort.make(patients=10)
    changed = rows.copy()
    changed[column] = changed[column].astype(object).where(rows.index >= 8, value)
    together = {name, "surroundings", "everything"}
    for other, shortcut in SHORTCUTS.items():
        before, after = shortcut.features(rows, images), shortcut.features(changed, images)
        assert (not np.array_equal(before, after)) == (other in together), other


def test_a_value_that_few_images_share_is_rare_so_that_it_names_nobody() -> None:
    rows, images, _ = made_cohort.make(patients=10)
    one, other = (rows.assign(site=rows["site"].where(rows.index != 3, name)) for name in ("x", "y"))
    equipment = SHORTCUTS["equipment"].features
    np.testing.assert_array_equal(equipment(one, images), equipment(other, images))


def test_a_lead_letter_in_a_corner_is_seen_by_the_border() -> None:
    rows, images, _ = made_cohort.make(patients=6)
    marked = images.copy()
    marked[:, 2:5, 2:5] = 255
    changed = SHORTCUTS["border"].features(rows, marked) - SHORTCUTS["border"].features(rows, images)
    assert (np.abs(changed) > 0.05).any(axis=1).all()


def test_the_thumbnail_is_the_mean_of_each_cell() -> None:
    rows, _, _ = made_cohort.make(patients=1)
    image = np.kron(np.arange(64).reshape(8, 8), np.ones((8, 8))).astype(np.uint8)
    found = SHORTCUTS["thumbnail"].features(rows, np.stack([image, image]))
    np.testing.assert_allclose(found[0], np.arange(64) / 255)


def test_the_histogram_knows_how_many_but_not_where() -> None:
    rows, images, _ = made_cohort.make(patients=1)
    mixed = np.random.default_rng(0).permuted(images.reshape(2, -1), axis=1).reshape(images.shape)
    histogram = SHORTCUTS["histogram"].features
    np.testing.assert_array_equal(histogram(rows, images), histogram(rows, mixed))
    np.testing.assert_allclose((histogram(rows, images) ** 2).sum(axis=1), 1)


@pytest.mark.parametrize("depth", ["uint8", "uint16"])
def test_pictures_leave_out_the_padding_and_the_size_of_the_store(depth: str, tmp_path: Path) -> None:
    """A tall picture, a wide one whose pixels are twice as high as wide, and a part that was cut out; each is light on dark."""
    recipe, level = Recipe(40, depth, (0.5, 99.5)), {"uint8": 200, "uint16": 200 * 257}[depth]
    shapes = [(40, 20), (40, 40), (10, 40)]
    arrays = [centred(np.full(shape, level, recipe.dtype), 40) for shape in shapes]
    rows = [
        {"rows": 400, "columns": 200, "pixel_aspect": 1.0, "crop": None},
        {"rows": 100, "columns": 200, "pixel_aspect": 2.0, "crop": None},
        {"rows": 400, "columns": 400, "pixel_aspect": np.nan, "crop": "100 0 200 400"},
    ]
    table = pd.DataFrame([dict.fromkeys(INDEX) | row | {"shard": 0, "row": number} for number, row in enumerate(rows)])
    store.open_for_adding(tmp_path, recipe)
    store.write_shard(tmp_path, 0, arrays, lambda: store.table(table.to_dict("records")), recipe)
    np.testing.assert_array_equal(pictures(ArrayStore(tmp_path), table), np.full((3, SIDE, SIDE), 200))
