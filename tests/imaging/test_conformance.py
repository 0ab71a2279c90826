"""The pixel path on genuine radiographs, and against DCMTK's rendering."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from prerequisites import absent
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pipelines.imaging.decode import decode
from pipelines.imaging.grayscale import Showing, grayscale
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.imaging.resample import Box, centred, fitted

RECIPE = Recipe(224, "uint8", (0.5, 99.5))
SHOWING = RECIPE.showing
NEAR = 2  # bits by which the perceptual hashes of near-duplicates differ at most, as in quality.leakage
JPEG_FAMILY = {"50", "51", "57", "70"}
Make = Callable[..., Any]


@pytest.fixture(scope="session")
def conformance(shared: Path) -> Path:
    return shared / "data" / "conformance"


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., NDArray[Any]]:
    """DCMTK's rendering with 8 bits, at full size."""
    if not shutil.which("dcm2pnm"):
        absent("DCMTK is not installed; tests/system-packages.sh installs it")
    folder = tmp_path_factory.mktemp("rendered")

    def run(path: Path, *options: str) -> NDArray[Any]:
        syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID.rpartition(".")[2]
        program = "dcmj2pnm" if syntax in JPEG_FAMILY else "dcml2pnm" if syntax in ("80", "81") else "dcm2pnm"
        subprocess.run([program, *options, "+op", str(path), str(folder / "image.pgm")], check=True, capture_output=True)
        return cv2.imread(str(folder / "image.pgm"), cv2.IMREAD_UNCHANGED)

    return run


def _psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """In decibels, of two images of 256 grey levels."""
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else math.inf


def _grey(path: Path) -> NDArray[np.float64]:
    dataset = read(path)
    return grayscale(decode(dataset), dataset, SHOWING).image.astype(np.float64) * 255


@pytest.mark.real
@pytest.mark.parametrize("names", [("RG2_JLSL", "RG2_JPLL", "RG2_RLE"), ("RG3_J2KR", "RG3_JPLL", "RG3_RLE")], ids=["RG2", "RG3"])
def test_the_lossless_syntaxes_of_one_image_give_identical_arrays(names: tuple[str, ...], conformance: Path) -> None:
    prepared = [prepare(read(conformance / f"{name}.dcm"), RECIPE) for name in names]
    assert len({one.pixel_hash for one in prepared}) == 1
    whole = [one.array for one in prepared if one.reduction == 1]
    for other in whole[1:]:
        np.testing.assert_array_equal(other, whole[0])
    for one in prepared:  # JPEG 2000 is read at a lower resolution
        assert _psnr(one.array, whole[0]) > 50
        assert (int(one.perceptual_hash, 16) ^ int(prepared[0].perceptual_hash, 16)).bit_count() <= NEAR


@pytest.mark.real
@pytest.mark.parametrize(
    ("lossy", "lossless", "mean", "largest"),
    [("RG2_J2KI", "RG2_RLE", 0.25, 14), ("RG3_JLSN", "RG3_RLE", 0.1, 1), ("RG3_JPLY", "RG3_RLE", 0.1, 2)],
)
def test_lossy_syntaxes_come_within_a_tolerance(
    lossy: str, lossless: str, mean: float, largest: float, conformance: Path
) -> None:
    """Tolerances in grey levels of 256, on the prepared image; JPEG 2000 is read at a lower resolution (edges of markers)."""
    arrays = [prepare(read(conformance / f"{name}.dcm"), RECIPE).array.astype(int) for name in (lossy, lossless)]
    difference = np.abs(arrays[0] - arrays[1])
    assert difference.mean() <= mean
    assert difference.max() <= largest


@pytest.mark.real
@pytest.mark.parametrize("name", ["RG1_J2KI", "RG2_RLE", "RG3_J2KR", "dx_test1"])
def test_monochrome1_comes_out_like_monochrome2(name: str, conformance: Path) -> None:
    """The same image with its stored values turned over and the other photometric interpretation looks the same."""
    dataset = read(conformance / f"{name}.dcm")
    stored = decode(dataset)
    top = (1 << dataset.BitsStored) - 1
    other = Dataset()
    other.PhotometricInterpretation = "MONOCHROME2" if "1" in dataset.PhotometricInterpretation else "MONOCHROME1"
    if "WindowCenter" in dataset:
        other.WindowWidth = dataset.WindowWidth
        # LINEAR is symmetric about c - 0.5: mirrored, that becomes top - (c - 0.5).
        other.WindowCenter = top - dataset.WindowCenter + 1
    mirrored = (top - stored).astype(stored.dtype)
    shown = grayscale(stored, dataset, SHOWING).image
    # Where the percentiles decide, the nearest ranks from above and below may be neighbouring grey levels.
    tolerance = 1e-6 if "WindowCenter" in dataset else 2 / top
    np.testing.assert_allclose(grayscale(mirrored, other, SHOWING).image, shown, atol=tolerance)


