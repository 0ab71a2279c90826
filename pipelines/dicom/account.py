"""The account of de-identification, `data/deidentification.json`: what was done to how many images, never a value.

It lies within `data/`, so that the hash in `data.dvc` ties it to the files that it speaks of, and it names the hash of the
manifest that lists them. Images that were treated alike (same profile, options, key and versions) share an entry; an ingest
that brings nothing new leaves every byte as it was.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import keyword_for_tag

from pipelines import __version__, files
from pipelines.dicom import confidentiality, profile
from pipelines.dicom.confidentiality import Option
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.writing import Attributes
from pipelines.paths import Paths

FATES = ("removed", "emptied", "replaced", "kept")
PRIVATE, UNKNOWN = "private", "unknown"


@dataclass(frozen=True)
class Treatment:
    """What was done to the attributes of one image, outside of sequences and before its pixel data.

    Attributes:
        options: the options of the Basic Profile.
        key: the fingerprint of the pseudonym key.
        fates: pairs of one of `FATES` and a keyword; of a private attribute or one that the standard does not know, what it is.
    """

    options: frozenset[Option]
    key: str
    fates: tuple[tuple[str, str], ...]

    @property
    def way(self) -> str:
        """How the image was treated, without what was found in it, as JSON."""
        return _way(self.options, self.key)


def treatment(tags: Iterable[int], kept: Attributes, options: frozenset[Option], pseudonyms: Pseudonyms) -> Treatment:
    """What became of the attributes of a file.

    Args:
        tags: those that it had.
        kept: those that are left, by keyword.
    """
    names = [name for tag in tags if (name := _name(tag))]
    return Treatment(options, pseudonyms.fingerprint, tuple((_fate(name, kept), name) for name in names))


@dataclass
class Account:
    """The account while images come in.

    Attributes:
        images: how many images were treated in each `Treatment.way`.
        fates: how many attributes had which fate, by way, fate and keyword.
        uncounted: images of the data set that no account speaks of, since the ingest that brought them was killed.
    """

    images: Counter[str] = field(default_factory=Counter)
    fates: dict[str, Counter[tuple[str, str]]] = field(default_factory=dict)
    uncounted: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, paths: Paths, held: Mapping[str, Path]) -> Account:
        """The account as the latest ingest left it; it starts anew where the manifest does.

        Args:
            held: the files of the data set, by image.
        """
        account = cls(uncounted=set(held))
        if not paths.manifest.is_file():
            return account
        account.uncounted -= set(files.read_table(paths.manifest, made_by="ingest")["image"])
        if paths.deidentification.is_file():
            for entry in files.read_json(paths.deidentification, made_by="ingest")["treated"]:
                account._restore(entry)
        return account

    def add(self, image: str, done: Treatment) -> None:
        """Count an image that has come in."""
        way = done.way
        self.images[way] += 1
        self.fates.setdefault(way, Counter()).update(done.fates)
        self.uncounted.discard(image)

    def treated(self, options: frozenset[Option], key: str) -> int:
        """How many images were treated with these options under this key; some have their pixels cleaned besides."""
        return sum(self.images[_way(chosen, key)] for chosen in {options, options | {Option.CLEAN_PIXELS}})

    def write(self, images: int, paths: Paths) -> None:
        """Write the account of a data set of so many images, whose manifest is written."""
        value = {
            "images": images,
            "images_uncounted": images - self.images.total(),
            "manifest_sha256": files.sha256(paths.manifest),
            "treated": [{**json.loads(way), "images": self.images[way], **self._counts(way)} for way in sorted(self.images)],
        }
        files.write_json(paths.deidentification, value)

    def _counts(self, way: str) -> dict[str, dict[str, int]]:
        counted: dict[str, dict[str, int]] = {fate: {} for fate in FATES}
        for (fate, name), count in sorted(self.fates[way].items()):
            counted[fate][name] = count
        return counted

    def _restore(self, entry: dict[str, Any]) -> None:
        way = json.dumps({name: value for name, value in entry.items() if name not in ("images", *FATES)}, sort_keys=True)
        self.images[way] += entry["images"]
        counts = {(fate, name): count for fate in FATES for name, count in entry[fate].items()}
        self.fates.setdefault(way, Counter()).update(counts)


@cache
def _way(options: frozenset[Option], key: str) -> str:
    codes = sorted({Option.BASIC, *options}, key=lambda option: option.code)
    told = {
        "key_fingerprint": key,
        "method_codes": [{"code": option.code, "meaning": option.meaning, "scheme": "DCM"} for option in codes],
        "profile_sha256": profile.fingerprint(),
        "table": f"PS3.15 Table E.1-1, {confidentiality.EDITION}",
        "table_sha256": confidentiality.fingerprint(),
        "versions": {"pydicom": pydicom.__version__, "radtransfer": __version__, **_readers(options)},
    }
    return json.dumps(told, sort_keys=True)


def _readers(options: frozenset[Option]) -> dict[str, str]:
    """The models that look for text in the pixels: name and the first digits of their SHA-256."""
    if Option.CLEAN_PIXELS not in options:
        return {}
    from pipelines.dicom.text_reading import DETECTOR, RECOGNISER

    return {name: sha256[:16] for name, sha256 in (DETECTOR, RECOGNISER)}


def _fate(name: str, kept: Attributes) -> str:
    if name not in kept:
        return "removed"
    if kept[name] == "":
        return "emptied"
    return "kept" if _letters().get(name) == "K" else "replaced"


@cache
def _letters() -> dict[str, str]:
    return {rule.keyword: rule.action.letter for rule in profile.PROFILE}


@cache
def _name(tag: int) -> str:
    """The keyword of an attribute; "" for the length of a group, which says nothing."""
    if tag >> 16 & 1:
        return PRIVATE
    return "" if not tag & 0xFFFF else keyword_for_tag(tag) or UNKNOWN
