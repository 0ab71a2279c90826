"""Closed vocabularies: the only words of a header that may survive de-identification.

A value is looked up after case, blanks and punctuation are taken away, and what is emitted is our own spelling of it,
never the text that came in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PUNCTUATION = re.compile(r"[\s._/,-]+")


def squashed(text: str) -> str:
    """Upper case, without blanks and punctuation."""
    return _PUNCTUATION.sub("", text).upper()


def terms(*emitted: str, **synonyms: str) -> Mapping[str, str]:
    """A vocabulary: squashed spelling → the term that is emitted; `synonyms` are further spellings."""
    return {**{squashed(term): term for term in emitted}, **synonyms}


def _listed(text: str) -> list[str]:
    return text.split()


# PS3.16 Annex L, the terms that a projection radiograph can carry, and spellings met in the field.
BODY_PARTS = terms(
    *_listed("""
    ABDOMEN ABDOMENPELVIS ACJOINT ANKLE ARM AXILLA BACK BILEDUCT BLADDER BREAST BRONCHUS BUTTOCK CALCANEUS CALF CARPUS
    CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY
    EYE FACE FACIALBONES FEMUR FIBULA FINGER FOOT FOREARM GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS IAC ILEUM
    ILIUM INDEXFINGER JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LOWERLEG LOWERLIMB LSPINE LSSPINE LUNG MANDIBLE MASTOID
    MAXILLA MEDIASTINUM METACARPUS METATARSUS MIDDLEFINGER MOUTH NASALBONE NECK NECKCHEST NECKCHESTABDOMEN
    NECKCHESTABDPELV NOSE OPTICCANAL ORBIT PANCREAS PARANASALSINUS PAROTID PATELLA PELVIS PHARYNX RADIUS RADIUSULNA
    RECTUM RIB RINGFINGER SACRUM SCAPULA SCJOINT SELLATURCICA SHOULDER SIJOINT SKULL SPINE SPLEEN SSPINE STERNUM STOMACH
    SUBMANDIBULAR TARSUS THIGH THUMB THYMUS THYROID TIBIA TIBIAFIBULA TLSPINE TMJOINT TOE TONGUE TRACHEA TSPINE ULNA
    UPPERARM UPPERLIMB URETER URETHRA UTERUS WHOLEBODY WRIST ZYGOMA
    """),
    THORAX="CHEST",
    THORACIC="CHEST",
    LUNGS="LUNG",
    RIBS="RIB",
    CERVICALSPINE="CSPINE",
    THORACICSPINE="TSPINE",
    DORSALSPINE="TSPINE",
    DSPINE="TSPINE",
    LUMBARSPINE="LSPINE",
    FINGERS="FINGER",
    TOES="TOE",
    HEEL="CALCANEUS",
    SINUSES="PARANASALSINUS",
    TMJ="TMJOINT",
    WHOLESPINE="SPINE",
)

# PS3.3 C.8.1.1.1, C.8.11.7 and CID 4014 for the mammographic ones.
VIEWS = terms(
    *_listed("AP PA LL RL LLD RLD LLO RLO LATERAL OBLIQUE AXIAL LAO RAO LPO RPO CC MLO ML LM FB LMO ISO XCC XCCL XCCM SIO"),
    LAT="LATERAL",
    OBL="OBLIQUE",
    LLAT="LL",
    RLAT="RL",
    LEFTLATERAL="LL",
    RIGHTLATERAL="RL",
)


def _by_code(table: str) -> Mapping[str, str]:
    """Code value → term, from lines of a term and its code values (SNOMED CT and, before 2017, SNOMED RT)."""
    return {code: term for term, *codes in map(str.split, table.strip().splitlines()) for code in codes}


# PS3.16 CID 4010, DX View.
VIEW_CODES = _by_code("""
    AP 399348003 R-10206
    PA 272479007 R-40888 R-10214
    LL 399173006 R-10236
    RL 399198007 R-10232
    LATERAL 399067008 R-102CD
    OBLIQUE 399182000 R-102C1
    AXIAL 399061009 R-10241
    LAO 399135007 R-10220
    RAO 399356000 R-40985
    LPO 399006002 R-10212
    RPO 399038007 R-10210
    CC 399162004 R-10242
    ML 399260004 R-10224
    MLO 399368009 R-10226
    LM 399352003 R-10228
    LMO 399099002 R-10230
