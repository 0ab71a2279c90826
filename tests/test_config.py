from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipelines import config, demo
from pipelines.errors import ConfigurationError
from pipelines.records import Head, Task
from pipelines.stages import STAGES


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_the_rendered_defaults_are_read_back_unchanged(tmp_path: Path) -> None:
    assert config.load(written(tmp_path, config.render(config.Config()))) == config.Config()


def test_every_setting_has_a_comment() -> None:
    for line in config.render(config.Config()).splitlines():
        assert not line or "  # " in line, line


def test_params_yaml_of_the_repository_is_rendered_from_the_schema(repository: Path) -> None:
    assert (repository / "params.yaml").read_text() == config.render(demo.settings())


def test_the_policy_of_the_repository_is_rendered_from_the_schema(repository: Path) -> None:
    assert (repository / "mlflow" / "policy.yaml").read_text() == config.render(config.Policy())


def test_every_stage_has_its_section() -> None:
    sections = {field.alias or name for name, field in config.Config.model_fields.items()}
    assert {stage.name for stage in STAGES} <= sections
    assert {section for stage in STAGES for section in stage.params} <= sections


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epoch: 3}", r"params.yaml train.epoch: unknown key; did you mean epochs\?"),
        ("train: {strategy: {decay: 3.0}}", r"train.strategy.decay: input should be less than or equal to 1, got 3.0"),
        ("train: {epochs: many}", r"train.epochs: input should be a valid integer.*got 'many'"),
        ("split: {validation: 0.6, test: 0.5}", r"split: expected validation > 0, test > 0 and validation \+ test < 1"),
        ("task: {kind: multilabel, targets: [effusion, effusion]}", r"task: expected every target and every class once"),
        ("task: {kind: multiclass, targets: [etiology]}", r"task: expected classes for a multiclass task, and only there"),
        ("task: {targets: [a, b]}", r"task: expected one target for a binary task, got 2; set kind: multilabel"),
        ("prepare: {percentiles: [99, 1]}", r"prepare: expected percentiles: .*low < high"),
        ("- a\n- b", r"params.yaml: expected sections, got list"),
        ("a: [", r"params.yaml: not YAML"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config.load(written(tmp_path, text))


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{kind: regression}", r"task.kind: expected binary, multilabel or multiclass for the main task.* task.also: \{NAME: "),
        ("{kind: ordinal}", r"task.kind: expected .* got ordinal; name a main task"),
        ("{also: {age: {kind: regression, untis: years}}}", r"task.also.age.untis: unknown key; did you mean unit\?"),
        ("{also: {age: {}}}", r"task.also.age.kind: field required"),
        ("{also: {grade: {kind: ordinal}}}", r"task.also.grade: expected classes, in order"),
        ("{also: {grade: {kind: ordinal, classes: [one]}}}", r"task.also.grade: expected at least two classes"),
        ("{also: {grade: {kind: binary, unit: mm}}}", r"task.also.grade: expected unit and bounds for a regression"),
        ("{also: {age: {kind: regression, bounds: [9, 1]}}}", r"task.also.age: expected bounds: the least value below"),
        ("{also: {age: {kind: regression, targets: [a, b]}}}", r"task.also.age: expected one target for a regression task"),
        ("{also: {age: {kind: regression, weight: 0}}}", r"task.also.age.weight: input should be greater than 0"),
        ("{targets: [a], also: {a: {kind: regression}}}", r"every label column in one task.* a is in several"),
        ("{targets: [a], also: {a: {kind: binary, targets: [b]}}}", r"task: expected names of further tasks .* a is one"),
        (
            "{also: {x: {kind: ordinal, classes: [a, b]}, y: {kind: multilabel, targets: [x_a, z]}}}",
            r"every output once; x_a is in several",
        ),
        ("{weighting: uncertainty}", r"for weighting: uncertainty several tasks \(also\)"),
        ("{weighting: uncertainty, also: {a: {kind: binary, weight: 2}}}", r"and no weight but 1, since weights are learned"),
        ("{weight: 2}", r"task: expected a weight only where there are further tasks"),
    ],
)
def test_a_wrong_further_task_is_refused_with_its_place(tmp_path: Path, task: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config.load(written(tmp_path, f"task: {task}"))


def test_further_tasks_are_declared_and_survive_rendering(tmp_path: Path) -> None:
    text = """
    task:
      targets: [opacity]
      also:
        age: {kind: regression, unit: years, bounds: [0, 120], weight: 0.5}
        severity: {kind: ordinal, targets: [grade], classes: [none, mild, severe]}
    """
    loaded = config.load(written(tmp_path, text))
    assert config.load(written(tmp_path, config.render(loaded))) == loaded
    age = Head("regression", ("age",), name="age", unit="years", bounds=(0.0, 120.0), weight=0.5)
    severity = Head("ordinal", ("grade",), ("none", "mild", "severe"), name="severity")
    declared = loaded.task.declared()
    assert declared.also == (age, severity)
    assert declared.labels == ("opacity", "age", "grade")
    assert declared.main == Task("binary", ("opacity",))
    assert Task.from_dict(declared.to_dict()) == declared
    more = config.overridden(loaded, ["task.also.age.weight=2", "task.also.fracture={kind: binary}"]).task.declared()
    assert [(head.title, head.weight) for head in more.heads] == [("opacity", 1), ("age", 2), ("severity", 1), ("fracture", 1)]


def test_a_missing_file_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"params.yaml: .*found nothing; run `radtransfer init DIR`"):
        config.load(tmp_path / "params.yaml")


