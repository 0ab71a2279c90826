"""The command line: it parses, then calls a stage; heavy imports wait until a command needs them.

Every command ends with 0 (done), 1 (the work failed, or a gate said no), 2 (wrong usage or configuration) or 130 (Ctrl-C).
Results go to standard output, as text or with `--json` as one JSON object; progress and errors go to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from pipelines import __version__
from pipelines.errors import RadtransferError, discreet
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pydantic import SecretStr

    from pipelines.config import Config

app = typer.Typer(
    help="Transfer learning on radiographs, from DICOM to a model that a clinician can review and promote. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

weights_app = typer.Typer(
    help="Pretrained weights by passport: list them, add files of others, verify and fetch them.", no_args_is_help=True
)
app.add_typer(weights_app, name="weights")

Workspace = Annotated[Path, typer.Option("--workspace", "-w", metavar="DIR", help="The workspace (default: here).")]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting of params.yaml; repeatable.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a machine-readable summary on standard output.")]
Labels = Annotated[Path | None, typer.Option("--labels", metavar="FILE.csv", help="Table of labels (default: ingest.labels).")]

# no library reports on its user, or writes to the home folder to remember having been asked
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "DVC_NO_ANALYTICS": "true"}
HERE = Path()
NONE: list[str] = []


class Summary(Protocol):
    """What a command ends with: a frozen dataclass that can say itself."""

    def describe(self) -> str: ...


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        sys.stdout.write(f"radtransfer {__version__}\n")
        raise typer.Exit


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make a workspace; made if it is not there.")],
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """Make a workspace: git, DVC, params.yaml, dvc.yaml, and homes for MLflow and Prefect."""
    from pipelines import workspace

    with ending(as_json):
        show(workspace.create(Paths(directory.resolve()), overrides=settings), as_json)


@app.command()
def ingest(
    source: Annotated[Path | None, typer.Argument(help="Folder of DICOM files (default: by ingest.kind).")] = None,
    labels: Labels = None,
    workspace: Workspace = HERE,
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """De-identify a folder, or what is new on a server, into data/ and version it. Settings are kept in params.yaml."""
    from pipelines import actions

    with ending(as_json):
        paths = opened(workspace, create=True)
        actions.keep(paths, settings)
        show(actions.ingest_and_version(paths, source, labels), as_json)


@app.command()
def receive(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Listen for a PACS that pushes (C-STORE) until stopped; `ingest` with ingest.kind=inbox takes in what came."""
    from pipelines import console
    from pipelines.stages import receive as reception

    with ending(as_json):
        paths = opened(workspace)
        config = configuration(paths, settings)
        show(reception.run(config, paths, lambda where: console.show(f"listening as {where}; stop with Ctrl-C")), as_json)


