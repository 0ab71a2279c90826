"""Header values as the imaging chain needs them: numbers or nothing, without pydicom repeating them in warnings."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings and log lines, which repeat header values, out of sight while the block runs."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def value(dataset: Dataset, keyword: str) -> Any:
    """The value of an attribute, or None where it is absent, empty or malformed."""
    tag = tag_for_keyword(keyword)
    try:
        return dataset[tag].value if tag is not None and tag in dataset else None
    except Exception:
        # pydicom converts values when they are read, and a malformed one raises whatever its parser does.
        return None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """The values of a numeric attribute; none where it is absent or any of them is malformed or not finite."""
    found = value(dataset, keyword)
    if found is None or found == "":
        return ()
    several = found if isinstance(found, Iterable) and not isinstance(found, str | bytes) else (found,)
    try:
        read = tuple(float(item) for item in several)
    except (TypeError, ValueError):
        return ()
    return read if all(math.isfinite(item) for item in read) else ()


def number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of a numeric attribute, or None."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a code string, in capitals and without surrounding spaces."""
    found = value(dataset, keyword)
    if found is None:
        return ()
    several = (found,) if isinstance(found, str) else found
    return tuple(str(item).strip().upper() for item in several)


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; an empty list where it is absent or malformed."""
    found = value(dataset, keyword)
    return list(found) if isinstance(found, Iterable) and not isinstance(found, str | bytes) else []
