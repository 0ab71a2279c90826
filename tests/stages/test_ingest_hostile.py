"""Whatever comes in: each bad file is set aside with its reason and counted, in bounded time and memory, and the others go on."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hostile_dicom as hostile
import pandas as pd
import pytest
from made_dicom import CANARY, radiograph, write
from meddling import Meddling
from prerequisites import absent
from typer.testing import CliRunner

from pipelines import processes
from pipelines.config import Config
from pipelines.dicom import workers
from pipelines.dicom.intake import Intake
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.ingest_summary import IngestSummary
from pipelines.isolation import Crew, Lost
from pipelines.paths import Paths
from pipelines.records import Reason
from pipelines.stages import ingest, prepare


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three good files among the bad ones: the first, one in between, and the last."""
    for number, name in ((901, "!"), (902, "hostile/0050x"), (903, "zz")):
        write(tmp_path / "source" / name, hostile.small(number))
    return tmp_path / "source"


def config(**ingest_options: Any) -> Config:
    return Config.model_validate(
        {"ingest": {"burned_in": "keep", **ingest_options}, "prepare": {"size": 32, "workers": 1, "seconds_per_file": 10}}
    )


def quarantined(paths: Paths) -> dict[str, str]:
    path = paths.quarantine / "quarantine.csv"
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        return {row["original"]: row["reason"] for row in csv.DictReader(stream)}


def check_counts(summary: IngestSummary, paths: Paths) -> None:
    """Every file has one fate, what is set aside is listed with its reason, and the summary counts it."""
    aside = quarantined(paths)
    refused = summary.not_dicom + sum(summary.quarantined.values())
    assert summary.found == summary.new + summary.already + summary.dicomdirs + refused
    assert Counter(aside.values()) == Counter(summary.quarantined) + Counter({"not_dicom": summary.not_dicom})
    assert set(aside.values()) <= {reason.value for reason in Reason}
    assert summary.new == len(pd.read_parquet(paths.manifest)) == len(list(paths.dicom.rglob("*.dcm")))
    if refused:
        assert f"{refused:,} set aside" in summary.describe()


def prepared(paths: Paths) -> dict[str, str]:
    """The reasons for which prepare leaves images out, by their pseudonym."""
    prepare.run(config(), paths)
    index = pd.read_parquet(paths.index)
    assert len(index) == len(pd.read_parquet(paths.manifest))
    return dict(index.loc[index["left_out"].notna(), ["image", "left_out"]].itertuples(index=False))


def take_in(paths: Paths, source: Path, files: dict[str, bytes], **options: Any) -> tuple[IngestSummary, dict[str, str]]:
    """Ingest files named so besides the good ones, then prepare; a file that is taken in has the reason `new`."""
    for name, content in files.items():
        write(source / "hostile" / name, content)
    summary = ingest.run(config(**options), paths, source)
    check_counts(summary, paths)
    aside = quarantined(paths)
    assert not {"!", "hostile/0050x", "zz"} & aside.keys()
    return summary, {name: aside.get(f"hostile/{name}", "new") for name in files}


@pytest.mark.parametrize("syntax", hostile.SYNTAXES.values(), ids=hostile.SYNTAXES)
def test_a_file_cut_at_any_fiftieth_of_its_length_is_set_aside(paths: Paths, source: Path, syntax: str) -> None:
    files = {f"{number:04d}": content for number, content in enumerate(hostile.cuts(hostile.small(1, syntax)))}
    summary, reasons = take_in(paths, source, files)
    assert summary.new == 3
    assert set(reasons.values()) <= {"truncated", "not_dicom", "no_pixel_data", "not_grayscale"}
    assert Counter(reasons.values())["truncated"] > 30
    assert len(prepared(paths)) == 0


GROUPS = {
    "lengths that lie": hostile.lying,
    "immense images": hostile.immense,
    "bottomless sequences": hostile.bottomless,
}


