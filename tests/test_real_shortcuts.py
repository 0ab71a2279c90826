"""The shortcut audit on real chest radiographs, whose labels were found in other tools to lie in border and shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import actions, config, files, workspace
from pipelines.paths import Paths
from pipelines.stages import audit_shortcuts, check, prepare, split
from pipelines.stages.audit_shortcuts import AuditShortcutsSummary

pytestmark = pytest.mark.real

SETTINGS = (
    "ingest.burned_in=keep",  # text in the pixels is what other tests are about, and reading it takes a minute
    "prepare.size=96",
    "split.validation=0.2",
    "split.test=0.3",
)


@pytest.fixture(scope="module")
def adults(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Paths, AuditShortcutsSummary]:
    return audited(shared / "data" / "adult_cxr", tmp_path_factory.mktemp("adults"))


def audited(hospital: Path, home: Path) -> tuple[Paths, AuditShortcutsSummary]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADTRANSFER_PSEUDONYM_KEY", "a-key-for-tests-only-0123456789abcdef")
        patch.setenv("RADTRANSFER_QUARANTINE", str(home / "quarantine"))
        paths = Paths(home / "ws")
        workspace.create(paths)
        workspace.set_params(paths, SETTINGS)
        actions.ingest_source(paths, hospital, hospital / "labels.csv")
    settings = config.load(paths.params)
    for stage in (prepare, check, split):
        stage.run(settings, paths)
    return paths, audit_shortcuts.run(settings, paths)


def test_the_alarm_is_raised_by_what_cannot_see_the_lungs(adults: tuple[Paths, AuditShortcutsSummary]) -> None:
    _, summary = adults
    assert "surroundings" in summary.alarms
    assert set(summary.alarms) <= {"border", "surroundings"}
    assert "the label can be told without seeing a finding" in summary.describe()


def test_the_alarm_is_raised_by_the_border_and_the_shape_of_childrens_radiographs(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, summary = audited(shared / "data" / "paediatric_cxr", tmp_path_factory.mktemp("children"))
    assert set(summary.alarms) == {"border", "shape", "surroundings"}


@pytest.mark.parametrize(
    ("shortcut", "low", "high"), [("border", 0.62, 0.8), ("histogram", 0.68, 0.84), ("thumbnail", 0.76, 0.9)]
)
def test_each_shortcut_knows_about_as_much_as_elsewhere(
    adults: tuple[Paths, AuditShortcutsSummary], shortcut: str, low: float, high: float
) -> None:
    """Other tools' figures, on one split: border 0.78, histogram 0.77, an 8 × 8 thumbnail 0.83."""
    _, summary = adults
    assert low < summary.shortcuts[shortcut]["macro"]["everyone"]["value"] < high


def test_labels_dealt_out_anew_among_the_patients_raise_no_alarm(adults: tuple[Paths, AuditShortcutsSummary]) -> None:
    """What is left is chance: the same images and headers, and a label that has nothing to do with them."""
    paths, _ = adults
    settings = config.load(paths.params, ["audit_shortcuts.bootstrap=200"])
    labels, split_rows = files.read_table(paths.labels, made_by="ingest"), files.read_table(paths.split, made_by="split")
    patient = split_rows.set_index("image")["patient"]
    names = sorted(set(patient))
    drawn = dict(zip(names, (number % 2 for number in range(len(names))), strict=True))
    files.write_table(paths.labels, labels.assign(pneumonia=[float(drawn[patient[image]]) for image in labels["image"]]))
    try:
        assert audit_shortcuts.run(settings, paths).alarms == {}
    finally:
        files.write_table(paths.labels, labels)
