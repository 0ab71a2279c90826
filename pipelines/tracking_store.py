"""Where MLflow is: the server of the environment, or the workspace's own store and the command that shows it.

Apart from `tracking`, so that naming an address does not load MLflow.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.parse

from pipelines.paths import Paths

DATABASE = "mlflow.db"


def local_uri(paths: Paths) -> str:
    """The workspace's own store: a SQLite file."""
    return f"sqlite:///{paths.mlflow.resolve() / DATABASE}"


def tracking_uri(paths: Paths) -> str:
    """The server of MLFLOW_TRACKING_URI if set, else the workspace's own store; may hold credentials."""
    return os.environ.get("MLFLOW_TRACKING_URI") or local_uri(paths)


def public_uri(paths: Paths) -> str:
    """`tracking_uri` as it may be shown: without user, password and query."""
    return without_credentials(tracking_uri(paths))


def version_link(paths: Paths, model: str, number: str, port: int = 5000) -> str:
    """The page of a model version: at the server, or for the workspace's own store where `radtransfer ui` shows it."""
    uri = public_uri(paths)
    base = uri.rstrip("/") if uri.startswith(("http://", "https://")) else f"http://127.0.0.1:{port}"
    return f"{base}/#/models/{urllib.parse.quote(model)}/versions/{number}"


def ui_command(paths: Paths, port: int) -> list[str]:
    """The command that serves the MLflow UI of the workspace's own store on 127.0.0.1."""
    return [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", local_uri(paths), "--default-artifact-root", artifacts(paths),
    ]  # fmt: skip


def ui_environment(paths: Paths) -> dict[str, str]:
    """Settings for `ui_command`: no telemetry, no helper processes, and the store that it serves."""
    return {
        "MLFLOW_TRACKING_URI": local_uri(paths),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }


def artifacts(paths: Paths) -> str:
    """Where the workspace's own store keeps files, as a URI."""
    return (paths.mlflow.resolve() / "artifacts").as_uri()


def absent(paths: Paths) -> bool:
    """Whether the workspace's own store is meant, and nothing was ever registered there."""
    return tracking_uri(paths) == local_uri(paths) and not (paths.mlflow / DATABASE).is_file()


def without_credentials(uri: str) -> str:
    """An address, or a message that holds one, without user, password and query."""
    return re.sub(r"//[^/@\s]*@", "//", uri).partition("?")[0]
