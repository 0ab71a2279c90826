from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines import config, versioning, workspace
from pipelines.errors import ConfigurationError, ServiceError
from pipelines.paths import Paths
from pipelines.stages import PLOTS, STAGES, Stage

# what says where things lie and how they are told, and decides no result
PLAIN = {
    "__init__",
    "config",
    "console",
    "errors",
    "files",
    "imaging/store",
    "paths",
    "processes",
    "records",
    "training_display",
    "versioning",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    paths = Paths(tmp_path_factory.mktemp("made") / "ws")
    workspace.create(paths)
    return paths


def git(paths: Paths, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=paths.workspace, capture_output=True, text=True, check=True).stdout


def test_a_new_workspace_is_committed_and_clean(made: Paths) -> None:
    assert git(made, "status", "--porcelain") == ""
    tracked = git(made, "ls-files").split()
    assert {"params.yaml", "dvc.yaml", "mlflow/policy.yaml", ".dvc/config", ".gitignore"} <= set(tracked)
    assert config.load(made.params) == config.Config()
    assert made.mlflow.is_dir()
    assert made.prefect.is_dir()


def test_making_it_again_changes_nothing(made: Paths) -> None:
    before = versioning.head(made)
    made.params.write_text(made.params.read_text() + "# mine\n")
    assert workspace.create(made).written == ()
    assert made.params.read_text().endswith("# mine\n")
    assert git(made, "diff", "--name-only").split() == ["params.yaml"]
    git(made, "checkout", "--quiet", "params.yaml")
    assert versioning.head(made) == before


def test_what_git_ignored_before_it_still_ignores(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.secret")
    workspace.create(Paths(tmp_path))
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored[0] == "*.secret"
    assert {"/data", "/.mlflow/", "/.prefect/"} <= set(ignored)


def test_dvc_reads_the_pipeline_in_the_order_of_the_table(made: Paths) -> None:
    listed = versioning.call(made.workspace, "dvc", "stage", "list", "--name-only").split()
    assert listed == [stage.name for stage in STAGES]
    graph = versioning.call(made.workspace, "dvc", "dag", "--dot")
    order = [("prepare", "check"), ("check", "split"), ("split", "train"), ("train", "evaluate")]
    for before, after in (*order, ("split", "audit_shortcuts"), ("audit_shortcuts", "evaluate")):
        assert f'"{before}" -> "{after}"' in graph


def test_dvc_yaml_of_the_repository_is_rendered_from_the_table(repository: Path) -> None:
    assert (repository / "dvc.yaml").read_text() == workspace.pipeline_text(sources=True)


def test_every_stage_is_a_command_a_module_and_a_section(repository: Path) -> None:
    pipeline = yaml.safe_load((repository / "dvc.yaml").read_text())
    for stage in STAGES:
        entry = pipeline["stages"][stage.name]
        assert entry["cmd"] == f"radtransfer {stage.name.replace('_', '-')}"
        assert stage.name in entry["params"]
        assert (repository / "pipelines" / "stages" / f"{stage.name}.py").is_file()


def test_every_code_dependency_exists(repository: Path) -> None:
    for stage in STAGES:
        for code in stage.code:
            assert (repository / code).exists(), code


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_what_a_stage_imports_is_among_its_code(stage: Stage, repository: Path) -> None:
    package = repository / "pipelines"
    tree = ast.parse((package / "stages" / f"{stage.name}.py").read_text())
    named = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipelines")]
    modules = [f"{node.module}.{alias.name}".split(".")[1:] for node in named for alias in node.names]
    files = [next(file for file in _files(package, module) if file.is_file()) for module in modules]
    code = [repository / path for path in stage.code]
    outside = {file for file in files if not any(file.is_relative_to(path) for path in code)}
    assert {file.relative_to(package).with_suffix("").as_posix() for file in outside} <= PLAIN


def _files(package: Path, names: list[str]) -> list[Path]:
    """Where a name may come from: a module of its own, or the one that holds it."""
    own = package.joinpath(*names)
    return [own.with_suffix(".py"), own / "__init__.py", own.parent.with_suffix(".py"), own.parent / "__init__.py"]


def test_every_plot_is_of_a_declared_output() -> None:
    outs = {out for stage in STAGES for out in stage.outs}
    assert {plot.table for plot in PLOTS} <= outs


def test_changed_code_changes_the_fingerprints_of_its_stages_only(made: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    before = json.loads(made.code.read_text())
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: original(self) + (b"#" if self.parent.name == "transfer" else b""))
    workspace.refresh_code(made)
    after = json.loads(made.code.read_text())
    assert {name for name in after if after[name] != before[name]} == {"train"}
    git(made, "checkout", "--quiet", "code.json")


def test_settings_are_kept_with_their_comments(made: Paths) -> None:
    workspace.set_params(made, ["task.targets=[opacity]", "train.strategy.name=full"])
    text = made.params.read_text()
    assert config.load(made.params).train.strategy.name == "full"
    assert config.load(made.params).task.targets == ("opacity",)
    assert "targets: [opacity] " in text
    assert text.count("# ") == config.render(config.Config()).count("# ")
    git(made, "checkout", "--quiet", "params.yaml")


def test_a_wrong_setting_leaves_params_as_they_were(made: Paths) -> None:
    before = made.params.read_bytes()
    with pytest.raises(ConfigurationError, match=r"train.epochs"):
        workspace.set_params(made, ["train.epochs=-1"])
    assert made.params.read_bytes() == before


def test_a_folder_that_is_no_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"expected a workspace, found no params.yaml; run `radtransfer init DIR`"):
        workspace.require(Paths(tmp_path))


def test_data_are_versioned_committed_and_pushed(made: Paths, tmp_path: Path) -> None:
    (made.data / "dicom").mkdir(parents=True)
    (made.data / "dicom" / "a.dcm").write_bytes(b"pixels")
    first = versioning.version_data(made, "Ingest 1 new studies")
    assert first.changed
    assert not first.pushed
    assert first.data_hash == versioning.data_hash(made)
    assert git(made, "log", "-1", "--format=%s").strip() == "Ingest 1 new studies"
    assert git(made, "show", "--stat", "--format=", "HEAD").split()[0] in ("data.dvc", ".gitignore")

    versioning.call(made.workspace, "dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    again = versioning.version_data(made, "Ingest 0 new studies")
    assert not again.changed
    assert again.pushed
    assert [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
    assert again.commit == first.commit


def test_a_failing_command_is_quoted(made: Paths) -> None:
    with pytest.raises(ServiceError, match=r"`git rev-parse nonsense` ended with 128"):
        versioning.call(made.workspace, "git", "rev-parse", "nonsense")


def test_what_dvc_has_to_say_itself_is_told(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    workspace.create(paths)
    paths.pipeline.write_text("stages: 3\n")
    with pytest.raises(ServiceError, match=r"`dvc status --json` ended with .*'\./dvc\.yaml' validation failed"):
        versioning.is_current(paths)
    with pytest.raises(ServiceError, match="validation failed"):
        versioning.reproduce(paths, "prepare")


def test_a_workspace_in_use_says_by_whom(made: Paths) -> None:
    lock = made.workspace / ".dvc" / "tmp" / "rwlock"
    lock.parent.mkdir(exist_ok=True)
    taken = {str(made.workspace / "params.yaml"): {"pid": os.getpid(), "cmd": "dvc repro"}}
    lock.write_text(json.dumps({"write": taken, "read": {}}))
    try:
        with pytest.raises(ServiceError, match=rf"in use by process {os.getpid()}; try again when that has ended"):
            versioning.is_current(made)
    finally:
        lock.unlink()