@pytest.mark.parametrize("make", GROUPS.values(), ids=GROUPS)
def test_hostile_files_are_set_aside_with_their_reason(paths: Paths, source: Path, make: Any) -> None:
    cases: dict[str, tuple[bytes, set[str]]] = make()
    started = time.process_time()
    _, reasons = take_in(paths, source, {name: content for name, (content, _) in cases.items()})
    left_out = set(prepared(paths).values())
    assert time.process_time() - started < 60
    assert {name: reason for name, reason in reasons.items() if not cases[name][1] & {reason, "*"} and reason != "new"} == {}
    harmless = {name for name, (_, allowed) in cases.items() if allowed == {"new"}}
    assert {name for name in harmless if reasons[name] != "new"} == set()
    taken = {name for name, reason in reasons.items() if reason == "new"} - harmless
    if taken:  # what passes the door is caught by the decoder
        assert all(cases[name][1] & ({"*"} | left_out) for name in taken), taken


def test_an_attribute_with_another_vr_never_stops_the_others(paths: Paths, source: Path) -> None:
    files = {f"{number:04d}": content for number, content in enumerate(hostile.with_wrong_vrs())}
    _, reasons = take_in(paths, source, files)
    assert len(files) > 150
    assert {"unknown_vr", "truncated", "new"} <= set(reasons.values())
    prepared(paths)


MEASURED = """
    import io, resource, sys, time
    from pipelines.dicom.deidentify import Accept, deidentify
    from pipelines.dicom.pseudonyms import Pseudonyms
    from pipelines.errors import RefusedFileError

    accept, key = Accept(("CR",), "keep"), Pseudonyms(b"x" * 32)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with open(sys.argv[1], "rb") as stream:
            deidentify(stream, key, accept)
        reason = "new"
    except RefusedFileError as error:
        reason = error.reason.value
    print(reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, time.process_time() - started)
"""


def test_a_bomb_of_two_gigabytes_is_refused_in_bounded_time_and_memory(paths: Paths, source: Path, tmp_path: Path) -> None:
    content = hostile.bomb(2 << 30)
    assert len(content) < 3 << 20
    path = write(tmp_path / "bomb", content)
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(MEASURED), path], capture_output=True, text=True, check=True)
    reason, mebibytes, seconds = told.stdout.split()
    assert reason == "absurd_size"
    assert int(mebibytes) < 400
    assert float(seconds) < 20
    _, reasons = take_in(paths, source, {"bomb": content})
    assert reasons == {"bomb": "absurd_size"}


def test_a_file_larger_than_any_radiograph_is_not_read(paths: Paths, source: Path) -> None:
    for name, content in (("image", hostile.small(1)), ("film", b"\0\0\0\x18ftypmp42")):
        with write(source / "hostile" / name, content).open("ab") as stream:
            stream.truncate(1 << 40)  # sparse
    summary = ingest.run(config(), paths, source)
    check_counts(summary, paths)
    assert quarantined(paths) == {"hostile/image": "absurd_size", "hostile/film": "not_dicom"}
    assert list(paths.quarantine.glob("*.bin")) == []


NAMES = (
    b"two\nlines",
    b"tab\tand\rreturn",
    b"\x1b[31mred\x07",
    b"caf\xe9",
    b"\xff\xfe\xfd",
    b"quote\",;'",
    b" blank ",
    b"-rf",
    b"a" * 255,
    "\u202eright to left".encode(),
    "é".encode(),
    "e\u0301".encode(),
)


