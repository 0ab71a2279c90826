from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pipelines.config import Config, PrepareSection
from pipelines.errors import MissingInputError
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.imaging.store import ArrayStore
from pipelines.paths import Paths
from pipelines.records import INDEX, MANIFEST
from pipelines.stages.prepare import PrepareSummary, recipe_of, run

CONFIG = Config(prepare=PrepareSection(size=32, shard_images=4, workers=2))
RECIPE = Recipe(32, "uint8", (0.5, 99.5))


def _write_image(path: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 4096, (40, 30)).astype(np.uint16)
    if number == 5:
        pixels[:] = 7
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", f"2.25.{number}"
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = (
        dataset.SOPClassUID,
        f"2.25.{number}",
    )
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dcmwrite(path, dataset, enforce_file_format=True)


def _fact(number: int) -> dict[str, Any]:
    facts: dict[str, Any] = dict.fromkeys(MANIFEST)
    numbers = {"age_years": 40.0, "rows": 40, "columns": 30, "bits_stored": 12, "spacing_mm": 0.2}
    names = {"image": f"2.25.{number}", "file": f"dicom/{number}.dcm", "patient": f"P{number // 2}", "modality": "DX"}
    return facts | numbers | names


def _manifest(paths: Paths, numbers: list[int]) -> None:
    for number in numbers:
        _write_image(paths.data / f"dicom/{number}.dcm", number)
    pd.DataFrame([_fact(number) for number in numbers]).to_parquet(paths.manifest)


