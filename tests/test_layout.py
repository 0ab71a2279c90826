"""The rules of the house, read from the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SOURCES = sorted([*(REPOSITORY / "pipelines").rglob("*.py"), *(REPOSITORY / "flows").rglob("*.py")])

# what may be imported from what: each layer may use itself and those above it in this list
LAYERS = (
    (
        "errors",
        "records",
        "config",
        "config_sources",
        "config_tasks",
        "config_types",
        "paths",
        "files",
        "console",
        "processes",
        "isolation",
        "children",
    ),
    ("models", "imaging", "dicom", "metrics", "label_files", "labels", "ingest_summary"),
    ("phantom",),
    ("inference", "transfer", "training", "quality", "gates", "versioning"),
    ("training_display", "tested", "packet", "packet_cases", "model_card", "tracking_store", "tracking"),
    ("stages",),
    ("workspace", "services", "doctor", "actions", "demo", "weights"),
    ("__main__",),
)
SEAMS = {
    "mlflow": ("pipelines/tracking/",),
    "great_expectations": ("pipelines/quality/",),
    "pynetdicom": ("pipelines/dicom/",),
    "dicomweb_client": ("pipelines/dicom/",),
    "ray": ("pipelines/training/",),
    "prefect": ("flows/",),
}
CORE = ("models", "transfer", "training", "imaging", "metrics")


def imports(source: Path) -> Iterator[str]:
    """Every module named by an import statement, also those within functions."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{source}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str | None:
    """The part of the house that `pipelines.…` names, or None for the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipelines" and len(parts) > 1 else None


def layer(name: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if name in rooms)


def relative(source: Path) -> str:
    return source.relative_to(REPOSITORY).as_posix()


def test_imports_point_down() -> None:
    for source in SOURCES:
        if source.parts[-2] == "flows" or (source.name == "__init__.py" and source.parent.name == "pipelines"):
            continue
        own = source.relative_to(REPOSITORY / "pipelines").parts[0].removesuffix(".py")
        for module in imports(source):
            other = room(module)
            if other and other != "__version__":
                assert layer(other) <= layer(own), f"{relative(source)} imports {module}, which stands above it"


def test_a_stage_never_imports_a_stage() -> None:
    for source in (REPOSITORY / "pipelines" / "stages").glob("*.py"):
        found = [module for module in imports(source) if module.startswith("pipelines.stages.")]
        assert not found, f"{relative(source)} imports {found}"


@pytest.mark.parametrize(("library", "places"), SEAMS.items(), ids=SEAMS)
def test_a_service_is_imported_at_its_seam_only(library: str, places: tuple[str, ...]) -> None:
    users = [relative(source) for source in SOURCES if any(module.split(".")[0] == library for module in imports(source))]
    assert all(user.startswith(places) for user in users), f"{library} is imported by {users}"


def test_only_the_command_line_reaches_up_to_the_flows() -> None:
    for source in SOURCES:
        if source.parent.name != "flows" and source.name != "__main__.py":
            found = [module for module in imports(source) if module.split(".")[0] == "flows"]
            assert not found, f"{relative(source)} imports {found}"


def test_the_learning_core_imports_no_orchestration() -> None:
    banned = {"mlflow", "prefect", "dvc", "great_expectations", "rich", "typer"}
    for source in SOURCES:
        if source.relative_to(REPOSITORY).parts[1] in CORE:
            found = {module.split(".")[0] for module in imports(source)} & banned
            assert not found, f"{relative(source)} imports {found}"


def test_importing_any_module_has_no_side_effects(tmp_path: Path) -> None:
    """Importing makes no file, in the working folder or the home folder."""
    modules = [
        relative(s).removesuffix(".py").replace("/", ".") for s in SOURCES if "flows" not in s.parts and s.stem != "__init__"
    ]
    code = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name not in (".cache", ".config")] == []


@pytest.mark.parametrize("folder", ["mlflow", "docker"])
def test_asset_folders_hold_no_package_and_never_shadow_the_library(folder: str) -> None:
    assert (REPOSITORY / folder).is_dir()
    assert not list((REPOSITORY / folder).rglob("*.py"))
    code = "import mlflow; assert mlflow.__file__ and mlflow.__version__, 'shadowed'"
    if folder == "mlflow":
        subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


def test_no_two_test_files_share_a_name() -> None:
    """Folders of tests are no packages, so that pytest could import only one of them."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
