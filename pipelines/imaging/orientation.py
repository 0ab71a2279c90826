"""Which images are mirrored, so that both sides of a paired part, or both directions of a lateral view, look alike."""

from __future__ import annotations

from pydicom.dataset import Dataset

from pipelines.imaging import header


def is_mirrored(dataset: Dataset, right: bool | tuple[str, ...], views: tuple[str, ...]) -> bool:
    """Whether an image is to be mirrored, left to right.

    Args:
        right: body parts of which right-sided images are mirrored; True stands for all.
        views: values of View Position of which images are mirrored, whatever their side.
    """
    if not right and not views:
        return False
    with header.quiet():
        if set(header.texts(dataset, "ViewPosition")) & {view.upper() for view in views}:
            return True
        if not right or _side(dataset) != "R":
            return False
        if isinstance(right, bool):
            return right
        return bool(set(header.texts(dataset, "BodyPartExamined")) & {part.upper() for part in right})


def _side(dataset: Dataset) -> str:
    """The image's side, or where it says nothing the series' (PS3.3 C.8.11.8, C.7.3.1): R, L, B, U or nothing."""
    for keyword in ("ImageLaterality", "Laterality"):
        side = "".join(header.texts(dataset, keyword)[:1])
        if side:
            return side
    return ""
