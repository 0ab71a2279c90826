from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from made_dicom import file_bytes, header, with_pixels
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipelines.dicom.burned_in import Cleaned, clean
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.deidentify import Accept, Clean, deidentify
from pipelines.dicom.profile import DEFAULT
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.errors import RefusedFileError
from pipelines.imaging.decode import Frame, decode
from pipelines.records import Reason

ACCEPT = Accept(("CR",), "clean", DEFAULT | {Option.CLEAN_PIXELS})
SYNTAXES = (
    *(ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian),
    *(JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, RLELossless),
)
Pixels = NDArray[Any]


def image(text: str = "", bits: int = 8) -> Pixels:
    """Soft shapes, with text in white."""
    y, x = np.mgrid[0:200, 0:320] / 320
    body = 60 + 120 * np.exp(-((x - 0.5) ** 2 + (y - 0.3) ** 2) * 9) + np.random.default_rng(1).normal(0, 1, x.shape)
    ink = cv2.putText(np.zeros(body.shape, np.uint8), text, (20, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255,), 2, cv2.LINE_AA) / 255
    drawn = body + (250 - body) * ink
    return (drawn * ((1 << bits) - 1) / 255).clip(0, (1 << bits) - 1).astype(np.uint8 if bits <= 8 else np.uint16)


def ingested(dataset: Dataset, syntax: str = ExplicitVRLittleEndian, accept: Accept = ACCEPT) -> Clean:
    done = deidentify(BytesIO(file_bytes(dataset, syntax)), Pseudonyms(b"a key for tests, long enough"), accept)
    assert done is not None
    return done


def codes(dataset: Dataset) -> set[str]:
    return {item.CodeValue for item in dataset.DeidentificationMethodCodeSequence}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_text_is_gone_from_every_transfer_syntax(syntax: str) -> None:
    dataset = with_pixels(header(), image("ZEBRA CANARY"), syntax)
    done = ingested(dataset, syntax)
    written = dcmread(BytesIO(done.content))
    assert (done.blanked, written.file_meta.TransferSyntaxUID) == (True, ExplicitVRLittleEndian)
    assert (written.BurnedInAnnotation, done.row["transfer_syntax"]) == ("NO", ExplicitVRLittleEndian)
    assert "113101" in codes(written)
    after = decode(written)
    np.testing.assert_array_equal(after[120:], decode(dcmread(BytesIO(file_bytes(dataset, syntax))))[120:])
    ink = image("ZEBRA CANARY").astype(int) - image() > 40
    assert (np.abs(after.astype(int) - image())[ink] < 40).all()
    assert clean(after, thorough=True).blanked == 0
    assert ("replaced", "PixelData") in done.treatment.fates


@pytest.mark.parametrize("text", ["", "AP PORTABLE"])
@pytest.mark.parametrize("syntax", SYNTAXES[3:])
def test_an_image_without_identifying_text_keeps_its_bytes(syntax: str, text: str) -> None:
    stored = image(text)
    done = ingested(with_pixels(header(), stored, syntax), syntax)
    written = dcmread(BytesIO(done.content))
    assert (done.blanked, written.file_meta.TransferSyntaxUID, written.BurnedInAnnotation) == (False, syntax, "NO")
    unseen = ingested(with_pixels(header(), stored, syntax), syntax, Accept(("CR",), "keep"))
    assert done.image_sha256 == unseen.image_sha256
    assert written.PixelData == dcmread(BytesIO(unseen.content)).PixelData
    assert ("replaced", "PixelData") not in done.treatment.fates


@pytest.mark.parametrize("high", [11, 13, 15])
@pytest.mark.parametrize("signed", [False, True])
def test_cells_keep_their_place_and_sign(high: int, signed: bool) -> None:
    values = image("ZEBRA CANARY", bits=12).astype(np.int32) - (2048 if signed else 0)
    cells = (values.astype(np.int16 if signed else np.uint16) << (high - 11)).view(np.uint16)
    described = {"BitsStored": 12, "HighBit": high, "PixelRepresentation": int(signed)}
    written = dcmread(BytesIO(ingested(with_pixels(header(**described), cells, bits=12)).content))
    after = decode(written).astype(np.int32)
    ink = values - (image(bits=12).astype(np.int32) - (2048 if signed else 0)) > 600
    np.testing.assert_array_equal(values[120:], after[120:])
    assert (np.abs(values - after)[ink] > 300).all()


