"""Who is in the cohort and which images are taken of whom, so that nothing but the lungs tells the label.

The finding is assigned in blocks of five studies that are alike in hospital, kind of study, sex and age, two of each five;
transfer syntax, bit depth and window are dealt out in turn within hospital and label. A model that reads the hospital, the
vendor, the polarity, the view or the header learns nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipelines.phantom.body import Body
from pipelines.phantom.exposure import Detector

BLOCK, POSITIVE = 5, 2
FOLLOW_UP = 6  # one in six of the images beyond the first of each patient is a follow-up in bed
PORTABLE = 0.25  # of the first studies without a lateral view

EXPLICIT, IMPLICIT, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.5"
JPEG_8, JPEG_LOSSLESS, JPEG_LOSSLESS_1 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
JPEG_LS, JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"


@dataclass(frozen=True)
class Hospital:
    """A hospital with one vendor's machines.

    Attributes:
        photometric: how its machines store grey levels.
        syntaxes: the transfer syntaxes of its archive.
        windows: where its images say their grey levels are shown: `window`, `windows`, `lut` or `none`.
        spacing_mm: of a pixel; `frontal` and `lateral` are (rows, columns).
    """

    name: str
    address: str
    manufacturer: str
    models: tuple[str, ...]
    modality: str
    photometric: str
    bits: tuple[int, ...]
    syntaxes: tuple[str, ...]
    windows: tuple[str, ...]
    spacing_mm: float
    frontal: tuple[int, int]
    lateral: tuple[int, int]
    detector: Detector


HOSPITALS = (
    Hospital(
        "St. Elmo's Infirmary",
        "1 Lantern Hill, Port Elmo",
        "SIEMENS",
        ("Ysio Max", "Multix Fusion"),
        "DX",
        "MONOCHROME2",
        (12, 14),
        (EXPLICIT, JPEG_2000, JPEG_LS, RLE),
        ("window", "lut", "windows"),
        0.64,
        (552, 512),
        (552, 464),
        Detector(photons=34_000, scatter=0.36, blur=0.55, detail=0.85, curve=1.12, low=0.06, high=0.80),
    ),
    Hospital(
        "Klinikum Grünau am Moor",
        "Torfweg 12, 99999 Grünau",
        "FUJIFILM Corporation",
        ("5000plus", "XG5000"),
        "CR",
        "MONOCHROME1",
        (10, 12),
        (IMPLICIT, JPEG_LOSSLESS, JPEG_LOSSLESS_1, JPEG_8),
        ("window", "none"),
        0.70,
        (504, 472),
        (504, 424),
        Detector(photons=22_000, scatter=0.42, blur=0.75, detail=1.15, curve=0.95, low=0.02, high=0.96),
    ),
)


@dataclass(frozen=True)
class Patient:
    number: int
    hospital: int
    female: bool
    age: int
    body: Body


@dataclass(frozen=True)
class Study:
    """One visit: `kind` is `two` (PA and lateral), `one` (PA), `bed` (AP) or `later` (AP, some days after the first)."""

    patient: Patient
    kind: str
    positive: bool

    @property
    def views(self) -> tuple[str, ...]:
        return {"two": ("PA", "LL"), "one": ("PA",), "bed": ("AP",), "later": ("AP",)}[self.kind]


@dataclass(frozen=True)
class Shot:
    """One image to take and how it is stored."""

    study: Study
    view: str
    syntax: str
    bits: int
    window: str

    @property
    def hospital(self) -> Hospital:
        return HOSPITALS[self.study.patient.hospital]

    @property
    def seed(self) -> tuple[int, int, int]:
        """What tells this image's random numbers from those of every other."""
        return self.study.patient.number, int(self.study.kind == "later"), ("PA", "LL", "AP").index(self.view)


def shots(images: int, patients: int, seed: int) -> tuple[Shot, ...]:
    """The images of a cohort, in a fixed order.

    Raises:
        ValueError: fewer images than patients, or more than two for each.
    """
    if not patients <= images <= 2 * patients:
        raise ValueError(f"images: expected {patients} to {2 * patients} for {patients} patients, got {images}")
    rng = np.random.default_rng([seed, 0])
    people = _patients(patients, seed, rng)
    kinds = _kinds(people, images - patients, rng)
    return _dealt(_labelled(kinds, rng))


def _patients(count: int, seed: int, rng: np.random.Generator) -> list[Patient]:
    """Half of them in each hospital, half of them women, ages spread evenly over 18 to 95."""
    ages = np.floor(18 + 78 * (rng.permutation(count) + rng.random(count)) / count).astype(int)
    return [
        Patient(
            number,
            number % 2,
            female,
            int(age),
            Body.sample(np.random.default_rng([seed, 1, number]), female=female, age=int(age)),
        )
        for number, age in enumerate(ages)
        for female in (number // 2 % 2 == 0,)
    ]


def _kinds(people: list[Patient], extra: int, rng: np.random.Generator) -> list[tuple[Patient, str]]:
    """The kind of each study; `extra` images go to lateral views and follow-ups."""
    later = extra // FOLLOW_UP
    order = [people[index] for index in rng.permutation(len(people))]
    two, rest = order[: extra - later], order[extra - later :]
    beds = round(PORTABLE * len(rest))
    kinds = [(person, "two") for person in two]
    kinds += [(person, "bed" if place < beds else "one") for place, person in enumerate(rest)]
    return kinds + [(person, "later") for person in (rest + two)[:later]]


def _labelled(kinds: list[tuple[Patient, str]], rng: np.random.Generator) -> list[Study]:
    """Two of each five neighbours have an opacity, where neighbours are alike in all that could give it away."""
    alike = sorted(kinds, key=lambda pair: (pair[1], pair[0].hospital, pair[0].female, pair[0].age, pair[0].number))
    studies = []
    for start in range(0, len(alike), BLOCK):
        chosen = set(rng.permutation(BLOCK)[:POSITIVE].tolist())
        studies += [Study(person, kind, place in chosen) for place, (person, kind) in enumerate(alike[start : start + BLOCK])]
    return sorted(studies, key=lambda study: (study.patient.number, study.kind == "later"))


def _dealt(studies: Iterable[Study]) -> tuple[Shot, ...]:
    """Deal syntax, bits and window out in turn, within hospital, label and view."""
    dealt: dict[tuple[int, bool], int] = {}
    taken = []
    pairs = [(study, view) for study in studies for view in study.views]
    for study, view in sorted(pairs, key=lambda pair: (pair[1], pair[0].patient.number, pair[0].kind)):
        hospital = HOSPITALS[study.patient.hospital]
        hand = list(product(hospital.windows, hospital.bits, hospital.syntaxes))
        key = (study.patient.hospital, study.positive)
        # 5 has no divisor in common with the size of a hand, so neighbouring images differ in everything.
        window, bits, syntax = hand[5 * dealt.get(key, 0) % len(hand)]
        dealt[key] = dealt.get(key, 0) + 1
        taken.append(Shot(study, view, syntax, 8 if syntax == JPEG_8 else bits, window))
    return tuple(sorted(taken, key=lambda shot: (shot.study.patient.number, shot.study.kind == "later", shot.view != "PA")))
