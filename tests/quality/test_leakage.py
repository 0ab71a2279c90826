from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from made_tables import made_cohort, made_index

from pipelines.errors import LeakageError
from pipelines.quality import leakage
from pipelines.records import SPLIT, Task

TASK = Task("binary", ("pneumonia",))

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def clean() -> Tables:
    """Forty patients by number: 0–9 test, 10–19 validation, the others training."""
    index, labels = made_cohort(60, 40)
    number = index["patient"].str[-4:].astype(int)
    part = np.select([number < 10, number < 20], ["test", "validation"], "train")
    return index.assign(part=part)[[*SPLIT]], index, labels


def moved(image: str, part: str) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        split, index, labels = tables
        return split.assign(part=split["part"].where(split["image"] != image, part)), index, labels

    return change


def indexed(image: str, column: str, value: str) -> Callable[[Tables], Tables]:
    """The index says something else of an image, and so does the split."""

    def change(tables: Tables) -> Tables:
        split, index, labels = tables
        return (
            split.assign(**{column: split[column].where(split["image"] != image, value)}),
            index.assign(**{column: index[column].where(index["image"] != image, value)}),
            labels,
        )

    return change


def of_split(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Tables], Tables]:
    return lambda tables: (change(tables[0]), *tables[1:])


def healthy_test(tables: Tables) -> Tables:
    split, index, labels = tables
    here = (split["part"] == "test").to_numpy()
    return split, index, labels.assign(pneumonia=labels["pneumonia"].mask(here, 0.0))


def unlabelled(tables: Tables) -> Tables:
    split, index, labels = tables
    return split, index, labels.assign(pneumonia=labels["pneumonia"].mask(labels["image"] == "2.25.1007"))


PIXELS = made_index([0])["pixel_hash"][0]

REFUSED = {
    "patient": (moved("2.25.1000", "train"), r"1 × patient in more than one part \(the first in test and train\): patient-0000"),
    "study": (
        indexed("2.25.1015", "study", "2.25.500030"),
        r"1 × study in more than one part \(the first in train and validation\): 2\.25\.500030",
    ),
    "pixels": (
        indexed("2.25.1015", "pixel_hash", PIXELS),
        r"1 × identical image in more than one part \(the first in test and validation\): 2\.25\.1000 = 2\.25\.1015",
    ),
    "class": (healthy_test, "a class is missing from a part: test has no positive image of pneumonia"),
    "listed twice": (of_split(lambda split: pd.concat([split, split[:1]])), "1 images are listed more than once: 2.25.1000"),
    "unknown part": (of_split(lambda split: split.replace({"part": {"test": "tset"}})), "expected the parts .*got tset"),
    "empty part": (of_split(lambda split: split[split["part"] != "validation"]), "no image in validation"),
    "no column": (of_split(lambda split: split.drop(columns="study")), "missing: study"),
    "unlabelled image": (unlabelled, "1 images are not among the prepared and labelled ones: 2.25.1007"),
    "forged patient": (
        of_split(lambda split: split.assign(patient=split["image"])),
        "60 images have another patient than in the index: 2.25.1000, 2.25.1001, 2.25.1002 and 57 more",
    ),
    "forged pixels": (
        of_split(lambda split: split.assign(pixel_hash=split["image"])),
        "60 images have another identical image than in the index",
    ),
}


def test_a_clean_split_is_certified_with_its_counts() -> None:
    split, index, labels = clean()
    certificate = leakage.certify(split, index, labels, TASK)
    assert certificate.clean
    assert certificate.split_sha256 == leakage.split_sha256(split)
    assert certificate.checks == {
        "patients_across_parts": 0,
        "studies_across_parts": 0,
        "identical_images_across_parts": 0,
        "classes_missing": 0,
        "images": 60,
        "usable_images_left_out": 0,
        "near_duplicate_pairs_across_parts": 0,
    }
    assert certificate.parts["test"] == {
        "images": 20,
        "patients": 10,
        "studies": 20,
        "classes": {"pneumonia": {"positive": 6, "negative": 14}},
    }


@pytest.mark.parametrize("case", REFUSED)
def test_a_broken_split_is_refused_by_name(case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(LeakageError, match=message):
        leakage.certify(*change(clean()), TASK)


def test_a_multiclass_split_needs_each_class_in_each_part() -> None:
    split, index, labels = clean()
    task = Task("multiclass", ("etiology",), ("none", "viral"))
    named = pd.DataFrame({"image": labels["image"], "etiology": np.where(labels["pneumonia"] == 1, "viral", "none")})
    assert leakage.certify(split, index, named, task).parts["test"]["classes"]["viral"] == {"positive": 6, "negative": 14}
    named.loc[(split["part"] == "train").to_numpy(), "etiology"] = "none"
    with pytest.raises(LeakageError, match="train has no positive image of viral"):
        leakage.certify(split, index, named, task)


def test_usable_images_that_the_split_leaves_out_are_counted() -> None:
    split, index, labels = clean()
    certificate = leakage.certify(split[:-3], index, labels, TASK)
    assert certificate.checks["usable_images_left_out"] == 3


def test_near_duplicates_across_parts_are_a_number_and_not_a_refusal() -> None:
    split, index, labels = clean()
    index.loc[0, "perceptual_hash"] = "0000000000000000"
    index.loc[1, "perceptual_hash"] = "0000000000000001"  # same part: not across
    index.loc[15, "perceptual_hash"] = "8000000000000001"  # two bits from the first, one from the second
    index.loc[25, "perceptual_hash"] = "7000000000000000"  # three bits from the first
    certificate = leakage.certify(split, index, labels, TASK)
    assert certificate.checks["near_duplicate_pairs_across_parts"] == 2
    assert certificate.near_duplicates == (("2.25.1000", "2.25.1015"), ("2.25.1001", "2.25.1015"))


def test_near_duplicates_are_counted_exactly_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "CHUNK", 7)
    random = np.random.default_rng(5)
    numbers = [int(bits) for bits in random.integers(0, 2**7, 50)]
    images = pd.DataFrame(
        {"image": [f"i{row:02d}" for row in range(50)], "perceptual_hash": [f"{bits:016x}" for bits in numbers]}
    )
    part = random.choice(np.array(["train", "test"], dtype=object), 50)
    expected = [
        (f"i{first:02d}", f"i{second:02d}")
        for first in range(50)
        for second in range(first + 1, 50)
        if part[first] != part[second] and (numbers[first] ^ numbers[second]).bit_count() <= 2
    ]
    total, pairs = leakage.near_duplicates(images, part)
    assert total == len(expected) > leakage.EXAMPLES
    assert pairs == tuple(expected[: leakage.EXAMPLES])


def test_images_without_a_perceptual_hash_are_passed_over() -> None:
    images = pd.DataFrame({"image": ["a", "b"], "perceptual_hash": [None, None]})
    assert leakage.near_duplicates(images, np.array(["train", "test"], dtype=object)) == (0, ())


def test_the_fingerprint_of_a_split_ignores_order_and_notices_a_moved_image() -> None:
    split, index, labels = clean()
    assert leakage.split_sha256(split.sample(frac=1, random_state=1)) == leakage.split_sha256(split)
    other, _, _ = moved("2.25.1000", "train")((split, index, labels))
    assert leakage.split_sha256(other) != leakage.split_sha256(split)
