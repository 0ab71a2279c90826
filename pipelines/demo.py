"""The demonstration: a generated hospital, a workspace of its own, and where to look at the end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import config, console, files, versioning, workspace
from pipelines.config import Config
from pipelines.errors import ServiceError, UsageError, WeightsError
from pipelines.paths import Paths, weights_folder
from pipelines.phantom import cohort as phantom
from pipelines.phantom.cohort import Cohort
from pipelines.stages import ingest

# The demo's pseudonym key is public: it protects nobody, and there is nobody to protect.
DEMO_KEY = "radtransfer-demo-key-for-phantoms-only"
PHANTOM_WEIGHTS = "phantom-shapes-resnet10"
_MARKER = ".radtransfer-demo"


@dataclass(frozen=True)
class DemoSummary:
    """Where to look after the demo."""

    workspace: str
    passed: bool
    reasons: tuple[str, ...]
    planted: int
    found: int
    packet: str
    data_docs: str
    model: str
    pretrained_on: str

    def describe(self) -> str:
        from rich.markup import escape

        verdict = "[bold green]The demo is done.[/bold green]"
        if not self.passed:
            verdict += f"\n[red]Rejected by mlflow/policy.yaml[/red]: {escape('; '.join(self.reasons))}"
        bad = f"{self.planted} were planted, {self.found} of them were found, each with its reason"
        ui = f"{_radtransfer()} ui --workspace {shlex.quote(self.workspace)}"
        return "\n".join(
            (
                "",
                verdict,
                "Where to look:",
                f"  review packet   {escape(self.packet)}",
                f"  Data Docs       {escape(self.data_docs)}",
                f"  model           {self.model}; pretrained on {self.pretrained_on}",
                f"  bad files       {bad}",
                "",
                "To review and promote the model (alias [bold]champion[/bold]) in the MLflow UI:",
                f"  [bold]{escape(ui)}[/bold]",
            )
        )


@dataclass(frozen=True)
class FillSummary:
    """What `demo --here` put in place."""

    images: int
    data_hash: str
    weights: str

    def describe(self) -> str:
        return (
            f"data/ holds the demo cohort: {self.images} images, exactly the bytes that data.dvc records "
            f"([bold]{self.data_hash[:12]}[/bold]); weights: {self.weights}\nnext: [bold]dvc repro[/bold]"
        )


def settings(backbone: str = "resnet10", weights: str = PHANTOM_WEIGHTS, size: int = 128) -> Config:
    """The configuration of the demo; its defaults are the params.yaml of this project's own repository."""
    values: dict[str, Any] = Config().model_dump(by_alias=True)
    values["task"]["targets"] = ["opacity"]
    values["prepare"]["size"] = size
    values["split"].update(validation=0.2, test=0.3)
    values["train"].update(backbone=backbone, weights=weights, epochs=8, patience=4)
    if weights == PHANTOM_WEIGHTS:
        # a small network that knows shapes only: its statistics are not those of radiographs, and its early layers must move
        values["train"].update(epochs=30, patience=10)
        values["train"]["strategy"].update(learning_rate=0.003, decay=0.7, batch_norm="trained")
    values["register"]["model"] = "chest-opacity"
    return config.validate(Config, values, "the demo's settings")


def set_up(folder: Path | None, overrides: Iterable[str]) -> tuple[Paths, Cohort]:
    """Make the generated hospital and an empty workspace in `folder` (default: `demo-workspace` here).

    Raises:
        ConfigurationError: an override is not valid.
        UsageError: the folder holds something else than an earlier demo.
    """
    overrides = list(overrides)
    config.overridden(settings(), overrides)
    home = (folder or Path("demo-workspace")).resolve()
    _clear(home)
    os.environ["RADTRANSFER_PSEUDONYM_KEY"] = DEMO_KEY
    os.environ["RADTRANSFER_QUARANTINE"] = str(home / "quarantine")
    console.show(f"[bold]radtransfer demo[/bold] in {home}")
    cohort = phantom.write(home / "source")
    console.show(
        f"a hospital of phantoms: {cohort.images} radiographs of {cohort.patients} patients, {len(cohort.planted)} bad files"
    )
    paths = Paths(home / "workspace")
    workspace.create(paths, _with_weights(home), overrides)
    return paths, cohort


