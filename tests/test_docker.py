"""The images and the compose stack, without a Docker engine: linted, checked against the schema, install steps run natively."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

BIN = Path(sys.executable).parent
DOCKERFILES = ("train.Dockerfile", "run.Dockerfile")


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((repository / "docker" / "compose.yaml").read_text())
    return loaded


def lint(*command: str, cwd: Path) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("hadolint", "docker/train.Dockerfile", "docker/run.Dockerfile"),
        (
            "shellcheck",
            "docker/install.sh",
            "docker/mlflow-server.sh",
            "docker/postgres-databases.sh",
            "tests/system-packages.sh",
        ),
        ("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker/compose.yaml"),
        ("yamllint", "--strict", "docker/compose.yaml", "prefect.yaml", "mlflow/policy.yaml"),
    ],
    ids=lambda command: command[0],
)
def test_the_files_are_clean(command: tuple[str, ...], repository: Path) -> None:
    lint(*command, cwd=repository)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_runs_as_nobody_special_and_installs_by_the_script(name: str, repository: Path) -> None:
    text = (repository / "docker" / name).read_text()
    assert re.findall(r"^USER (\S+)", text, re.M) == ["10001"]
    assert "sh docker/install.sh /opt/radtransfer" in text
    for copied in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M):
        for source in copied.split():
            assert (repository / source).exists(), source


def test_every_published_port_is_bound_to_loopback(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_every_service_is_checked_for_health(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "mlflow", "prefect", "worker", "orthanc"}
    assert all("healthcheck" in service for service in compose["services"].values())


def test_no_secret_has_a_default_and_the_example_names_every_variable(repository: Path) -> None:
    text = (repository / "docker" / "compose.yaml").read_text()
    named = set(re.findall(r"\$\{(\w+)", text)) - {"TORCH_BACKEND"}
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert named == required
    lines = (repository / "docker" / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert set(example) == named
    assert not any(example.values())


def test_the_install_steps_of_the_images_work(repository: Path, tmp_path: Path) -> None:
    """What the build context holds is installed as the images do it, and runs where the repository is not."""
    context = tmp_path / "context"
    for name in ("pyproject.toml", "requirements.lock", "README.md", "LICENSE", "docker", "pipelines", "flows"):
        source = repository / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (context).mkdir(exist_ok=True)
        copy(source, context / name)
    prefix = tmp_path / "prefix"
    done = subprocess.run(["sh", "docker/install.sh", prefix], cwd=context, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("radtransfer ")
    packages = subprocess.run([prefix / "bin/python", "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "torch " in packages
    assert "pytest" not in packages
    assert "pylibjpeg" not in packages
    bare = {"HOME": str(tmp_path), "PATH": f"{prefix}/bin:{os.environ['PATH']}"}
    made = subprocess.run(["radtransfer", "init", "ws"], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "ws" / "dvc.yaml").is_file()
    shutil.rmtree(prefix)


def test_the_mlflow_server_refuses_to_start_without_a_password(repository: Path) -> None:
    done = subprocess.run(
        ["sh", repository / "docker" / "mlflow-server.sh"],
        env={"PATH": os.environ["PATH"], "MLFLOW_ADMIN_USERNAME": "reviewer"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "MLFLOW_ADMIN_PASSWORD: set a password" in done.stderr
