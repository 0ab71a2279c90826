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
def train(workspace: Workspace = HERE, settings: Settings = NONE, as_json: AsJson = False) -> None:
    """Fine-tune a pretrained network; goes on where an interrupted run stopped."""
    stage("train", workspace, settings, as_json)


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