@pytest.mark.real
@pytest.mark.parametrize("name", ["RG1_J2KI", "RG3_J2KR"])
def test_a_shown_monochrome1_radiograph_has_air_dark_and_bone_bright(name: str, conformance: Path) -> None:
    dataset = read(conformance / f"{name}.dcm")
    stored, shown = decode(dataset), grayscale(decode(dataset), dataset, SHOWING).image
    assert np.corrcoef(stored.reshape(-1)[::97], shown.reshape(-1)[::97])[0, 1] < -0.9


@pytest.mark.real
@pytest.mark.parametrize("name", ["RG2_JLSL", "RG2_JPLL", "RG2_RLE", "RG3_JPLL", "RG3_RLE", "RG3_JLSN"])
def test_a_windowed_image_is_rendered_as_dcmtk_does(name: str, conformance: Path, render: Callable[..., NDArray[Any]]) -> None:
    expected = render(conformance / f"{name}.dcm", "+Wi", "1")
    difference = np.abs(_grey(conformance / f"{name}.dcm") - expected)
    # DCMTK works on whole grey levels. (RG3_JPLY is left out: DCMTK wraps where the lossy values overshoot 10 bits.)
    assert difference.max() <= 1.01


@pytest.mark.real
@pytest.mark.parametrize("name", ["dx_test1", "dx_test2", "dx_test3"])
def test_odd_headers_are_met(name: str, conformance: Path, render: Callable[..., NDArray[Any]]) -> None:
    """DX of secondary capture class, without a window, two of them with wrong or odd attributes."""
    path = conformance / f"{name}.dcm"
    dataset = read(path)
    prepared = prepare(dataset, RECIPE)
    assert prepared.window == "percentiles"
    assert prepared.std > 0.15
    np.testing.assert_array_equal(decode(dataset), render(path, "-M", "-W"))


@pytest.mark.real
@pytest.mark.parametrize("folder", ["paediatric_cxr", "adult_cxr"])
def test_real_radiographs_decode_as_pydicom_decodes_them(folder: str, shared: Path) -> None:
    """Two files per transfer syntax against pylibjpeg; JPEG baseline may differ by rounding (ISO/IEC 10918-2)."""
    seen: dict[str, int] = {}
    for path in sorted((shared / "data" / folder / "dicom").rglob("*.dcm")):
        syntax = str(dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True).file_meta.TransferSyntaxUID)
        seen[syntax] = seen.get(syntax, 0) + 1
        if seen[syntax] <= 2:
            difference = np.abs(decode(read(path)).astype(int) - dcmread(path).pixel_array)
            assert difference.max() <= (1 if syntax.endswith(".50") else 0)
    assert len(seen) == 6


def _lut(first: int, entries: list[int]) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, 16])
    item.add_new("LUTData", "US", entries)
    item.ModalityLUTType = "US"
    return item


WINDOW = {"WindowCenter": 1500, "WindowWidth": 2200}
RESCALED = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 900, "WindowWidth": 3000}
SQUARE = _lut(0, [int(4095 * (entry / 4095) ** 2) for entry in range(4096)])
ROOT = _lut(500, [int(65535 * (entry / 2999) ** 0.5) for entry in range(3000)])
CASES = {
    "window": (WINDOW, ("+Wi", "1")),
    "rescale": (RESCALED, ("+Wi", "1")),
    "sigmoid": ({**WINDOW, "VOILUTFunction": "SIGMOID"}, ("+Wi", "1", "+Wfs")),
    "width 1": ({"WindowCenter": 1500, "WindowWidth": 1}, ("+Wi", "1")),
    "voi lut": ({"VOILUTSequence": [ROOT]}, ("+Wl", "1")),
    "modality lut": ({"ModalityLUTSequence": [SQUARE], **WINDOW}, ("+Wi", "1")),
}


@pytest.fixture
def agrees(dicom_bytes: Make, make_dataset: Make, render: Make, tmp_path: Path) -> Callable[..., None]:
    def check(pixels: NDArray[Any], options: tuple[str, ...], attributes: dict[str, Any]) -> None:
        path = tmp_path / "image.dcm"
        path.write_bytes(dicom_bytes(make_dataset(pixels, 12, **attributes)))
        np.testing.assert_allclose(_grey(path), render(path, *options), atol=1.01)

    return check


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("case", list(CASES))
def test_the_gray_chain_agrees_with_dcmtk(case: str, photometric: str, scene: Make, agrees: Callable[..., None]) -> None:
    attributes, options = CASES[case]
    agrees(scene(12), options, {**attributes, "PhotometricInterpretation": photometric})


@pytest.mark.parametrize("case", ["window", "sigmoid", "width 1", "voi lut"])
def test_the_gray_chain_agrees_with_dcmtk_on_signed_values(case: str, scene: Make, agrees: Callable[..., None]) -> None:
    attributes, options = CASES[case]
    agrees(scene(12, signed=True), options, {**attributes, "RescaleSlope": 1, "RescaleIntercept": 2048})


