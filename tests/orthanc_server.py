"""A real Orthanc on loopback, with free ports and a throwaway folder, ways to break its answers, and what came of it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from prerequisites import absent

from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.protocol import Archive
from pipelines.dicom.sources.query import Query

AE = "ORTHANC"
OUR_AE = "RADTRANSFER"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
READY_WITHIN_S = 30


def require() -> str:
    """Where Orthanc is; tests that need it skip where it is not, except in CI."""
    found = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None or not PLUGIN.exists():
        absent("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    """A running Orthanc.

    Attributes:
        move_port: where it believes our AE title to listen.
    """

    http_port: int
    dicom_port: int
    move_port: int
    auth: tuple[str, str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.address}/dicom-web"

    def store(self, content: bytes) -> str:
        """Store a file; Orthanc's name of the instance."""
        answer = requests.post(f"{self.address}/instances", data=content, auth=self.auth, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["ID"])

    def push(self, instance: str, modality: str = "us") -> requests.Response:
        """Have Orthanc send an instance over C-STORE to a modality that it knows."""
        return requests.post(f"{self.address}/modalities/{modality}/store", data=instance, auth=self.auth, timeout=30)

    def clear(self) -> None:
        for name in requests.get(f"{self.address}/patients", auth=self.auth, timeout=10).json():
            requests.delete(f"{self.address}/patients/{name}", auth=self.auth, timeout=10)


@contextmanager
def running(folder: Path, auth: tuple[str, str] | None = None, **settings: Any) -> Iterator[Orthanc]:
    """Start an Orthanc and end it."""
    program = require()
    server = Orthanc(free_port(), free_port(), free_port(), auth)
    configuration = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": server.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": auth is not None,
        "RegisteredUsers": dict([auth]) if auth else {},
        "DicomPort": server.dicom_port,
        "DicomAet": AE,
        "DicomCheckCalledAet": True,
        "DicomModalities": {"us": [OUR_AE, "127.0.0.1", server.move_port]},
        "DicomScuTimeout": 10,
        "UnknownSopClassAccepted": True,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **settings,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        _await_ready(process, server, folder / "orthanc.log")
        yield server
    finally:
        process.kill()  # it has nothing to save, and takes seconds to leave by itself
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], server: Orthanc, log: Path) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(OSError, requests.RequestException):
            socket.create_connection(("127.0.0.1", server.dicom_port), timeout=1).close()
            requests.get(f"{server.address}/system", auth=server.auth, timeout=1).raise_for_status()
            return
        time.sleep(0.05)
    pytest.fail(f"Orthanc did not start: {log.read_text()[-2000:]}")


def found(archive: Archive, query: Query) -> set[str]:
    """The last number of the UID of every instance that an archive says it has."""
    studies = {study.uid: study for study in archive.studies(query)}
    return {instance.uid.split(".")[-1] for study in studies.values() for instance in archive.instances(study, query)}


def only_file(inbox: Inbox) -> Path:
    """The one file that waits in an inbox."""
    (waiting,) = inbox.waiting()
    return inbox.ready / waiting.name


@dataclass
class Answer:
    """An HTTP answer on its way through the proxy.

    Attributes:
        number: how many requests matched the fault before.
        cut: break the connection off after so many bytes of the body.
        pause_s: wait before the answer.
        drip_s: wait before each byte.
    """

    path: str
    number: int
    status: int
    headers: dict[str, str]
    body: bytes
    cut: int | None = None
    pause_s: float = 0.0
    drip_s: float = 0.0


@dataclass
class Proxy:
    """Stands before Orthanc and breaks what it is told to.

    Attributes:
        faults: what to do to answers to paths that contain a text.
        requests: the paths that were asked for, in order.
    """

    port: int
    scheme: str = "http"
    faults: dict[str, Callable[[Answer], None]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def dicomweb(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dicom-web"

    def asked(self, text: str) -> int:
        """How many requests had a text in their path."""
        return sum(text in path for path in self.requests)


@contextmanager
def proxied(server: Orthanc, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy before an Orthanc, which can talk encrypted."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            proxy.requests.append(self.path)
            proxy.headers.append(dict(self.headers))
            passed = {name: value for name, value in self.headers.items() if name in ("Accept", "Authorization")}
            real = requests.get(f"{server.address}{self.path}", headers=passed, timeout=30)
            kept = {name: value for name, value in real.headers.items() if name.lower() == "content-type"}
            answer = Answer(self.path, 0, real.status_code, kept, real.content)
            for text, fault in proxy.faults.items():
                if text in self.path:
                    answer.number = proxy.counts.get(text, 0)
                    proxy.counts[text] = answer.number + 1
                    fault(answer)
            with suppress(OSError):
                self._send(answer)

        def _send(self, answer: Answer) -> None:
            time.sleep(answer.pause_s)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if answer.drip_s:
                for position in range(len(answer.body)):
                    time.sleep(answer.drip_s)
                    self.wfile.write(answer.body[position : position + 1])
            self.wfile.write(b"" if answer.drip_s else answer.body[: answer.cut])
            self.close_connection = self.close_connection or answer.cut is not None

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as front:
        front.daemon_threads = True
        if tls:
            front.socket = tls.wrap_socket(front.socket, server_side=True, do_handshake_on_connect=False)
        proxy = Proxy(front.server_port, "https" if tls else "http")
        threading.Thread(target=front.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield proxy
        finally:
            front.shutdown()


@dataclass
class Relay:
    """A TCP relay that breaks connections.

    Attributes:
        cuts: for each connection in turn, after how many bytes from the server it breaks off (None: never).
        pause_s: wait before what the server says is passed on, from the connection's byte `pause_after` on.
    """

    port: int
    cuts: list[int | None] = field(default_factory=list)
    pause_s: float = 0.0
    pause_after: int = 0
    connections: int = 0


@contextmanager
def relayed(port: int) -> Iterator[Relay]:
    """A relay before a port of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    relay = Relay(int(listening.getsockname()[1]))

    def pump(source: socket.socket, target: socket.socket, cut: int | None, slow: bool) -> None:
        passed = 0
        with suppress(OSError):
            while chunk := source.recv(4096):
                if slow and passed >= relay.pause_after:
                    time.sleep(relay.pause_s)
                if cut is not None and passed + len(chunk) > cut:
                    target.sendall(chunk[: max(0, cut - passed)])
                    break
                target.sendall(chunk)
                passed += len(chunk)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                cut = relay.cuts[relay.connections] if relay.connections < len(relay.cuts) else None
                relay.connections += 1
                server = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=pump, args=(client, server, None, False), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, cut, True), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield relay
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
