from __future__ import annotations

import struct

import imagecodecs
import numpy as np
import pytest
from made_dicom import CANARY, frame, gradient, run_length
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from pipelines.dicom.codestream import clean_jpeg, clean_jpeg2000, clean_rle
from pipelines.errors import RefusedFileError
from pipelines.records import Reason

TEXT = CANARY.encode()
ANY = bytes(range(256))
STORED = gradient(40, 32)
JPEG, JPEG_LS, J2K = (frame(STORED, syntax) for syntax in (JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless))


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def after(stream: bytes, position: int, inserted: bytes) -> bytes:
    return stream[:position] + inserted + stream[position:]


@pytest.mark.parametrize("marker", [0xFE, *range(0xE0, 0xF0)])
def test_text_in_a_jpeg_comment_or_application_segment_is_blanked_in_place(marker: int) -> None:
    planted = after(JPEG, 2, segment(marker, b"Exif\0\0" + TEXT))
    cleaned = clean_jpeg(planted)
    assert TEXT not in cleaned
    assert len(cleaned) == len(planted)
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(cleaned), imagecodecs.jpeg8_decode(JPEG))


def test_text_between_the_scans_of_a_jpeg_is_blanked() -> None:
    planted = after(JPEG, len(JPEG) - 2, segment(0xFE, TEXT))
    assert TEXT not in clean_jpeg(planted)


def test_a_jpeg_without_text_keeps_every_byte() -> None:
    assert clean_jpeg(JPEG) == JPEG
    assert clean_jpeg(JPEG_LS, jpeg_ls=True) == JPEG_LS


@pytest.mark.parametrize(
    ("marker", "header"),
    [
        (0xE0, b"JFIF\0\1\2\1\0\x48\0\x48\0\0"),
        (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        (0xE8, b"mrfx\1"),
        (0xE8, b"SPIFF\0" + bytes(24)),
    ],
)
def test_headers_that_decoders_read_stay_and_what_hangs_behind_them_goes(marker: int, header: bytes) -> None:
    cleaned = clean_jpeg(after(JPEG, 2, segment(marker, header + TEXT)))
    assert header in cleaned
    assert TEXT not in cleaned


@pytest.mark.parametrize("marker", [0xC8, 0xCC, 0xDE, 0xDF, 0xF2, 0xF8])
def test_segments_that_no_radiograph_needs_are_blanked(marker: int) -> None:
    assert TEXT not in clean_jpeg(after(JPEG, 2, segment(marker, b"\2" + TEXT)))


@pytest.mark.parametrize("name", [b"JFIF\0", b"JFIF\0\1\2\1", b"SPIFF\0", b"mrfx", b"Adobe"])
@pytest.mark.parametrize("marker", [0xE0, 0xE8, 0xEE])
def test_headers_with_text_in_place_of_numbers_are_blanked(marker: int, name: bytes) -> None:
    assert TEXT not in clean_jpeg(after(JPEG, 2, segment(marker, name + TEXT * 3)))


@pytest.mark.parametrize("marker", [0xC0, 0xC4, 0xDA, 0xDB])
def test_bytes_behind_the_tables_of_a_segment_are_blanked(marker: int) -> None:
    at = JPEG.index(bytes([0xFF, marker])) + 2
    end = at + int.from_bytes(JPEG[at : at + 2])
    planted = JPEG[:at] + struct.pack(">H", end - at + len(TEXT)) + JPEG[at + 2 : end] + TEXT + JPEG[end:]
    assert TEXT in planted
    assert TEXT not in clean_jpeg(planted)


@pytest.mark.parametrize(
    "text", [b"Mustermann^Erika", "山田^太郎 やまだ^たろう 東京都千代田区".encode(), b"Mustermann^Erika\0\0"]
)
def test_an_image_with_text_behind_its_coded_pixels_is_refused(text: bytes) -> None:
    tile = J2K.index(b"\xff\x90")
    longer = struct.pack(">I", struct.unpack(">I", J2K[tile + 6 : tile + 10])[0] + len(text))
    planted = J2K[: tile + 6] + longer + J2K[tile + 10 : -2] + text + J2K[-2:]
    for clean, stream in ((clean_jpeg, JPEG[:-2] + text + JPEG[-2:]), (clean_jpeg2000, planted)):
        with pytest.raises(RefusedFileError, match="behind the compressed pixels"):
            clean(stream)


def test_the_code_of_an_even_grey_is_not_taken_for_text() -> None:
    even = JPEG[:-2] + b"3ff" * 40 + b"UUUUUUUU" * 9 + JPEG[-2:]
    assert clean_jpeg(even) == even


def test_what_follows_the_end_of_a_jpeg_is_dropped() -> None:
    assert clean_jpeg(JPEG + TEXT + b"\xff\xd9") == JPEG
    assert clean_jpeg(JPEG_LS + TEXT, jpeg_ls=True) == JPEG_LS


def test_text_in_a_jpeg_ls_comment_is_blanked() -> None:
    cleaned = clean_jpeg(after(JPEG_LS, 2, segment(0xFE, TEXT)), jpeg_ls=True)
    assert TEXT not in cleaned
    np.testing.assert_array_equal(imagecodecs.jpegls_decode(cleaned), STORED)


def test_text_in_the_comments_of_a_jpeg_2000_codestream_is_blanked() -> None:
    main_header = after(J2K, J2K.index(b"\xff\x52"), segment(0x64, b"\0\1" + TEXT))
    tile = main_header.index(b"\xff\x90")
    tile_header = segment(0x64, b"\0\1" + TEXT)
    longer = struct.unpack(">I", main_header[tile + 6 : tile + 10])[0] + len(tile_header)
    planted = after(main_header[: tile + 6] + struct.pack(">I", longer) + main_header[tile + 10 :], tile + 12, tile_header)
    assert planted.count(TEXT) == 2
    cleaned = clean_jpeg2000(planted)
    assert TEXT not in cleaned
    assert len(cleaned) == len(planted)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(cleaned), STORED)


