from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from made_dicom import ROOT, file_bytes, gradient, header, radiograph, with_pixels
from orthanc_server import AE, OUR_AE, Orthanc, Relay, found, free_port, only_file, running
from pydicom import Dataset, dcmread
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity as Entity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider

from pipelines.config_sources import DimseSection, ReceiveSection, TlsSection
from pipelines.dicom.sources.dimse import FIND, GET, MOVE, DimseArchive
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.patience import PassingError, Patience
from pipelines.dicom.sources.protocol import Instance, Study, UndeliveredError
from pipelines.dicom.sources.query import Query
from pipelines.dicom.sources.storage import MOST_CONTEXTS, STORAGE, storage_contexts
from pipelines.dicom.sources.tls import client_tls, server_tls
from pipelines.errors import ConfigurationError, ServiceError

MODALITIES = ("CR", "DX", "RG")
QUERY = Query(MODALITIES)
FIRST = Instance(f"{ROOT}.2.1", f"{ROOT}.3.1", f"{ROOT}.1.1")
COMPUTED = "1.2.840.10008.5.1.4.1.1.1"


@contextmanager
def opened(
    inbox: Inbox,
    patience: Patience,
    port: int,
    receive: ReceiveSection | None = None,
    modalities: tuple[str, ...] = MODALITIES,
    tls: TlsSection | None = None,
    *,
    encrypted: bool = False,
    **settings: Any,
) -> Iterator[DimseArchive]:
    section = DimseSection.model_validate({"host": "127.0.0.1", "port": port, "called_ae": AE, "tls": encrypted, **settings})
    archive = DimseArchive(section, receive or ReceiveSection(port=free_port()), tls or TlsSection(), patience, modalities, inbox)
    try:
        yield archive
    finally:
        archive.close()


@pytest.fixture(params=["get", "move"])
def archive(request: pytest.FixtureRequest, pacs: Orthanc, inbox: Inbox, hasty: Patience) -> Iterator[DimseArchive]:
    with opened(inbox, hasty, pacs.dicom_port, ReceiveSection(port=pacs.move_port), retrieve=request.param) as made:
        yield made


def test_a_pacs_that_answers_is_said_to(archive: DimseArchive) -> None:
    assert "answers" in archive.check()


def test_images_are_found_by_modality_body_part_and_date(pacs: Orthanc, archive: DimseArchive) -> None:
    pacs.store(radiograph(1, StudyDate="20240101"))
    pacs.store(radiograph(2, StudyDate="20240115", Modality="DX"))
    pacs.store(radiograph(3, StudyDate="20240115", BodyPartExamined="HAND"))
    pacs.store(radiograph(4, StudyDate="20240115", Modality="CT"))
    assert found(archive, QUERY) == {"1", "2", "3"}
    assert found(archive, Query(("DX",))) == {"2"}
    assert found(archive, Query(("CR", "DX"), ("CHEST",))) == {"1", "2"}
    assert found(archive, Query(("CR", "DX"), (), date(2024, 1, 2), date(2024, 1, 20))) == {"2", "3"}
    assert found(archive, Query(("CR", "DX"), (), None, date(2024, 1, 2))) == {"1"}


def test_a_study_says_how_many_instances_it_has_and_when_it_was_made(pacs: Orthanc, archive: DimseArchive) -> None:
    pacs.store(radiograph(1, StudyDate="20240131"))
    assert list(archive.studies(Query(("CR",)))) == [Study(FIRST.study, 1, date(2024, 1, 31))]


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless, RLELossless],
    ids=lambda uid: UID(uid).name,
)
def test_an_image_comes_in_the_transfer_syntax_in_which_it_is_stored(
    pacs: Orthanc, archive: DimseArchive, inbox: Inbox, syntax: str
) -> None:
    content = radiograph(1, syntax=syntax)
    pacs.store(content)
    archive.fetch(FIRST, inbox)
    stored = dcmread(only_file(inbox))
    assert stored.SOPInstanceUID == FIRST.uid
    if syntax == DeflatedExplicitVRLittleEndian:  # any uncompressed one will do
        assert not UID(stored.file_meta.TransferSyntaxUID).is_compressed
    else:
        assert stored.file_meta.TransferSyntaxUID == syntax
        assert stored.PixelData in content


@pytest.mark.parametrize(
    "storage",
    [DigitalXRayImageStorageForPresentation, DigitalXRayImageStorageForProcessing, SecondaryCaptureImageStorage],
    ids=lambda uid: UID(uid).name,
)
def test_every_kind_of_radiograph_comes(pacs: Orthanc, archive: DimseArchive, inbox: Inbox, storage: str) -> None:
    pacs.store(radiograph(1, SOPClassUID=storage))
    archive.fetch(FIRST, inbox)
    assert dcmread(only_file(inbox)).SOPClassUID == storage


