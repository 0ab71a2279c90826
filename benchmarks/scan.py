"""How fast headers are scanned, against what people use now, on the same files in one run; and what a second ingest costs.

    OMP_NUM_THREADS=1 python benchmarks/scan.py                 # 10,000 files; writes benchmarks/scan.md
    OMP_NUM_THREADS=1 python benchmarks/scan.py --files 100000 --rounds 1

The files are hard links in folders of a thousand: to the images of `paediatric_cxr` (../shared/data, or RADTRANSFER_SHARED)
where they are there, and to fifty generated ones of a megabyte with short headers. Every reader opens each file, reads the
header and is asked for five values; nobody reads pixels. Rounds are interleaved and medians of processor time compared.

pydicom comes with `make setup`; dicomsdl does not:

    uv pip install --target PEERS --no-deps dicomsdl
    PYTHONPATH=PEERS python benchmarks/scan.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.config import Config
from pipelines.dicom.folder import list_files
from pipelines.dicom.reading import open_source
from pipelines.paths import Paths
from pipelines.stages import ingest

ASKED = ("PatientID", "StudyInstanceUID", "Modality", "ViewPosition", "Rows")
HERE = Path(__file__).parent
SHARED = Path(os.environ.get("RADTRANSFER_SHARED", HERE.parents[1] / "shared")) / "data"
OURS, PYDICOM = "radtransfer `open_source`", "pydicom `stop_before_pixels`"

Scan = Callable[[Path], object]


def ours(path: Path) -> object:
    with path.open("rb") as stream:
        header = open_source(stream).header
    return [header.text(keyword) for keyword in ASKED]


def pydicom_whole(path: Path) -> object:
    dataset = dcmread(path, stop_before_pixels=True)
    return [dataset.get(keyword) for keyword in ASKED]


def pydicom_specific(path: Path) -> object:
    dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(ASKED))
    return [dataset.get(keyword) for keyword in ASKED]


def readers() -> dict[str, Scan]:
    found: dict[str, Scan] = {OURS: ours, PYDICOM: pydicom_whole, f"{PYDICOM}, `specific_tags`": pydicom_specific}
    try:
        import dicomsdl
    except ImportError:
        print("dicomsdl is not installed")
        return found

    def sdl(path: Path) -> object:
        dataset = dicomsdl.open_file(str(path), load_until=0x7FE00000)
        return [getattr(dataset, keyword) for keyword in ASKED]

    return found | {"dicomsdl `load_until`": sdl}


def generated(folder: Path, count: int = 50) -> list[Path]:
    folder.mkdir()
    return [_radiograph(folder / f"{number}.dcm", number) for number in range(count)]


def _radiograph(path: Path, number: int) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"2.25.1{number}", f"2.25.2{number}"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex, dataset.PatientAge = f"MRN{number}", "Doe^Jane", "F", "061Y"
    dataset.StudyDate, dataset.AccessionNumber, dataset.InstitutionName = "20190314", f"A{number}", "Somewhere General"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "CR", "CHEST", "PA"
    dataset.Manufacturer, dataset.PixelSpacing = "Agfa", ["0.2", "0.2"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.Rows = dataset.Columns = 724
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = np.random.default_rng(number).integers(0, 4096, (724, 724), np.uint16).tobytes()
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def linked(folder: Path, originals: list[Path], count: int) -> Path:
    """A folder of hard links, or of links to copies where the originals lie on another disk."""
    folder.mkdir()
    here = folder.stat().st_dev
    kept = folder.parent / f"{folder.name} originals"
    kept.mkdir()
    local = [path if path.stat().st_dev == here else _copied(path, kept / f"{n}.dcm") for n, path in enumerate(originals)]
    for number, original in enumerate(islice(cycle(local), count)):
        place = folder / f"{number // 1000:04d}"
        place.mkdir(exist_ok=True)
        os.link(original, place / f"IM{number:06d}")
    return folder


def _copied(path: Path, copy: Path) -> Path:
    copy.write_bytes(path.read_bytes())
    return copy


def bytes_read() -> int:
    """What this process has read so far, as the kernel counts it; 0 where it does not."""
    counts = Path("/proc/self/io")
    return int(counts.read_text().split()[1]) if counts.exists() else 0


def measure(folder: Path, rounds: int) -> Iterator[str]:
    """Rows of the table: files per processor second, kilobytes read for each file."""
    listing = list_files(folder)
    paths = [listing.root / name for name in listing.files]
    seconds: dict[str, list[float]] = {}
    kilobytes: dict[str, float] = {}
    for name, scan in list(readers().items()) * rounds:
        read, started = bytes_read(), time.process_time()
        for path in paths:
            scan(path)
        seconds.setdefault(name, []).append(time.process_time() - started)
        kilobytes[name] = (bytes_read() - read) / len(paths) / 1024
    fastest = statistics.median(seconds[OURS])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        yield f"| {name} | {len(paths) / median:,.0f} | {median / fastest:.2f} | {kilobytes[name]:.1f} |"


def second_ingest(folder: Path, scratch: Path) -> Iterator[str]:
    """What it costs to ingest a folder once, and again with nothing changed."""
    os.environ["RADTRANSFER_PSEUDONYM_KEY"] = "a key for benchmarks only"
    os.environ["RADTRANSFER_QUARANTINE"] = str(scratch / "quarantine")
    (scratch / "workspace").mkdir()
    paths, config = Paths(scratch / "workspace"), Config.model_validate({"ingest": {"burned_in": "keep"}})
    time.sleep(3)  # files that were written a moment ago are read again
    for name in ("first ingest (pixels not searched for text)", "second ingest, nothing changed"):
        started, wall, read = os.times(), time.perf_counter(), bytes_read()
        summary = ingest.run(config, paths, folder)
        ended = os.times()
        spent = sum(ended[:2]) - sum(started[:2])
        yield (
            f"| {name} | {summary.found:,} | {time.perf_counter() - wall:.1f} | {spent:.1f} | "
            f"{(bytes_read() - read) / summary.found / 1024:.2f} |"
        )


INTRODUCTION = """# Speed of a header scan

{files:,} files, hard links to {kinds}; {rounds} interleaved round(s), one thread, medians. Every reader
opens the file, reads the header and is asked for five values. Made by `benchmarks/scan.py`, which says how to install dicomsdl.
"""
SCANNED = """
## {name}

| | files per processor second | times the time of radtransfer | kB read for each file |
|---|---|---|---|
"""
AGAIN = """
## A second ingest

Of the same {files:,} generated files, in the main process (those that de-identify are not counted, and a second ingest has none
to read).

| | files | seconds | processor seconds | kB read for each file |
|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=HERE / "scan.md")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        cohorts = {"generated, 29 attributes, 1 MB": generated(scratch / "generated")}
        real = sorted((SHARED / "paediatric_cxr").rglob("*.dcm"))
        if real:
            cohorts["paediatric_cxr, about 60 attributes, private ones among them"] = real
        kinds = " and to ".join(f"{len(files)} files" for files in cohorts.values())
        text = INTRODUCTION.format(files=chosen.files, kinds=kinds, rounds=chosen.rounds)
        for number, (title, originals) in enumerate(cohorts.items()):
            folder = linked(scratch / f"links{number}", originals, chosen.files)
            text += SCANNED.format(name=title) + "\n".join(measure(folder, chosen.rounds)) + "\n"
        text += AGAIN.format(files=chosen.files) + "\n".join(second_ingest(scratch / "links0", scratch)) + "\n"
    print(text)
    chosen.output.write_text(text)


if __name__ == "__main__":
    main()
