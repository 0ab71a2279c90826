"""PS3.15 Table E.1-1 as data: what the Basic Profile asks of each attribute, and what each option allows instead.

`confidentiality.csv` has one line for each attribute: tag, keyword, its type in the image objects of radiographs (PS3.3; 1
must have a value, 2 may be empty, none may be missing), the action of the Basic Profile, and a column for each option. The
edition is 2024d, with the rows that 2026c added; the options of those are left out, which is the stricter reading. The
lines are facts of the standard, and agree with two packages that transcribe it wherever those have them: idiscore 1.2.0 (2024d,
with the options) and dicom-anonymizer 2.1.0 (2026c, the Basic Profile alone). The types are not of this table.

Actions: X removes, Z empties or puts a dummy, D puts a dummy, U puts another UID, C cleans, K keeps. Of a combination such as
X/Z/D the first that the attribute's type admits is meant.

Of the safe private attributes (Table E.3.10-1) none is kept: they hold doses, activities and gradients of CT, MR and PET, and
nothing that a radiograph has.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from functools import cache
from pathlib import Path

from pydicom.datadict import tag_for_keyword

EDITION = "2024d, with the rows of 2026c"
_FILE = Path(__file__).with_name("confidentiality.csv")
_PRIVATE = "private"

# What may be done where an action is asked for: that, or what tells less.
_NO_LESS_STRICT = {"X": "X", "Z": "XZD", "D": "XZD", "U": "XZDU", "C": "XZDUC", "K": "XZDUCK"}


@unique
class Option(Enum):
    """A profile or an option that a file can say it was de-identified by: code and meaning (PS3.16 CID 7050)."""

    BASIC = ("113100", "Basic Application Confidentiality Profile")
    CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
    CLEAN_FEATURES = ("113102", "Clean Recognizable Visual Features Option")
    CLEAN_GRAPHICS = ("113103", "Clean Graphics Option")
    CLEAN_STRUCTURED = ("113104", "Clean Structured Content Option")
    CLEAN_DESCRIPTORS = ("113105", "Clean Descriptors Option")
    FULL_DATES = ("113106", "Retain Longitudinal Temporal Information Full Dates Option")
    MODIFIED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
    PATIENT = ("113108", "Retain Patient Characteristics Option")
    DEVICE = ("113109", "Retain Device Identity Option")
    UIDS = ("113110", "Retain UIDs Option")
    SAFE_PRIVATE = ("113111", "Retain Safe Private Option")
    INSTITUTION = ("113112", "Retain Institution Identity Option")

    @property
    def code(self) -> str:
        return self.value[0]

    @property
    def meaning(self) -> str:
        return self.value[1]


_COLUMNS = {
    "safe_private": Option.SAFE_PRIVATE,
    "uids": Option.UIDS,
    "device": Option.DEVICE,
    "institution": Option.INSTITUTION,
    "patient": Option.PATIENT,
    "full_dates": Option.FULL_DATES,
    "modified_dates": Option.MODIFIED_DATES,
    "descriptors": Option.CLEAN_DESCRIPTORS,
    "structured": Option.CLEAN_STRUCTURED,
    "graphics": Option.CLEAN_GRAPHICS,
}


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        tag: eight hexadecimal digits with a blank between, X for any; or `private`.
        keyword: PS3.6 keyword, "" for private attributes.
        type: in the image objects of radiographs: 1, 2, or 3 where it may be missing.
        basic: action or combination of the Basic Profile.
        options: the action that each option allows instead.
    """

    tag: str
    keyword: str
    type: int
    basic: str
    options: Mapping[Option, str]

    def action(self, options: Collection[Option] = ()) -> str:
        """What is asked for under these options: one letter, the combination resolved by the attribute's type."""
        chosen = [self.options[option] for option in options if option in self.options]
        return max(chosen, key="CK".index) if chosen else _resolved(self.basic, self.type)

    def permits(self, action: str, options: Collection[Option] = ()) -> bool:
        """Whether an action, one letter, is one that this line names, with these options, or stricter; whatever the type."""
        asked = [letter[0] for letter in self.basic.split("/")]
        asked += [self.options[option] for option in options if option in self.options]
        return any(action in _NO_LESS_STRICT[letter] for letter in asked)


def entry_of(tag: int) -> Entry | None:
    """The line about an attribute, None where the table has none; every odd group is private (PS3.5 7.8)."""
    if tag >> 16 & 1:
        return _table()[_PRIVATE]
    found = _table().get(f"{tag >> 16:04X} {tag & 0xFFFF:04X}")
    if found is None and tag >> 24 in (0x50, 0x60):
        return _table().get("50XX XXXX" if tag >> 24 == 0x50 else f"60XX {tag & 0xFFFF:04X}")
    return found


def entry_for(keyword: str) -> Entry | None:
    """The line about an attribute of the data dictionary."""
    tag = tag_for_keyword(keyword)
    return None if tag is None else entry_of(tag)


def entries() -> tuple[Entry, ...]:
    """The whole table, in the order of tags."""
    return tuple(_table().values())


def fingerprint() -> str:
    """The SHA-256 of the table, as 64 hexadecimal digits."""
    return hashlib.sha256(_FILE.read_bytes()).hexdigest()


def _resolved(combination: str, kind: int) -> str:
    """X unless the type wants the attribute, then Z unless it wants a value (PS3.15 E.3, the actions of Table E.1-1a)."""
    letters = [letter[0] for letter in combination.split("/")]
    if len(letters) == 1:
        return letters[0]
    suits = {1: "DU", 2: "ZDU", 3: "XZDU"}[kind]
    return next((letter for letter in letters if letter in suits), letters[-1])


@cache
def _table() -> dict[str, Entry]:
    with _FILE.open(newline="", encoding="utf-8") as stream:
        return {row["tag"]: _entry(row) for row in csv.DictReader(stream)}


def _entry(row: Mapping[str, str]) -> Entry:
    options = {option: row[column] for column, option in _COLUMNS.items() if row[column]}
    return Entry(row["tag"], row["keyword"], int(row["type"] or 3), row["basic"], options)