def test_a_mammogram_comes_only_where_mammograms_are_wanted(pacs: Orthanc, inbox: Inbox, hasty: Patience) -> None:
    pacs.store(radiograph(1, SOPClassUID=DigitalMammographyXRayImageStorageForPresentation, Modality="MG"))
    with (
        opened(inbox, hasty, pacs.dicom_port) as archive,
        pytest.raises(UndeliveredError, match="expected an image, got status 0x"),
    ):
        archive.fetch(FIRST, inbox)
    with opened(inbox, hasty, pacs.dicom_port, modalities=("CR", "MG")) as archive:
        archive.fetch(FIRST, inbox)
    assert only_file(inbox).exists()


def test_all_kinds_and_syntaxes_together_stay_within_what_one_association_can_carry() -> None:
    contexts = storage_contexts(STORAGE)
    assert len(contexts) + 3 <= MOST_CONTEXTS
    compressed = [context for context in contexts if UID(context.transfer_syntax[0]).is_compressed]
    assert {len(context.transfer_syntax) for context in compressed} == {1}


def test_a_modality_that_is_no_radiograph_is_refused(inbox: Inbox, hasty: Patience) -> None:
    with pytest.raises(ConfigurationError, match=r"ingest.modalities: expected radiographs \(CR, DX, .*\) .*, got 'CT'"):
        DimseArchive(DimseSection(host="pacs"), ReceiveSection(), TlsSection(), hasty, ("CT",), inbox)


def test_the_host_is_asked_for_where_there_is_none(inbox: Inbox, hasty: Patience) -> None:
    with pytest.raises(ConfigurationError, match=r"ingest.dimse.host: expected the name or address of a PACS, got null"):
        DimseArchive(DimseSection(), ReceiveSection(), TlsSection(), hasty, MODALITIES, inbox)


def test_an_instance_that_is_gone_is_undelivered(archive: DimseArchive, inbox: Inbox) -> None:
    with pytest.raises(UndeliveredError, match=r"PACS 127.0.0.1:\d+: expected an image, got status 0x"):
        archive.fetch(FIRST, inbox)


def test_an_association_that_ended_in_the_meantime_is_made_anew(pacs: Orthanc, archive: DimseArchive, inbox: Inbox) -> None:
    pacs.store(radiograph(1))
    archive.check()
    assert archive._association is not None
    archive._association.abort()
    archive.fetch(FIRST, inbox)
    assert only_file(inbox).exists()


def test_a_pacs_that_does_not_know_us_is_not_pestered(pacs: Orthanc, relay: Relay, inbox: Inbox, hasty: Patience) -> None:
    with (
        opened(inbox, hasty, relay.port, called_ae="SOMEONE") as archive,
        pytest.raises(ServiceError, match=r"it was refused: it does not go by the AE title of ingest.dimse.called_ae"),
    ):
        archive.check()
    assert relay.connections == 1


class Scripted:
    """A PACS that does what a test tells it to; `associations` counts who came."""

    def __init__(self, contexts: tuple[str, ...] = (FIND, GET, MOVE), **handlers: Callable[[evt.Event], Any]) -> None:
        self.entity = Entity(AE)
        for uid in ("1.2.840.10008.1.1", *contexts):
            self.entity.add_supported_context(uid)
        self.entity.add_supported_context(COMPUTED, scu_role=True, scp_role=True)
        self.associations = 0
        self.handlers = [(getattr(evt, name), handler) for name, handler in handlers.items()]

    def __enter__(self) -> Scripted:
        self.port = free_port()
        self.server = self.entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self._all())
        return self

    def _all(self) -> Any:
        def count(_: evt.Event) -> None:
            self.associations += 1

        return [(evt.EVT_CONN_OPEN, count), *self.handlers]

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()


def test_an_association_refused_for_good_says_why(inbox: Inbox, hasty: Patience) -> None:
    pacs = Scripted()
    pacs.entity.require_calling_aet = ["SOMEBODY"]
    with (
        pacs,
        opened(inbox, hasty, pacs.port) as archive,
        pytest.raises(ServiceError, match=r"does not know our AE title .*calling_ae"),
    ):
        archive.check()
    assert pacs.associations == 1


def test_an_association_refused_for_now_is_tried_again(inbox: Inbox, hasty: Patience) -> None:
    pacs = Scripted()
    pacs.entity.maximum_associations = 1
    with pacs:
        other = Entity("OTHER")
        other.add_requested_context("1.2.840.10008.1.1")
        holding = other.associate("127.0.0.1", pacs.port, ae_title=AE)
        with opened(inbox, hasty, pacs.port) as archive:
            with pytest.raises(PassingError, match="expected an association, it was refused for now; tried 3 times"):
                archive.check()
            holding.release()
            assert "answers" in archive.check()
    assert pacs.associations == 5