def closing(paths: Paths, cohort: Cohort, summary: Any) -> DemoSummary:
    """Say where everything is, once the flow has ended with `summary`."""
    card = files.read_json(paths.model / "model.json", made_by="train")
    found = Counter(files.read_json(paths.flow, made_by="ingest")["set_aside"])
    found.update(files.read_table(paths.index, made_by="prepare")["left_out"].dropna())
    planted = Counter(item.reason.value for item in cohort.planted if item.reason)
    passport = card["passport"]
    return DemoSummary(
        workspace=str(paths.workspace),
        passed=summary.passed,
        reasons=summary.register.reasons,
        planted=sum(planted.values()),
        found=sum((planted & found).values()),
        packet=str(paths.packet),
        data_docs=str(paths.data_docs),
        model=f"{summary.register.model} version {summary.register.version} in MLflow",
        pretrained_on=passport["trained_on"] if passport else "nothing (from scratch)",
    )


def fill(paths: Paths) -> FillSummary:
    """Fill `data/` with exactly the bytes that `data.dvc` records, and have the demo's weights at hand.

    Raises:
        ServiceError: the cohort came out different from what `data.dvc` records; `data.dvc` is left as it was.
    """
    recorded = versioning.data_hash(paths)
    with tempfile.TemporaryDirectory() as scratch, _environment(Path(scratch)):
        cohort = phantom.write(Path(scratch) / "source")
        images = ingest.run(config.load(paths.params), paths, cohort.folder, cohort.labels).images
    before = paths.data_dvc.read_bytes() if recorded else None
    versioning.call(paths.workspace, "dvc", "add", "--quiet", "data")
    made = versioning.data_hash(paths)
    if before is not None and made != recorded:
        files.write_bytes(paths.data_dvc, before)
        raise ServiceError(f"data/: expected the bytes of data.dvc ({recorded}), the cohort came out as {made}")
    return FillSummary(images, str(made), _pretrained(weights_folder()))


@contextmanager
def _environment(scratch: Path) -> Iterator[None]:
    """The demo's key and a quarantine that goes away."""
    names = ("RADTRANSFER_PSEUDONYM_KEY", "RADTRANSFER_QUARANTINE")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(zip(names, (DEMO_KEY, str(scratch / "quarantine")), strict=True))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _clear(home: Path) -> None:
    if home.exists() and any(home.iterdir()) and not (home / _MARKER).exists():
        raise UsageError(f"{home}: expected an empty folder or an earlier demo, found other files; name another with --workspace")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / _MARKER).touch()


def _with_weights(home: Path) -> Config:
    """Settings for ImageNet weights where they are found or can be downloaded; else for a network pretrained on phantoms."""
    from pipelines.models import passports

    for backbone in ("mobilenet_v2", "resnet18"):
        try:
            found = passports.find("imagenet", backbone)
        except WeightsError:
            continue
        console.show(f"weights: [bold]{found.passport.name}[/bold], trained on {found.passport.trained_on}")
        return settings(backbone, found.passport.name, size=224)
    os.environ["RADTRANSFER_WEIGHTS"] = str(home / "weights")
    console.show(
        "[yellow]no ImageNet weights here and none can be downloaded[/yellow]: a small network is pretrained on another "
        "phantom task first (shapes and textures), and the packet and MLflow say so"
    )
    _pretrained(home / "weights")
    return settings()


def _pretrained(folder: Path) -> str:
    """Have the phantom weights in `folder`, pretraining where they are not; their name."""
    from pipelines.phantom import pretraining

    if not (folder / f"{PHANTOM_WEIGHTS}.safetensors").is_file():
        pretraining.pretrain(folder)
    return PHANTOM_WEIGHTS


def _radtransfer() -> str:
    """The command as it can be typed here: plain if it is on PATH, else with its folder."""
    here = Path(sys.executable).parent / "radtransfer"
    on_path = shutil.which("radtransfer")
    if on_path and Path(on_path).resolve() == here.resolve():
        return "radtransfer"
    return os.path.relpath(here) if here.is_relative_to(Path.cwd()) else str(here)
