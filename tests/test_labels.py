from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pipelines import label_files, labels
from pipelines.config import IngestSection, TaskSection
from pipelines.errors import ConfigurationError, LabelError, SourceError
from pipelines.records import Head, Task

AUTO = IngestSection()
BINARY = Task("binary", ("pneumonia",))


def table(tmp_path: Path, text: str | bytes, config: IngestSection = AUTO) -> label_files.LabelTable:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return label_files.read(path, config)


@pytest.mark.parametrize(
    ("columns", "kind", "column"),
    [
        ("file,SOPInstanceUID,pneumonia", "sop_instance_uid", "SOPInstanceUID"),
        ("sop_instance_uid,pneumonia", "sop_instance_uid", "sop_instance_uid"),
        ("AccessionNumber,file,pneumonia", "accession_number", "AccessionNumber"),
        ("accession,pneumonia", "accession_number", "accession"),
        ("pneumonia,Filename", "file", "Filename"),
        ("path,pneumonia", "file", "path"),
    ],
)
def test_the_key_column_is_found_by_its_name(tmp_path: Path, columns: str, kind: str, column: str) -> None:
    found = table(tmp_path, f"{columns}\n" + ",".join("1" * len(columns.split(","))) + "\n")
    assert (found.kind, found.column) == (kind, column)


def test_the_configuration_can_name_the_key_column(tmp_path: Path) -> None:
    config = IngestSection(labels_column="exam", labels_key="accession_number")
    found = table(tmp_path, "file,exam,pneumonia\na,7,1\n", config)
    assert (found.kind, found.column, found.keys) == ("accession_number", "exam", ("7",))


def test_the_configuration_can_prefer_another_kind_of_key(tmp_path: Path) -> None:
    assert table(tmp_path, "SOPInstanceUID,file,x\n1,a,1\n", IngestSection(labels_key="file")).column == "file"


