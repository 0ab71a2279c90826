"""What a file must never be able to do to the process that reads it, or while it is read.

Worker processes load this module anew each time: it imports little.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.dicom.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class Meddling(Pseudonyms):
    """Pseudonyms that do to the process, or to the file that is being read, what the patient's ID says."""

    root: Path = field(default=Path())

    def patient(self, patient_id: str) -> str:
        path = self.root / "hostile" / "meddled"
        match patient_id:
            case "CRASH":
                ctypes.string_at(0)
            case "ABORT":
                os.abort()
            case "SPIN":
                while True:
                    pass
            case "SLEEP":
                time.sleep(3600)
            case "EAT":
                return str(len(bytearray(4 << 30)))
            case "GROW":
                with path.open("ab") as stream:
                    stream.write(bytes(100))
            case "VANISH":
                path.unlink()
            case "REPLACE":
                from hostile_dicom import small

                other = self.root.parent / "other"
                other.write_bytes(small(77))
                other.replace(path)
            case "PIPE":
                path.unlink()
                os.mkfifo(path)
        return super().patient(patient_id)
