from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.dicom.folder import list_files
from pipelines.errors import SourceError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("b/IM0001", "a/deep/er/x.dcm", "top"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_files_are_found_at_every_depth_in_a_fixed_order(source: Path) -> None:
    assert list_files(source).files == ("a/deep/er/x.dcm", "b/IM0001", "top")


def test_links_that_leave_the_source_are_not_followed(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    (source / "out").symlink_to(tmp_path / "secret" / "file")
    (source / "folder").symlink_to(tmp_path / "secret")
    (source / "nowhere").symlink_to(tmp_path / "missing")
    listing = list_files(source)
    assert listing.files == ("a/deep/er/x.dcm", "b/IM0001", "top")
    assert listing.links_out == 3


def test_a_link_to_a_file_inside_is_taken_and_a_loop_is_not_walked(source: Path) -> None:
    (source / "again").symlink_to(source / "top")
    (source / "a" / "loop").symlink_to(source)
    listing = list_files(source)
    assert listing.files == ("a/deep/er/x.dcm", "again", "b/IM0001", "top")
    assert listing.links_out == 0


def test_a_link_that_points_at_itself_ends(source: Path) -> None:
    (source / "ring").symlink_to(source / "ring")
    assert list_files(source).links_out == 1


def test_a_pipe_does_not_block(source: Path) -> None:
    os.mkfifo(source / "pipe")
    assert "pipe" not in list_files(source).files


def test_names_that_are_no_text_are_files_too(source: Path) -> None:
    (source / "two\nlines").write_text("x")
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9")).write_text("x")
    assert {"two\nlines", os.fsdecode(b"caf\xe9")} <= set(list_files(source).files)


def test_what_is_to_be_left_out_is(source: Path) -> None:
    assert list_files(source, [source / "a", source / "top", source / "missing"]).files == ("b/IM0001",)


@pytest.mark.parametrize("name", ["missing", "top"])
def test_a_source_that_is_no_folder_is_refused_without_its_name(source: Path, name: str) -> None:
    with pytest.raises(SourceError, match="expected a folder of DICOM files") as caught:
        list_files(source / name)
    assert name not in str(caught.value).replace("stop", "")
