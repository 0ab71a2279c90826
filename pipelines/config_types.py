"""What the sections of params.yaml are made of."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

# PS3.5 6.2, AE: up to 16 characters of the default repertoire, no backslash, no leading or trailing blank
_AE_TITLE = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _day(value: Any) -> int:
    """A date as YYYYMMDD; not as YAML writes dates, since DVC cannot read those."""
    text = str(value)
    try:
        datetime.strptime(text if len(text) == 8 else "", "%Y%m%d")
    except ValueError:
        raise ValueError(f"a date as DICOM writes it, e.g. 20240131, got {text}") from None
    return int(text)


def _ae_title(text: str) -> str:
    if not _AE_TITLE.fullmatch(text):
        raise ValueError(f"an AE title of 1 to 16 ASCII characters, no backslash, no blank at either end, got {text!r}")
    return text


Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0, le=10)]
Day = Annotated[int, BeforeValidator(_day)]
AeTitle = Annotated[str, AfterValidator(_ae_title)]