def test_a_pacs_that_offers_no_retrieval_says_what_to_do(inbox: Inbox, hasty: Patience) -> None:
    with (
        Scripted((FIND,)) as pacs,
        opened(inbox, hasty, pacs.port) as archive,
        pytest.raises(ServiceError, match=r"expected the PACS to offer C-FIND and C-GET .* ingest.dimse.retrieve: move"),
    ):
        archive.check()


def test_a_destination_that_the_pacs_does_not_know_says_what_to_do(inbox: Inbox, hasty: Patience) -> None:
    def nowhere(_: evt.Event) -> Iterator[Any]:
        yield None, None

    with (
        Scripted(EVT_C_MOVE=nowhere) as pacs,
        opened(inbox, hasty, pacs.port, retrieve="move") as archive,
        pytest.raises(ServiceError, match=f"expected the PACS to know our AE title {OUR_AE} as the destination of C-MOVE"),
    ):
        archive.fetch(FIRST, inbox)


def test_a_port_that_is_taken_is_said_to_be(pacs: Orthanc, inbox: Inbox, hasty: Patience) -> None:
    pacs.store(radiograph(1))
    with (
        opened(inbox, hasty, pacs.dicom_port, ReceiveSection(port=pacs.http_port), retrieve="move") as archive,
        pytest.raises(ConfigurationError, match=f"expected a free port, 127.0.0.1:{pacs.http_port} cannot be had"),
    ):
        archive.fetch(FIRST, inbox)


def test_nobody_at_home_is_tried_again_and_then_told(inbox: Inbox, hasty: Patience) -> None:
    port = free_port()
    with (
        opened(inbox, hasty, port) as archive,
        pytest.raises(
            PassingError, match=f"PACS 127.0.0.1:{port}: expected a connection, it was refused or broke off.*tried 3 times"
        ),
    ):
        archive.check()


def overloaded(times: int) -> Callable[[evt.Event], Iterator[Any]]:
    """A C-FIND handler that is out of resources at first."""
    asked: list[int] = []

    def find(_: evt.Event) -> Iterator[Any]:
        asked.append(1)
        if len(asked) <= times:
            yield 0xA700, None
            return
        match = Dataset()
        match.StudyInstanceUID = "1.2.3"
        yield 0xFF00, match

    return find


