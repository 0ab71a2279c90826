from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from made_dicom import ROOT, file_bytes, gradient, header, radiograph, with_pixels
from orthanc_server import OUR_AE, Orthanc, free_port
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit
from pynetdicom.ae import ApplicationEntity as Entity

from pipelines.config import ReceiveSection, TlsSection
from pipelines.dicom.sources import storage
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.listener import Listener
from pipelines.errors import ConfigurationError

COMPUTED = "1.2.840.10008.5.1.4.1.1.1"
TOMOGRAPH = "1.2.840.10008.5.1.4.1.1.2"
OUT_OF_RESOURCES = 0xA700


@contextmanager
def listening(inbox: Inbox, port: int | None = None, tls: TlsSection | None = None, **settings: Any) -> Iterator[Listener]:
    section = ReceiveSection.model_validate({"port": port or free_port(), "tls": tls is not None, **settings})
    with Listener(section, tls or TlsSection(), ("CR", "DX", "RG"), 5, inbox) as listener:
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


def test_a_full_disk_is_told_to_the_sender_and_stops_nobody(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver, full = Inbox.deliver, [True]

    def deliver_or_not(self: Inbox, arrived: Path, uid: str) -> str:
        if full:
            raise OSError(28, "No space left on device")
        return deliver(self, arrived, uid)

    monkeypatch.setattr(Inbox, "deliver", deliver_or_not)
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
    monkeypatch.setattr(storage, "LARGEST", 100_000)
    with listening(inbox) as listener:
        dataset = dcmread(BytesIO(file_bytes(with_pixels(header(1), gradient(600, 600, 16)))))
        entity = Entity("SENDER")
        entity.add_requested_context(COMPUTED, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener._section.port)
        assert "Status" not in association.send_c_store(dataset)
        assert push(listener, radiograph(2)) == 0
    assert [file.image for file in inbox.waiting()] == [inbox.pseudonyms.uid(f"{ROOT}.1.2")]


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


def test_nothing_that_a_sender_says_is_logged_or_printed(
    inbox: Inbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), listening(inbox, calling_aes=["ZEBRACANARY"]) as listener:
        assert push(listener, radiograph(1, PatientName="Zebracanary"), as_title="ZEBRACANARY") == 0
        assert push(listener, radiograph(1), as_title="OTHERCANARY") is None
    said = caplog.text + "".join(capfd.readouterr())
    assert "CANARY" not in said.upper()
    assert ROOT not in said


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> TlsSection:
    """One self-signed certificate for 127.0.0.1, which is its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=us", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:TRUE"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return TlsSection(ca=str(certificate), certificate=str(certificate), key=str(key))


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