def test_an_inverse_shape_alone_is_rendered_as_dcmtk_does(scene: Make, agrees: Callable[..., None]) -> None:
    agrees(scene(12), ("+Wi", "1", "+Piv"), {**WINDOW, "PresentationLUTShape": "INVERSE"})


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_every_depth_is_rendered_as_dcmtk_does(
    bits: int, signed: bool, scene: Make, make_dataset: Make, dicom_bytes: Make, render: Make, tmp_path: Path
) -> None:
    middle = 0 if signed else 1 << (bits - 1)
    path = tmp_path / "image.dcm"
    window = {"WindowCenter": middle, "WindowWidth": 3 << (bits - 2), "RescaleSlope": 1, "RescaleIntercept": 0}
    path.write_bytes(dicom_bytes(make_dataset(scene(bits, signed), bits, **window)))
    np.testing.assert_allclose(_grey(path), render(path, "+Wi", "1"), atol=1.01)


@pytest.mark.parametrize(("name", "option"), [("NORMAL", "1"), ("HARDER", "2"), ("SOFTER", "3")])
def test_a_window_by_name_is_rendered_as_dcmtk_renders_it_by_number(
    name: str, option: str, scene: Make, make_dataset: Make, dicom_bytes: Make, render: Make, tmp_path: Path
) -> None:
    windows = {"WindowCenter": [1500, 1200, 2000], "WindowWidth": [2200, 900, 3500]}
    path = tmp_path / "image.dcm"
    dataset = make_dataset(scene(12), 12, WindowCenterWidthExplanation=["NORMAL", "HARDER", "SOFTER"], **windows)
    path.write_bytes(dicom_bytes(dataset))
    found = grayscale(decode(read(path)), read(path), Showing(SHOWING.percentiles, name)).image * 255
    np.testing.assert_allclose(found, render(path, "+Wi", option), atol=1.01)


def test_overlays_in_the_spare_bits_are_not_shown_here_nor_by_dcmtk(
    scene: Make, make_dataset: Make, dicom_bytes: Make, render: Make, tmp_path: Path
) -> None:
    plane = np.zeros((48, 36), np.uint16)
    plane[10:20, 10:20] = 0x8000
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom_bytes(make_dataset(scene(12) | plane, 12, **WINDOW)))
    np.testing.assert_allclose(_grey(path), render(path, "+Wi", "1", "-O"), atol=1.01)


JPEG = "1.2.840.10008.1.2.4."


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", *(JPEG + last for last in ("51", "57", "70", "80", "81"))])
def test_every_syntax_that_dcmtk_reads_is_rendered_as_it_does(
    syntax: str, scene: Make, make_dataset: Make, compressed: Make, dicom_bytes: Make, render: Make, tmp_path: Path
) -> None:
    pixels = scene(12)
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom_bytes(compressed(make_dataset(pixels, 12, **WINDOW), syntax, pixels)))
    # Two decoders of lossy JPEG may differ by a stored value (ISO/IEC 10918-2): less than a grey level here.
    np.testing.assert_allclose(_grey(path), render(path, "+Wi", "1"), atol=2.01 if syntax == JPEG + "51" else 1.01)


def test_eight_bits_of_jpeg_baseline_are_rendered_as_dcmtk_does(
    scene: Make, make_dataset: Make, compressed: Make, dicom_bytes: Make, render: Make, tmp_path: Path
) -> None:
    pixels = scene(8)
    path = tmp_path / "image.dcm"
    dataset = compressed(make_dataset(pixels, 8, WindowCenter=120, WindowWidth=200), JPEG + "50", pixels)
    path.write_bytes(dicom_bytes(dataset))
    np.testing.assert_allclose(_grey(path), render(path, "+Wi", "1"), atol=2.3)  # a stored value is 255 / 199 grey levels


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_uncompressed_syntax_is_rendered_as_dcmtk_does(
    syntax: str, scene: Make, make_dataset: Make, dicom_bytes: Make, render: Make, tmp_path: Path
) -> None:
    pixels, big = scene(12), syntax == ExplicitVRBigEndian
    dataset = make_dataset(pixels, 12, **WINDOW)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pixels.astype(">u2" if big else "<u2").tobytes()
    path = tmp_path / "image.dcm"
    path.write_bytes(dicom_bytes(dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big))
    np.testing.assert_allclose(_grey(path), render(path, "+Wi", "1"), atol=1.01)


@pytest.mark.real
@pytest.mark.parametrize("name", ["RG2_JLSL", "RG2_JPLL", "RG2_RLE", "RG2_J2KI", "RG3_JPLL", "RG3_JLSN", "RG3_J2KR"])
def test_a_prepared_image_is_near_dcmtks_rendering_at_that_size(name: str, conformance: Path, render: Make) -> None:
    """Resampled before the gray chain, and JPEG 2000 at a lower resolution, against DCMTK's full-size grey levels, resampled."""
    lossless = {"RG2_J2KI": "RG2_RLE", "RG3_J2KR": "RG3_JPLL"}.get(name, name)  # DCMTK reads no JPEG 2000
    rendered = render(conformance / f"{lossless}.dcm", "+Wi", "1").astype(np.float32)
    height, width = fitted(Box(0, 0, *rendered.shape), RECIPE.size)
    expected = centred(cv2.resize(rendered, (width, height), interpolation=cv2.INTER_AREA), RECIPE.size)
    assert _psnr(prepare(read(conformance / f"{name}.dcm"), RECIPE).array, expected) > 48