def test_overrides_are_yaml_and_leave_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {epochs: 3}")
    loaded = config.load(path, ["train.strategy.name=full", "task.targets=[a]", "train.strategy.learning_rate=1e-4"])
    assert loaded.train.strategy.name == "full"
    assert loaded.train.epochs == 3
    assert loaded.task.targets == ("a",)
    assert loaded.train.strategy.learning_rate == 1e-4
    assert yaml.safe_load(path.read_text()) == {"train": {"epochs": 3}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", r"--set: expected section.key=value, got 'train.epochs'"),
        ("train..x=1", r"--set: expected section.key=value"),
        ("train.epochs=[", r"--set train.epochs: the value is not YAML"),
        ("train.seed.x=1", r"--set train.seed.x: seed holds a value, not keys"),
        ("train.bogus=1", r"train.bogus: unknown key"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config.load(written(tmp_path, "train: {seed: 3}"), [override])


def test_an_undeclared_task_says_how_to_declare_it() -> None:
    with pytest.raises(ConfigurationError, match=r"task.targets: .*got \[\]; run `radtransfer ingest"):
        config.Config().task.declared()


def test_settings_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        config.Config().train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ingest.kind=ftp", r"ingest.kind: input should be 'folder', 'dicomweb', 'dimse' or 'inbox', got 'ftp'"),
        ("ingest.dicomweb.url=pacs.example.org", r"ingest.dicomweb: expected url: an address such as https://"),
        ("ingest.dicomweb.url=https://pacs.example.org/dicom-web?PatientID=1", r"ingest.dicomweb: expected url: an address"),
        ("ingest.dicomweb.url=https://me:secret@pacs.example.org/x", r"no user or password; set them in the environment"),
        ("ingest.dimse.called_ae=SEVENTEEN_LETTERS", r"ingest.dimse.called_ae: expected an AE title of 1 to 16 ASCII characters"),
        ("ingest.dimse.calling_ae=' X'", r"ingest.dimse.calling_ae: expected an AE title of 1 to 16 ASCII characters"),
        (r"ingest.receive.ae_title='A\B'", r"ingest.receive.ae_title: expected an AE title of 1 to 16 ASCII characters"),
        ("ingest.receive.calling_aes=['']", r"ingest.receive.calling_aes.0: expected an AE title of 1 to 16 ASCII characters"),
        ("ingest.query.date_from=yesterday", r"date_from: expected a date as DICOM writes it, e.g. 20240131, got yesterday"),
        ("ingest.query.date_from=2024-01-31", r"date_from: expected a date as DICOM writes it, e.g. 20240131, got 2024-01-31"),
        ("ingest.query.date_to=20240230", r"date_to: expected a date as DICOM writes it"),
        ("ingest.query={last_days: 3, date_from: 20240101}", r"last_days, or date_from and date_to, not both"),
        ("ingest.query={date_from: 20240201, date_to: 20240101}", r"date_from ≤ date_to"),
        ("ingest.network.attempts=0", r"ingest.network.attempts: .*greater than or equal to 1, got 0"),
    ],
)
def test_a_wrong_source_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        config.load(written(tmp_path, "{}"), [override])
    assert "secret" not in str(caught.value)


def test_dates_survive_rendering(tmp_path: Path) -> None:
    loaded = config.load(written(tmp_path, "{}"), ["ingest.query={date_from: 20240131, date_to: '20240229'}"])
    assert (loaded.ingest.query.date_from, loaded.ingest.query.date_to) == (20240131, 20240229)
    assert config.load(written(tmp_path, config.render(loaded))) == loaded


@pytest.mark.parametrize(
    ("settings", "has_source"),
    [([], False), (["ingest.source=incoming"], True), (["ingest.kind=inbox"], True), (["ingest.kind=dimse"], True)],
)
def test_a_run_without_a_folder_needs_a_source(tmp_path: Path, settings: list[str], has_source: bool) -> None:
    assert config.load(written(tmp_path, "{}"), settings).ingest.has_source is has_source
