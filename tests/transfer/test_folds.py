from __future__ import annotations

import numpy as np
import pytest

from pipelines.transfer.folds import fewest, folds

NAN = float("nan")


def test_no_patient_is_on_both_sides_and_every_image_is_held_out_once() -> None:
    patients = np.repeat(np.arange(12), 3)
    labels = (patients % 2).astype(float)[:, None]
    parts = folds(labels, patients)
    assert len(parts) == 5
    assert sorted(np.concatenate([fold.held_out for fold in parts])) == list(range(36))
    for fold in parts:
        assert not set(patients[fold.kept]) & set(patients[fold.held_out])
        assert set(labels[fold.kept, 0]) == {0, 1}


@pytest.mark.parametrize(("patients_of_each", "expected"), [(1, 0), (2, 2), (3, 3), (8, 5)])
def test_there_are_as_many_folds_as_the_rarest_class_has_patients_five_at_most(patients_of_each: int, expected: int) -> None:
    labels = np.repeat([[0.0], [1.0]], [9, patients_of_each], axis=0)
    assert len(folds(labels, np.arange(len(labels)))) == expected


def test_several_images_of_one_patient_are_no_reason_for_another_fold() -> None:
    labels, patients = np.array([[0.0]] * 9 + [[1.0]] * 9), np.array([*range(9), *[99] * 9])
    assert folds(labels, patients) == ()


def test_the_rarest_class_is_counted_in_patients_and_unknown_labels_do_not_count() -> None:
    labels = np.array([[1, 0], [1, NAN], [1, 1], [0, 0], [0, 1], [NAN, 1]])
    assert fewest(labels, np.array([0, 0, 1, 2, 3, 4])) == 2


def test_combinations_of_findings_that_are_all_rare_are_no_obstacle() -> None:
    """Sixteen images, no two with the same four findings, and the last finding known of six only: three have it."""
    labels = np.array([[number >> bit & 1 for bit in range(4)] for number in range(16)], float)
    labels[[0, 1, 2, 3, 4, 8, 9, 10, 11, 12], 3] = NAN
    parts = folds(labels, np.arange(16))
    assert sorted(np.concatenate([fold.held_out for fold in parts])) == list(range(16))
    for fold in parts:
        assert np.sort(labels[fold.held_out, 3])[:2].tolist() == [0, 1]  # the rarest finding is balanced
