"""Words in a radiograph that identify nobody. Every other text is taken to identify somebody."""

from __future__ import annotations

import re

MARKERS = {
    "side": ("L", "R", "LT", "RT", "LEFT", "RIGHT", "LINKS", "RECHTS", "GAUCHE", "DROITE", "DROIT", "DX", "SX", "左", "右"),
    "projection": (
        *("AP", "PA", "LAT", "LATERAL", "LL", "RL", "LPO", "RPO", "LAO", "RAO", "OBL", "OBLIQUE", "FRONTAL", "AXIAL"),
        *("CC", "MLO", "DECUB", "DECUBITUS", "CROSSTABLE", "XTABLE", "LORDOTIC"),
    ),
    "position": (
        *("SUPINE", "PRONE", "ERECT", "UPRIGHT", "SEMI", "SEMIERECT", "SEMIUPRIGHT", "SITTING", "STANDING", "RECUMBENT"),
        *("TABLE", "TABLETOP", "FLEXION", "EXTENSION", "WEIGHTBEARING"),
    ),
    "circumstance": ("PORTABLE", "PORT", "MOBILE", "BEDSIDE", "CHEST", "INSP", "EXP", "INSPIRATION", "EXPIRATION", "GRID"),
}
"""Closed on purpose. Left out: LI and RE (links, rechts), since Li is a name; numbers, since they are parts of dates and of
patient IDs; initials of technologists."""

_WORDS = frozenset(word for words in MARKERS.values() for word in words)
_LEFT, _LACKING = 5, 3  # letters of a marker that is cut off
_NUMBER = r"\d{1,3}(?:[.,]\d{1,2})?"
_UNIT = r"(?:KVP?|MAS?|MS)"
_TECHNIQUE = re.compile(rf"(?:{_UNIT}[:=]?{_NUMBER}|{_NUMBER}{_UNIT})+")


def harmless(text: str) -> bool:
    """Whether a line of text consists of markers, or of the technique of the exposure (kV, mA, mAs, ms), or is one letter."""
    words = [word for part in text.upper().split() if (word := "".join(filter(str.isalnum, part)))]
    if not words:
        return False
    if all(word in _WORDS or _part(word) for word in words) or (len(words) == 1 and re.fullmatch("[A-Z0-9]", words[0])):
        return True
    return _TECHNIQUE.fullmatch("".join(text.upper().split())) is not None


def _part(word: str) -> bool:
    """Whether it is most of a marker, the rest of which image or line cut off; shorter parts are names (Ross, Ding, Link)."""
    return len(word) >= _LEFT and any(word in marker and len(marker) <= len(word) + _LACKING for marker in _WORDS)
