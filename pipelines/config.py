"""The one typed schema of params.yaml and mlflow/policy.yaml.

Every knob is declared once, here or in `config_sources`, with its default, its bounds and its comment; `render` writes the YAML
files from it. Objects are frozen, unknown keys are refused, and an error names the key, what was expected, and what was found.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from pipelines.config_sources import (
    DicomwebSection,
    DimseSection,
    NetworkSection,
    QuerySection,
    ReceiveSection,
    TlsSection,
)
from pipelines.config_tasks import FurtherTaskSection, TaskSection
from pipelines.config_types import Fraction, Rate, Section
from pipelines.errors import ConfigurationError


class DeidentificationSection(Section):
    """options of the Basic Profile (PS3.15 Table E.1-1); what is switched off is removed or emptied"""

    patient_characteristics: bool = Field(True, description="keep age (at most 89 years) and sex")
    device_identity: bool = Field(True, description="keep the vendor's name where known, the model as a pseudonym")
    modified_dates: bool = Field(True, description="keep dates, moved by a number of days for each patient")
    clean_descriptors: bool = Field(False, description="keep common words of study and series descriptions")


class IngestSection(Section):
    """de-identified DICOM into data/"""

    kind: Literal["folder", "dicomweb", "dimse", "inbox"] = Field(
        "folder", description="where images come from: folder, dicomweb, dimse (a PACS), or inbox (what `receive` took in)"
    )
    source: str | None = Field(None, description="folder of DICOM files, searched recursively; for scheduled runs")
    labels: str | None = Field(None, description="CSV file of labels; for scheduled runs")
    labels_key: Literal["auto", "sop_instance_uid", "accession_number", "file"] = Field(
        "auto", description="what a label row names: sop_instance_uid, accession_number, file, or auto (by the column's name)"
    )
    labels_column: str | None = Field(None, description="the column that holds the key; null finds it by its name")
    modalities: tuple[str, ...] = Field(("CR", "DX", "RG"), description="other modalities are set aside")
    burned_in: Literal["clean", "quarantine", "keep"] = Field(
        "clean", description="text in pixels: clean (search every image, blank), or set aside, or keep, what the header declares"
    )
    seconds_per_file: int = Field(60, ge=1, le=86400, description="processor time after which reading a file counts as hung")
    deidentification: DeidentificationSection = DeidentificationSection()
    query: QuerySection = QuerySection()
    dicomweb: DicomwebSection = DicomwebSection()
    dimse: DimseSection = DimseSection()
    receive: ReceiveSection = ReceiveSection()
    tls: TlsSection = TlsSection()
    network: NetworkSection = NetworkSection()

    @property
    def has_source(self) -> bool:
        """Whether a run can do without being told a folder."""
        return self.kind != "folder" or self.source is not None


class PrepareSection(Section):
    """DICOM into fixed-size grayscale arrays"""

    size: int = Field(224, ge=32, le=2048, description="rows and columns of a prepared image")
    depth: Literal["uint8", "uint16"] = Field("uint8", description="grey levels of the store")
    percentiles: tuple[float, float] = Field((0.5, 99.5), description="window where the header has none, in percent")
    window: str | None = Field(
        None, description="of several windows or VOI LUTs, the one that is explained so, e.g. HARDER; null takes the first"
    )
    for_processing: Literal["leave_out", "render"] = Field(
        "leave_out", description="raw detector images (FOR PROCESSING): leave_out, or render by logarithm and percentiles"
    )
    crop: bool = Field(False, description="cut off the borders of rectangular collimation")
    flip_right: bool | tuple[str, ...] = Field(
        False, description="mirror right-sided images, so that sides look alike: true, or body parts, e.g. [HAND, KNEE]"
    )
    flip_views: tuple[str, ...] = Field((), description="mirror images of these views, e.g. [RL], so that they face one way")
    seconds_per_file: int = Field(60, ge=1, le=86400, description="processor time after which a decoder counts as hung")
    shard_images: int = Field(256, ge=1, le=65536, description="images per array file")
    workers: int = Field(0, ge=0, le=256, description="processes; 0 takes every core")

    @model_validator(mode="after")
    def _ordered(self) -> PrepareSection:
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles: expected 0 ≤ low < high ≤ 100")
        return self


class CheckSection(Section):
    """expectations on the prepared images and labels"""

    modalities: tuple[str, ...] = Field(("CR", "DX", "RG"), description="allowed modalities")
    views: tuple[str, ...] = Field((), description="allowed views (an image may have none); [] allows all")
    body_parts: tuple[str, ...] = Field((), description="allowed body parts (an image may have none); [] allows all")
    min_images: int = Field(50, ge=1, description="fewest prepared and labelled images")
    min_images_per_class: int = Field(10, ge=2, description="fewest images with, and without, each finding")
    prevalence: tuple[float, float] = Field((0.02, 0.98), description="bounds on the fraction of images with each finding")
    max_left_out: Fraction = Field(0.05, description="largest fraction of images that prepare may leave out")
    min_std: Fraction = Field(0.02, description="below this contrast an image counts as blank")
    max_saturated: Fraction = Field(0.6, description="largest fraction of pixels at the lowest or at the highest grey level")


class SplitSection(Section):
    """patients into train, validation and test"""

    seed: int = Field(17, ge=0, description="another seed gives another split")
    validation: Fraction = Field(0.15, description="fraction of patients to choose epochs and thresholds on")
    test: Fraction = Field(0.15, description="fraction of patients for the final evaluation")
    stratify_by: tuple[str, ...] = Field(("site",), description="index columns to balance, besides the labels")

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitSection:
        if not 0 < self.validation + self.test < 1 or not self.validation or not self.test:
            raise ValueError("validation > 0, test > 0 and validation + test < 1")
        return self


class AuditShortcutsSection(Section):
    """what the label can be told from without seeing a finding"""

    alarm_above: Fraction = Field(
        0.55, description="alarm where a shortcut that cannot see findings surely has an AUROC above this (0.5 is chance)"
    )
    bootstrap: int = Field(1000, ge=100, le=100000, description="patient-level bootstrap resamples for the 95% intervals")
    seed: int = Field(17, ge=0, description="seed of the bootstrap and of the cross-fitting")


StrategyName = Literal[
    "recommended",
    "feature_extraction",
    "head_only",
    "last_groups",
    "gradual",
    "lp_ft",
    "full",
    "differential",
    "auto_rgn",
    "lora",
    "l2_sp",
    "scratch",
]


class StrategySection(Section):
    """how to transfer; null takes the strategy's default, and a strategy refuses what it has no use for"""

    name: StrategyName = Field(
        "recommended",
        description="recommended (by the size of the data), feature_extraction, head_only, last_groups, gradual, lp_ft, full, "
        "differential, auto_rgn, lora, l2_sp or scratch",
    )
    learning_rate: float | None = Field(None, gt=0, le=10, description="rate of the head; null takes the strategy's default")
    decay: float = Field(
        0.3,
        gt=0,
        le=1,
        description="differential, last_groups, gradual: each group's rate is this times the next one's, from head to stem",
    )
    rates: dict[str, Rate] = Field(
        {}, description="rates of single layer groups, e.g. {stem: 0, stage4: 0.0001}; the others keep the strategy's"
    )
    groups: int | None = Field(None, ge=1, le=100, description="last_groups: how many layer groups learn besides the head (1)")
    unfreeze_every: int | None = Field(None, ge=1, le=1000, description="gradual: epochs until the next layer group learns (1)")
    classifier: Literal["linear", "logistic_regression", "linear_svm", "knn", "mlp"] | None = Field(
        None,
        description="feature_extraction: linear (trained in steps), logistic_regression, linear_svm, knn or mlp; "
        "lp_ft: logistic_regression or linear_svm",
    )
    regularisation: float | None = Field(
        None, gt=0, description="logistic_regression, linear_svm: strength; null chooses by cross-validation over patients"
    )
    neighbours: int | None = Field(None, ge=1, le=1000, description="knn: how many vote; null chooses likewise")
    hidden: int | None = Field(None, ge=1, le=8192, description="mlp: units of the hidden layer (128)")
    rank: int | None = Field(None, ge=1, le=512, description="lora: rank of the adapters (8)")
    anchor: float | None = Field(None, gt=0, le=1000, description="L2-SP: pull towards the source weights; l2_sp takes 0.1")
    warmup_epochs: float = Field(1.0, ge=0, description="epochs of linear warm-up; then a cosine to zero")
    batch_norm: Literal["frozen", "adaptive", "trained"] | None = Field(
        None, description="frozen, adaptive (statistics of the training images, scale and shift as loaded) or trained"
    )