def test_the_same_file_gives_the_same_bytes() -> None:
    dataset = with_pixels(header(), image("ZEBRA CANARY"))
    first, second = ingested(dataset), ingested(dataset)
    assert first.content == second.content
    assert first.image_sha256 == second.image_sha256


def test_what_lossy_compression_cost_is_still_told() -> None:
    lossy = with_pixels(header(), image("ZEBRA CANARY"), JPEGBaseline8Bit)
    assert dcmread(BytesIO(ingested(lossy, JPEGBaseline8Bit).content)).LossyImageCompression == "01"
    lossless = with_pixels(header(), image("ZEBRA CANARY"), JPEGLSLossless)
    assert "LossyImageCompression" not in dcmread(BytesIO(ingested(lossless, JPEGLSLossless).content))


def test_declared_text_is_blanked_where_it_is_found() -> None:
    assert ingested(with_pixels(header(BurnedInAnnotation="YES"), image("ZEBRA CANARY"))).blanked


@pytest.mark.parametrize("text", ["", "AP PORTABLE"])
def test_declared_text_that_is_not_found_is_left_to_a_person(text: str) -> None:
    with pytest.raises(RefusedFileError, match="none was found") as caught:
        ingested(with_pixels(header(BurnedInAnnotation="YES"), image(text)))
    assert caught.value.reason is Reason.BURNED_IN


def test_text_that_cannot_be_blanked_is_left_to_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.dicom.burned_in.blank", lambda stored, _boxes: stored)
    with pytest.raises(RefusedFileError, match="could not be blanked") as caught:
        ingested(with_pixels(header(), image("ZEBRA CANARY")))
    assert caught.value.reason is Reason.BURNED_IN


def test_an_image_that_cannot_be_decoded_is_not_taken_on_trust() -> None:
    dataset = with_pixels(header(), image(), JPEG2000Lossless)
    content = bytearray(file_bytes(dataset, JPEG2000Lossless))
    content[content.index(b"\xff\x52") + 10] = 0xEE  # the exponent of the code-block width (T.800 A.6.1)
    with pytest.raises(RefusedFileError) as caught:
        deidentify(BytesIO(bytes(content)), Pseudonyms(b"a key for tests, long enough"), ACCEPT)
    assert caught.value.reason is Reason.UNDECODABLE


@pytest.mark.parametrize(("text", "blanked"), [("", False), ("PORTABLE", False), ("ZEBRA CANARY", True)])
def test_a_large_image_is_read_in_full_only_where_text_is_found(
    text: str, blanked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = image(text)
    stored = cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    calls: list[int] = []
    decoded = Frame.decode
    monkeypatch.setattr(Frame, "decode", lambda frame: calls.append(1) or decoded(frame))
    done = ingested(with_pixels(header(), stored, JPEG2000Lossless), JPEG2000Lossless)
    assert (done.blanked, len(calls)) == (blanked, blanked)


def test_text_that_the_smaller_image_shows_is_looked_for_thoroughly_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is seen at a lower resolution may be missed, or found in part, by the fast look at full size."""
    looks: list[bool] = []

    def missing(stored: Pixels, *, thorough: bool) -> Cleaned:
        looks.append(thorough)
        return clean(stored, thorough=True) if thorough else Cleaned(stored, 0, 0, 0)

    monkeypatch.setattr("pipelines.dicom.pixel_text.clean", missing)
    large = cv2.resize(image("ZEBRA CANARY"), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    done = ingested(with_pixels(header(), large, JPEG2000Lossless), JPEG2000Lossless)
    assert done.blanked
    assert looks == [True]


@pytest.mark.parametrize("mode", ["quarantine", "keep"])
def test_pixels_are_not_looked_at_unless_they_are_to_be_cleaned(mode: Any) -> None:
    done = ingested(with_pixels(header(), image("ZEBRA CANARY")), accept=Accept(("CR",), mode))
    written = dcmread(BytesIO(done.content))
    assert not done.blanked
    assert "113101" not in codes(written)
    np.testing.assert_array_equal(decode(written), image("ZEBRA CANARY"))
