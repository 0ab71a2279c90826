"""What is there and what is missing, in plain words."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipelines import config, versioning
from pipelines.errors import ConfigurationError, MissingKeyError, RadtransferError, ServiceError
from pipelines.paths import Paths, weights_folder


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        subject: what was looked at.
        state: `ok`; `missing`, without which the main job cannot run; or `note`, which some jobs can do without.
        words: what was found, and the remedy where there is one.
    """

    subject: str
    state: str
    words: str


@dataclass(frozen=True)
class Examination:
    """All findings; `healthy` where nothing is missing."""

    healthy: bool
    findings: tuple[Finding, ...]

    def describe(self) -> str:
        from rich.markup import escape

        signs = {"ok": "[green]✓[/green]", "note": "[yellow]·[/yellow]", "missing": "[red]✗[/red]"}
        lines = [f"{signs[item.state]} {item.subject:<14} {escape(item.words)}" for item in self.findings]
        verdict = "[green]nothing is missing[/green]" if self.healthy else "[red]something is missing: see ✗ above[/red]"
        return "\n".join([*lines, verdict])


def examine(paths: Paths, settings: Iterable[str] = ()) -> Examination:
    """Look at the machine, the workspace and the services; nothing is changed."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _torch,
        _decoders,
        lambda: _workspace(paths, list(settings)),
        lambda: _source(paths, list(settings)),
        lambda: _data(paths),
        lambda: _weights(paths, list(settings)),
        lambda: _mlflow(paths),
        _prefect,
        _key,
    )
    findings = tuple(finding for check in checks for finding in check())
    return Examination(all(finding.state != "missing" for finding in findings), findings)


def _python() -> Iterator[Finding]:
    yield Finding(
        "Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )
    for tool in ("git", "dvc"):
        found = shutil.which(tool, path=versioning.environment()["PATH"])
        yield Finding(tool, "ok", "found") if found else Finding(tool, "missing", "not on PATH; install it")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "missing", f"cannot be imported ({error}); run `make setup`")
        return
    if torch.cuda.is_available():
        device = f"cuda: {torch.cuda.get_device_name()}{', bf16' if torch.cuda.is_bf16_supported() else ''}"
    elif torch.backends.mps.is_available():
        device = "mps"
    else:
        device = "cpu only: training works, and is slow for large networks"
    yield Finding("torch", "ok" if "only" not in device else "note", f"{torch.__version__}, device {device}")


def _decoders() -> Iterator[Finding]:
    from pipelines.imaging.decoders import DECODERS

    broken = [decoder.name for decoder in DECODERS.values() if not decoder.available()]
    yield Finding("decoders", "ok", f"{len(DECODERS)} transfer syntaxes: {'; '.join(d.name for d in DECODERS.values())}")
    if broken:
        yield Finding("decoders", "missing", f"cannot decode {'; '.join(broken)}; reinstall imagecodecs")


def _workspace(paths: Paths, settings: list[str]) -> Iterator[Finding]:
    try:
        config.load(paths.params, settings)
        config.load_policy(paths.policy)
        yield Finding("workspace", "ok", f"params.yaml and mlflow/policy.yaml in {paths.workspace} are valid")
    except ConfigurationError as error:
        yield Finding("workspace", "missing", str(error))


def _currency(paths: Paths) -> str:
    try:
        return "all stages are up to date" if versioning.is_current(paths) else "some stages have to run; run `radtransfer run`"
    except ServiceError as error:
        return str(error)


def _source(paths: Paths, settings: list[str]) -> Iterator[Finding]:
    """Whether the source of scheduled runs answers: C-ECHO for a PACS, a query for one study for DICOMweb."""
    from pipelines.dicom.sources import opening

    try:
        ingest = config.load(paths.params, settings).ingest
    except ConfigurationError:
        return
    if not ingest.has_source:
        yield Finding("source", "note", "none in params.yaml (ingest.kind, ingest.source): name a folder with `ingest SOURCE`")
        return
    try:
        yield Finding("source", "ok", opening.check(ingest, paths))
    except RadtransferError as error:
        yield Finding("source", "missing", str(error))


def _data(paths: Paths) -> Iterator[Finding]:
    if not (paths.workspace / ".dvc").is_dir():
        yield Finding("DVC", "missing", "the folder is no DVC repository; run `radtransfer init DIR`")
        return
    head = versioning.head(paths)
    state = "with uncommitted changes" if head and versioning.is_dirty(paths) else "clean"
    yield Finding("git", "ok" if head else "note", f"at {head[:10]}, {state}" if head else "no commit yet")
    recorded = versioning.data_hash(paths)
    if recorded is None:
        yield Finding("data", "note", "none yet; run `radtransfer ingest SOURCE --labels FILE.csv`")
    elif not paths.manifest.is_file():
        yield Finding(
            "data", "note", f"data.dvc records {recorded[:12]}, data/ is not here; run `dvc pull`, or `radtransfer ingest`"
        )
    else:
        yield Finding("data", "ok", f"{recorded[:12]}; {_currency(paths)}")
    remote = versioning.remote(paths)
    yield Finding(
        "DVC remote", "ok" if remote else "note", remote or "none: data stay in the local cache; `dvc remote add -d NAME URL`"
    )


def _weights(paths: Paths, settings: list[str]) -> Iterator[Finding]:
    from pipelines.models import passports

    folder = weights_folder()
    files = sorted(file.name for suffix in ("safetensors", "pth", "pt") for file in folder.glob(f"*.{suffix}"))
    words = f"in {folder}: {', '.join(files) or 'none; set RADTRANSFER_WEIGHTS to a folder of checkpoints'}"
    yield Finding("weights", "ok" if files else "note", words)
    try:
        train = config.load(paths.params, settings).train
    except ConfigurationError:
        return
    if train.strategy.name == "scratch" or (train.weights, train.strategy.name) == ("scratch", "recommended"):
        return
    try:
        found = passports.find(train.weights, train.backbone, download=False)
        yield Finding("weights", "ok", f"params.yaml asks for {train.weights} of {train.backbone}: {found.passport.name}")
    except RadtransferError as error:
        published = any(
            passport.url and passport.backbone == train.backbone and train.weights in (passport.name, passport.source)
            for passport in passports.PASSPORTS
        )
        yield Finding("weights", "note" if published else "missing", str(error))


def _mlflow(paths: Paths) -> Iterator[Finding]:
    from pipelines import tracking, tracking_store

    trouble = tracking.reachable(paths)
    yield Finding("MLflow", "missing" if trouble else "ok", trouble or f"reachable: {tracking_store.public_uri(paths)}")


def _prefect() -> Iterator[Finding]:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        yield Finding("Prefect", "ok", "no server set (PREFECT_API_URL): flows run on their own")
        return
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=3):  # noqa: S310 (the user's own server)
            yield Finding("Prefect", "ok", "the server of PREFECT_API_URL answers")
    except (OSError, ValueError, urllib.error.URLError):
        yield Finding("Prefect", "missing", "the server of PREFECT_API_URL does not answer; start it, or unset the variable")


def _key() -> Iterator[Finding]:
    from pipelines.dicom.pseudonyms import Pseudonyms

    try:
        Pseudonyms.from_environment()
        yield Finding("pseudonym key", "ok", "set (RADTRANSFER_PSEUDONYM_KEY)")
    except MissingKeyError as error:
        yield Finding("pseudonym key", "note", str(error))
