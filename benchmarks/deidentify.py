"""How fast headers are de-identified, against what people use now, on the same files in one run.

    OMP_NUM_THREADS=1 python benchmarks/deidentify.py            # writes benchmarks/deidentify.md

Each tool takes every file from a folder into another one, in one thread of one process; rounds are interleaved and medians of
processor time compared. Then `radtransfer deid-check --no-pixels` looks over what each has written: speed is worth nothing
where names are left. The files are of `paediatric_cxr` and `adult_cxr` in ../shared/data, or RADTRANSFER_SHARED: real pixels,
with invented names in headers, free text and private attributes.

pydicom comes with `make setup`. The peers do not; they need nothing that is not there already:

    uv pip install --target PEERS --no-deps deid dicom-anonymizer
    PYTHONPATH=PEERS python benchmarks/deidentify.py

A peer that is not installed is said to be absent. Each runs as its documentation shows, with private attributes removed:
`deid` with its own default recipe, `dicom-anonymizer` with its newest edition of Table E.1-1; "pydicom" is the few lines that
people write themselves, an allow-list of the attributes that `radtransfer` lists, saved as they are.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydicom import dcmread

from pipelines.dicom.audit import Why
from pipelines.dicom.deidentify import Accept, deidentify
from pipelines.dicom.profile import PROFILE
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.stages import deid_check

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("RADTRANSFER_SHARED", REPOSITORY.parent / "shared")) / "data"
REPORT = Path(__file__).with_suffix(".md")
SETS = ("paediatric_cxr", "adult_cxr")
SEED = 17
_LINES = {why.value for why in (Why.REMOVE, Why.DUMMY, Why.DATE)}
Tool = Callable[[list[Path], Path], None]


def ours(files: list[Path], target: Path) -> None:
    pseudonyms, accept = Pseudonyms(b"a key for the benchmark, long enough"), Accept(("CR", "DX"), "keep")
    for number, path in enumerate(files):
        with path.open("rb") as stream:
            done = deidentify(stream, pseudonyms, accept)
        assert done is not None
        (target / f"{number}.dcm").write_bytes(done.content)


def pydicom_allow_list(files: list[Path], target: Path) -> None:
    kept = {rule.keyword for rule in PROFILE}
    for number, path in enumerate(files):
        dataset = dcmread(path)
        for element in list(dataset):
            if element.keyword not in kept:
                del dataset[element.tag]
        dataset.PatientName = dataset.PatientID = f"p{number}"
        dataset.save_as(target / f"{number}.dcm")


def pydicom_deid() -> Tool:
    from deid.config import DeidRecipe
    from deid.dicom import replace_identifiers

    recipe = DeidRecipe()

    def run(files: list[Path], target: Path) -> None:
        names = [str(path) for path in files]
        replace_identifiers(names, deid=recipe, save=True, overwrite=True, output_folder=str(target), remove_private=True)

    return run


def dicom_anonymizer() -> Tool:
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file

    newest = max(
        path.stem
        for folder in __import__("dicomanonymizer").__path__
        for path in Path(folder, "dicom_anonymization_databases").glob("dicomfields_*.py")
    )

    def run(files: list[Path], target: Path) -> None:
        for number, path in enumerate(files):
            anonymize_dicom_file(str(path), str(target / f"{number}.dcm"), base_rules_gen=_edition(newest))

    return run


def _edition(name: str) -> Callable[[], dict[object, object]]:
    from dicomanonymizer.simpledicomanonymizer import initialize_actions

    return lambda: initialize_actions(name)


TOOLS: dict[str, tuple[str | None, Callable[[], Tool]]] = {
    "radtransfer": (None, lambda: ours),
    "pydicom, an allow-list of attributes": ("pydicom", lambda: pydicom_allow_list),
    "deid (pydicom's)": ("deid", pydicom_deid),
    "dicom-anonymizer": ("dicom-anonymizer", dicom_anonymizer),
}


def processor_seconds(tool: Tool, files: list[Path], target: Path) -> float:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        start = time.process_time()
        tool(files, target)
        return time.process_time() - start


def measure(files: list[Path], rounds: int) -> tuple[dict[str, float], dict[str, tuple[int, int, int, int]], list[str]]:
    """Median processor seconds of each tool; of its files how many were written and are at fault, and kinds of fault."""
    tools, absent = {}, []
    for name, (package, make) in TOOLS.items():
        try:
            tools[f"{name} {version(package)}" if package else name] = make()
        except (ImportError, PackageNotFoundError):
            absent.append(name)
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    found = {}
    for number in range(rounds):
        for name, tool in tools.items():
            with tempfile.TemporaryDirectory() as target:
                seconds[name].append(processor_seconds(tool, files, Path(target)))
                if not number:
                    with contextlib.redirect_stderr(io.StringIO()):
                        checked = deid_check.run(Path(target), pixels=False)
                    kinds = {(one.where, one.why) for file in checked.suspects for one in file.findings if not one.doubtful}
                    found[name] = (checked.checked, checked.faulty, len(kinds), sum(why in _LINES for _, why in kinds))
    return {name: statistics.median(times) for name, times in seconds.items()}, found, absent


def report(files: list[Path], rounds: int) -> str:
    seconds, found, absent = measure(files, rounds)
    fastest = seconds["radtransfer"]
    size = sum(path.stat().st_size for path in files) / 1e6
    lines = [
        "# Speed of de-identification",
        "",
        f"{len(files)} radiographs ({size:.0f} MB) of `{SETS[0]}` and `{SETS[1]}`, from file to file, one thread:",
        f"medians of {rounds} interleaved rounds. The last columns are what `radtransfer deid-check --no-pixels` finds in the",
        "output: files with something that has to go, and how many kinds of it. Made by `benchmarks/deidentify.py`.",
        "",
        "| tool | files per CPU second | times the processor time | files at fault | kinds of fault | of them of Table E.1-1 |",
        "|---|---|---|---|---|---|",
    ]
    for name, taken in seconds.items():
        written, faulty, kinds, lines_left = found[name]
        lines.append(
            f"| {name} | {len(files) / taken:,.0f} | {taken / fastest:.1f} | {faulty} of {written} | {kinds} | {lines_left} |"
        )
    lines += [
        "",
        "Only headers are compared, so `radtransfer` is told here to keep images whose header declares text in the pixels",
        "(`ingest.burned_in: keep`); that declaration is its one kind of fault. What a file alone cannot tell, such as whether",
        "a UID is the original one, is not counted as a fault. Other kinds than lines of Table E.1-1 are comments in compressed",
        "images, and files that do not say that, or how, they were de-identified.",
        "",
        *(f"{name}: not installed." for name in absent),
    ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=120, help="how many files")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool runs")
    arguments = parser.parse_args()
    there = sorted(path for name in SETS for path in (SHARED / name).rglob("*.dcm"))
    if not there:
        sys.exit(f"{SHARED}: expected paediatric_cxr and adult_cxr there, found none")
    logging.disable(logging.CRITICAL)
    chosen = random.Random(SEED).sample(there, min(arguments.files, len(there)))
    text = report(chosen, arguments.rounds)
    REPORT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
