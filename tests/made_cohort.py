"""A cohort without any shortcut, to plant one in: index rows and pictures of noise, two images of each patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipelines.quality.shortcuts import SIDE
from pipelines.records import INDEX

PARTS = ("train", "train", "train", "validation", "test")


def make(patients: int = 150, seed: int = 1) -> tuple[pd.DataFrame, NDArray[np.uint8], NDArray[np.float64]]:
    """Rows of the index with `part`, pictures (images, 64, 64), and labels (images,), alike in both images of a patient."""
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(patients), 2)
    rows = pd.DataFrame([_row(number, int(patient), generator) for number, patient in enumerate(person)])
    rows["part"] = [PARTS[patient % len(PARTS)] for patient in person]
    images = generator.integers(60, 190, (len(rows), SIDE, SIDE)).astype(np.uint8)
    labels = generator.permutation(np.arange(patients) % 2)[person].astype(np.float64)
    return rows, images, labels


def _row(number: int, patient: int, generator: np.random.Generator) -> dict[str, Any]:
    return dict.fromkeys(INDEX) | {
        "image": f"2.25.{number}",
        "patient": f"patient{patient}",
        "site": str(generator.choice(["a", "b"])),
        "manufacturer": str(generator.choice(["SIEMENS", "FUJIFILM"])),
        "modality": "CR",
        "view": str(generator.choice(["PA", "AP"])),
        "sex": str(generator.choice(["F", "M"])),
        "age_years": float(generator.integers(20, 80)),
        "rows": int(generator.integers(400, 600)),
        "columns": int(generator.integers(400, 600)),
        "pixel_aspect": 1.0,
        "spacing_mm": float(generator.choice([0.14, 0.2])),
        "transfer_syntax": "1.2.840.10008.1.2",
        "photometric": "MONOCHROME2",
        "bits_stored": 12,
        "window": "window",
    }
