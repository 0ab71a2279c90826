"""A model that is written, loaded elsewhere, and asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from pipelines.errors import MissingInputError, WeightsError
from pipelines.imaging.radiograph import Recipe, prepare, read
from pipelines.inference import Model, ModelCard
from pipelines.models import backbones, heads
from pipelines.models.passports import LoadReport, Passport
from pipelines.models.provenance import Normalisation
from pipelines.records import Task

HALF = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TASKS = (
    Task("binary", ("opacity",)),
    Task("multilabel", ("opacity", "effusion")),
    Task("multiclass", ("finding",), ("none", "bacterial", "viral")),
)
PASSPORT = Passport(
    name="tiny",
    backbone="resnet10",
    source="phantom",
    architecture="radtransfer resnet10",
    file="tiny.safetensors",
    sha256="0" * 64,
    licence="Apache-2.0",
    key_map="radtransfer",
    trained_on="nothing",
)


def make_model(task: Task = TASKS[0], **changes: Any) -> Model:
    torch.manual_seed(1)
    network = backbones.build("resnet10", outputs=len(task.outputs), dropout=0.2, normalisation=HALF)
    card = ModelCard(
        backbone="resnet10",
        task=task,
        dropout=0.2,
        normalisation=HALF,
        recipe=Recipe(48, "uint8", (0.5, 99.5)),
        strategy={"name": "full"},
        passport=None,
        weights=None,
        seed=17,
        thresholds=dict.fromkeys(task.outputs, 0.5),
        training={"epochs": 3},
    )
    return Model(replace(card, **changes), network.eval(), torch.device("cpu"))


def radiograph(seed: int = 0, **changes: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 4096, (60, 50)).astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality, dataset.PhotometricInterpretation = "CR", "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes()
    for name, value in changes.items():
        setattr(dataset, name, value)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_model_answers_the_same_after_writing_and_loading(task: Task, tmp_path: Path) -> None:
    model = make_model(task).write(tmp_path)
    loaded = Model.load(tmp_path, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48)).astype(np.uint8)
    assert loaded.card == model.card
    assert np.allclose(loaded.probabilities(images), model.probabilities(images), atol=1e-6)
    assert loaded.probabilities(images).shape == (5, len(task.outputs))
    assert loaded.probabilities(images).dtype == np.float32
    assert not loaded.network.training


def test_the_card_keeps_passport_and_load_report(tmp_path: Path) -> None:
    report = LoadReport(60, ("bn1.num_batches_tracked",), ("fc.weight",), "ab" * 32)
    model = make_model(passport=PASSPORT, weights=report).write(tmp_path)
    card = Model.load(tmp_path, "cpu").card
    assert (card.passport, card.weights) == (PASSPORT, report)
    assert card.sha256 == model.card.sha256 != ""


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_model().write(tmp_path / name)
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_probabilities_are_a_sigmoid_or_a_softmax_of_the_logits() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    floats = torch.from_numpy(images)[:, None].float() / 255
    for task, function in ((TASKS[1], torch.sigmoid), (TASKS[2], lambda logits: logits.softmax(dim=1))):
        model = make_model(task)
        with torch.no_grad():
            expected = function(model.network(floats))
        assert np.allclose(model.probabilities(images), expected.numpy(), atol=1e-6)


def test_batches_do_not_change_answers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 48, 48)).astype(np.uint8)
    model = make_model()
    together = model.probabilities(images)
    alone = np.concatenate([model.probabilities(image[None]) for image in images])
    assert np.allclose(together, alone, atol=1e-6)
    assert model.probabilities(images[:0]).shape == (0, 1)


def test_both_depths_of_the_same_image_get_the_same_answer() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    model = make_model()
    deep = (images.astype(np.uint16) * 257).astype(np.uint16)
    assert np.allclose(model.probabilities(images), model.probabilities(deep), atol=1e-6)


def test_files_are_answered_in_order_and_refused_ones_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(radiograph(1))
    model = make_model(TASKS[1])
    table = model.predict([tmp_path / "a.dcm", b"not DICOM", radiograph(2), radiograph(3, NumberOfFrames=3)])
    assert list(table.columns) == ["source", "left_out", "p_opacity", "positive_opacity", "p_effusion", "positive_effusion"]
    assert table["source"].tolist() == [0, 1, 2, 3]
    assert table["left_out"].tolist() == [None, "not_dicom", None, "multi_frame"]
    assert table["p_opacity"].isna().tolist() == table["positive_opacity"].isna().tolist() == [False, True, False, True]
    arrays = np.stack([prepare(read(radiograph(seed)), model.card.recipe).array for seed in (1, 2)])
    expected = model.probabilities(arrays)
    assert np.allclose(table.loc[[0, 2], ["p_opacity", "p_effusion"]].to_numpy(), expected, atol=1e-6)


def test_a_probability_at_the_threshold_is_positive() -> None:
    probability = float(make_model().predict([radiograph()])["p_opacity"][0])
    for threshold, positive in ((probability, True), (float(np.nextafter(np.float32(probability), np.float32(1))), False)):
        model = make_model(thresholds={"opacity": threshold})
        assert model.predict([radiograph()])["positive_opacity"].tolist() == [positive]


def test_a_multiclass_answer_names_the_likeliest_class() -> None:
    table = make_model(TASKS[2]).predict([radiograph(), b""])
    answers = table.loc[0, [f"p_{name}" for name in TASKS[2].classes]].to_numpy(dtype=float)
    assert table["class"].tolist() == [TASKS[2].classes[int(answers.argmax())], None]
    assert answers.sum() == pytest.approx(1)


def test_more_files_than_a_batch_are_all_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.inference.BATCH", 2)
    table = make_model().predict(radiograph(seed) for seed in (1, 2, 3))
    assert len(table) == 3
    assert table["p_opacity"].notna().all()


def test_no_files_give_an_empty_table() -> None:
    assert make_model().predict([]).empty


def test_an_empty_folder_says_which_command_makes_a_model(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"model\.json: expected what `radtransfer train` writes"):
        Model.load(tmp_path)


def edit(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    values = json.loads((folder / "model.json").read_text())
    change(values)
    (folder / "model.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: expected SHA-256 .*, got no file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"other"), r"model\.safetensors: expected SHA-256 .*, got"),
        (lambda folder: edit(lambda card: card.update(format=9), folder), r"model\.json: expected format 1, got 9"),
        (lambda folder: edit(lambda card: card.pop("task"), folder), r"model\.json: KeyError 'task'"),
        (
            lambda folder: edit(lambda card: card["architecture"].update(backbone="resnet18"), folder),
            r"model\.safetensors: does not fit a resnet18 with 1 outputs",
        ),
    ],
    ids=["no weights", "altered weights", "another format", "a field missing", "another network"],
)
def test_a_spoiled_model_is_refused(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make_model().write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(WeightsError, match=message):
        Model.load(tmp_path, "cpu")


def test_a_card_of_before_heads_had_kinds_is_read_as_linear(tmp_path: Path) -> None:
    written = make_model().write(tmp_path)
    edit(lambda card: card["architecture"].pop("head"), tmp_path)
    images = np.zeros((2, 48, 48), np.uint8)
    loaded = Model.load(tmp_path, "cpu")
    assert loaded.card.head == {"kind": "linear"}
    assert np.allclose(loaded.probabilities(images), written.probabilities(images), atol=1e-6)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_a_model_of_neighbours_answers_the_same_once_it_is_loaded(task: Task, tmp_path: Path) -> None:
    model, outputs = make_model(task), len(task.outputs)
    labels = torch.eye(outputs).repeat(3, 1) if task.kind == "multiclass" else torch.arange(6 * outputs).view(6, -1) % 2.0
    if task.kind == "multilabel":
        labels[0, 1] = float("nan")
    head = heads.Neighbours(len(labels), 128, outputs, neighbours=3, exclusive=task.kind == "multiclass")
    model.network.head = head.remember(torch.rand(len(labels), 128, generator=torch.Generator().manual_seed(2)), labels)
    model = replace(model, card=replace(model.card, head=heads.describe(head))).write(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (3, 48, 48)).astype(np.uint8)
    loaded = Model.load(tmp_path, "cpu")
    assert np.allclose(loaded.probabilities(images), model.probabilities(images), atol=1e-6)
    assert np.isfinite(loaded.probabilities(images)).all()


def test_a_head_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    make_model().write(tmp_path)
    edit(lambda card: card["architecture"]["head"].update(kind="forest"), tmp_path)
    with pytest.raises(WeightsError, match="head: expected linear, mlp or knn, got 'forest'"):
        Model.load(tmp_path, "cpu")
