"""Take one planned image: draw the body, expose it, and wrap it into a DICOM file with a talkative header."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pipelines.phantom import encoding
from pipelines.phantom.body import Opacity
from pipelines.phantom.canvas import Canvas, Map
from pipelines.phantom.exposure import expose, stored
from pipelines.phantom.frontal import frontal
from pipelines.phantom.lateral import lateral
from pipelines.phantom.plan import JPEG_8, Shot, Study
from pipelines.phantom.tissue import LEAD, letter

GIVEN = {
    True: ("Ottilie", "Rosalind", "Nadja", "Imelda", "Saoirse", "Wilhelmina", "Beatriz", "Yuki", "Agnès", "Leokadia"),
    False: ("Thaddeus", "Ignatius", "Börje", "Casimir", "Leopold", "Rashid", "Anselm", "Kenji", "Fergus", "Tomás"),
}
FAMILY = (
    "Quillfeather",
    "Moorbruch",
    "Oldacre",
    "Świerk",
    "Pemberwick",
    "Grünspan",
    "Takahira",
    "Valdecañas",
    "Ashgrove",
    "Lindqvist",
)
STREETS = ("Candle Row", "Torfgasse", "Harbour Steps", "Mill Lane", "Am Wehr", "Orchard Close", "Kiesweg", "Lantern Hill")
FIRST_DAY, DAYS = date(2022, 1, 3), 730
SOP_CLASS = {"DX": "1.2.840.10008.5.1.4.1.1.1.1", "CR": "1.2.840.10008.5.1.4.1.1.1"}


def picture(shot: Shot, seed: int) -> NDArray[np.uint16]:
    """The stored grey levels of an image (rows, columns), before any encoding."""
    rng = np.random.default_rng([seed, 2, *shot.seed])
    hospital, body = shot.hospital, shot.study.patient.body
    rows, columns = hospital.lateral if shot.view == "LL" else hospital.frontal
    left = -0.5 * columns * hospital.spacing_mm + rng.normal(0, 4)
    canvas = Canvas(rows, columns, hospital.spacing_mm, left, rng.normal(-46, 6))
    opacities = findings(shot.study, seed)
    if shot.view == "LL":
        depth = lateral(canvas, body, opacities)
    else:
        lying = shot.view == "AP"
        depth = frontal(canvas, replace(body, dome_mm=body.dome_mm - 12.0) if lying else body, opacities, portable=lying)
    beam, blades = _collimation(canvas, rng)
    detector = replace(
        hospital.detector,
        photons=hospital.detector.photons * float(np.exp(rng.normal(0, 0.35))) * (0.6 if shot.view == "AP" else 1.0),
        scatter=float(np.clip(rng.normal(hospital.detector.scatter, 0.04), 0.2, 0.6)),
        curve=hospital.detector.curve * float(rng.uniform(0.9, 1.1)),
    )
    image = expose(depth, canvas, detector, rng, beam)
    image = image * beam if blades == "black" else image
    image = image + _marker(canvas, shot.view, rng) * (LEAD - image)
    return stored(image, detector, shot.bits, inverse=hospital.photometric == "MONOCHROME1")


def findings(study: Study, seed: int) -> tuple[Opacity, ...]:
    """The opacities of a study: one to three in the same lung or in both, or none; the same in all its views."""
    if not study.positive:
        return ()
    rng = np.random.default_rng([seed, 3, study.patient.number, int(study.kind == "later")])
    count = int(rng.choice([1, 2, 3], p=[0.4, 0.4, 0.2]))
    return tuple(Opacity.sample(rng, study.patient.body) for _ in range(count))


def _marker(canvas: Canvas, view: str, rng: np.random.Generator) -> Map:
    """Coverage of the lead letter of one side, somewhere in an upper corner."""
    width, top = canvas.columns * canvas.spacing_mm, canvas.top_mm
    if view == "LL":
        corner = (canvas.left_mm + rng.uniform(12, 26), top + rng.uniform(120, 190))
        return letter(canvas, "L", corner, 15.0)
    text = "L" if rng.random() < 0.5 else "R"
    inset = rng.uniform(14, 34)
    x = canvas.left_mm + (width - inset - 12.0 if text == "L" else inset)
    return letter(canvas, text, (float(x), float(top + rng.uniform(12, 30))), float(rng.uniform(12, 16)))


def _collimation(canvas: Canvas, rng: np.random.Generator) -> tuple[Map, str]:
    """Where the beam is open (1) or shut (0), and whether the machine blackens what is shut; half of the images show none."""
    kind = str(rng.choice(["none", "black", "white"], p=[0.4, 0.4, 0.2]))
    margins, tilt = rng.uniform(2, 13, 4), rng.normal(0, 0.008)
    if kind == "none":
        return np.ones(canvas.shape), kind
    width, height = canvas.columns * canvas.spacing_mm, canvas.rows * canvas.spacing_mm
    x, z = canvas.x - canvas.left_mm, canvas.z - canvas.top_mm
    sides = (
        x + tilt * z - margins[0],
        width - x - tilt * z - margins[1],
        z - tilt * x - margins[2],
        height - z + tilt * x - margins[3],
    )
    edge = np.minimum(np.minimum(sides[0], sides[1]), np.minimum(sides[2], sides[3]))
    return canvas.step(edge, 0.8), kind


def name_of(number: int, female: bool) -> str:
    """An invented name, as a DICOM person name."""
    given = GIVEN[female]
    return f"{FAMILY[number % len(FAMILY)]}^{given[number // len(FAMILY) % len(given)]}"


def header(shot: Shot, seed: int) -> Dataset:
    """Everything but the pixels: what a hospital's archive would hold, identity included (all of it is invented)."""
    study, patient, hospital = shot.study, shot.study.patient, shot.hospital
    rng = np.random.default_rng([seed, 4, patient.number])
    day = FIRST_DAY + timedelta(days=int(rng.integers(DAYS - 30)))
    born = date(day.year - patient.age - 1, 1, 1) + timedelta(days=int(rng.integers(1, 28)))
    born = born.replace(year=day.year - patient.age)
    street = f"{int(rng.integers(1, 99))} {STREETS[int(rng.integers(len(STREETS)))]}"
    visit = int(study.kind == "later")
    day += timedelta(days=visit * int(rng.integers(2, 25)))
    at = f"{int(rng.integers(7, 18)):02d}{int(rng.integers(60)):02d}{visit}{shot.seed[2]}"
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    _identity(dataset, shot, seed, street, born, day, at)
    dataset.Modality = hospital.modality
    dataset.SOPClassUID = SOP_CLASS[hospital.modality]
    dataset.Manufacturer, dataset.ManufacturerModelName = hospital.manufacturer, hospital.models[patient.number // 2 % 2]
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", shot.view
    dataset.PatientAge = f"{patient.age:03d}Y"
    dataset.KVP = {"PA": "117", "LL": "125", "AP": "90"}[shot.view]
    dataset.ImageType = ["DERIVED" if shot.syntax == JPEG_8 else "ORIGINAL", "PRIMARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.PatientOrientation = ["A", "F"] if shot.view == "LL" else ["L", "F"]
    dataset.ImagerPixelSpacing = [hospital.spacing_mm, hospital.spacing_mm]
    dataset.PhotometricInterpretation = hospital.photometric
    if hospital.modality == "DX":
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
        dataset.PresentationLUTShape = "IDENTITY"
        dataset.PresentationIntentType = "FOR PRESENTATION"
    _window(dataset, shot)
    return dataset


def _identity(dataset: Dataset, shot: Shot, seed: int, street: str, born: date, day: date, at: str) -> None:
    """Who, where and when, also where it is easily missed: in comments, in a sequence, in private tags."""
    study, patient, hospital = shot.study, shot.study.patient, shot.hospital
    name, visit = name_of(patient.number, patient.female), int(study.kind == "later")
    spoken = " ".join(reversed(name.split("^")))
    key = (seed, patient.number, visit)
    dataset.PatientName, dataset.PatientID = name, f"{'EG'[patient.hospital]}{seed:02d}-{patient.number:05d}"
    dataset.PatientBirthDate, dataset.PatientSex = born.strftime("%Y%m%d"), "F" if patient.female else "M"
    dataset.PatientAddress, dataset.PatientTelephoneNumbers = f"{street}, {hospital.address}", f"+00 555 {patient.number:04d}"
    dataset.StudyInstanceUID = encoding.uid("study", *key)
    dataset.SeriesInstanceUID = encoding.uid("series", *key, shot.view)
    dataset.SOPInstanceUID = encoding.uid("image", *key, shot.view)
    dataset.AccessionNumber = f"ACC{seed:02d}{patient.number:05d}{visit}"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = f"{patient.number:05d}", shot.seed[2] + 1, 1
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = day.strftime("%Y%m%d")
    dataset.StudyTime = dataset.AcquisitionTime = at
    dataset.InstitutionName, dataset.InstitutionAddress = hospital.name, hospital.address
    dataset.StationName, dataset.DeviceSerialNumber = (
        f"XR{patient.hospital}{patient.number // 2 % 2}",
        f"SN-{4711 + patient.hospital}",
    )
    dataset.ReferringPhysicianName, dataset.OperatorsName = "Featherstone^Mungo", "Kestrel^Ludmila"
    dataset.StudyDescription, dataset.SeriesDescription = "Chest X-ray", f"Chest {shot.view}"
    dataset.ImageComments = f"Image of {spoken}, born {born.isoformat()}; lives at {street}"
    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepDescription = f"RP{patient.number:05d}", f"Chest, {spoken}"
    dataset.RequestAttributesSequence = [request]
    block = dataset.private_block(0x0011, "PHANTOM ARCHIVE", create=True)
    block.add_new(0x01, "LO", f"{spoken} #{dataset.PatientID}")
    block.add_new(0x02, "DA", dataset.PatientBirthDate)


def _window(dataset: Dataset, shot: Shot) -> None:
    """How the image wants to be shown: one window, two windows, a lookup table, or nothing (PS3.3 C.11.2)."""
    detector, top = shot.hospital.detector, float(2**shot.bits - 1)
    centre, width = round(0.5 * (detector.low + detector.high) * top), round((detector.high - detector.low) * top)
    if shot.hospital.photometric == "MONOCHROME1":
        centre = round(top) - centre
    if shot.window == "window":
        dataset.WindowCenter, dataset.WindowWidth = str(centre), str(width)
    elif shot.window == "windows":
        dataset.WindowCenter, dataset.WindowWidth = [str(centre), str(round(0.8 * centre))], [str(width), str(round(0.6 * width))]
        dataset.WindowCenterWidthExplanation = ["NORMAL", "LUNG"]
    elif shot.window == "lut":
        level = np.clip((np.arange(2**shot.bits) / top - detector.low) / (detector.high - detector.low), 0.0, 1.0)
        table = Dataset()
        table.LUTDescriptor = [2**shot.bits, 0, 12]
        table.LUTExplanation = "NORMAL"
        table.LUTData = np.rint(4095 * level * (1.12 - 0.12 * level)).astype("<u2").tobytes()
        table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
        dataset.VOILUTSequence = [table]


def radiograph(shot: Shot, seed: int) -> Dataset:
    """The data set of an image, with encoded pixels; `encoding.to_bytes` with the shot's syntax makes it a file."""
    dataset = header(shot, seed)
    encoding.set_pixels(dataset, picture(shot, seed), shot.bits, shot.syntax)
    return dataset
