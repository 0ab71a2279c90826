"""Keyed pseudonyms: the same key and value always give the same pseudonym, and nobody without the key can go back."""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from dataclasses import dataclass, field

from pipelines.errors import MissingKeyError

VARIABLE = "RADTRANSFER_PSEUDONYM_KEY"
SHORTEST_KEY = 16
_REMEDY = (
    f"make one with `export {VARIABLE}=$(python -c 'import secrets; print(secrets.token_hex(32))')` and keep it safe: "
    "the same key gives the same pseudonyms at the next ingest, and whoever has it can recompute them"
)


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms under one secret key (HMAC-SHA-256, PS3.15 E.1.1); the key is in no `repr`."""

    key: bytes = field(repr=False)

    @classmethod
    def from_environment(cls) -> Pseudonyms:
        """Take the key from `RADTRANSFER_PSEUDONYM_KEY`.

        Raises:
            MissingKeyError: it is not set, or shorter than 16 characters; the message says how to make one.
        """
        key = os.environ.get(VARIABLE, "").strip()
        if not key:
            raise MissingKeyError(f"{VARIABLE}: expected a secret key in the environment, found none; {_REMEDY}")
        if len(key) < SHORTEST_KEY:
            raise MissingKeyError(f"{VARIABLE}: expected at least {SHORTEST_KEY} characters, got {len(key)}; {_REMEDY}")
        return cls(key.encode())

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits by which two keys are told apart."""
        return self._digest("key", "").hex()[:8]

    def uid(self, value: str) -> str:
        """A UID under 2.25 (PS3.5 B.2) for a UID."""
        return f"2.25.{int.from_bytes(self._digest('uid', value)[:16])}"

    def patient(self, patient_id: str) -> str:
        return f"p{self._digest('patient', patient_id).hex()[:16]}"

    def patient_of_study(self, study_uid: str) -> str:
        """The pseudonym of a patient who is known by a study only."""
        return f"p{self._digest('patient-of-study', study_uid).hex()[:16]}"

    def accession(self, number: str) -> str:
        return f"a{self._digest('accession', number).hex()[:14]}"

    def site(self, institution: str) -> str:
        return f"site-{self._digest('site', _folded(institution)).hex()[:8]}"

    def vendor(self, manufacturer: str) -> str:
        return f"vendor-{self._digest('vendor', _folded(manufacturer)).hex()[:6]}"

    def model(self, name: str) -> str:
        return f"model-{self._digest('model', _folded(name)).hex()[:6]}"

    def content(self, sha256: str) -> str:
        """A name for a file by its content, from which the content cannot be recognised."""
        return f"f{self._digest('content', sha256).hex()[:16]}"

    def path(self, root: bytes, relative: bytes) -> bytes:
        """A name for a file by its place; 16 bytes."""
        return hmac.digest(self.key, b"radtransfer/path/" + root + b"\0" + relative, hashlib.sha256)[:16]

    def days(self, patient: str) -> int:
        """How many days the dates of a patient (a pseudonym) move: into the past, by 1 to 10 years."""
        return -(365 + int.from_bytes(self._digest("days", patient)[:8]) % 3287)

    def _digest(self, kind: str, value: str) -> bytes:
        text = unicodedata.normalize("NFC", value.strip(" \t\r\n\0"))
        return hmac.digest(self.key, f"radtransfer/{kind}/{text}".encode("utf-8", "surrogateescape"), hashlib.sha256)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