@pytest.mark.parametrize("marker", [0x56, 0x57, 0x58, 0x59, 0x63, 0x70])
def test_segments_that_no_decoder_of_jpeg_2000_needs_become_comments(marker: int) -> None:
    planted = after(J2K, J2K.index(b"\xff\x52"), segment(marker, TEXT + b"!"))
    cleaned = clean_jpeg2000(planted)
    assert TEXT not in cleaned
    assert len(cleaned) == len(planted)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(cleaned), STORED)


@pytest.mark.parametrize("marker", [0x50, 0x55, 0x5E, 0x5F])
@pytest.mark.parametrize(
    "payload", [TEXT * 2, TEXT * 2 + bytes(600), b"a" * 20 + b"\0" + TEXT * 2], ids=["all", "first", "second"]
)
def test_a_list_of_numbers_in_a_jpeg_2000_header_that_holds_text_is_refused(marker: int, payload: bytes) -> None:
    with pytest.raises(RefusedFileError, match="text among"):
        clean_jpeg2000(after(J2K, J2K.index(b"\xff\x52"), segment(marker, payload)))


def test_what_follows_the_end_of_a_jpeg_2000_codestream_is_dropped() -> None:
    assert TEXT not in clean_jpeg2000(J2K + TEXT + b"\xff\xd9")


def test_a_tile_part_of_unknown_length_ends_with_the_codestream() -> None:
    tile = J2K.index(b"\xff\x90")
    unknown = J2K[: tile + 6] + bytes(4) + J2K[tile + 10 :]
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(clean_jpeg2000(unknown + TEXT)), STORED)


def test_the_codestream_is_taken_out_of_jp2_boxes() -> None:
    boxed = bytes(imagecodecs.jpeg2k_encode(STORED, level=0, codecformat="JP2", reversible=True))
    planted = boxed + struct.pack(">I4s", 8 + len(TEXT), b"xml ") + TEXT
    cleaned = clean_jpeg2000(planted)
    assert cleaned.startswith(b"\xff\x4f\xff\x51")
    assert TEXT not in cleaned
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(cleaned), STORED)


def test_run_length_segments_are_cut_where_the_image_ends() -> None:
    stored = gradient(20, 15, bits=12)
    packed = run_length(stored)
    assert clean_rle(packed + TEXT, pixels=300, tables=(ANY, ANY)) == packed


def test_a_run_that_goes_past_the_last_pixel_is_cut() -> None:
    header = np.array([1, 64] + [0] * 14, "<u4").tobytes()
    packed = header + bytes([0xFF, 7, 1 + len(TEXT)]) + b"ab" + TEXT
    assert clean_rle(packed, pixels=4, tables=(ANY,)) == header + bytes([0xFF, 7, 1]) + b"ab\0"


def test_unused_offsets_of_a_run_length_header_are_zeroed() -> None:
    packed = run_length(STORED)
    planted = packed[:20] + TEXT + packed[20 + len(TEXT) :]
    assert clean_rle(planted, pixels=STORED.size, tables=(ANY,)) == packed


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_codestream_that_ends_early_is_truncated(kept: float) -> None:
    for stream, clean in ((JPEG, clean_jpeg), (J2K, clean_jpeg2000)):
        with pytest.raises(RefusedFileError, match="the compressed image ends early") as caught:
            clean(stream[: int(len(stream) * kept)])
        assert caught.value.reason is Reason.TRUNCATED
    with pytest.raises(RefusedFileError, match="truncated"):
        clean_rle(run_length(STORED)[: int(STORED.size * kept)], pixels=STORED.size, tables=(ANY,))


@pytest.mark.parametrize("garbage", [b"", b"no image", b"\xff\xd8text", b"\xff\x4ftext", b"\xff\xd8\xff\xe0\0\1text"])
def test_what_is_no_codestream_is_refused(garbage: bytes) -> None:
    for clean in (clean_jpeg, clean_jpeg2000):
        with pytest.raises(RefusedFileError) as caught:
            clean(garbage)
        assert caught.value.reason in (Reason.UNDECODABLE, Reason.TRUNCATED)


def test_a_run_length_header_that_does_not_fit_the_image_is_refused() -> None:
    with pytest.raises(RefusedFileError, match="2 segments expected"):
        clean_rle(run_length(STORED), pixels=STORED.size, tables=(ANY, ANY))