def test_a_table_without_a_header_line_shows_none_of_its_keys(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a column SOPInstanceUID, AccessionNumber or file, found none") as caught:
        table(tmp_path, "1.2.3.4,1\n1.2.3.5,0\n")
    assert "1.2.3" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (IngestSection(labels_column="missing"), "ingest.labels_column: not a column"),
        (IngestSection(labels_column="exam"), "ingest.labels_key: the name of ingest.labels_column does not say"),
        (IngestSection(labels_key="accession_number"), "expected a column SOPInstanceUID, AccessionNumber or file"),
    ],
)
def test_a_key_column_that_cannot_be_told_is_refused(tmp_path: Path, config: IngestSection, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        table(tmp_path, "file,exam,pneumonia\na,7,1\n", config)


@pytest.mark.parametrize(
    "content",
    [
        "file,pneumonia\na,1\nb,0\n",
        "\ufefffile,pneumonia\r\na,1\r\nb,0\r\n",
        "file;pneumonia\na;1\nb;0",
        "file\tpneumonia\na\t1\n\nb\t0\n",
        " file , pneumonia\n a , 1 \nb,0 \n",
    ],
)
def test_tables_are_read_as_spreadsheets_write_them(tmp_path: Path, content: str) -> None:
    found = table(tmp_path, content)
    assert found.keys == ("a", "b")
    assert labels.parse(found, BINARY) == [(1.0,), (0.0,)]


def test_latin_1_is_read(tmp_path: Path) -> None:
    assert table(tmp_path, "file,pneumonia\ncafé,1\n".encode("latin-1")).keys == ("café",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a line of column names"),
        ("file,pneumonia\n".encode("utf-16"), "not a text file"),
        (b"file,a,a\nx,1,1\n", "two columns have the same name"),
        (b"file,a\nx,1,SECRET\n", "more fields than columns in line 2"),
        (b'file,a\n"x,1\n' + b"y" * 200000, "not CSV from line 2 on"),
    ],
)
def test_what_is_no_table_is_refused_without_showing_it(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        table(tmp_path, content)
    assert "SECRET" not in str(caught.value)


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a CSV file, found none"):
        label_files.read(tmp_path / "missing.csv", AUTO)


@pytest.mark.parametrize(
    ("text", "section"),
    [
        ("file,pneumonia\na,1\nb,\n", TaskSection(kind="binary", targets=("pneumonia",))),
        ("file,A,note,B\na,1,x,0.0\nb,0,y, true \n", TaskSection(kind="multilabel", targets=("A", "B"))),
        ("SOPInstanceUID,StudyInstanceUID,accession,id,A\n1,1,1,1,1\n", TaskSection(kind="binary", targets=("A",))),
        ("file,A,age\na,1,61\n", TaskSection(kind="binary", targets=("A",))),
    ],
)
def test_exactly_the_columns_of_0_and_1_are_declared(tmp_path: Path, text: str, section: TaskSection) -> None:
    assert labels.declare(table(tmp_path, text)) == section


def test_a_text_column_is_suggested_by_name_and_its_values_are_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--set task.kind=multiclass --set 'task.targets=\[etiology\]'") as caught:
        labels.declare(table(tmp_path, "file,etiology\na,VIRAL\nb,BACTERIAL\nc,NONE\n"))
    assert "3 different values" in str(caught.value)
    assert "VIRAL" not in str(caught.value)


def test_a_table_without_labels_declares_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no column of the label table holds only 0 and 1; add a column"):
        labels.declare(table(tmp_path, "file,StudyInstanceUID,empty\na,1,\n"))


@pytest.mark.parametrize(
    ("cell", "label"),
    [("0", 0.0), ("1", 1.0), ("0.0", 0.0), ("1.0", 1.0), (" 1 ", 1.0), ("TRUE", 1.0), ("false", 0.0), ("", None), ("NaN", None)],
)
def test_a_label_is_0_1_or_unknown(tmp_path: Path, cell: str, label: float | None) -> None:
    assert labels.parse(table(tmp_path, f"file,pneumonia\na,{cell}\n"), BINARY) == [(label,)]


@pytest.mark.parametrize("cell", ["2", "-1", "0.5", "yes", "Smith^John"])
def test_any_other_label_is_an_error_that_names_line_and_column_but_not_the_value(tmp_path: Path, cell: str) -> None:
    found = table(tmp_path, f'file,note,pneumonia\na,"two\nlines",1\nb,x,{cell}\nc,y,{cell}\n')
    with pytest.raises(LabelError, match=r"column pneumonia: expected 0, 1 or nothing \(unknown\).* in lines 4, 5") as caught:
        labels.parse(found, BINARY)
    assert cell not in str(caught.value).replace("0, 1", "").replace("4, 5", "")


def test_many_wrong_labels_are_counted(tmp_path: Path) -> None:
    found = table(tmp_path, "file,pneumonia\n" + "a,7\n" * 25)
    with pytest.raises(LabelError, match="lines 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 15 more"):
        labels.parse(found, BINARY)


def test_a_class_must_be_declared(tmp_path: Path) -> None:
    task = Task("multiclass", ("etiology",), ("none", "viral"))
    assert labels.parse(table(tmp_path, "file,etiology\na,viral\nb,none\nc,\n"), task) == [("viral",), ("none",), (None,)]
    with pytest.raises(LabelError, match=r"expected one of task.classes \(none, viral\).* in line 2") as caught:
        labels.parse(table(tmp_path, "file,etiology\na,SECRET\n"), task)
    assert "SECRET" not in str(caught.value)


AGE = Head("regression", ("years",), name="age", unit="years", bounds=(0.0, 120.0))
GRADE = Head("ordinal", ("grade",), ("none", "mild", "severe"), name="severity")
SEVERAL = Task("binary", ("pneumonia",), also=(AGE, GRADE))


def test_every_task_has_its_columns_and_any_label_can_be_missing(tmp_path: Path) -> None:
    found = table(tmp_path, "file,grade,years,pneumonia\na,mild,61.5,1\nb,,,0\nc,none,+6e1,\nd,severe,n/a,nan\n")
    assert labels.parse(found, SEVERAL) == [(1.0, 61.5, "mild"), (0.0, None, None), (None, 60.0, "none"), (None, None, "severe")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,old,mild", r"column years: expected a number from 0 to 120 or nothing \(unknown\), got something else in line 3"),
        ("1,121,mild", "column years: expected a number from 0 to 120 or nothing"),
        ("1,-1,mild", "column years: expected a number from 0 to 120"),
        ("1,inf,mild", "column years: expected a number from 0 to 120"),
        ("1,1_0,mild", "column years: expected a number from 0 to 120"),
        ("1,1e999,mild", "column years: expected a number from 0 to 120"),
        ("1,60,moderate", r"column grade: expected one of task.also.severity.classes \(none, mild, severe\) or nothing"),
        ("1,60,MILD", r"column grade: expected one of task.also.severity.classes"),
        ("2,60,mild", "column pneumonia: expected 0, 1 or nothing"),
    ],
)
def test_a_wrong_label_of_any_task_names_line_and_column_but_neither_key_nor_value(
    tmp_path: Path, row: str, message: str
) -> None:
    found = table(tmp_path, f"file,pneumonia,years,grade\nfirst,1,50,mild\nSECRET,{row}\n")
    with pytest.raises(LabelError, match=message) as caught:
        labels.parse(found, SEVERAL)
    assert "SECRET" not in str(caught.value)
    assert "moderate" not in str(caught.value)


def test_a_number_without_bounds_can_be_any_that_fits(tmp_path: Path) -> None:
    task = Task("binary", ("pneumonia",), also=(Head("regression", ("dose",), name="dose"),))
    assert labels.parse(table(tmp_path, "file,pneumonia,dose\na,1,-1.5e9\n"), task) == [(1.0, -1.5e9)]
    with pytest.raises(LabelError, match=r"column dose: expected a number, as in 12\.5, or nothing"):
        labels.parse(table(tmp_path, "file,pneumonia,dose\na,1,1e39\n"), task)


