"""A folder as a source: its files in a fixed order, links that lead out of it left alone."""

from __future__ import annotations

import os
import stat
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

    A link to a file inside is taken; links to folders are not walked, since what lies inside is found anyway.

    Raises:
        SourceError: `source` is not a folder.
    """
    if not source.is_dir():
        raise SourceError("the source: expected a folder of DICOM files, found none there; check the path and its permissions")
    root = source.resolve()
    apart = {path.resolve() for path in leave_out}
    files: list[str] = []
    links_out = 0
    refused: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=refused.append):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in apart]
        links = [here / name for name in (*folders, *names) if (here / name).is_symlink()]
        links_out += sum(not _inside(link, root) for link in links)
        files += [
            os.path.relpath(here / name, root) for name in names if here / name not in apart and _is_file(here / name, root)
        ]
    return Listing(root, tuple(sorted(files, key=os.fsencode)), links_out, len(refused))


def _inside(link: Path, root: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):
        return False


def _is_file(path: Path, root: Path) -> bool:
    """Whether it is a file, or a link to one inside; pipes and devices would block."""
    try:
        return stat.S_ISREG(path.stat().st_mode) and (not path.is_symlink() or _inside(path, root))
    except OSError:
        return False