class AdaptationSection(Section):
    """for a hospital with images but no labels (the target); its labels are never learnt from, even where there are some"""

    method: Literal["adabn", "coral", "mmd", "dann"] | None = Field(
        None, description="adabn, coral, mmd or dann; null learns for the hospitals with labels only"
    )
    sites: tuple[str, ...] = Field(
        (), description="the target: values of `site` in the manifest, e.g. [site-1a2b3c4d]; [] takes all images without a label"
    )
    weight: float | None = Field(
        None, gt=0, le=1000, description="coral, mmd, dann: against the task's loss, grown into; null takes the method's default"
    )
    control: bool = Field(True, description="compare with the same training without adaptation, to say whether it helped")


class AugmentSection(Section):
    """random changes to training images, on the device"""

    rotate_degrees: float = Field(7.0, ge=0, le=180, description="largest rotation")
    shift: Fraction = Field(0.05, description="largest shift, as a fraction of the size")
    scale: Fraction = Field(0.08, description="largest change of size, as a fraction")
    brightness: Fraction = Field(0.1, description="largest change of brightness, as a fraction of the range")
    contrast: Fraction = Field(0.15, description="largest change of contrast, as a fraction")
    flip: bool = Field(False, description="mirror left and right; false keeps the heart on its side")


class OperatingPointSection(Section):
    """how thresholds are chosen, on the validation part"""

    rule: Literal["youden", "sensitivity", "specificity"] = Field(
        "youden", description="youden, or sensitivity or specificity of at least `value`"
    )
    value: Fraction = Field(0.9, description="the sensitivity or specificity to reach")


