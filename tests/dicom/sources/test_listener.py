from __future__ import annotations

import gc
import logging
import os
import socket
import ssl
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from made_dicom import ROOT, file_bytes, gradient, header, radiograph, with_pixels
from orthanc_server import OUR_AE, Orthanc, free_port
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit
from pynetdicom.ae import ApplicationEntity as Entity

from pipelines.config_sources import ReceiveSection, TlsSection
from pipelines.dicom.sources import listener as listener_module
from pipelines.dicom.sources import spool, transport
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.listener import Listener
from pipelines.errors import ConfigurationError

COMPUTED = "1.2.840.10008.5.1.4.1.1.1"
TOMOGRAPH = "1.2.840.10008.5.1.4.1.1.2"
OUT_OF_RESOURCES = 0xA700


@contextmanager
def listening(
    inbox: Inbox, port: int | None = None, tls: TlsSection | None = None, timeout_s: float = 5, **settings: Any
) -> Iterator[Listener]:
    section = ReceiveSection.model_validate({"port": port or free_port(), "tls": tls is not None, **settings})
    with Listener(section, tls or TlsSection(), ("CR", "DX", "RG"), timeout_s, inbox) as listener:
        yield listener


def push(listener: Listener, content: bytes, as_title: str = "SENDER", to: str = OUR_AE) -> int | None:
    """Send a file by C-STORE; the status, None where there is no association or no agreement."""
    dataset = dcmread(BytesIO(content))
    entity = Entity(as_title)
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", listener._section.port, ae_title=to)
    if not association.is_established:
        return None
    try:
        return int(association.send_c_store(dataset).Status)
    except ValueError:
        return None
    finally:
        association.release()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000Lossless], ids=lambda uid: UID(uid).name)
def test_what_a_pacs_pushes_waits_in_the_inbox(pacs: Orthanc, inbox: Inbox, syntax: str) -> None:
    name = pacs.store(radiograph(1, syntax=syntax))
    with listening(inbox, pacs.move_port) as listener:
        assert pacs.push(name).ok
    (waiting,) = inbox.waiting()
    assert waiting.image == inbox.pseudonyms.uid(f"{ROOT}.1.1")
    stored = dcmread(inbox.ready / waiting.name)
    assert (stored.SOPInstanceUID, stored.file_meta.TransferSyntaxUID) == (f"{ROOT}.1.1", syntax)
    assert stat.S_IMODE((inbox.ready / waiting.name).stat().st_mode) == 0o600
    assert (listener.reception.received, listener.reception.failed) == (1, 0)
    assert list(inbox.incoming.iterdir()) == []


def test_an_image_that_is_pushed_twice_waits_once(pacs: Orthanc, inbox: Inbox) -> None:
    name = pacs.store(radiograph(1))
    with listening(inbox, pacs.move_port):
        for _ in range(2):
            assert pacs.push(name).ok
    assert len(inbox.waiting()) == 1