@app.command()
def prepare(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """DICOM into fixed-size grayscale arrays."""
    stage("prepare", workspace, settings, as_json)


@app.command()
def check(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Check the images and labels against expectations."""
    stage("check", workspace, settings, as_json)


@app.command()
def split(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Patients into train, validation and test, with a leakage certificate."""
    stage("split", workspace, settings, as_json)


@app.command()
def audit_shortcuts(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """How well border, shape, header, histogram and a blurred image tell the label, without seeing a finding."""
    stage("audit_shortcuts", workspace, settings, as_json)


@app.command()
def rank(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Which network and weights suit the task best, by one pass over the images of each, before any training."""
    stage("rank", workspace, settings, as_json)


@app.command()
def compare(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Train several ways to transfer on the same patients: which is better, at what cost, and where transfer hurts."""
    with ending(as_json):
        paths = opened(workspace)
        if configuration(paths, settings).compare.runner != "local":
            ready = _start_prefect(paths)
            from flows.compare import compare as flow

            ready()
            show(flow(str(paths.workspace), settings), as_json)
            return
    stage("compare", workspace, settings, as_json)


@app.command()
def pretrain(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Learn from the radiographs without labels (`pretrain` in params.yaml), as a source of transfer for `train.weights`."""
    stage("pretrain", workspace, settings, as_json)


@app.command()
def train(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Fine-tune a pretrained network; goes on where an interrupted run stopped."""
    stage("train", workspace, settings, as_json)


@app.command()
def lr_find(
    write: Annotated[
        bool, typer.Option("--write", help="Keep the suggestion, what --set says, and what was recommended, in params.yaml.")
    ] = False,
    workspace: Workspace = HERE,
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """Try learning rates on the train part, draw what the loss does (artifacts/lr_find.png), and suggest one."""
    from pipelines import actions, console

    summary = stage("lr_find", workspace, settings, as_json)
    if write:
        with ending(as_json):
            kept = [*(settings or []), *summary.kept]  # a rate is good for the settings that it was found with
            actions.keep(Paths(workspace.resolve()), kept)
            console.show(f"kept in params.yaml: {', '.join(kept)}")


@app.command()
def evaluate(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Metrics with intervals on the test part, plots, and the review packet."""
    stage("evaluate", workspace, settings, as_json)


@app.command()
def register(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Register the model in MLflow; the gates of mlflow/policy.yaml decide what becomes of it."""
    leave(stage("register", workspace, settings, as_json).passed)


@app.command()
def predict(
    sources: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files or folders.")],
    workspace: Workspace = HERE,
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """Predict with the champion, if a clinician has promoted one, and say which version answered."""
    leave(stage("predict", workspace, settings, as_json, sources).answered)


@app.command()
def run(
    source: Annotated[Path | None, typer.Option("--source", help="Folder of DICOM files (default: by ingest.kind).")] = None,
    labels: Labels = None,
    workspace: Workspace = HERE,
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """The whole flow: ingest, version, every stage that changed, register. Settings given here are kept in params.yaml."""
    from pipelines import actions

    with ending(as_json):
        paths = opened(workspace)
        actions.keep(paths, settings)
        summary = _retrain(paths, source, labels)
        show(summary, as_json)
    leave(summary.passed)


@app.command()
def schedule(
    cron: Annotated[str, typer.Option("--cron", help='When to retrain, in UTC, e.g. "0 2 * * *".')],
    workspace: Workspace = HERE,
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """Serve the retraining deployment until stopped; a run with nothing new skips training and says so."""
    from pipelines import actions, services

    with ending(as_json):
        paths = opened(workspace)
        ready = _start_prefect(paths)
        from flows.retrain import check_cron, serve

        check_cron(cron)
        actions.keep(paths, settings)
        show(services.ScheduleSummary(cron, ready()), as_json)
        serve(paths, cron)


@app.command()
def ui(
    workspace: Workspace = HERE,
    settings: Settings = NONE,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI on 127.0.0.1.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect UI on 127.0.0.1.")] = 4200,
    as_json: AsJson = False,
) -> None:
    """Start the MLflow and Prefect UIs on 127.0.0.1, and say where everything is."""
    with ending(as_json):
        paths = opened(workspace)
        configuration(paths, settings)
        from pipelines import services

        services.serve(paths, mlflow_port, prefect_port, lambda summary: show(summary, as_json))


@app.command()
def demo(
    here: Annotated[bool, typer.Option("--here", help="Fill data/ of this repository with the demo cohort, and stop.")] = False,
    workspace: Annotated[
        Path | None, typer.Option("--workspace", "-w", metavar="DIR", help="Where to work (default: a scratch folder).")
    ] = None,
    settings: Settings = NONE,
    as_json: AsJson = False,
) -> None:
    """The main job, end to end, on a generated cohort of chest phantoms: no network and no data needed."""
    from pipelines import demo as demonstration

    with ending(as_json):
        if here:
            show(demonstration.fill(opened(workspace or HERE)), as_json)
            return
        paths, cohort = demonstration.set_up(workspace, settings)
        summary = demonstration.closing(paths, cohort, _retrain(paths, cohort.folder, cohort.labels))
        show(summary, as_json)
    leave(summary.passed)


@app.command()
def deid_check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder of DICOM files, or one file.")],
    names: Annotated[
        bool, typer.Option("--names", help="Show the paths of files with findings; they may name patients.")
    ] = False,
    pixels: Annotated[bool, typer.Option(help="Read text in the images, too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Look DICOM files over, ours or another tool's, for what de-identification should have taken out."""
    from pipelines.stages import deid_check as examination

    with ending(as_json):
        summary = examination.run(path, names=names, pixels=pixels)
        show(summary, as_json)
    leave(summary.passed)


@app.command()
def doctor(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Say in plain words what is there and what is missing."""
    from pipelines import doctor as examination

    with ending(as_json):
        summary = examination.examine(Paths(workspace.resolve()), settings)
        show(summary, as_json)
    leave(summary.healthy)


Network = Annotated[str | None, typer.Option("--backbone", metavar="NAME", help="The network, as train.backbone names it.")]
Numbers = Annotated[str | None, typer.Option(metavar="A,B,…", help="Numbers with commas.", show_default=False)]


@weights_app.command("list")
def weights_list(backbone: Network = None, as_json: AsJson = False) -> None:
    """Every passport: of published checkpoints, and of those in the weights folder."""
    from pipelines.weights import cabinet

    with ending(as_json):
        show(cabinet.catalogue(backbone), as_json)


@weights_app.command("verify")
def weights_verify(
    names: Annotated[list[str], typer.Argument(metavar="[NAME...]", help="Passports or sources (default: all here).")] = NONE,
    as_json: AsJson = False,
) -> None:
    """Hold checkpoints against their passports: hash, names, golden activations, and the publisher's own network."""
    from pipelines.weights import cabinet

    with ending(as_json):
        summary = cabinet.verify(names)
        show(summary, as_json)
    leave(summary.passed)


@weights_app.command("fetch")
def weights_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A passport, a source with --backbone, or timm:NAME.")],
    backbone: Network = None,
    as_json: AsJson = False,
) -> None:
    """Download a checkpoint into the weights folder, and verify it."""
    from pipelines.weights import cabinet

    with ending(as_json):
        summary = cabinet.fetch(name, backbone)
        show(summary, as_json)
    leave(summary.passed)


@weights_app.command("add")
def weights_add(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="safetensors, a state dict, or the folder of a MONAI bundle.")],
    backbone: Network = None,
    name: Annotated[str | None, typer.Option(help="What train.weights will call it (default: the file's name).")] = None,
    layout: Annotated[str | None, typer.Option(help="How its tensors are named (default: found out by trying).")] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from, in one word.")] = None,
    licence: Annotated[str | None, typer.Option(help="Its licence, with what limits its use.")] = None,
    trained_on: Annotated[str | None, typer.Option(help="The images that it learned from.")] = None,
    channels: Annotated[str | None, typer.Option(help="RGB, BGR or grey (one channel).")] = None,
    input_range: Annotated[str | None, typer.Option(metavar="LOW,HIGH", help="Range of an image before mean and std.")] = None,
    mean: Numbers = None,
    std: Numbers = None,
    input_size: Annotated[int | None, typer.Option(help="Rows and columns during training.")] = None,
    multi_label: Annotated[bool | None, typer.Option(help="Its classifier says several things of an image, or one.")] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="What is before the network's names, e.g. module.encoder. (tensors without it are left out)."),
    ] = None,
    key_map: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML or JSON of THEIRS: OURS, names or regular expressions.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a passport for a checkpoint of others, once it is proven to fit, and copy it into the weights folder."""
    from pipelines.weights import adding

    with ending(as_json):
        said = adding.Description(
            backbone=backbone,
            name=name,
            layout=layout,
            source=source,
            licence=licence,
            trained_on=trained_on,
            channels=channels,
            input_range=adding.numbers(input_range, "--input-range"),
            mean=adding.numbers(mean, "--mean"),
            std=adding.numbers(std, "--std"),
            input_size=input_size,
            multi_label=multi_label,
            prefix=prefix,
            key_map=key_map,
        )
        show(adding.add(path, said), as_json)


def stage(name: str, workspace: Path, settings: list[str], as_json: bool, *arguments: Any) -> Any:
    """Run one stage of `pipelines.stages` and show its summary."""
    from importlib import import_module

    with ending(as_json):
        paths = opened(workspace)
        summary = import_module(f"pipelines.stages.{name}").run(configuration(paths, settings), paths, *arguments)
        show(summary, as_json)
        return summary


def leave(passed: bool) -> None:
    """End with 1 where the work was done but the answer is no."""
    if not passed:
        raise typer.Exit(1)


def opened(folder: Path, *, create: bool = False) -> Paths:
    """The paths of a workspace; with `create` an empty folder is made one."""
    from pipelines import workspace

    paths = Paths(folder.resolve())
    if create and (not paths.workspace.exists() or not any(paths.workspace.iterdir())):
        workspace.create(paths)
    workspace.require(paths)
    return paths


def configuration(paths: Paths, settings: list[str]) -> Config:
    from pipelines import config

    return config.load(paths.params, settings)


def show(summary: Summary, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        sys.stdout.write(json.dumps(asdict(summary), default=str, ensure_ascii=False) + "\n")  # type: ignore[call-overload]
    else:
        from rich.text import Text

        from pipelines import console

        console.tell(Text.from_markup(summary.describe(), emoji=False))


@contextmanager
def ending(as_json: bool) -> Iterator[None]:
    """Turn an error into a message and an exit code; RADTRANSFER_DEBUG lets an unforeseen one through with its traceback."""
    guard = nullcontext() if os.environ.get("RADTRANSFER_DEBUG") else discreet()
    try:
        with guard:
            yield
    except RadtransferError as error:
        _fail(as_json, type(error).__name__, str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail(as_json, "Interrupted", "stopped by the user; what is finished stays, run the command again to go on", 130)


def _fail(as_json: bool, kind: str, message: str, code: int) -> None:
    if as_json:
        _write_failure(kind, message, code)
    from rich.text import Text

    from pipelines import console

    console.tell(Text.assemble((f"{kind}: ", "bold red"), message), stderr=True)
    raise typer.Exit(code)


def _write_failure(kind: str, message: str, code: int) -> None:
    sys.stdout.write(json.dumps({"error": kind, "message": message, "exit_code": code}, ensure_ascii=False) + "\n")


def _retrain(paths: Paths, source: Path | None, labels: Path | None) -> Any:
    ready = _start_prefect(paths)
    from flows.retrain import retrain

    ready()
    return retrain(str(paths.workspace), _absolute(source), _absolute(labels))


def _absolute(path: Path | None) -> SecretStr | None:
    """An absolute path that Prefect does not record."""
    from pydantic import SecretStr

    return SecretStr(str(path.resolve())) if path else None


def _start_prefect(paths: Paths) -> Callable[[], str]:
    """Keep Prefect's home in the workspace, and start its server; Prefect reads both when it is first imported."""
    from pipelines import services

    for name, value in services.prefect_environment(paths).items():
        os.environ.setdefault(name, value)
    return services.start_prefect(paths)


def main() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # whoever ends a command ends what it has started with it, as with Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app(prog_name="radtransfer")
    except SystemExit as end:
        # typer has told of a wrong command line in words; the error that it ends with is the context of the exit
        wrong = getattr(end.__context__, "format_message", None)
        if wrong and "--json" in sys.argv:
            _write_failure("UsageError", wrong(), 2)
        raise


if __name__ == "__main__":
    main()
