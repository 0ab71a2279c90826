"""An index and labels made by hand, as prepare and ingest would write them."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd


def digest(text: str, digits: int = 64) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def made_index(patients: list[int], sites: int = 2) -> pd.DataFrame:
    """One prepared image for each entry, of the patient with that number; each image is a study of its own."""
    rows = [
        {
            "image": f"2.25.{1000 + number}",
            "study": f"2.25.{500000 + number}",
            "patient": f"patient-{patient:04d}",
            "site": f"site-{patient % sites}",
            "modality": "DX",
            "body_part": "CHEST",
            "view": "PA" if number % 2 else "AP",
            "laterality": None,
            "manufacturer": "Siemens",
            "age_years": float(20 + patient % 60),
            "sex": "F" if patient % 2 else "M",
            "study_date": "2020-01-02",
            "transfer_syntax": "1.2.840.10008.1.2.1",
            "photometric": "MONOCHROME2",
            "rows": 512,
            "columns": 400,
            "bits_stored": 12,
            "spacing_mm": 0.15,
            "window": "window",
            "mean": 0.5,
            "std": 0.2,
            "dark": 0.01,
            "bright": 0.01,
            "pixel_aspect": 1.0,
            "reduction": 1.0,
            "crop": None,
            "mirrored": 0.0,
            "pixel_hash": digest(f"pixels {number}"),
            "perceptual_hash": digest(f"looks {number}", 16),
            "shard": 0,
            "row": number,
            "left_out": None,
        }
        for number, patient in enumerate(patients)
    ]
    return pd.DataFrame(rows)


def made_cohort(images: int = 60, patients: int = 40, positive: float = 0.3) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An index of `images` images and the labels `pneumonia`; the given fraction of the patients has it."""
    owners = [*range(patients), *(extra % patients for extra in range(images - patients))]
    index = made_index(owners)
    sick = np.arange(patients) % 10 < round(positive * 10)
    return index, pd.DataFrame({"image": index["image"], "pneumonia": sick[owners].astype(float)})
