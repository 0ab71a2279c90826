"""Whatever is planted, wherever and in whatever script: none of it survives de-identification."""

from __future__ import annotations

import struct
import warnings
from functools import cache
from io import BytesIO
from itertools import combinations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from made_dicom import KEYED, file_bytes, gradient, header, with_pixels
from pydicom import dcmread
from pydicom.datadict import DicomDictionary, tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless

from pipelines.dicom.confidentiality import Option
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.profile import PROFILE
from pipelines.errors import RefusedFileError

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless)
CHOICES = (Option.PATIENT, Option.DEVICE, Option.MODIFIED_DATES, Option.CLEAN_DESCRIPTORS)

# PS3.5 6.1.2: the escape sequences by which a value in ISO 2022 goes to Korean; Python's codecs write those of Japanese.
_TO_KOREAN = b"\x1b$)C"
CANARIES = {
    "ascii": b"ZEBRACANARY",
    "latin1": "Zébra^Kanarienvögel".encode("latin-1"),
    "japanese katakana": "ﾔﾏﾀﾞ^ﾀﾛｳ".encode("shift_jis"),
    "japanese iso 2022": "山田^太郎花子".encode("iso2022_jp"),
    "japanese iso 2022 jis x 0212": "丂丄丅丌丒丟".encode("iso2022_jp_2"),
    "japanese three groups": b"Yamada^Tarou=" + "山田^太郎=やまだ^たろう".encode("iso2022_jp"),
    "korean iso 2022": _TO_KOREAN + "김희중^홍길동".encode("euc_kr"),
    "chinese gb18030": "王小东^李四㐀㒨".encode("gb18030"),
    "chinese gbk": "王小东^李四张三".encode("gbk"),
    "utf-8": "山田Ωμέγα홍길동".encode(),
    "utf-16": "ZEBRACANARY".encode("utf-16-le"),
}
SCRIPTS = {
    "山田^太郎花子",
    "김희중^홍길동",
    "王小东^李四",
    "ﾔﾏﾀﾞ^ﾀﾛｳ",
    "やまだ^たろう",
    "ZEBRACANARY",
    "Kanarienvögel",
    "Yamada^Tarou",
}
CODECS = ("utf-8", "utf-16-le", "utf-16-be", "shift_jis", "euc_jp", "iso2022_jp", "euc_kr", "gb18030", "latin-1")
CHARACTER_SETS = (
    b"",
    b"ISO_IR 100",
    b"ISO_IR 192",
    b"GB18030",
    b"GBK",
    b"ISO_IR 13",
    b"\\ISO 2022 IR 87",
    b"ISO 2022 IR 13\\ISO 2022 IR 87\\ISO 2022 IR 159",
    b"\\ISO 2022 IR 149",
    b"nonsense",
)

_SHORT, _LONG = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US", "OB OD OF OL OV OW SV UC UN UR UT UV"
SHORT, LONG = _SHORT.split(), _LONG.split()
SIZES = {"AT": 4, "FD": 8, "FL": 4, "OD": 8, "OF": 4, "OL": 4, "OV": 8, "SL": 4, "SV": 8, "UL": 4, "UV": 8}
PUBLIC = sorted(tag for tag in DicomDictionary if 0x00080000 <= tag < 0x7FE00000)
LISTED = [tag for tag in PUBLIC if DicomDictionary[tag][4] in {rule.keyword for rule in PROFILE}]

tags = st.one_of(
    st.sampled_from(PUBLIC),
    st.sampled_from(LISTED),
    st.integers(0x0009, 0x50FF)
    .map(lambda group: group | 1)
    .flatmap(lambda g: st.integers(0x0010, 0xFFFF).map(lambda e: g << 16 | e)),
    st.builds(
        lambda group, tag: (group + tag[0] << 16) | tag[1],
        st.integers(0, 15).map(lambda n: 2 * n),
        st.sampled_from(
            [(0x5000, 0x0110), (0x5000, 0x3000), (0x6000, 0x0022), (0x6000, 0x3000), (0x6000, 0x4000), (0x6000, 0x1500)]
        ),
    ),
    st.integers(0x00080001, 0x7FDFFFFF),
)
values = st.sampled_from(sorted(CANARIES.values()))
# What a file must keep to be taken: who decides about refusal, and what says how the pixels are coded.
_DECISIVE = (
    "SOPClassUID SOPInstanceUID Modality EncapsulatedDocument BurnedInAnnotation NumberOfFrames SamplesPerPixel Rows Columns "
    "PhotometricInterpretation BitsAllocated BitsStored HighBit PixelRepresentation"
)
DECISIVE = frozenset(map(tag_for_keyword, _DECISIVE.split()))


def element(tag: int, vr: str, value: bytes, implicit: bool) -> bytes:
    """One element, its value filled up to what the VR counts in."""
    size = SIZES.get(vr, 2)
    value += b" " * (-len(value) % size)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def sequence(tag: int, items: list[bytes], open_ended: bool, implicit: bool) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else b"SQ\0\0")
    if open_ended:
        inside = b"".join(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + item + b"\xfe\xff\x0d\xe0\0\0\0\0" for item in items)
        return head + b"\xff\xff\xff\xff" + inside + b"\xfe\xff\xdd\xe0\0\0\0\0"
    inside = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items)
    return head + struct.pack("<I", len(inside)) + inside


