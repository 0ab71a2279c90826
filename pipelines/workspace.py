"""Making a workspace, and keeping its generated files true: `dvc.yaml` from the stage table, `code.json` from the code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines import __version__, config, files, versioning
from pipelines.errors import ConfigurationError
from pipelines.paths import Paths
from pipelines.stages import PLOTS, STAGES, Plot, Stage

_GITIGNORE = """\
/data
/artifacts/*
!/artifacts/evaluation
/artifacts/evaluation/*
!/artifacts/evaluation/metrics.json
/.mlflow/
/.prefect/
/dvc_plots/
"""

_DVCIGNORE = "__pycache__\n*.pyc\n"


@dataclass(frozen=True)
class WorkspaceSummary:
    """A workspace and the files that were written to make it one."""

    workspace: str
    written: tuple[str, ...]

    def describe(self) -> str:
        from rich.markup import escape

        if not self.written:
            return f"{escape(self.workspace)} is a workspace already; nothing was changed"
        return (
            f"a workspace in [bold]{escape(self.workspace)}[/bold]; written: {', '.join(self.written)}\n"
            "next: [bold]radtransfer ingest SOURCE --labels FILE.csv[/bold], then [bold]radtransfer run[/bold]"
        )


def create(paths: Paths, settings: config.Config | None = None, overrides: Iterable[str] = ()) -> WorkspaceSummary:
    """Make `paths.workspace` a workspace; what is there already is left as it is.

    Args:
        settings: what params.yaml says where there is none yet.
        overrides: `section.key=value` settings that params.yaml is to hold in any case.

    Raises:
        ConfigurationError: an override is not valid, or the path cannot be a folder; nothing is made.
        ServiceError: git or DVC failed.
    """
    overrides = list(overrides)
    written: list[Path] = []
    params = config.overridden(settings or config.Config(), overrides)
    try:
        paths.workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{paths.workspace}: expected a folder, or a place for one: {error.strerror}") from error
    if overrides and paths.params.exists():
        set_params(paths, overrides)
        written.append(paths.params)
    versioning.initialise(paths.workspace)
    contents = {
        paths.params: config.render(params),
        paths.pipeline: pipeline_text(),
        paths.policy: config.render(config.Policy()),
        paths.code: code_text(),
    }
    contents = {path: text for path, text in contents.items() if not path.exists()}
    for name, lines in ((".gitignore", _GITIGNORE), (".dvcignore", _DVCIGNORE)):
        contents |= _completed(paths.workspace / name, lines)
    for path, text in contents.items():
        files.write_text(path, text)
        written.append(path)
    for home in (paths.mlflow, paths.prefect):
        home.mkdir(exist_ok=True)
    if contents:
        dvc = [paths.workspace / ".dvc" / name for name in (".gitignore", "config")]
        versioning.commit(paths, [*contents, *dvc], "Make a radtransfer workspace")
    return WorkspaceSummary(str(paths.workspace), tuple(str(path.relative_to(paths.workspace)) for path in written))


def _completed(path: Path, lines: str) -> dict[Path, str]:
    """What an ignore file has to say to hold `lines`, keeping its own; nothing where it holds them."""
    own = path.read_text() if path.exists() else ""
    missing = [line for line in lines.splitlines() if line not in own.splitlines()]
    if not missing:
        return {}
    return {path: own + ("\n" if own and not own.endswith("\n") else "") + "\n".join(missing) + "\n"}


def require(paths: Paths) -> None:
    """Check that the folder is a workspace.

    Raises:
        ConfigurationError: it has no params.yaml or dvc.yaml.
    """
    for path in (paths.params, paths.pipeline):
        if not path.is_file():
            raise ConfigurationError(
                f"{paths.workspace}: expected a workspace, found no {path.name}; "
                "run `radtransfer init DIR` and work there, or name it with --workspace DIR"
            )


def set_params(paths: Paths, overrides: Iterable[str]) -> None:
    """Write `section.key=value` settings into params.yaml, keeping its comments.

    Raises:
        ConfigurationError: a setting is not valid; params.yaml is as it was.
    """
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedSeq

    overrides = list(overrides)
    config.load(paths.params, overrides)
    editor = YAML()
    editor.width = 4096
    values = editor.load(paths.params.read_text())
    for override in overrides:
        keys, value = config.parse_override(override)
        node: Any = values
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        if isinstance(value, list):
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        node[keys[-1]] = value
    text = StringIO()
    editor.dump(values, text)
    files.write_text(paths.params, text.getvalue())


def refresh_code(paths: Paths) -> None:
    """Bring `code.json` up to the installed code, where the workspace has one, so that DVC sees what an upgrade changed."""
    if paths.code.is_file() and paths.code.read_text() != code_text():
        files.write_text(paths.code, code_text())


def code_text() -> str:
    """The text of `code.json`: for each stage the SHA-256 over the sources that decide its result."""
    prints = {stage.name: _fingerprint(stage.code) for stage in STAGES}
    return json.dumps({"radtransfer": __version__, **prints}, indent=2) + "\n"


def _fingerprint(code: Iterable[str]) -> str:
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for source in sorted(source for name in code for source in _sources(package / name)):
        digest.update(source.relative_to(package).as_posix().encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(place: Path) -> list[Path]:
    return list(place.rglob("*.py")) if place.is_dir() else [place]


def pipeline_text(*, sources: bool = False) -> str:
    """The text of `dvc.yaml`, rendered from the stage table.

    With `sources`, stages depend on the source files themselves (in this project's own repository); otherwise on the
    fingerprints in `code.json`, since an installed package has no place in a workspace.
    """
    head = "# Rendered from pipelines/stages/__init__.py; each stage's settings are in the section of params.yaml of its name.\n"
    pipeline = {
        "stages": {stage.name: _stage(stage, sources) for stage in STAGES},
        "plots": [_plot(plot) for plot in PLOTS],
    }
    return head + yaml.safe_dump(pipeline, sort_keys=False, width=120)


def _stage(stage: Stage, sources: bool) -> dict[str, Any]:
    params: list[Any] = [stage.name, *stage.params]
    entry: dict[str, Any] = {
        "cmd": f"radtransfer {stage.command}",
        "deps": [*stage.deps, *(stage.code if sources else ())],
        "params": params if sources else [*params, {"code.json": [stage.name]}],
        "outs": [{out: {"persist": True}} if stage.keep else out for out in stage.outs],
    }
    if stage.metrics:
        entry["metrics"] = [{metric: {"cache": False}} for metric in stage.metrics]
    return entry


def _plot(plot: Plot) -> dict[str, Any]:
    columns = plot.y[0] if len(plot.y) == 1 else list(plot.y)
    return {plot.title: {"template": plot.template, "x": plot.x, "y": {plot.table: columns}}}