def test_several_senders_at_once_are_all_heard(inbox: Inbox) -> None:
    with listening(inbox) as listener:
        senders = [threading.Thread(target=push, args=(listener, radiograph(number))) for number in range(1, 7)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert len(inbox.waiting()) == 6


def test_a_sender_that_is_not_known_is_refused_when_told_to(inbox: Inbox) -> None:
    with listening(inbox, calling_aes=["SENDER", "ANOTHER"]) as listener:
        assert push(listener, radiograph(1), as_title="STRANGER") is None
        assert push(listener, radiograph(2), as_title="SENDER") == 0
    assert listener.reception.refused == 1
    assert [file.image for file in inbox.waiting()] == [inbox.pseudonyms.uid(f"{ROOT}.1.2")]


def test_any_sender_is_let_in_where_none_is_named(inbox: Inbox) -> None:
    with listening(inbox) as listener:
        assert push(listener, radiograph(1), as_title="STRANGER") == 0


def test_what_is_no_radiograph_is_not_taken(inbox: Inbox) -> None:
    with listening(inbox) as listener:
        assert push(listener, radiograph(1, SOPClassUID=TOMOGRAPH, Modality="CT")) is None
    assert inbox.waiting() == []


@pytest.mark.parametrize("method", ["write", "flush", "deliver"])
def test_a_full_disk_is_told_to_the_sender_and_stops_nobody(inbox: Inbox, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    full = [True]

    def failing(usual: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if full:
                raise OSError(28, "No space left on device")
            return usual(*arguments)

        return call

    def opened(**options: Any) -> Any:
        stream = tempfile.NamedTemporaryFile(**options)  # noqa: SIM115
        if method != "deliver":
            setattr(stream, method, failing(getattr(stream, method)))
        return stream

    monkeypatch.setattr(spool, "NamedTemporaryFile", opened)
    if method == "deliver":
        monkeypatch.setattr(Inbox, "deliver", failing(Inbox.deliver))
    with listening(inbox) as listener:
        assert push(listener, radiograph(1)) == OUT_OF_RESOURCES
        full.clear()
        assert push(listener, radiograph(2)) == 0
    assert (listener.reception.received, listener.reception.failed) == (1, 1)
    assert list(inbox.incoming.iterdir()) == []


def test_half_an_image_is_never_in_the_inbox(inbox: Inbox) -> None:
    """The sender is killed in the middle of a C-STORE."""
    content = file_bytes(with_pixels(header(1), gradient(600, 600, 16)))
    with listening(inbox) as listener:
        dataset = dcmread(BytesIO(content))
        entity = Entity("SENDER")
        entity.dimse_timeout = 2
        entity.add_requested_context(COMPUTED, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener._section.port)
        line = association.dul.socket
        assert line is not None
        send, sent = line.send, [0]

        def send_half(data: bytes) -> None:
            sent[0] += len(data)
            if sent[0] > len(content) // 2 and line.socket:
                line.socket.shutdown(socket.SHUT_RDWR)
            send(data)

        line.send = send_half  # type: ignore[method-assign]
        assert "Status" not in association.send_c_store(dataset)
        assert push(listener, radiograph(2)) == 0
    assert [file.image for file in inbox.waiting()] == [inbox.pseudonyms.uid(f"{ROOT}.1.2")]
    gc.collect()
    assert list(inbox.incoming.iterdir()) == []


def test_what_arrives_is_written_within_the_inbox_and_nowhere_else(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places: list[Path] = []
    deliver = Inbox.deliver

    def watching(self: Inbox, arrived: Path, uid: str) -> str:
        places.append(arrived.parent)
        return deliver(self, arrived, uid)

    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setattr(Inbox, "deliver", watching)
    with listening(inbox) as listener:
        assert push(listener, radiograph(1)) == 0
    assert places == [inbox.incoming]
    assert list(elsewhere.iterdir()) == []


def test_an_image_larger_than_any_radiograph_ends_the_association(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGEST", 100_000)
    with listening(inbox) as listener:
        dataset = dcmread(BytesIO(file_bytes(with_pixels(header(1), gradient(600, 600, 16)))))
        entity = Entity("SENDER")
        entity.add_requested_context(COMPUTED, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener._section.port)
        assert "Status" not in association.send_c_store(dataset)
        assert push(listener, radiograph(2)) == 0
    assert [file.image for file in inbox.waiting()] == [inbox.pseudonyms.uid(f"{ROOT}.1.2")]


def test_many_images_may_come_in_one_association(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [radiograph(number) for number in range(1, 6)]
    monkeypatch.setattr(transport, "LARGEST", 2 * len(contents[0]))
    monkeypatch.setattr(transport, "LARGEST_ANSWER", 2 * len(contents[0]))
    with listening(inbox) as listener:
        entity = Entity("SENDER")
        entity.add_requested_context(COMPUTED, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener._section.port)
        assert [association.send_c_store(dcmread(BytesIO(content))).Status for content in contents] == [0] * 5
        association.release()


def test_a_port_that_is_taken_is_said_to_be(inbox: Inbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=f"expected a free port, 127.0.0.1:{port} cannot be had"),
            listening(inbox, port),
        ):
            pass


def test_other_machines_are_not_let_in_unless_told() -> None:
    assert ReceiveSection().host == "127.0.0.1"


def test_garbage_and_silence_stop_nobody(inbox: Inbox, capfd: pytest.CaptureFixture[str]) -> None:
    with listening(inbox) as listener:
        address = ("127.0.0.1", listener._section.port)
        with socket.create_connection(address), socket.create_connection(address) as garbage:
            garbage.sendall(os.urandom(1000))
            assert push(listener, radiograph(1)) == 0
    assert "".join(capfd.readouterr()) == ""


def test_no_room_is_made_for_what_a_peer_only_announces(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(transport, "bytearray", lambda amount: asked.append(amount) or bytearray(amount), raising=False)
    with (
        listening(inbox) as listener,
        socket.create_connection(("127.0.0.1", listener._section.port), timeout=5) as peer,
    ):
        peer.sendall(struct.pack(">BBL", 0x04, 0, 0xFFFFFFFF))
        assert peer.recv(1) == b""
    assert set(asked) == {6}  # the head of a PDU


def test_a_message_that_is_no_image_is_not_gathered_without_end(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "LARGEST_ANSWER", 10_000)
    endless = struct.pack(">BBL", 0x04, 0, 4006) + struct.pack(">LBB", 4002, 1, 1) + bytes(4000)
    with listening(inbox) as listener:
        entity = Entity("SENDER")
        entity.add_requested_context(COMPUTED, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener._section.port)
        for _ in range(4):
            association.dul.socket.send(endless)  # type: ignore[union-attr]
        deadline = time.monotonic() + 5
        while association.is_established and time.monotonic() < deadline:
            time.sleep(0.01)
        assert association.is_aborted


@pytest.mark.parametrize(
    ("said", "timeout_s"), [(b"", 60), (struct.pack(">BBL", 0x01, 0, 1000), 0.5)], ids=["nothing", "half a word"]
)
def test_peers_that_fall_silent_keep_no_other_waiting_for_long(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, said: bytes, timeout_s: float
) -> None:
    monkeypatch.setattr(listener_module, "INTRODUCED_WITHIN_S", 0.5)
    with listening(inbox, timeout_s=timeout_s) as listener:
        address = ("127.0.0.1", listener._section.port)
        silent = [socket.create_connection(address) for _ in range(12)]
        for peer in silent:
            peer.sendall(said)
        deadline = time.monotonic() + 10
        while (status := push(listener, radiograph(1))) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        for peer in silent:
            peer.close()
    assert status == 0


def test_a_crowd_is_hung_up_on(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_CONNECTIONS", 3)
    with listening(inbox) as listener, ExitStack() as stack:
        address = ("127.0.0.1", listener._section.port)
        for _ in range(3):
            stack.enter_context(socket.create_connection(address))
            time.sleep(0.1)
        late = stack.enter_context(socket.create_connection(address, timeout=5))
        assert late.recv(1) == b""


def test_nothing_that_a_sender_says_is_logged_or_printed(
    inbox: Inbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "pynetdicom")
    with listening(inbox, calling_aes=["ZEBRACANARY"]) as listener:
        assert push(listener, radiograph(1, PatientName="Zebracanary"), as_title="ZEBRACANARY") == 0
        assert push(listener, radiograph(1), as_title="OTHERCANARY") is None
    said = caplog.text + "".join(capfd.readouterr())
    assert "CANARY" not in said.upper()
    assert ROOT not in said


def encrypted_push(listener: Listener, tls: TlsSection, *, with_certificate: bool) -> int | None:
    context = ssl.create_default_context(cafile=tls.ca)
    if with_certificate:
        context.load_cert_chain(str(tls.certificate), tls.key)
    entity = Entity("SENDER")
    entity.add_requested_context(COMPUTED, ExplicitVRLittleEndian)
    entity.acse_timeout = entity.connection_timeout = 3
    association = entity.associate("127.0.0.1", listener._section.port, tls_args=(context, "127.0.0.1"))
    if not association.is_established:
        return None
    status = association.send_c_store(dcmread(BytesIO(radiograph(1))))
    association.release()
    return int(status.Status) if "Status" in status else None


def test_encrypted_senders_must_show_a_certificate_and_silent_ones_keep_no_other_waiting(
    inbox: Inbox, certificates: TlsSection
) -> None:
    with listening(inbox, tls=certificates) as listener:
        with socket.create_connection(("127.0.0.1", listener._section.port)):
            time.sleep(0.2)
            assert encrypted_push(listener, certificates, with_certificate=True) == 0
        assert encrypted_push(listener, certificates, with_certificate=False) is None
        assert push(listener, radiograph(2)) is None
    assert len(inbox.waiting()) == 1


def test_encryption_without_a_certificate_is_refused_at_the_start(inbox: Inbox) -> None:
    with pytest.raises(ConfigurationError, match=r"ingest.tls.certificate: expected our certificate"):
        Listener(ReceiveSection(tls=True), TlsSection(), ("CR",), 5, inbox)
