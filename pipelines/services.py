"""The local services of a workspace: where Prefect and MLflow keep their homes, and their UIs on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import tracking
from pipelines.errors import ConfigurationError, ServiceError
from pipelines.paths import Paths

HOST = "127.0.0.1"
READY_WITHIN_S = 120


@dataclass(frozen=True)
class UiSummary:
    """Where to look."""

    mlflow: str
    prefect: str
    packet: str | None
    data_docs: str | None

    def describe(self) -> str:
        return "\n".join(
            (
                f"MLflow     [bold]{self.mlflow}[/bold]",
                f"Prefect    [bold]{self.prefect}[/bold]",
                f"packet     {self.packet or 'none yet: run `radtransfer run`'}",
                f"Data Docs  {self.data_docs or 'none yet: run `radtransfer run`'}",
                "stop both with Ctrl-C",
            )
        )


def prefect_environment(paths: Paths) -> dict[str, str]:
    """Settings that keep Prefect inside the workspace, quiet and without a server to set up."""
    return {
        "PREFECT_HOME": str(paths.prefect),
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
    }


def serve(paths: Paths, mlflow_port: int, prefect_port: int, started: Callable[[UiSummary], None]) -> None:
    """Run both UIs until interrupted; `started` is told their addresses once both answer.

    Raises:
        ConfigurationError: a port is taken.
        ServiceError: a server did not answer in time, or ended.
    """
    for name, port in (("--mlflow-port", mlflow_port), ("--prefect-port", prefect_port)):
        _require_free(name, port)
    prefect = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--host", HOST, "--port", str(prefect_port)]
    address = f"http://{HOST}:{prefect_port}"
    prefect_settings = {**prefect_environment(paths), "PREFECT_UI_API_URL": f"{address}/api"}
    with (
        _process(tracking.ui_command(paths, mlflow_port), tracking.ui_environment(paths), paths.mlflow / "ui.log") as mlflow_ui,
        _process(prefect, prefect_settings, paths.prefect / "ui.log") as prefect_ui,
    ):
        _wait_for(mlflow_ui, mlflow_port, paths.mlflow / "ui.log")
        _wait_for(prefect_ui, prefect_port, paths.prefect / "ui.log")
        started(_summary(paths, f"http://{HOST}:{mlflow_port}", address))
        with contextlib.suppress(KeyboardInterrupt):
            while mlflow_ui.poll() is None and prefect_ui.poll() is None:
                time.sleep(0.5)
            raise ServiceError("the MLflow or the Prefect server ended by itself; see ui.log in .mlflow and .prefect")


def _summary(paths: Paths, mlflow: str, prefect: str) -> UiSummary:
    def there(path: Path) -> str | None:
        return str(path) if path.is_file() else None

    return UiSummary(mlflow, prefect, there(paths.packet), there(paths.data_docs))


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigurationError(f"{name}: expected a free port on {HOST}, {port} is taken; name another") from error


@contextlib.contextmanager
def _process(command: Sequence[str], settings: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, which is ended with everything in it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"the server for port {port} ended with {process.returncode} before it answered; see {log}")
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.3)
    raise ServiceError(f"port {port} of {HOST}: expected an answer within {READY_WITHIN_S} s, got none; see {log}")