def test_the_columns_of_further_tasks_must_be_there_and_are_not_declared_as_the_main_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"task\.also: the label table has no column grade"):
        labels.parse(table(tmp_path, "file,pneumonia,years\na,1,60\n"), SEVERAL)
    known = TaskSection.model_validate({"also": {"fracture": {"kind": "binary"}}, "weight": 2.0})
    declared = labels.declare(table(tmp_path, "file,pneumonia,fracture\na,1,0\n"), known)
    assert (declared.kind, declared.targets, declared.also, declared.weight) == ("binary", ("pneumonia",), known.also, 2.0)


def test_a_column_that_is_called_like_a_further_task_is_not_declared_as_the_main_one(tmp_path: Path) -> None:
    known = TaskSection.model_validate({"also": {"pneumonia": {"kind": "ordinal", "targets": ["grade"], "classes": ["a", "b"]}}})
    with pytest.raises(ConfigurationError, match=r"task: with the columns pneumonia, .* pneumonia is one; name the columns in"):
        labels.declare(table(tmp_path, "file,pneumonia,grade\nSECRET,1,a\n"), known)


def test_labels_of_several_tasks_survive_their_table(tmp_path: Path) -> None:
    known = {"2": (1.0, None, "mild"), "1": (None, 61.5, None)}
    made = labels.table(known, SEVERAL)
    assert list(made) == ["image", "pneumonia", "years", "grade"]
    assert [str(dtype) for dtype in made.dtypes] == ["str", "float64", "float64", "str"]
    assert labels.from_table(made, SEVERAL) == known
    spoiled = made.assign(years=500.0, grade="moderate")
    assert labels.from_table(spoiled, SEVERAL) == {"1": (None, None, None), "2": (1.0, None, None)}


def test_a_target_must_be_a_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the label table has no column edema"):
        labels.parse(table(tmp_path, "file,pneumonia\na,1\n"), Task("multilabel", ("pneumonia", "edema")))


def matched(tmp_path: Path, text: str, images: dict[str, list[str]], task: Task = BINARY) -> labels.Matched:
    found = table(tmp_path, text)
    return labels.match(found, labels.parse(found, task), lambda key: images.get(key, []))


def test_a_study_label_goes_to_every_image_of_the_study(tmp_path: Path) -> None:
    joined = matched(tmp_path, "accession,pneumonia\nA,1\nB,0\n", {"A": ["one", "two"]})
    assert joined.labels == {"one": (1.0,), "two": (1.0,)}
    assert joined.unmatched == (1,)


def test_rows_without_a_key_match_nothing(tmp_path: Path) -> None:
    assert matched(tmp_path, "accession,pneumonia\n,1\n", {"": ["one"]}).unmatched == (0,)


def test_rows_of_one_image_complete_each_other(tmp_path: Path) -> None:
    task = Task("multilabel", ("a", "b"))
    joined = matched(tmp_path, "file,a,b\nx,1,\nx,,0\nx,1,0\n", {"x": ["one"]}, task)
    assert joined.labels == {"one": (1.0, 0.0)}


def test_rows_that_contradict_each_other_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="contradict each other, lines 2, 4") as caught:
        matched(tmp_path, "file,pneumonia\nSECRET,1\nother,0\nSECRET,0\n", {"SECRET": ["one"], "other": ["two"]})
    assert "SECRET" not in str(caught.value)


FILES = {"a/IM1.dcm": "one", "b/IM1.dcm": "two", "b/IM2": "three", "b/scan.final.dcm": "four"}


@pytest.mark.parametrize(
    ("key", "images"),
    [
        ("a/IM1.dcm", ["one"]),
        ("./a/IM1.dcm", ["one"]),
        ("a\\IM1.dcm", ["one"]),
        ("a/IM1", ["one"]),
        ("export/a/IM1.dcm", ["one"]),
        ("IM2", ["three"]),
        ("IM2.png", ["three"]),
        ("scan.final", ["four"]),
        ("IM1.dcm", ["one", "two"]),
        ("IM1", ["one", "two"]),
        ("c/IM2", []),
        ("IM3", []),
        ("M2", []),
    ],
)
def test_a_file_is_meant_by_path_or_by_base_name(key: str, images: list[str]) -> None:
    assert label_files.FileNames(FILES)(key) == images


def test_a_base_name_that_several_images_share_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="a file name that several images share, line 3; use paths relative to the source"):
        label_files.refuse_ambiguous(table(tmp_path, "file,x\nIM2,1\nIM1,1\n"), label_files.FileNames(FILES))


@pytest.mark.parametrize(
    ("task", "known"),
    [
        (Task("multilabel", ("a", "b")), {"2": (1.0, None), "1": (0.0, 1.0)}),
        (Task("multiclass", ("c",), ("x", "y")), {"2": ("x",), "1": (None,)}),
    ],
)
def test_labels_come_back_from_their_table(task: Task, known: dict[str, tuple[labels.Label, ...]]) -> None:
    made = labels.table(known, task)
    assert list(made["image"]) == ["1", "2"]
    assert labels.from_table(made, task) == known
    assert labels.from_table(made, Task("binary", ("other",))) == {"1": (None,), "2": (None,)}
    assert made.dtypes["image"] == pd.Series(["x"]).dtype