def test_a_pacs_that_is_out_of_resources_is_asked_again(inbox: Inbox, hasty: Patience) -> None:
    with Scripted(EVT_C_FIND=overloaded(2)) as pacs, opened(inbox, hasty, pacs.port) as archive:
        assert [study.uid for study in archive.studies(Query(("CR",)))] == ["1.2.3"]


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have threads linger where a busy machine makes them: an association's own where pynetdicom takes it for paused, and the
    one that asks between its question and the answer.
    """

    def linger(self: Association, paused: bool) -> None:
        if not paused and threading.current_thread() is self:
            time.sleep(0.01)
        self.__dict__["_paused"] = paused

    send = DIMSEServiceProvider.send_msg

    def send_and_linger(self: DIMSEServiceProvider, *arguments: Any) -> None:
        send(self, *arguments)
        if self.assoc.is_requestor:
            time.sleep(0.05)

    monkeypatch.setattr(Association, "_is_paused", property(lambda self: self.__dict__["_paused"], linger), raising=False)
    monkeypatch.setattr(DIMSEServiceProvider, "send_msg", send_and_linger)


@pytest.mark.usefixtures("lingering")
def test_no_match_is_lost_to_the_thread_that_serves_the_peer(inbox: Inbox, hasty: Patience) -> None:
    with Scripted(EVT_C_FIND=overloaded(0)) as pacs, opened(inbox, hasty, pacs.port) as archive:
        found = [len(list(archive.studies(Query(("CR",))))) for _ in range(10)]
    assert found == [1] * 10


def test_a_query_that_fails_is_told_and_never_taken_for_no_match(inbox: Inbox, hasty: Patience) -> None:
    def fail(_: evt.Event) -> Iterator[Any]:
        yield 0xC001, None

    with (
        Scripted(EVT_C_FIND=fail) as pacs,
        opened(inbox, hasty, pacs.port) as archive,
        pytest.raises(ServiceError, match="expected matches for a C-FIND, got status 0xC001"),
    ):
        list(archive.studies(QUERY))


def test_a_slow_answer_is_not_waited_for_without_end(inbox: Inbox) -> None:
    def dawdle(_: evt.Event) -> Iterator[Any]:
        time.sleep(3)
        yield 0xFF00, Dataset()

    started = time.monotonic()
    with (
        Scripted(EVT_C_FIND=dawdle) as pacs,
        opened(inbox, Patience(0.5, 2, 0.01), pacs.port) as archive,
        pytest.raises(PassingError, match=r"expected an answer to C-FIND, got none in time.*tried 2 times"),
    ):
        list(archive.studies(Query(("CR",))))
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_transfer_that_breaks_off_leaves_no_half_image_and_goes_on(
    pacs: Orthanc, relay: Relay, inbox: Inbox, hasty: Patience, share: float
) -> None:
    content = file_bytes(with_pixels(header(1), gradient(300, 300, 16)))
    pacs.store(content)
    relay.cuts = [5000 + int(len(content) * share)]
    with opened(inbox, hasty, relay.port) as archive:
        archive.check()
        archive.fetch(FIRST, inbox)
    assert relay.connections == 2
    assert dcmread(only_file(inbox)).PixelData == dcmread(BytesIO(content)).PixelData


def test_a_transfer_that_stalls_in_the_middle_is_not_waited_for_without_end(pacs: Orthanc, relay: Relay, inbox: Inbox) -> None:
    pacs.store(file_bytes(with_pixels(header(1), gradient(300, 300, 16))))
    relay.pause_after, relay.pause_s = 60_000, 60
    started = time.monotonic()
    with opened(inbox, Patience(0.5, 1, 0), relay.port) as archive, pytest.raises(UndeliveredError, match="got none in time"):
        archive.fetch(FIRST, inbox)
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("uid", ["", "not a uid", "1.2\\3.4", "Doe^John"])
def test_what_is_no_uid_is_not_asked_for(inbox: Inbox, hasty: Patience, uid: str) -> None:
    def odd(_: evt.Event) -> Iterator[Any]:
        match = Dataset()
        match.add_new("StudyInstanceUID", "UI", uid)
        yield 0xFF00, match

    with Scripted(EVT_C_FIND=odd) as pacs, opened(inbox, hasty, pacs.port) as archive:
        assert list(archive.studies(QUERY)) == []


def test_no_identifier_is_logged_or_told(
    pacs: Orthanc, archive: DimseArchive, inbox: Inbox, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pacs.store(radiograph(1, PatientName="Canary^Zebra"))
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "pynetdicom"):
        archive.instances(Study(FIRST.study), QUERY)
        archive.fetch(FIRST, inbox)
        with pytest.raises(UndeliveredError) as caught:
            archive.fetch(Instance(FIRST.study, FIRST.series, f"{ROOT}.404"), inbox)
    said = caplog.text + str(caught.value) + "".join(capfd.readouterr())
    assert ROOT not in said
    assert "Canary" not in said


@pytest.mark.parametrize("retrieve", ["get", "move"])
def test_the_talk_is_encrypted_where_it_is_to_be(
    tmp_path: Path, inbox: Inbox, hasty: Patience, certificates: TlsSection, retrieve: str
) -> None:
    port = free_port()
    encrypted = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": certificates.certificate,
        "DicomTlsPrivateKey": certificates.key,
        "DicomTlsTrustedCertificates": certificates.ca,
        "DicomModalities": {"us": {"AET": OUR_AE, "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}},
    }
    ours = ReceiveSection(port=port, tls=True)
    with running(tmp_path / "encrypted", **encrypted) as pacs:
        pacs.store(radiograph(1))
        with opened(inbox, hasty, pacs.dicom_port, ours, tls=certificates, retrieve=retrieve, encrypted=True) as archive:
            archive.fetch(FIRST, inbox)
        with (
            opened(inbox, hasty, pacs.dicom_port, tls=certificates) as archive,
            pytest.raises(PassingError, match=r"has to run and to talk, not encrypted \(ingest.dimse.tls\)"),
        ):
            archive.check()
        with (
            opened(inbox, hasty, pacs.dicom_port, tls=certificates.model_copy(update={"ca": None}), encrypted=True) as archive,
            pytest.raises(PassingError, match=r"talk encrypted, with a certificate that ingest.tls.ca trusts"),
        ):
            archive.check()
    assert dcmread(only_file(inbox)).SOPInstanceUID == FIRST.uid


def test_only_the_named_authority_is_trusted(certificates: TlsSection) -> None:
    assert len(client_tls(certificates).get_ca_certs()) == len(server_tls(certificates).get_ca_certs()) == 1


def test_a_certificate_that_cannot_be_read_is_said_to_be(tmp_path: Path, inbox: Inbox, hasty: Patience) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with (
        opened(inbox, hasty, free_port(), tls=TlsSection(ca=str(tmp_path / "ca.pem")), encrypted=True) as archive,
        pytest.raises(ConfigurationError, match=r"ingest.tls: expected PEM files"),
    ):
        archive.check()
