"""Register the trained model in MLflow: the run, a model version, and what the gates make of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import __version__, files, gates, model_card, tracking, tracking_store, versioning
from pipelines.config import Config, load_policy, render
from pipelines.errors import MissingInputError
from pipelines.gates import Evidence, Verdict
from pipelines.paths import Paths
from pipelines.quality import leakage
from pipelines.records import PARTS, Task
from pipelines.tracking import Submission, Version

PENDING = "pending"
REJECTED = "rejected"


@dataclass(frozen=True)
class RegisterSummary:
    """What became of the model.

    Attributes:
        model: name of the registered model.
        version: its number in MLflow.
        run_id: the MLflow run that holds its parameters, curves, metrics and packet.
        passed: whether every gate let it through.
        reasons: why not, one for each gate that said no.
        status: of the review: `pending` or `rejected`, or what a reviewer has made of it since.
        aliases: those that the version carries.
        already: whether the same model had been registered before, and nothing was made.
        tracking_uri: where, without credentials.
        link: the version's page.
    """

    model: str
    version: str
    run_id: str
    passed: bool
    reasons: tuple[str, ...]
    status: str
    aliases: tuple[str, ...]
    already: bool
    tracking_uri: str
    link: str

    def describe(self) -> str:
        from rich.markup import escape

        what = "was registered before: nothing new was made" if self.already else "is registered"
        lines = [f"[bold]{escape(self.model)} version {self.version}[/bold] {what} in MLflow ({escape(self.tracking_uri)})"]
        if self.passed:
            names = ", ".join(self.aliases) or "none"
            lines.append(f"[green]every gate passed[/green]: alias {escape(names)}, review.status {escape(self.status)}")
        else:
            lines.append(f"[red]rejected by mlflow/policy.yaml[/red], review.status {escape(self.status)}, no alias:")
            lines += [f"  - {escape(reason)}" for reason in self.reasons]
        return "\n".join(lines)


@dataclass(frozen=True)
class _Findings:
    """What the earlier stages wrote about the model."""

    card: Mapping[str, Any]
    metrics: Mapping[str, Any]
    certificate: Mapping[str, Any]
    quality: Mapping[str, Any]
    split: str
    verdicts: tuple[Verdict, ...]
    fingerprint: str

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(verdict.words for verdict in self.verdicts if not verdict.passed)

    @property
    def task(self) -> Task:
        return Task.from_dict(self.card["task"])


def run(config: Config, paths: Paths) -> RegisterSummary:
    """Log the run, register the model with the gates' verdicts, and make it the challenger if it passed.

    The same model, from the same data and split, judged on the same evidence, is registered once: asked again, this gives
    the version that is there.

    Raises:
        MissingInputError: an earlier stage has not run.
        ConfigurationError: mlflow/policy.yaml is not valid.
        ServiceError: MLflow does not answer, or refuses.
    """
    name, found = config.registration.model, _findings(paths)
    identity = _identity(paths, found)
    known = tracking.find(paths, name, identity)
    version = known or _submitted(config, paths, found, identity)
    if version.status == PENDING and not found.reasons:
        version = _challenging(paths, version)
    return RegisterSummary(
        model=name,
        version=version.number,
        run_id=version.run,
        passed=not found.reasons,
        reasons=found.reasons,
        status=version.status,
        aliases=version.aliases,
        already=known is not None,
        tracking_uri=tracking_store.public_uri(paths),
        link=tracking_store.version_link(paths, name, version.number),
    )


def _findings(paths: Paths) -> _Findings:
    card = files.read_json(paths.model / "model.json", made_by="train")
    if not (paths.model / "model.safetensors").is_file():
        raise MissingInputError("model.safetensors: expected what `radtransfer train` writes, found nothing; run it first")
    metrics = files.read_json(paths.metrics, made_by="evaluate")
    if metrics["model_sha256"] != files.sha256(paths.model / "model.safetensors"):
        raise MissingInputError(
            "metrics.json: expected the metrics of this model, got those of another; run `radtransfer evaluate`"
        )
    if "shortcuts" not in metrics:
        raise MissingInputError(
            "metrics.json: expected the comparison with shortcuts, found none; run `radtransfer audit-shortcuts` and "
            "`radtransfer evaluate`"
        )
    certificate = files.read_json(paths.leakage, made_by="split")
    quality = files.read_json(paths.quality_result, made_by="check")
    split = leakage.split_sha256(files.read_table(paths.split, made_by="split"))
    if card["training"].get("split_sha256") != split:
        raise MissingInputError(
            "split.parquet: expected the split that the model was trained on, got another; run `radtransfer train` and "
            "`radtransfer evaluate` again"
        )
    adaptation = card["training"].get("adaptation")
    evidence = Evidence(
        auroc_low=metrics["macro"]["auroc"]["low"],
        ece=metrics["macro"]["ece"]["value"],
        test_patients=metrics["patients"],
        quality_passed=quality["passed"],
        leakage_clean=certificate["clean"],
        certified_split=certificate["split_sha256"],
        split=split,
        shortcut=metrics["shortcuts"]["best"],
        shortcut_gain_low=metrics["shortcuts"]["gain"]["low"],
        shortcut_gains_low={name: known["gain"]["low"] for name, known in metrics["shortcuts"]["outputs"].items()},
        shortcut_alarm=metrics["shortcuts"]["alarm"],
        shortcut_alarms=metrics["shortcuts"]["alarms"],
        adaptation=adaptation["verdict"] if adaptation else None,
        adaptation_says=adaptation["says"] if adaptation else "",
    )
    policy = load_policy(paths.policy)
    verdicts = gates.evaluate(policy, evidence)
    judged = [metrics, policy.model_dump(), [asdict(verdict) for verdict in verdicts]]
    fingerprint = hashlib.sha256(json.dumps(judged, sort_keys=True).encode()).hexdigest()
    return _Findings(card, metrics, certificate, quality, split, verdicts, fingerprint)


def _identity(paths: Paths, found: _Findings) -> dict[str, str]:
    """The tags by which a registered model is known again."""
    return {
        tracking.MODEL_HASH: files.sha256(paths.model / "model.safetensors"),
        "split.sha256": found.split,
        "data.hash": versioning.data_hash(paths) or "not versioned",
        "evidence.sha256": found.fingerprint,
    }


def _challenging(paths: Paths, version: Version) -> Version:
    """Make the version the challenger, unless it has gone further or a newer one is."""
    current = tracking.by_alias(paths, version.model, tracking.CHALLENGER)
    if tracking.CHAMPION in version.aliases or (current and int(current.number) >= int(version.number)):
        return version
    tracking.set_alias(paths, version, tracking.CHALLENGER)
    return replace(version, aliases=(*version.aliases, tracking.CHALLENGER))


def _submitted(config: Config, paths: Paths, found: _Findings, identity: Mapping[str, str]) -> Version:
    tags = {**identity, **_tags(paths, found)}
    settings, public = config.registration, _without_places(config)
    card = model_card.template(paths.policy.parent)
    with tempfile.TemporaryDirectory(prefix="radtransfer-") as scratch:
        attachments = Path(scratch)
        _attach(paths, public, attachments)
        submission = Submission(
            experiment=settings.experiment,
            model=settings.model,
            parameters=dict(_flat(public.model_dump(mode="json", by_alias=True))),
            history=paths.model / "history.csv",
            metrics=dict(_metrics(found.metrics)),
            attachments=attachments,
            weights=paths.model,
            task=found.task,
            tags=tags,
            description=model_card.fill(card, settings.model, found.card, found.metrics, found.certificate, found.verdicts, tags),
        )
        return tracking.submit(paths, submission)


def _tags(paths: Paths, found: _Findings) -> dict[str, str]:
    """Where the model comes from and what was found, besides its identity."""
    commit, passport, weights = versioning.head(paths), found.card["passport"], found.card["weights"]
    parts = found.certificate["parts"]
    return {
        "radtransfer.version": __version__,
        "strategy": found.card["strategy"]["name"],
        "git.commit": commit or "none",
        "git.uncommitted_changes": str(bool(commit) and versioning.is_dirty(paths)).lower(),
        "weights.name": passport["name"] if passport else "none",
        "weights.sha256": weights["sha256"] if weights else "none",
        "weights.licence": passport["licence"] if passport else "none",
        "pretraining": _pretraining(passport),
        "quality.passed": str(found.quality["passed"]).lower(),
        "leakage.clean": str(found.certificate["clean"]).lower(),
        **{f"data.{part}.{unit}": str(parts[part][unit]) for part in PARTS for unit in ("images", "patients")},
        **{f"gate.{verdict.gate}": f"{'passed' if verdict.passed else 'failed'}: {verdict.words}" for verdict in found.verdicts},
        tracking.STATUS: REJECTED if found.reasons else PENDING,
        **{f"{tracking.REASON}{number}": reason for number, reason in enumerate(found.reasons, 1)},
    }


def _pretraining(passport: Mapping[str, Any] | None) -> str:
    if passport is None:
        return "none: trained from scratch"
    notes = f" ({passport['notes']})" if passport.get("notes") else ""
    return f"{passport['name']}, trained on {passport['trained_on']}{notes}"


def _without_places(config: Config) -> Config:
    """The settings without the paths of sources, whose names may tell who was examined, and the addresses of servers."""
    fields = type(config.ingest).model_fields
    places = ("source", "labels", "dicomweb", "dimse", "receive", "tls")
    ingest = config.ingest.model_copy(update={name: fields[name].default for name in places})
    return config.model_copy(update={"ingest": ingest})


def _attach(paths: Paths, config: Config, folder: Path) -> None:
    """Gather the files that go with the run; one that an optional step did not write is left out."""
    (folder / "params.yaml").write_text(render(config))
    for file in (paths.lock, paths.data_dvc, paths.policy, paths.metrics, paths.leakage, paths.shortcuts, paths.packet):
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    shutil.copytree(paths.data_docs.parent, folder / "data_docs")
    shutil.copyfile(paths.quality_result, folder / "data_docs" / "result.json")
    shutil.copytree(paths.evaluation / "figures", folder / "figures")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _metrics(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    """`auroc`, `auroc_low`, `auroc_high`, … for the mean over the outputs, and the same as `NAME/auroc`, … for each.

    Of a task beside the main one likewise by the name of the task, with its outputs as `TASK/OUTPUT/…`.
    """
    yield from (("test_images", metrics["images"]), ("test_patients", metrics["patients"]))
    for name in ("auroc", "gain"):
        interval = metrics["shortcuts"][name]
        yield from ((f"shortcut_{name}{end}", interval[key]) for end, key in (("", "value"), ("_low", "low"), ("_high", "high")))
    groups = {"": metrics["macro"], **{f"{name}/": group for name, group in metrics["outputs"].items()}}
    for task, judged in metrics.get("tasks", {}).items():
        groups[f"{task}/"] = judged["metrics"]
        if len(judged.get("outputs", {})) > 1:
            groups |= {f"{task}/{name}/": group for name, group in judged["outputs"].items()}
    for prefix, group in groups.items():
        for name, value in group.items():
            if isinstance(value, Mapping):
                yield prefix + name, value["value"]
                yield from ((f"{prefix}{name}_{end}", value[end]) for end in ("low", "high"))
            else:
                yield prefix + name, value
