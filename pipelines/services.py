"""The local services of a workspace: where Prefect and MLflow keep their homes, and their UIs on 127.0.0.1."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import children, tracking_store
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
        from rich.markup import escape

        return "\n".join(
            (
                f"MLflow     [bold]{self.mlflow}[/bold]",
                f"Prefect    [bold]{self.prefect}[/bold]",
                f"packet     {escape(self.packet or 'none yet: run `radtransfer run`')}",
                f"Data Docs  {escape(self.data_docs or 'none yet: run `radtransfer run`')}",
                "stop both with Ctrl-C",
            )
        )


@dataclass(frozen=True)
class ScheduleSummary:
    """What is served, until it is stopped, and where to watch it."""

    cron: str
    prefect: str

    def describe(self) -> str:
        return f"retraining at [bold]{self.cron}[/bold] (UTC), shown at [bold]{self.prefect}[/bold]\nstop with Ctrl-C"


@dataclass(frozen=True)
class Server:
    """A child process that is to answer on a port of 127.0.0.1."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            ServiceError: it ended, or did not answer in time.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.ended:
                code = self.process.returncode
                raise ServiceError(f"the server for port {self.port} ended with {code} before it answered; see {self.log}")
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            time.sleep(0.3)
        raise ServiceError(f"port {self.port} of {HOST}: expected an answer within {READY_WITHIN_S} s, got none; see {self.log}")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None


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
    command, settings = tracking_store.ui_command(paths, mlflow_port), tracking_store.ui_environment(paths)
    with (
        _server(command, settings, mlflow_port, paths.mlflow / "ui.log") as mlflow,
        _prefect_server(paths, prefect_port, paths.prefect / "ui.log") as prefect,
        contextlib.suppress(KeyboardInterrupt),
    ):
        mlflow.wait()
        prefect.wait()
        started(_summary(paths, mlflow.address, prefect.address))
        while not (mlflow.ended or prefect.ended):
            time.sleep(0.5)
        raise ServiceError("the MLflow or the Prefect server ended by itself; see ui.log in .mlflow and .prefect")


def start_prefect(paths: Paths) -> Callable[[], str]:
    """Have a Prefect server for this process and its children: that of `PREFECT_API_URL`, else one of the workspace's own.

    Prefect's temporary server schedules nothing, and Ctrl-C ends it together with the flow that still reports to it. Call this
    before Prefect is imported: it reads the variable then, and what it has left to report at exit reaches the server, which
    is ended last.

    Returns:
        A function that waits until the server answers and gives its address.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given:
        return lambda: given.removesuffix("/").removesuffix("/api")
    lifetime = contextlib.ExitStack()
    server = lifetime.enter_context(_prefect_server(paths, _free_port(), paths.prefect / "server.log"))
    atexit.register(lifetime.close)
    os.environ["PREFECT_API_URL"] = f"{server.address}/api"

    def ready() -> str:
        server.wait()
        return server.address

    return ready


def _prefect_server(paths: Paths, port: int, log: Path) -> contextlib.AbstractContextManager[Server]:
    command = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--host", HOST, "--port", str(port)]
    settings = {**prefect_environment(paths), "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api"}
    return _server(command, settings, port, log)


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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def _server(command: Sequence[str], settings: Mapping[str, str], port: int, log: Path) -> Iterator[Server]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream, children.started(command, {**os.environ, **settings}, out=stream, err=stream) as process:
        yield Server(process, port, log)
