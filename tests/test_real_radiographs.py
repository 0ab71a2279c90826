"""The whole job on real chest radiographs with real ImageNet weights, stage by stage."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian

from pipelines import actions, config, files, workspace
from pipelines.config import Config
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.paths import Paths
from pipelines.stages import audit_shortcuts, check, evaluate, ingest, predict, prepare, register, split, train

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

KEY = "a-key-for-tests-only-0123456789abcdef"

# the ends of the UIDs of images that show the time of day, though no header says so
TIMES = (
    *("902314907751", "898985255859", "302835485296", "843314848408", "013150678871"),
    *("007977923132", "781614732594", "641358018988", "943781361938"),
)

SETTINGS = (
    "prepare.size=128",
    "train.backbone=mobilenet_v2",
    "train.weights=imagenet",
    "train.epochs=2",
    "train.batch_size=32",
    "check.max_left_out=0.2",
    "evaluate.bootstrap=300",
    "evaluate.worst=2",
)


@pytest.fixture(scope="module")
def hospital(shared: Path) -> Path:
    return shared / "data" / "paediatric_cxr"


@pytest.fixture(scope="module")
def prepared(hospital: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A workspace in which everything up to the split has run."""
    home = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADTRANSFER_PSEUDONYM_KEY", KEY)
        patch.setenv("RADTRANSFER_QUARANTINE", str(home / "quarantine"))
        paths = Paths(home / "ws")
        workspace.create(paths)
        workspace.set_params(paths, SETTINGS)
        actions.ingest_source(paths, hospital, hospital / "labels.csv")
    for stage in (prepare, check, split, audit_shortcuts):
        stage.run(config.load(paths.params), paths)
    return paths


def settings(paths: Paths, *overrides: str) -> Config:
    return config.load(paths.params, overrides)


def test_every_file_is_accounted_for(prepared: Paths) -> None:
    flow = files.read_json(prepared.flow, made_by="ingest")
    assert flow["found"] == 800
    assert flow["set_aside"] == {}
    assert flow["images"] == 800
    index = files.read_table(prepared.index, made_by="prepare")
    assert len(index) == flow["images"]
    assert index["left_out"].isna().all()


def test_text_in_pixels_is_blanked_whether_headers_admit_to_it_or_not(prepared: Paths, hospital: Path) -> None:
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in hospital.rglob("*.dcm")]
    written = {path.stem: path for path in prepared.dicom.rglob("*.dcm")}
    pseudonyms = Pseudonyms(KEY.encode())
    admitted = [header for header in headers if header.get("BurnedInAnnotation") == "YES"]
    silent = [header for header in headers if header.SOPInstanceUID.endswith(TIMES)]
    assert (len(admitted), len(silent)) == (23, 9)
    for header in admitted + silent:
        blanked = pydicom.dcmread(written[pseudonyms.uid(header.SOPInstanceUID)], stop_before_pixels=True)
        assert blanked.BurnedInAnnotation == "NO"
        assert blanked.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    summary = files.read_json(prepared.ingest_summary, made_by="ingest")
    assert 32 <= summary["blanked"] < 80


def test_the_only_binary_column_was_declared(prepared: Paths) -> None:
    task = settings(prepared).task
    assert (task.kind, task.targets) == ("binary", ("pneumonia",))


def test_the_shortcuts_of_this_data_set_raise_the_alarm(prepared: Paths) -> None:
    """Whose pneumonia was photographed had another border and another format; other tools find AUROCs of 0.93 and 0.88."""
    found = files.read_json(prepared.shortcuts, made_by="audit-shortcuts")
    known = {name: shortcut["macro"]["everyone"]["value"] for name, shortcut in found["shortcuts"].items()}
    alarms = {name for name, shortcut in found["shortcuts"].items() if shortcut["macro"]["alarm"]}
    assert alarms == {"border", "shape", "surroundings"}
    assert known["border"] > 0.9
    assert known["shape"] > 0.84
    assert known["histogram"] > 0.88


@pytest.mark.parametrize("strategy", ["feature_extraction", "differential"])
def test_transfer_from_imagenet_is_registered_and_refused_for_knowing_no_more_than_shortcuts(
    strategy: str, prepared: Paths, shared: Path, hospital: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RADTRANSFER_WEIGHTS", str(shared / "weights"))
    chosen = settings(prepared, f"train.strategy.name={strategy}")
    trained = train.run(chosen, prepared)
    assert trained.weights == "mobilenet_v2-imagenet1k"
    summary = evaluate.run(chosen, prepared)
    auroc = summary.macro["auroc"]
    assert auroc["low"] is not None
    assert auroc["low"] > 0.85
    assert auroc["low"] < auroc["value"] <= auroc["high"] <= 1
    version = register.run(chosen, prepared)
    (reason,) = version.reasons
    assert reason.startswith("lower end of the 95% interval of the test AUROC minus that of the best shortcut")
    assert reason.endswith("; what the model knows, a shortcut may know too")
    assert (version.status, version.aliases, version.already) == ("rejected", (), False)
    answer = predict.run(chosen, prepared, sorted((hospital / "dicom").rglob("*.dcm"))[:3])
    assert len(answer.predictions) == 3


def test_nothing_new_comes_in_twice(prepared: Paths, hospital: Path, monkeypatch: pytest.MonkeyPatch, pseudonym_key: str) -> None:
    monkeypatch.setenv("RADTRANSFER_QUARANTINE", str(prepared.workspace.parent / "quarantine"))
    before = {path: path.stat().st_mtime_ns for path in prepared.dicom.rglob("*.dcm")}
    summary = ingest.run(settings(prepared), prepared, hospital, hospital / "labels.csv")
    assert summary.new == 0
    assert summary.already == len(before)
    assert {path: path.stat().st_mtime_ns for path in prepared.dicom.rglob("*.dcm")} == before