@pytest.mark.parametrize("content", [b"not a radiograph", None], ids=["bad", "good"])
def test_names_that_are_no_text_are_taken_as_they_are(
    paths: Paths, source: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = os.fsencode(source) + b"/hostile/"
    for number, name in enumerate(NAMES):
        Path(os.fsdecode(folder + name)).write_bytes(content or hostile.small(number))
    summary = ingest.run(config(), paths, source)
    check_counts(summary, paths)
    assert summary.new == 3 + (len(NAMES) if content is None else 0)
    expected = {f"hostile/{os.fsdecode(name)}" for name in NAMES} if content else set()
    assert quarantined(paths).keys() == expected
    said = capfd.readouterr()
    for text in (said.out, said.err, summary.describe()):
        assert not any(os.fsdecode(name) in text for name in NAMES if len(name) > 3)


def test_what_is_no_file_and_what_leads_out_is_passed_over(paths: Paths, source: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "secret", radiograph(5))
    os.mkfifo(source / "pipe")
    (source / "out").symlink_to(tmp_path / "elsewhere" / "secret")
    (source / "folder").symlink_to(tmp_path / "elsewhere")
    (source / "up").symlink_to(source / "..")
    (source / "loop").symlink_to(source)
    (source / "ring").symlink_to(source / "ring")
    (source / "far").symlink_to(source / "a" / "b" / ".." / ".." / ".." / "elsewhere" / "secret")
    summary = ingest.run(config(), paths, source)
    check_counts(summary, paths)
    assert (summary.found, summary.new) == (3, 3)
    assert summary.links_left_out == 5
    assert "5 links that lead out of the source not followed" in summary.describe()


@pytest.fixture
def meddled(monkeypatch: pytest.MonkeyPatch, source: Path, pseudonym_key: str) -> None:
    key = Meddling(pseudonym_key.encode(), source.resolve())
    monkeypatch.setattr(Pseudonyms, "from_environment", lambda: key)
    # a third of a second of work, or three seconds by the clock
    monkeypatch.setattr(ingest, "Intake", lambda *arguments: replace(Intake(*arguments), seconds=0.3))


@pytest.mark.usefixtures("meddled")
@pytest.mark.parametrize("processes_at_once", [1, 2])
def test_a_file_that_crashes_or_hangs_its_process_costs_itself(
    paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch, processes_at_once: int
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: processes_at_once)
    ways = {"CRASH": "undecodable_pixels", "ABORT": "undecodable_pixels", "SPIN": "decoding_took_too_long"}
    ways |= {} if processes_at_once > 1 else {"SLEEP": "decoding_took_too_long", "EAT": "absurd_size"}
    good = {f"{number:04d}": hostile.small(100 + number) for number in range(20)}
    bad = {f"{5 * number:04d}-{way}": hostile.small(300 + number, PatientID=way) for number, way in enumerate(ways)}
    summary, reasons = take_in(paths, source, good | bad)
    assert summary.new == 23
    assert {name: reason for name, reason in reasons.items() if reason != "new"} == {
        name: ways[name.partition("-")[2]] for name in bad
    }


def ingest_here(workspace: Path, source: Path, environment: dict[str, str]) -> int:
    assert multiprocessing.current_process().daemon
    os.environ.update(environment)
    return ingest.run(config(), Paths(workspace), source).new


def test_a_process_that_may_start_no_others_does_the_work_itself(paths: Paths, source: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith("RADTRANSFER_")}
    assert processes.alone(__name__, ingest_begins, ingest_here, paths.workspace, source, environment).result == 3


def ingest_begins() -> None:
    """Nothing is to be done before."""


@pytest.mark.usefixtures("meddled")
@pytest.mark.parametrize("way", ["GROW", "VANISH", "REPLACE", "PIPE"])
def test_a_file_that_changes_while_it_is_read_is_set_aside_and_taken_later(paths: Paths, source: Path, way: str) -> None:
    before = hostile.small(5, PatientID=way)
    summary, reasons = take_in(paths, source, {"meddled": before})
    assert (summary.new, reasons) == (3, {"meddled": "changed_while_read"})
    path = source / "hostile" / "meddled"
    path.unlink(missing_ok=True)
    write(path, hostile.small(5))
    later = ingest.run(config(), paths, source)
    assert (later.new, later.already, later.quarantined) == (1, 3, {})
    assert json.loads(paths.flow.read_text())["set_aside"] == {}


def test_a_file_that_vanishes_before_it_is_read_stops_nothing(
    paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ingest.list_files

    def and_one_more(*arguments: Any) -> Any:
        listing = real(*arguments)
        return replace(listing, files=(*listing.files, "gone", "!/no folder"))

    monkeypatch.setattr(ingest, "list_files", and_one_more)
    summary = ingest.run(config(), paths, source)
    check_counts(summary, paths)
    assert (summary.new, summary.quarantined) == (3, {"changed_while_read": 2})


UNPRIVILEGED = """
    import sys
    from pathlib import Path
    from pipelines.config import Config
    from pipelines.paths import Paths
    from pipelines.stages import ingest

    config = Config.model_validate({"ingest": {"burned_in": "keep"}})
    summary = ingest.run(config, Paths(Path(sys.argv[1])), Path(sys.argv[2]))
    print(summary.new, summary.already, summary.quarantined)
"""


def test_a_file_that_may_not_be_read_is_set_aside_and_tried_again(paths: Paths, source: Path) -> None:
    closed = write(source / "hostile" / "closed", hostile.small(5))
    then = time.time() - 3600
    os.utime(closed, (then, then))
    closed.chmod(0)
    # root may read everything, unless it gives that up
    weak = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if weak and not shutil.which("setpriv"):
        absent("setpriv of util-linux is not installed")
    command = [*weak, sys.executable, "-c", textwrap.dedent(UNPRIVILEGED), str(paths.workspace), str(source)]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert told == ["3 0 {'unreadable_header': 1}\n", "0 3 {'unreadable_header': 1}\n"]
    assert quarantined(paths) == {"hostile/closed": "unreadable_header"}
    closed.chmod(0o600)  # its size, time and place are what they were
    os.utime(closed, (then, then))
    assert ingest.run(config(), paths, source).new == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a small disk is mounted by root, and where mounting is allowed")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


PLACES = ("workspace", "quarantine")


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_ends_in_clear_words_loses_nothing_and_goes_on(
    place: str, tmp_path: Path, small_disk: Path, pseudonym_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.errors import StorageError, discreet

    source = tmp_path / f"{CANARY}-source"
    for number in range(40):
        write(source / f"good{number:02d}", hostile.small(number, rows=160, columns=160))
        write(source / f"half{number:02d}", hostile.small(500 + number, rows=160, columns=160)[:40_000])
    folders = {"workspace": tmp_path / "workspace", "quarantine": tmp_path / "quarantine"} | {place: small_disk / place}
    folders["workspace"].mkdir()
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(folders["quarantine"]))
    paths = Paths(folders["workspace"])
    filler = write(small_disk / "filler", bytes(600_000))
    with (
        pytest.raises(StorageError, match=r"no space is left on a disk .* it goes on where it stopped") as caught,
        discreet(),
    ):
        ingest.run(config(), paths, source)
    assert (caught.value.exit_code, CANARY in str(caught.value)) == (1, False)
    half = {path.name for path in paths.dicom.rglob("*.dcm")}
    assert (0 < len(half) < 40) or place == "quarantine"
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    summary = ingest.run(config(), paths, source)
    assert (summary.found, summary.images, summary.quarantined) == (80, 40, {"truncated": 40})
    assert half <= {path.name for path in paths.dicom.rglob("*.dcm")}
    aside = quarantined(paths)
    assert set(aside) == {f"half{number:02d}" for number in range(40)}
    assert len(list(paths.quarantine.glob("*.bin"))) == 40
    assert [path for path in folders[place].rglob("*") if path.name.endswith(".tmp") or ".incoming" in path.parts] == []
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(tmp_path / "other quarantine"))
    ingest.run(config(), Paths(tmp_path / "other"), source)
    for path in Paths(tmp_path / "other").data.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (paths.data / path.relative_to(tmp_path / "other" / "data")).read_bytes()


def test_the_command_line_says_what_was_set_aside_and_ends_well(
    paths: Paths, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import actions
    from pipelines.__main__ import app

    monkeypatch.setattr(actions, "ingest_and_version", lambda paths, source, labels: ingest.run(config(), paths, source, labels))
    monkeypatch.setattr(actions, "keep", lambda *_: None)
    monkeypatch.setattr("pipelines.__main__.opened", lambda *_, **__: paths)
    write(source / "hostile" / "cut", hostile.small(1)[:700])
    done = CliRunner().invoke(app, ["ingest", str(source), "--json"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["new"], told["quarantined"]) == (3, {"truncated": 1})


@dataclass
class Toll:
    """What came of many mutated files.

    Attributes:
        refused: at the door, by reason.
        left_out: by prepare, by reason.
        lost: processes that died or hung at the door, or in prepare.
    """

    files: int = 0
    new: int = 0
    already: int = 0
    prepared: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


def fuzz(seeds: range, files: list[bytes], paths: Paths, folder: Path, toll: Toll, **options: Any) -> None:
    """Ingest and prepare one mutated file for each seed, and check that all are accounted for."""
    for seed in seeds:
        content = hostile.mutated(seed, files)
        write(folder / f"{seed:06d}", content.replace(hostile.uid_of(0).encode(), hostile.uid_of(seed).encode()))
    summary = ingest.run(config(**options), paths, folder)
    check_counts(summary, paths)
    for path in paths.dicom.rglob("*.dcm"):
        head = path.read_bytes().partition(b"\xe0\x7f\x10\0")[0]
        assert not any(name in head for name in (b"Somewhere", b"Doe^", b"MRN", hostile.uid_of(0)[:-8].encode()))
    toll.files += summary.found
    toll.new += summary.new
    toll.already += summary.already
    toll.refused += Counter(quarantined(paths).values())
    if summary.new:
        left_out = prepared(paths)
        toll.left_out += Counter(left_out.values())
        toll.prepared += summary.new - len(left_out)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many files ended their process or had to be judged alone, at the door and in prepare."""
    counted: Counter[str] = Counter()
    results = Crew.results

    def count_lost(crew: Crew[Any, Any], items: Any) -> Iterator[Any]:
        for result in results(crew, items):
            if isinstance(result, Lost):
                counted[f"{crew.name} {result.name}"] += 1
            yield result

    monkeypatch.setattr(Crew, "results", count_lost)
    return counted


def generated() -> list[bytes]:
    return [hostile.small(0, syntax) for syntax in hostile.SYNTAXES.values()]


def test_five_hundred_mutated_files_are_accounted_for(paths: Paths, tmp_path: Path, lost: Counter[str]) -> None:
    toll, started = Toll(lost=lost), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fuzz(range(500), generated(), paths, tmp_path / "source", toll)
    assert toll.files == 500 == toll.new + toll.already + toll.refused.total()
    assert toll.new > 50
    assert len(toll.refused) >= 6
    assert not toll.lost
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started < 500 << 10


@pytest.mark.nightly
@pytest.mark.timeout(4 * 3600)
def test_twenty_thousand_mutated_files_are_accounted_for(
    shared: Path, tmp_path: Path, lost: Counter[str], monkeypatch: pytest.MonkeyPatch, pseudonym_key: str
) -> None:
    """In forty workspaces; real files among the generated ones, and every tenth batch searched for text in its pixels."""
    real = [path.read_bytes() for path in sorted((shared / "data" / "conformance").glob("*.dcm"))]
    toll, slowest = Toll(lost=lost), 0.0
    for batch in range(40):
        folder = tmp_path / f"batch{batch}"
        monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(folder / "quarantine"))
        (folder / "workspace").mkdir(parents=True)
        seeds = range(10**6 + 500 * batch, 10**6 + 500 * (batch + 1))
        files = generated() * 5 + [real[batch % len(real)]]
        options = {"burned_in": "clean"} if batch % 10 == 9 else {}
        started = time.perf_counter()
        fuzz(seeds, files, Paths(folder / "workspace"), folder / "source", toll, **options)
        slowest = max(slowest, time.perf_counter() - started)
        shutil.rmtree(folder)
    told = {"files": toll.files, "new": toll.new, "already": toll.already, "prepared": toll.prepared}
    outcome = told | {"refused": toll.refused, "left out": toll.left_out, "lost": toll.lost, "slowest batch, s": slowest}
    sys.stdout.write(json.dumps(outcome) + "\n")  # seen with `-s`
    assert toll.files == 20_000 == toll.new + toll.already + toll.refused.total()
    assert not toll.lost