def _bytes(paths: Paths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(paths.prepared.iterdir())}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "workspace")
    _manifest(paths, [11, 10, *range(10)])
    return paths


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run writes."""
    paths = Paths(tmp_path_factory.mktemp("whole"))
    _manifest(paths, [11, 10, *range(10)])
    run(CONFIG, paths)
    return _bytes(paths)


def test_every_image_has_a_row_and_an_array_or_a_reason(paths: Paths) -> None:
    (paths.data / "dicom/3.dcm").write_bytes((paths.data / "dicom/3.dcm").read_bytes()[:-100])
    summary = run(CONFIG, paths)
    assert summary.left_out == {"constant_image": 1, "truncated": 1}
    assert (summary.images, summary.prepared, summary.new) == (12, 10, 12)
    index = pd.read_parquet(paths.index)
    assert list(index.columns) == list(INDEX)
    assert index["image"].tolist() == sorted(f"2.25.{number}" for number in range(12))
    left_out = index.set_index("image").loc[["2.25.3", "2.25.5"]]
    assert left_out["left_out"].tolist() == ["truncated", "constant_image"]
    assert (left_out[["shard", "row"]] == -1).all(axis=None)
    assert left_out[["window", "mean", "std", "dark", "bright", "pixel_hash", "perceptual_hash"]].isna().all(axis=None)
    used = index[index["left_out"].isna()]
    assert used[["shard", "row"]].value_counts().max() == 1
    arrays = ArrayStore(paths.prepared).take(used["shard"].to_numpy(), used["row"].to_numpy())
    for image, mean, pixel_hash, array in zip(used["image"], used["mean"], used["pixel_hash"], arrays, strict=True):
        alone = prepare(read(paths.data / f"dicom/{image.removeprefix('2.25.')}.dcm"), RECIPE)
        np.testing.assert_array_equal(array, alone.array)
        assert (mean, pixel_hash) == (alone.mean, alone.pixel_hash)


def test_facts_of_the_manifest_are_taken_over(paths: Paths) -> None:
    run(CONFIG, paths)
    index = pd.read_parquet(paths.index).set_index("image")
    assert index.loc["2.25.9", ["patient", "modality", "age_years", "spacing_mm"]].tolist() == ["P4", "DX", 40.0, 0.2]
    changed = pd.read_parquet(paths.manifest).assign(body_part="CHEST")
    changed.to_parquet(paths.manifest)
    assert run(CONFIG, paths).new == 0
    assert set(pd.read_parquet(paths.index)["body_part"]) == {"CHEST"}


def test_a_second_run_decodes_nothing_and_writes_the_same_bytes(paths: Paths, whole: dict[str, bytes]) -> None:
    run(CONFIG, paths)
    assert _bytes(paths) == whole
    summary = run(CONFIG, paths)
    assert (summary.new, summary.prepared, summary.images_per_second) == (0, 11, 0)
    assert _bytes(paths) == whole


def test_the_number_of_workers_does_not_change_a_byte(paths: Paths, whole: dict[str, bytes]) -> None:
    run(Config(prepare=CONFIG.prepare.model_copy(update={"workers": 1})), paths)
    assert _bytes(paths) == whole


def test_added_images_add_shards_and_old_shards_keep_their_bytes(paths: Paths, whole: dict[str, bytes]) -> None:
    run(CONFIG, paths)
    _manifest(paths, list(range(18)))
    summary = run(CONFIG, paths)
    assert (summary.images, summary.new) == (18, 6)
    after = _bytes(paths)
    assert {name: after[name] for name in whole if name.startswith("shard")} == {
        name: content for name, content in whole.items() if name.startswith("shard")
    }
    assert sorted(set(after) - set(whole)) == [f"shard-0000{n}.{end}" for n in (3, 4) for end in ("npy", "parquet")]
    assert len(pd.read_parquet(paths.index)) == 18


def test_images_that_left_the_manifest_leave_the_index_and_come_back_without_decoding(
    paths: Paths, whole: dict[str, bytes]
) -> None:
    run(CONFIG, paths)
    full = pd.read_parquet(paths.manifest)
    full[full["image"] != "2.25.4"].to_parquet(paths.manifest)
    assert run(CONFIG, paths).images == 11
    assert "2.25.4" not in set(pd.read_parquet(paths.index)["image"])
    full.to_parquet(paths.manifest)
    assert run(CONFIG, paths).new == 0
    assert _bytes(paths) == whole


def test_another_recipe_prepares_everything_again(paths: Paths) -> None:
    run(CONFIG, paths)
    other = Config(prepare=CONFIG.prepare.model_copy(update={"depth": "uint16"}))
    assert run(other, paths).new == 12
    assert ArrayStore(paths.prepared).dtype == np.uint16
    assert len(list(paths.prepared.glob("shard-*.npy"))) == 3


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path

def die(*arguments):
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

def main():
    from pipelines import files
    from pipelines.config import Config, PrepareSection
    from pipelines.paths import Paths
    from pipelines.stages.prepare import run

    moment = sys.argv[2]
    write_table = files.write_table
    if moment == "between array and table":
        files.write_table = lambda path, table: write_table(path, table) if "00001" not in path.name else die()
    if moment == "before the index":
        files.write_table = lambda path, table: write_table(path, table) if "index" not in path.name else die()
    run(Config(prepare=PrepareSection(size=32, shard_images=4, workers=2)), Paths(Path(sys.argv[1])))

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("moment", ["between array and table", "before the index"])
def test_a_killed_run_goes_on_and_ends_with_the_bytes_of_an_undisturbed_one(
    moment: str, paths: Paths, whole: dict[str, bytes], tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = subprocess.run([sys.executable, script, paths.workspace, moment], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    _wait_until_gone([int(pid) for pid in killed.stdout.split()])
    assert not paths.index.exists()
    assert len(list(paths.prepared.glob("shard-*.parquet"))) == (3 if moment == "before the index" else 1)
    (paths.prepared / ".shard-00001.npy.x.tmp").write_bytes(b"half of one")
    assert run(CONFIG, paths).new == (0 if moment == "before the index" else 8)
    assert _bytes(paths) == whole


def _wait_until_gone(pids: list[int]) -> None:
    """Workers of a killed run end by themselves."""
    until = time.monotonic() + 10
    while (left := [pid for pid in pids if _alive(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_read_only_store_is_added_to_by_renames(paths: Paths) -> None:
    run(CONFIG, paths)
    for path in paths.prepared.iterdir():
        path.chmod(0o444)
    _manifest(paths, list(range(13)))
    assert run(CONFIG, paths).new == 1


def test_without_a_manifest_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"manifest\.parquet.*radtransfer ingest"):
        run(CONFIG, Paths(tmp_path))


def test_files_that_are_not_there_are_counted_before_anything_is_decoded(paths: Paths) -> None:
    (paths.data / "dicom/3.dcm").unlink()
    with pytest.raises(MissingInputError, match=r"1 of the 12 new files.*dvc pull"):
        run(CONFIG, paths)


def test_the_progress_shows_images_and_megabytes_a_second_and_the_time_left(
    paths: Paths, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    run(CONFIG, paths)
    assert re.search(r"prepare .*12/12 [\d,]+ images/s \d:\d\d:\d\d [\d.]+ MB/s", capfd.readouterr().err)


def test_every_choice_of_the_section_that_decides_the_arrays_is_in_the_recipe(paths: Paths) -> None:
    chosen = {"window": "HARDER", "for_processing": "render", "crop": True, "flip_right": ("HAND",), "flip_views": ("RL",)}
    recipe = recipe_of(CONFIG.prepare.model_copy(update=chosen))
    assert {name: getattr(recipe, name) for name in chosen} == chosen
    run(Config(prepare=CONFIG.prepare.model_copy(update=chosen)), paths)
    assert ArrayStore(paths.prepared).recipe == recipe


def test_the_summary_says_what_was_done() -> None:
    summary = PrepareSummary(1200, 1190, 300, {"constant_image": 4, "truncated": 6}, 3.2, 120.4)
    text = summary.describe()
    assert "1,190" in text
    assert "300" in text
    assert "120 images/s" in text
    assert "left out: 4 × constant_image" in text


@pytest.mark.parametrize("keep", [lambda number: number != 5, lambda number: number == 5], ids=["none left out", "all left out"])
def test_column_types_do_not_depend_on_what_is_missing(keep: Callable[[int], bool], tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    _manifest(paths, [number for number in range(4, 7) if keep(number)])
    run(CONFIG, paths)
    types = pd.read_parquet(paths.index).dtypes
    assert all(types[name] == "str" for name in ("window", "pixel_hash", "perceptual_hash", "left_out"))
    assert all(types[name] == "float64" for name in ("mean", "std", "dark", "bright"))
    assert all(types[name] == "int64" for name in ("shard", "row"))