class TrainSection(Section):
    """transfer learning"""

    backbone: str = Field(
        "resnet18", description="resnet18, densenet121, vit_b16, … (README), or timm:NAME for any encoder of timm's"
    )
    weights: str = Field(
        "imagenet",
        description="imagenet, radimagenet, medical, ssl or the name of a weight passport; scratch beside strategy scratch or "
        "recommended",
    )
    seed: int = Field(17, ge=0, description="same seed, same machine: same weights to the bit on CPU")
    epochs: int = Field(20, ge=1, le=10000, description="most epochs")
    batch_size: int = Field(32, ge=2, le=65536, description="images per step")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW weight decay")
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout before the head")
    stochastic_depth: float | None = Field(
        None, ge=0, lt=1, description="largest chance that a block is skipped, where the network has it; null keeps its own"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="how much of each label is spread over the alternatives")
    mixup: float = Field(0.0, ge=0, le=10, description="alpha of the Beta distribution that mixes pairs of images; 0: none")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the running average of the weights, which is judged and kept; null: none"
    )
    class_weighting: Literal["none", "balanced"] = Field("balanced", description="none, or balanced by training prevalence")
    patience: int = Field(
        6, ge=1, description="epochs without a better validation AUROC, or score of several tasks, before stopping"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto takes bf16 on GPUs that have it, else fp32")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto takes cuda, then mps, then cpu")
    strategy: StrategySection = StrategySection()
    adaptation: AdaptationSection = AdaptationSection()
    augment: AugmentSection = AugmentSection()
    operating_point: OperatingPointSection = OperatingPointSection()


class RankSection(Section):
    """networks and weights compared before training (`radtransfer rank`)"""

    candidates: tuple[str, ...] = Field(
        (), description="BACKBONE@WEIGHTS, e.g. [resnet18@imagenet, vit_b16@imagenet]; [] takes every one whose weights are here"
    )
    max_images: int = Field(2000, ge=20, description="most images of the train part that are looked at; whole patients")
    batch_size: int = Field(32, ge=1, le=65536, description="images per step")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto takes cuda, then mps, then cpu")
    bootstrap: int = Field(1000, ge=100, le=100000, description="patient-level resamples for the 95% intervals")
    seed: int = Field(17, ge=0, description="seed of the choice of images and of the bootstrap")


