"""Descriptions of studies and series, cleaned: the words of a closed vocabulary, without those that name anybody here.

The Clean Descriptors Option of PS3.15 E.3.5. Words of the vocabulary are names too (a Dr Hand, a Mrs Long, St Chest's), so
that any of them that stands in an identifying attribute of the same header goes; numbers but the count of views go always.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator

from pydicom.datadict import dictionary_has_tag, dictionary_VR

from pipelines.dicom.confidentiality import Option, entry_of
from pipelines.dicom.header import Header, decoded

LONGEST = 64
_WORD = re.compile(r"[A-Za-z]+|\d+")
_IN_BYTES = re.compile(rb"[A-Za-z]+|\d+")
_TEXT = frozenset({"AE", "AS", "CS", "DA", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UN", "UR", "UT"})

# What technicians and modalities write; accents are taken off before a word is looked up.
_WORDS = """
    1 2 3 4
    ABDOMEN ABDOMINAL ACROMIOCLAVICULAR ACUTE ADULT ANKLE ANTERIOR ANTEROPOSTERIOR AP APICAL ARM AXIAL AXILLARY BEDSIDE BILATERAL
    BODY BONE BOTH CALCANEUS CERVICAL CHEST CHILD CLAVICLE COCCYX CONTROL CR DECUBITUS DIGITAL DORSAL DX ELBOW ERECT EXPIRATION
    EXTENSION EXTREMITY FACE FEMUR FIBULA FINGER FLEXION FOLLOW FOOT FOREARM FRONTAL FULL GRID HAND HEAD HIP HUMERUS
    INSPIRATION JOINT KNEE KUB LAT LATERAL LEFT LEG LENGTH LINE LOWER LUMBAR LUNG LUNGS LYING MANDIBLE MAMMOGRAPHY MOBILE
    NASAL NECK OBLIQUE ODONTOID ORBIT PA PAEDIATRIC PATELLA PEDIATRIC PELVIS PLAIN PORTABLE POST POSTERIOR POSTEROANTERIOR PRE
    PRONE RADIOGRAPH RADIOGRAPHY RADIUS RIB RIBS RIGHT ROUTINE SACRUM SCAPULA SHOULDER SINUS SINUSES SITTING SKULL SKYLINE SPINE
    STANDING STERNUM STUDY SUNRISE SUPINE SURVEY SWIMMERS THIGH THORACIC THORAX THUMB TIBIA TOE TWO ULNA UNILATERAL UP UPPER
    UPRIGHT VIEW VIEWS WEIGHTBEARING WHOLE WRIST XR XRAY
    AUFNAHME BECKEN BRUSTKORB BWS EBENE EBENEN ELLENBOGEN HALSWIRBELSAEULE HANDGELENK HUEFTE HWS KNIE LIEGEND LINKS LUNGE LWS
    RECHTS ROENTGEN SCHAEDEL SCHULTER SEITLICH SITZEND SPRUNGGELENK STEHEND ZWEI
    ASSIS BASSIN CHEVILLE COTES COUCHE COUDE COU CRANE DEBOUT DEUX DROIT DROITE EPAULE FACE GAUCHE GENOU HANCHE INCIDENCES
    LOMBAIRE MAIN PIED POIGNET POUMON POUMONS PROFIL RACHIS RADIOGRAPHIE THORACIQUE
    ABDOMINAL CADERA CODO COLUMNA CRANEO DECUBITO DERECHA DERECHO HOMBRO IZQUIERDA IZQUIERDO MANO MUNECA PIE PROYECCIONES RODILLA
    TOBILLO TORAX
"""
WORDS = frozenset(_WORDS.split())


def cleaned(text: str, named: Collection[str]) -> str:
    """The words of a description that may stay, in capitals; "" where none may.

    Args:
        text: the description.
        named: the `identifying_words` of the header.
    """
    kept = " ".join(word for word in _WORD.findall(_plain(text)) if word in WORDS and word not in named)
    return kept if len(kept) <= LONGEST else kept[:LONGEST].rpartition(" ")[0]


def identifying_words(header: Header) -> Iterator[str]:
    """The words of every private attribute and of every line of Table E.1-1 but the descriptions, at any depth, in capitals."""
    for tag, element in header.elements.items():
        for item in element.items:
            yield from identifying_words(item)
        entry = entry_of(tag)
        if entry and Option.CLEAN_DESCRIPTORS not in entry.options and _vr(tag, element.vr) in _TEXT:
            yield from (word.decode().upper() for word in _IN_BYTES.findall(element.value))
            yield from _WORD.findall(_plain(decoded(element.value)))


def _vr(tag: int, vr: str | None) -> str:
    if vr is not None:
        return vr
    return dictionary_VR(tag) if not tag >> 16 & 1 and dictionary_has_tag(tag) else "UN"


def _plain(text: str) -> str:
    """Capitals without accents; the umlauts of German as two letters."""
    text = text.upper().replace("Ä", "AE").replace("Ö", "OE").replace("Ü", "UE")
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