""")

# PS3.16 CID 4009, DX Anatomy Imaged, with the codes that it replaced.
ANATOMY_CODES = _by_code("""
    ABDOMEN 818981001 113345001 T-D4000
    ABDOMENPELVIS 818982008
    ACJOINT 85856004 T-15420
    ANKLE 70258002 T-15750
    BREAST 76752008 T-04000
    CALCANEUS 80144004 T-12770
    CHEST 816094009 51185008 43799004 T-D3000
    CHESTABDOMEN 416550000 R-FAB55
    CHESTABDPELVIS 416775004 R-FAB56
    CLAVICLE 51299004 T-12310
    COCCYX 64688005 T-11BF0
    CSPINE 122494005 T-11501
    CTSPINE 1217257000
    ELBOW 16953009 T-15430
    EXTREMITY 66019005 T-D0300
    FACIALBONES 91397008 T-11196
    FEMUR 71341001 T-12710
    FIBULA 87342007 T-12750
    FINGER 7569003 T-D8800
    FOOT 56459004 T-D9700
    FOREARM 14975008 T-D8500
    HAND 85562004 T-D8700
    HEAD 69536005 T-D1100
    HIP 24136001 29836001 T-15710 T-D2500
    HUMERUS 85050009 T-12410
    KNEE 72696002 T-D9200
    LOWERLEG 30021000 T-D9400
    LOWERLIMB 61685007 T-D9000
    LSPINE 122496007 T-11503
    LSSPINE 1217253001
    MANDIBLE 91609006 T-11180
    NECK 45048000 T-D1600
    PARANASALSINUS 2095001 T-22000
    PATELLA 64234005 T-12730
    PELVIS 816092008 12921003 T-D6000
    RIB 113197003 T-11300
    SACRUM 54735007 T-11AD0
    SCAPULA 79601000 T-12280
    SHOULDER 16982005 T-D2220
    SIJOINT 39723000 T-15680
    SKULL 89546000 T-11100
    SPINE 421060004 T-D04FF
    STERNUM 56873002 T-11210
    THIGH 68367000 T-D9100
    THUMB 76505004 T-D8810
    TLSPINE 1217256009
    TMJOINT 53620006 T-15290
    TOE 29707007 T-D9800
    TSPINE 122495006 T-11502
    UPPERARM 40983000 T-D8200
    UPPERLIMB 53120007 T-D8000
    WHOLEBODY 38266002 T-D0010
    WRIST 74670003 T-15460
""")

LATERALITIES = terms("L", "R", "B", "U", LEFT="L", RIGHT="R", BOTH="B")
SEXES = terms("F", "M", "O", FEMALE="F", MALE="M", OTHER="O")
YES_NO = terms("YES", "NO")
PHOTOMETRIC = terms("MONOCHROME1", "MONOCHROME2")
INTENT = terms("FOR PRESENTATION", "FOR PROCESSING")
LUT_SHAPES = terms("IDENTITY", "INVERSE")
VOI_FUNCTIONS = terms("LINEAR", "LINEAR_EXACT", "SIGMOID")
# What vendors call the windows and VOI LUTs of one image: (0028,1055) and (0028,3003) are free text otherwise.
WINDOWS = terms(
    *_listed("NORMAL HARDER SOFTER HARD SOFT STANDARD DEFAULT HIGH LOW MEDIUM BONE LUNG SOFT_TISSUE MEDIASTINUM SKIN"),
    *_listed("HIGH_CONTRAST LOW_CONTRAST OPTIMUM FULL AUTO WINDOW WINDOW1 WINDOW2 WINDOW3 USER USER1 USER2 USER3 LINEAR SIGMOID"),
)
INTENSITIES = terms("LIN", "LOG", "DISP")
RESCALE_TYPES = terms("OD", "HU", "US")
LUT_TYPES = terms("OD", "HU", "US")
IMAGE_TYPES = terms("ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY")
ORIENTATIONS = terms(*_listed("A P L R H F AL AR PL PR AH AF PH PF LH LF RH RF HL HR HA HP FL FR FA FP LA LP RA RP"))
LOSSY = terms("00", "01")
LOSSY_METHODS = terms("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15")
CALIBRATIONS = terms("GEOMETRY", "FIDUCIAL")
FIELD_SHAPES = terms("RECTANGLE", "ROUND", "HEXAGONAL")
COLLIMATORS = terms("RECTANGULAR", "CIRCULAR", "POLYGONAL")
DETECTORS = terms("DIRECT", "SCINTILLATOR", "STORAGE", "FILM")
CONFIGURATIONS = terms("AREA", "SLOT")
CONVERSIONS = terms("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN")

# The vendor's usual name, and the words by which it is recognised in (0008,0070).
VENDORS = {
    "FUJIFILM": re.compile(r"\bfuji", re.I),
    "Agfa": re.compile(r"\bagfa", re.I),
    "Philips": re.compile(r"\bphilips", re.I),
    "Siemens": re.compile(r"\bsiemens", re.I),
    "GE": re.compile(r"\bge\b|\bgems\b|general electric|\bge_", re.I),
    "Canon": re.compile(r"\bcanon\b", re.I),
    "Carestream": re.compile(r"\bcarestream", re.I),
    "Kodak": re.compile(r"\bkodak\b", re.I),
    "Konica Minolta": re.compile(r"\bkonica|\bminolta\b", re.I),
    "Samsung": re.compile(r"\bsamsung", re.I),
    "Shimadzu": re.compile(r"\bshimadzu", re.I),
    "Toshiba": re.compile(r"\btoshiba", re.I),
    "Hologic": re.compile(r"\bhologic|\blorad\b", re.I),
    "Mindray": re.compile(r"\bmindray", re.I),
    "Swissray": re.compile(r"\bswissray", re.I),
    "Trixell": re.compile(r"\btrixell", re.I),
    "Varian": re.compile(r"\bvarian\b", re.I),
    "Varex": re.compile(r"\bvarex\b", re.I),
    "United Imaging": re.compile(r"\bunited imaging|\buih\b", re.I),
    "DRTECH": re.compile(r"\bdrtech\b", re.I),
    "Rayence": re.compile(r"\brayence", re.I),
    "Vieworks": re.compile(r"\bvieworks", re.I),
    "Oldelft": re.compile(r"\boldelft", re.I),
    "Hitachi": re.compile(r"\bhitachi", re.I),
    "Lodox": re.compile(r"\blodox", re.I),
}