class CompareSection(Section):
    """ways to transfer, each trained as `train` says on the same patients, and compared (`radtransfer compare`)"""

    strategies: tuple[StrategyName, ...] = Field(
        ("feature_extraction", "recommended", "full", "scratch"),
        min_length=1,
        description="as train.strategy.name; each takes of train.strategy what it has a use for, rates only if named there",
    )
    sources: tuple[str, ...] = Field(
        (), description="BACKBONE@WEIGHTS, e.g. [resnet18@imagenet, resnet18@ssl]; [] takes those of train"
    )
    seeds: tuple[NonNegativeInt, ...] = Field(
        (17, 18, 19, 20, 21),
        min_length=1,
        description="one training each; few make intervals wide, and one leaves its luck out of them",
    )
    sizes: tuple[PositiveInt, ...] = Field(
        (), description="labelled images to learn from, for a learning curve, e.g. [16, 64, 256]; whole patients; [] takes all"
    )
    stopping: float = Field(
        0.2, gt=0, lt=1, description="fraction of the train part that early stopping looks at; the validation part only judges"
    )
    bootstrap: int = Field(1000, ge=100, le=100000, description="resamples of patients for the 95% intervals")
    seed: int = Field(17, ge=0, description="seed of the choice for early stopping and of the bootstrap")
    runner: Literal["local", "processes", "ray"] = Field(
        "local", description="local (one training at a time), or by Prefect in several processes or on Ray (radtransfer[ray])"
    )
    workers: int = Field(2, ge=1, le=256, description="processes, ray: trainings at a time")
    mlflow: bool = Field(True, description="log every training to MLflow, under one parent run")

    @model_validator(mode="after")
    def _once(self) -> CompareSection:
        for name in ("strategies", "sources", "seeds", "sizes"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"{name}: each once")
        return self


class PretrainSection(Section):
    """learning from radiographs without labels (`radtransfer pretrain`)"""

    name: str = Field(
        "ssl",
        pattern=r"^[\w][\w+-]*$",
        description="name of the weights that come of it, for train.weights; imagenet, medical and the like are taken",
    )
    backbone: str | None = Field(None, description="null takes that of train")
    weights: str = Field("imagenet", description="what to start from: imagenet, the name of a weight passport, or scratch")
    method: Literal["simclr", "vicreg", "barlow_twins"] = Field("simclr", description="simclr, vicreg or barlow_twins")
    seed: int = Field(17, ge=0, description="same seed, same machine: same weights to the bit on CPU")
    epochs: int = Field(50, ge=1, le=10000, description="passes over the images")
    batch_size: int = Field(64, ge=4, le=65536, description="images per step; each is told apart from the others of its batch")
    learning_rate: float = Field(3e-4, gt=0, le=10, description="AdamW rate after warm-up; then a cosine to zero")
    warmup_epochs: float = Field(1.0, ge=0, description="epochs of linear warm-up")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="AdamW weight decay")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto takes bf16 on GPUs that have it, else fp32")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="auto takes cuda, then mps, then cpu")
    views: AugmentSection = AugmentSection(rotate_degrees=15, shift=0.2, scale=0.4, brightness=0.3, contrast=0.5)


class EvaluateSection(Section):
    """metrics on the test part and the review packet"""

    bootstrap: int = Field(1000, ge=100, le=100000, description="patient-level bootstrap resamples for the 95% intervals")
    seed: int = Field(17, ge=0, description="seed of the bootstrap")
    bins: int = Field(10, ge=2, le=100, description="bins of the reliability plot and the ECE (equal counts)")
    worst: int = Field(8, ge=0, le=64, description="false positives and false negatives shown in the packet, each")


class RegisterSection(Section):
    """MLflow run and model version"""

    experiment: str = Field("radtransfer", min_length=1, description="MLflow experiment")
    model: str = Field("radiograph-classifier", min_length=1, description="name of the registered model")


class Config(Section):
    """All of params.yaml."""

    task: TaskSection = TaskSection()
    ingest: IngestSection = IngestSection()
    prepare: PrepareSection = PrepareSection()
    check: CheckSection = CheckSection()
    split: SplitSection = SplitSection()
    audit_shortcuts: AuditShortcutsSection = AuditShortcutsSection()
    rank: RankSection = RankSection()
    compare: CompareSection = CompareSection()
    pretrain: PretrainSection = PretrainSection()
    train: TrainSection = TrainSection()
    evaluate: EvaluateSection = EvaluateSection()
    registration: RegisterSection = Field(RegisterSection(), alias="register")


