"""A folder as a source: its files in a fixed order, links that lead out of it left alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import SourceError


@dataclass(frozen=True, repr=False)
class Listing:
    """What a folder holds.

    Attributes:
        root: the folder, resolved.
        files: paths relative to `root`, sorted.
        links_out: links that lead out of the folder, or nowhere; they are not followed.
        unreadable_folders: folders that may not be opened.
    """

    root: Path
    files: tuple[str, ...]
    links_out: int
    unreadable_folders: int


def list_files(source: Path, leave_out: Iterable[Path] = ()) -> Listing:
    """Every regular file below `source`, except those in or at `leave_out`.

    A link to a file inside is taken; links to folders are not walked, since what lies inside is found anyway. It costs no
    look at each file, only at each folder and link.

    Raises:
        SourceError: `source` is not a folder.
    """
    if not source.is_dir():
        raise SourceError("the source: expected a folder of DICOM files, found none there; check the path and its permissions")
    root = source.resolve()
    apart = {str(path.resolve()) for path in leave_out}
    files: list[str] = []
    links_out = unreadable = 0
    folders = [""]
    while folders:
        here = folders.pop()
        try:
            entries = list(os.scandir(f"{root}{os.sep}{here}"))
        except OSError:
            unreadable += 1
            continue
        for entry in entries:
            place = f"{here}{entry.name}"
            if f"{root}{os.sep}{place}" in apart:
                continue
            if entry.is_symlink():
                inside = _inside(Path(entry.path), root)
                links_out += not inside
                files += [place] if inside and entry.is_file() else []
            elif entry.is_dir(follow_symlinks=False):
                folders.append(place + os.sep)
            elif entry.is_file(follow_symlinks=False):  # pipes and devices would block
                files.append(place)
    return Listing(root, tuple(sorted(files, key=os.fsencode)), links_out, unreadable)


def _inside(link: Path, root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return False