def nodes(implicit: bool) -> st.SearchStrategy[bytes]:
    """An element with a canary, or a sequence of such at some depth."""
    plain = st.builds(
        lambda tag, vr, value: element(tag, vr, value, implicit),
        tags.filter(lambda t: t not in DECISIVE),
        st.sampled_from(SHORT + LONG),
        values,
    )
    return st.recursive(
        plain,
        lambda inner: st.builds(
            lambda tag, items, open_ended: sequence(tag, items, open_ended, implicit),
            tags.filter(lambda t: t not in DECISIVE),
            st.lists(st.lists(inner, min_size=1, max_size=3).map(b"".join), min_size=1, max_size=2),
            st.booleans(),
        ),
        max_leaves=8,
    )


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A radiograph with canaries in the preamble, the file meta information, the header, and behind the pixel data."""
    syntax = draw(st.sampled_from(SYNTAXES))
    implicit = syntax == ImplicitVRLittleEndian
    head, first, rest, pixels = parts(syntax)
    planted = draw(st.lists(nodes(implicit), min_size=1, max_size=6))
    before = draw(st.booleans())
    charset = element(0x00080005, "CS", draw(st.sampled_from(CHARACTER_SETS)), implicit)
    canary, behind = (
        draw(values),
        draw(st.one_of(st.just(b""), values, values.map(lambda v: element(0xFFFCFFFC, "OB", v, implicit)))),
    )
    name = element(0x00100010, "PN", draw(values), implicit)
    body = [charset, first, *(planted if before else []), name, rest, *([] if before else planted)]
    return canary[:64].ljust(128, b"\0") + head + b"".join(body) + pixels + behind


@cache
def parts(syntax: str) -> tuple[bytes, bytes, bytes, bytes]:
    """A file without its preamble: magic and meta, the class of the image, the rest of the header, pixel data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = with_pixels(header(PatientName=None), gradient(), syntax)
        content = file_bytes(dataset, syntax)
    start = 144 + struct.unpack("<I", content[140:144])[0]
    title = element(0x00020016, "AE", CANARIES["ascii"], implicit=False)
    pixels = content.index(b"\xe0\x7f\x10\x00")
    implicit = syntax == ImplicitVRLittleEndian
    first = start + 8 + struct.unpack_from("<I" if implicit else "<H", content, start + (4 if implicit else 6))[0]
    meta = (
        content[128:140] + struct.pack("<I", struct.unpack("<I", content[140:144])[0] + len(title)) + content[144:start] + title
    )
    return meta, content[start:first], content[first:pixels], content[pixels:]


@cache
def traces() -> tuple[bytes, ...]:
    """Every canary as planted, without the blanks and codes that end it, and every script in every encoding that has it."""
    found = {canary.strip() for canary in CANARIES.values()}
    for text in SCRIPTS:
        for codec in CODECS:
            for piece in (text, *text.split("^")):
                encoded = piece.encode(codec, "ignore")
                if len(encoded) >= 6:
                    found.add(encoded)
    return tuple(sorted(found))


OPTIONS = [frozenset(some) for count in range(len(CHOICES) + 1) for some in combinations(CHOICES, count)]


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(content=files(), options=st.sampled_from(OPTIONS))
def test_no_canary_survives(content: bytes, options: frozenset[Option]) -> None:
    try:
        done = deidentify(BytesIO(content), KEYED, Accept(("CR",), options=options))
    except RefusedFileError:
        assume(False)
        raise
    assert done is not None
    assert not [trace for trace in traces() if trace in done.content]
    assert not [trace for trace in traces() if trace in repr((done.row, done.treatment)).encode()]
    assert {one.keyword for one in dcmread(BytesIO(done.content))} <= {rule.keyword for rule in PROFILE}


@pytest.mark.parametrize("vr", SHORT + LONG)
def test_no_canary_survives_in_a_value_of_any_vr(vr: str) -> None:
    for syntax in SYNTAXES:
        implicit = syntax == ImplicitVRLittleEndian
        head, first, rest, pixels = parts(syntax)
        tags = (0x00104000, 0x00091001, 0x60003000)
        planted = b"".join(element(tag, vr, canary, implicit) for canary in CANARIES.values() for tag in tags)
        nested = sequence(0x00400275, [sequence(0x00091002, [planted], False, implicit)], True, implicit)
        assert not survivors(bytes(128) + head + first + planted + nested + rest + pixels)


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
@pytest.mark.parametrize("syntax", SYNTAXES[:2])
def test_no_canary_survives_in_an_attribute_that_is_kept(syntax: str, canary: bytes) -> None:
    implicit = syntax == ImplicitVRLittleEndian
    head, first, rest, pixels = parts(syntax)
    codes = b"".join(element(tag, "LO", canary, implicit) for tag in (0x00080100, 0x00080104))
    table = element(0x00283002, "US", struct.pack("<3H", 16, 0, 16), implicit)
    table += b"".join(element(tag, "LO", canary, implicit) for tag in (0x00283003, 0x00283004))
    table += element(0x00283006, "OW", struct.pack("<16H", *range(16)) + canary, implicit)
    planted = b""
    for tag in sorted(set(LISTED) - DECISIVE):
        vr = DicomDictionary[tag][0].split()[0]
        inside = table if "LUT" in DicomDictionary[tag][4] else codes
        planted += sequence(tag, [inside], False, implicit) if vr == "SQ" else element(tag, vr, canary, implicit)
    assert not survivors(bytes(128) + head + planted + first + rest + pixels)


def survivors(content: bytes) -> list[bytes]:
    """The traces that are left under all options."""
    done = deidentify(BytesIO(content), KEYED, Accept(("CR",), options=OPTIONS[-1]))
    assert done is not None
    return [trace for trace in traces() if trace in done.content or trace in repr((done.row, done.treatment)).encode()]


def test_the_traces_are_found_in_what_was_planted() -> None:
    head, first, rest, pixels = parts(ExplicitVRLittleEndian)
    for name, canary in CANARIES.items():
        content = head + first + element(0x00104000, "LT", canary, implicit=False) + rest + pixels
        assert any(trace in content for trace in traces()), name
