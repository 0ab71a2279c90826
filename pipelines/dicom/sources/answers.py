"""What servers say of studies and images, read with suspicion: nothing but a UID may pass for one."""

from __future__ import annotations

import re
from datetime import date, datetime

from pipelines.dicom.sources.protocol import Study

_UID = re.compile(r"[0-9.]{1,64}")
_COUNT = re.compile(r"[0-9]{1,9}")


def uid(text: str | None) -> str | None:
    """A UID, which can stand in a URL; None for anything else."""
    value = (text or "").strip(" \0")
    return value if _UID.fullmatch(value) else None


def study(instance_uid: str | None, instances: str | None, day: str | None) -> Study | None:
    """A study, by StudyInstanceUID, NumberOfStudyRelatedInstances and StudyDate; None where there is no UID."""
    name, count = uid(instance_uid), (instances or "").strip()
    return Study(name, int(count) if _COUNT.fullmatch(count) else None, _day(day)) if name else None


def _day(text: str | None) -> date | None:
    try:
        return datetime.strptime((text or "").strip(), "%Y%m%d").date()
    except ValueError:
        return None
