"""One identified file in, one de-identified file and its row of the manifest out.

The header is built anew (`attributes`), the pixel data come from `pixels`. The same file and key give the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

from pipelines.dicom.attributes import DAYS, METHOD, Identity, attributes
from pipelines.dicom.header import Header
from pipelines.dicom.pixels import NATIVE, pixel_data
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.reading import Source, open_source
from pipelines.dicom.writing import part10
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

Row = dict[str, str | int | float | None]


@dataclass(frozen=True)
class Accept:
    """Which images are taken.

    Attributes:
        modalities: values of Modality.
        burned_in: take images whose header says BurnedInAnnotation YES.
    """

    modalities: tuple[str, ...]
    burned_in: bool = False


@dataclass(frozen=True, repr=False)
class Clean:
    """A de-identified file.

    Attributes:
        content: the whole Part 10 file.
        row: its row of the manifest (`records.MANIFEST`).
        image_sha256: of the image's bytes as stored, by which two files are told to show the same.
        without_patient: there was no PatientID, the pseudonym comes from the study.
    """

    content: bytes
    row: Row
    image_sha256: str
    without_patient: bool

    @property
    def image(self) -> str:
        """The image's pseudonym."""
        return str(self.row["image"])


def deidentify(stream: BinaryIO, pseudonyms: Pseudonyms, accept: Accept) -> Clean | None:
    """De-identify one file.

    Returns:
        The clean file, or None for a DICOMDIR.

    Raises:
        RefusedFileError: the file cannot be used; nothing in the message identifies anybody.
    """
    source = open_source(stream)
    if source.is_directory:
        return None
    _check_accepted(source.header, accept)
    pixels = pixel_data(source)
    identity = Identity.of(source.header, pseudonyms, accept.modalities)
    kept = attributes(identity, pseudonyms)
    encapsulated = pixels.transfer_syntax not in NATIVE
    content = part10(kept, pixels.transfer_syntax, pixels.image, pixels.vr, encapsulated=encapsulated)
    row = manifest_row(open_source(BytesIO(content)))
    return Clean(content, row, hashlib.sha256(pixels.image).hexdigest(), not source.header.text("PatientID"))


def image_sha256(stream: BinaryIO) -> str:
    """`Clean.image_sha256` of a de-identified file."""
    return hashlib.sha256(pixel_data(open_source(stream)).image).hexdigest()


def key_fingerprint(source: Source) -> str:
    """The fingerprint of the key under which a file was de-identified, "" if it is not one of ours."""
    method = source.header.text("DeidentificationMethod")
    return method.removeprefix(METHOD) if method.startswith(METHOD) else ""


def _check_accepted(header: Header, accept: Accept) -> None:
    if not header.text("SOPInstanceUID"):
        raise RefusedFileError(Reason.MISSING_UID)
    if header.text("Modality").upper() not in accept.modalities:
        raise RefusedFileError(Reason.MODALITY)
    if not accept.burned_in and any(text.upper().startswith("Y") for text in header.texts("BurnedInAnnotation")):
        raise RefusedFileError(Reason.BURNED_IN)


def manifest_row(source: Source) -> Row:
    """The row of the manifest of a de-identified file (`records.MANIFEST`)."""
    header = source.header

    def text(keyword: str) -> str | None:
        return header.text(keyword) or None

    patient, image, studied = header.text("PatientID"), header.text("SOPInstanceUID"), header.text("StudyDate")
    return {
        "image": image,
        "study": text("StudyInstanceUID"),
        "series": text("SeriesInstanceUID"),
        "accession": text("AccessionNumber"),
        "patient": patient,
        "site": text("InstitutionName"),
        "file": f"dicom/{patient}/{image}.dcm",
        "modality": text("Modality"),
        "body_part": text("BodyPartExamined"),
        "view": text("ViewPosition"),
        "laterality": text("ImageLaterality") or text("Laterality"),
        "manufacturer": text("Manufacturer"),
        "age_years": _years(header.text("PatientAge")),
        "sex": text("PatientSex"),
        "study_date": f"{studied[:4]}-{studied[4:6]}-{studied[6:]}" if studied else None,
        "transfer_syntax": source.transfer_syntax,
        "photometric": text("PhotometricInterpretation"),
        "rows": header.integer("Rows"),
        "columns": header.integer("Columns"),
        "bits_stored": header.integer("BitsStored"),
        "spacing_mm": _spacing(header),
    }


def _years(age: str) -> float:
    return round(int(age[:-1]) * DAYS[age[-1]] / DAYS["Y"], 3) if age else float("nan")


def _spacing(header: Header) -> float:
    """Row spacing in mm, from the attribute that says most; NaN where none does."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = header.numbers(keyword)
        if len(values) == 2 and values[0] > 0:
            return float(values[0])
    return float("nan")