class Policy(Section):
    """Gates that a version must pass to become the challenger (mlflow/policy.yaml)."""

    min_auroc_lower_bound: Fraction = Field(0.7, description="lower end of the 95% interval of the test AUROC (macro mean)")
    max_ece: Fraction = Field(0.15, description="expected calibration error on the test part")
    min_test_patients: int = Field(20, ge=1, description="patients in the test part; with fewer an interval says little")
    min_gain_over_shortcuts: float | None = Field(
        0.01,
        ge=-1,
        le=1,
        description="lower end of the 95% interval of the test AUROC minus the best shortcut's, of each output; null waives it",
    )
    refuse_shortcut_alarm: bool = Field(False, description="a shortcut that cannot see findings but knows the label is a veto")
    refuse_harmful_adaptation: bool = Field(
        True, description="a model that is surely worse where it was adapted to than one that was not is refused"
    )
    require_quality: bool = Field(True, description="every `error` expectation passed")
    require_no_leakage: bool = Field(True, description="the leakage certificate is clean and is that of this split")


Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read params.yaml and apply `section.key=value` overrides (values are YAML).

    Raises:
        ConfigurationError: the file is missing, is not YAML, or a key or value is not one of the schema.
    """
    values = _read(path, "run `radtransfer init DIR` to make a workspace")
    for override in overrides:
        values = _overridden(values, override)
    return validate(Config, values, path.name)


def overridden(config: Config, overrides: Iterable[str]) -> Config:
    """Apply `section.key=value` overrides to a configuration; errors as for `load`."""
    values: dict[str, Any] = config.model_dump(by_alias=True)
    for override in overrides:
        values = _overridden(values, override)
    return validate(Config, values, "params.yaml")


def load_policy(path: Path) -> Policy:
    """Read mlflow/policy.yaml; errors as for `load`."""
    return validate(Policy, _read(path, "run `radtransfer init DIR` to write the default policy"), path.name)


def validate(schema: type[Model], values: dict[str, Any], where: str) -> Model:
    """Check `values` against `schema`.

    Raises:
        ConfigurationError: naming every key that is wrong, what was expected and what was found.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_explained(item, schema, where) for item in error.errors())) from None


def render(config: BaseModel) -> str:
    """The YAML text of a configuration, with the schema's comments."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(section: BaseModel, indent: str) -> list[str]:
    lines: list[str] = []
    for attribute, field in type(section).model_fields.items():
        value, name = getattr(section, attribute), field.alias or attribute
        if isinstance(value, BaseModel):
            lines += [""] if not indent and lines else []
            lines.append(f"{indent}{name}:  # {type(value).__doc__}")
            lines += _lines(value, indent + "  ")
        else:
            plain = list(value) if isinstance(value, tuple) else value
            if isinstance(value, dict):
                plain = section.model_dump(mode="json", include={attribute}, exclude_defaults=True).get(attribute, {})
            text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
            text = text.removesuffix("...\n").strip()
            lines.append(f"{indent}{name}: {text}  # {field.description}")
    return lines


def _read(path: Path, remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigurationError(f"{path.name}: expected in {path.parent}, found nothing; {remedy}")
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path.name}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path.name}: expected sections, got {type(values).__name__}")
    return values


def parse_override(override: str) -> tuple[list[str], Any]:
    """Split `section.key=value` into its keys and its YAML value.

    Raises:
        ConfigurationError: there is no `=` or no key, or the value is not YAML.
    """
    name, separator, text = override.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise ConfigurationError(f"--set: expected section.key=value, got {override!r}")
    try:
        return keys, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--set {name}: the value is not YAML: {error}") from error


def _overridden(values: dict[str, Any], override: str) -> dict[str, Any]:
    keys, value = parse_override(override)
    changed = dict(values)
    node = changed
    for key in keys[:-1]:
        child = node.get(key)
        if child is not None and not isinstance(child, dict):
            raise ConfigurationError(f"--set {'.'.join(keys)}: {key} holds a value, not keys")
        node[key] = dict(child or {})
        node = node[key]
    node[keys[-1]] = value
    return changed


def _explained(item: Any, schema: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where} {key}: unknown key; {_suggestion(schema, item['loc'])}"
    if item["type"] == "value_error":
        return f"{where} {key}: expected {item['ctx']['error']}"
    expected = item["msg"][0].lower() + item["msg"][1:]
    return f"{where} {key}: {expected}, got {item['input']!r}"


def _suggestion(schema: type[BaseModel], place: tuple[str, ...]) -> str:
    for part in place[:-1]:
        field = schema.model_fields.get(part)
        # under `task.also` come names of tasks, which are free
        schema = FurtherTaskSection if field is None else schema if part == "also" else type(field.default)
    known = [field.alias or name for name, field in schema.model_fields.items()]
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
