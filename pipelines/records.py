"""What passes between stages: reasons, the columns of the tables, and the declared task.

Tables are pandas data frames stored as Parquet; each constant below names the columns of one of them, in order, with
their meaning. A column that is unknown for an image holds None (text) or NaN (numbers), never an empty string.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


class Reason(Enum):
    """Why a file or an image is left out; the value is the code in lists, summaries and tables."""

    NOT_DICOM = "not_dicom"
    TRUNCATED = "truncated"
    UNREADABLE = "unreadable_header"
    UNKNOWN_VR = "unknown_vr"
    NOT_IMAGE = "not_an_image"
    NO_PIXELS = "no_pixel_data"
    MODALITY = "modality_not_allowed"
    MULTI_FRAME = "multi_frame"
    COLOUR = "not_grayscale"
    SIZE = "absurd_size"
    TRANSFER_SYNTAX = "transfer_syntax_unsupported"
    MISSING_UID = "missing_sop_instance_uid"
    DUPLICATE = "same_sop_instance_uid_different_image"
    BURNED_IN = "burned_in_annotation"
    UNDECODABLE = "undecodable_pixels"
    BITS = "inconsistent_bit_depth"
    CONSTANT = "constant_image"
    FOR_PROCESSING = "raw_for_processing"
    TIMEOUT = "decoding_took_too_long"
    CHANGED = "changed_while_read"


MANIFEST = {
    "image": "pseudonym of SOPInstanceUID, a UID under 2.25",
    "study": "pseudonym of StudyInstanceUID",
    "series": "pseudonym of SeriesInstanceUID",
    "accession": "pseudonym of AccessionNumber, or None",
    "patient": "pseudonym of PatientID (of StudyInstanceUID where there is none)",
    "site": "pseudonym of InstitutionName, or None",
    "file": "path of the de-identified file, relative to data/",
    "modality": "CR, DX or RG",
    "body_part": "BodyPartExamined, or None",
    "view": "ViewPosition (PA, AP, LL, …), or None",
    "laterality": "L, R, B, U or None",
    "manufacturer": "the vendor's usual name, or a pseudonym of an unknown one, or None",
    "age_years": "age at the study, capped at 89 (float), or NaN",
    "sex": "F, M, O or None",
    "study_date": "StudyDate shifted by the patient's offset, ISO 8601 text, or None",
    "transfer_syntax": "UID of the transfer syntax",
    "photometric": "MONOCHROME1 or MONOCHROME2",
    "rows": "rows of the stored image (int)",
    "columns": "columns of the stored image (int)",
    "bits_stored": "bits stored (int)",
    "spacing_mm": "row spacing in mm, detector or calibrated (float), or NaN",
}

INDEX = {
    **{name: MANIFEST[name] for name in MANIFEST if name not in ("series", "accession", "file")},
    "window": "where the grey levels came from: voi_lut, window or percentiles; None if left out",
    "mean": "mean of the prepared image inside the padding, 0…1 (float)",
    "std": "standard deviation of the prepared image inside the padding, 0…1 (float)",
    "dark": "fraction of pixels at the lowest grey level (float)",
    "bright": "fraction of pixels at the highest grey level (float)",
    "pixel_aspect": "height of a stored pixel divided by its width (float), 1 where the header says nothing credible",
    "reduction": "the image was decoded at one of this many of its rows and columns (float): 1 for in full, 2, 4, 8, …",
    "crop": "top, left, bottom and right of the part that was kept, in stored pixels, or None for the whole image",
    "mirrored": "1 if the prepared image is mirrored, left to right, else 0 (float)",
    "pixel_hash": "SHA-256 of size and values; the same for all lossless encodings of an image (`imaging.hashes`), or None",
    "perceptual_hash": "64-bit perceptual hash of the prepared image, 16 hexadecimal digits, or None",
    "shard": "number of the array shard (int), -1 if left out",
    "row": "row within the shard (int), -1 if left out",
    "left_out": "a `Reason` value, or None for an image that was prepared",
}

SPLIT = {
    "image": MANIFEST["image"],
    "patient": MANIFEST["patient"],
    "study": MANIFEST["study"],
    "pixel_hash": INDEX["pixel_hash"],
    "part": "train, validation or test",
}

PARTS = ("train", "validation", "test")

SELF_SUPERVISED = "ssl"
"""The source of weights that learned from the team's own radiographs without labels."""


@dataclass(frozen=True)
class Task:
    """What the network learns to say.

    Attributes:
        kind: `binary` (one column of 0/1), `multilabel` (several columns of 0/1) or `multiclass` (one column that holds
            one of `classes`).
        targets: the label columns.
        classes: the classes of a multiclass target, in the order of the network's outputs; else empty.
    """

    kind: str
    targets: tuple[str, ...]
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the network's outputs, in order: the targets, or the classes of a multiclass target."""
        return self.classes if self.kind == "multiclass" else self.targets

    def matrix(self, labels: pd.DataFrame) -> NDArray[np.float32]:
        """The labels as numbers.

        Returns:
            Array (images, outputs) of 0, 1 or NaN (unknown); for a multiclass target a row is one-hot or all NaN.
        """
        if self.kind == "multiclass":
            column = labels[self.targets[0]]
            known = column.isin(self.classes).to_numpy()[:, None]
            hot = np.stack([(column == name).to_numpy() for name in self.classes], axis=1)
            return np.where(known, hot, np.nan).astype(np.float32)
        return labels[list(self.targets)].to_numpy(dtype=np.float32)


# labels.parquet holds one row per labelled image: "image", then one column per target of the task: 0.0, 1.0 or NaN, or
# the name of a class (None where unknown) for a multiclass target.
#
# predictions.parquet (validation and test) holds "image", "patient", "part", then for each output NAME: "p_NAME", the
# probability, and "y_NAME", the label (0, 1 or NaN).
#
# shortcuts/scores.parquet (test) holds "image", "patient", then for each shortcut and output "SHORTCUT/OUTPUT", what the
# shortcut says (log odds), or NaN where it could not learn.


def probability_column(output: str) -> str:
    return f"p_{output}"


def label_column(output: str) -> str:
    return f"y_{output}"


def shortcut_column(shortcut: str, output: str) -> str:
    return f"{shortcut}/{output}"
