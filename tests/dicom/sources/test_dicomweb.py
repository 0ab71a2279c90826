from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import certifi
import pytest
import requests
from made_dicom import ROOT, radiograph
from orthanc_server import Answer, Orthanc, Proxy, found, free_port, only_file, proxied, running
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from pipelines.config_sources import DicomwebSection, TlsSection
from pipelines.dicom.sources import dicomweb, web
from pipelines.dicom.sources.dicomweb import DicomwebArchive
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.patience import PassingError, Patience
from pipelines.dicom.sources.protocol import Instance, Study, UndeliveredError
from pipelines.dicom.sources.query import Query
from pipelines.errors import ConfigurationError, ServiceError

QUERY = Query(("CR", "DX"))
FIRST = Instance(f"{ROOT}.2.1", f"{ROOT}.3.1", f"{ROOT}.1.1")
WADO = "/instances/"


@pytest.fixture
def archive(proxy: Proxy, hasty: Patience) -> Iterator[DicomwebArchive]:
    made = DicomwebArchive(DicomwebSection(url=proxy.dicomweb, page=2), TlsSection(), hasty)
    yield made
    made.close()


def test_a_server_that_answers_is_said_to(archive: DicomwebArchive) -> None:
    assert "answers" in archive.check()


def test_images_are_found_by_modality_body_part_and_date(pacs: Orthanc, archive: DicomwebArchive) -> None:
    pacs.store(radiograph(1, StudyDate="20240101"))
    pacs.store(radiograph(2, StudyDate="20240115", Modality="DX"))
    pacs.store(radiograph(3, StudyDate="20240115", BodyPartExamined="HAND"))
    pacs.store(radiograph(4, StudyDate="20240115", Modality="CT"))
    assert found(archive, QUERY) == {"1", "2", "3"}
    assert found(archive, Query(("DX",))) == {"2"}
    assert found(archive, Query(("CR", "DX"), ("CHEST",))) == {"1", "2"}
    assert found(archive, Query(("CR", "DX"), (), date(2024, 1, 2), None)) == {"2", "3"}
    assert found(archive, Query(("CR", "DX"), (), None, date(2024, 1, 2))) == {"1"}


def test_a_study_of_several_modalities_gives_only_the_wanted_series(pacs: Orthanc, archive: DicomwebArchive) -> None:
    together = {"StudyInstanceUID": f"{ROOT}.2.1", "PatientID": "MRN1", "StudyDate": "20240131"}
    pacs.store(radiograph(1, **together))
    pacs.store(radiograph(2, Modality="SR", SeriesInstanceUID=f"{ROOT}.3.2", **together))
    assert found(archive, QUERY) == {"1"}
    assert list(archive.studies(Query(("CR",)))) == [Study(f"{ROOT}.2.1", 2, date(2024, 1, 31))]


def paged(everything: bytes, *, cap: int | None = None, limit_first: bool = False) -> Callable[[Answer], None]:
    """Answers as servers page: up to `cap` at once, or with the limit applied before the offset."""

    def page(answer: Answer) -> None:
        asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(answer.path).query).items() if values[0].isdigit()}
        limit, offset = min(asked["limit"], cap or 99), asked["offset"]
        results = json.loads(everything)
        answer.body = json.dumps(results[:limit][offset:] if limit_first else results[offset : offset + limit]).encode()

    return page


@pytest.mark.parametrize("studies", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("kind", [{}, {"cap": 1}, {"limit_first": True}], ids=["standard", "capped", "limit before offset"])
def test_every_study_is_found_however_the_server_pages(
    pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, studies: int, kind: dict[str, Any]
) -> None:
    everything = [{"0020000D": {"vr": "UI", "Value": [f"1.{number}"]}} for number in range(studies)]
    proxy.faults["/studies?"] = paged(json.dumps(everything).encode(), **kind)
    assert [study.uid for study in archive.studies(Query(("CR",)))] == [f"1.{number}" for number in range(studies)]
    assert proxy.asked("/studies?") <= studies + 2


def test_many_studies_come_page_by_page(pacs: Orthanc, archive: DicomwebArchive) -> None:
    for number in range(1, 6):
        pacs.store(radiograph(number))
    assert sorted(study.uid for study in archive.studies(Query(("CR",)))) == [f"{ROOT}.2.{number}" for number in range(1, 6)]


def test_a_server_that_ignores_limit_and_offset_is_asked_no_more_than_twice(
    pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive
) -> None:
    for number in range(1, 6):
        pacs.store(radiograph(number))
    everything = requests.get(f"{pacs.dicomweb}/studies", timeout=5).content
    proxy.faults["/studies?"] = lambda answer: setattr(answer, "body", everything)
    assert len(list(archive.studies(Query(("CR",))))) == 5
    assert proxy.asked("/studies?") == 2


def paging_instances(count: int, most: int | None, *, skips: bool) -> Callable[[Answer], None]:
    """Answers of a server that has so many instances, and sends at `most` so many of them at once."""

    def page(answer: Answer) -> None:
        offset = int(parse_qs(urlsplit(answer.path).query).get("offset", ["0"])[0]) if skips else 0
        shown = range(count)[offset:][:most]
        answer.body = json.dumps([{"00080018": {"vr": "UI", "Value": [f"1.{number}"]}} for number in shown]).encode()
        answer.status, answer.headers = 200, {"Content-Type": "application/dicom+json"}

    return page


@pytest.mark.parametrize(
    ("count", "most", "skips", "asked"),
    [(3, None, True, 1), (100, 100, True, 2), (250, 100, True, 3), (250, None, True, 2), (250, None, False, 2)],
)
def test_every_instance_is_named_once_however_few_the_server_sends_at_once(
    pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, count: int, most: int | None, skips: bool, asked: int
) -> None:
    pacs.store(radiograph(1))
    proxy.faults["/instances"] = paging_instances(count, most, skips=skips)
    (study,) = archive.studies(Query(("CR",)))
    assert [instance.uid for instance in archive.instances(study, QUERY)] == [f"1.{number}" for number in range(count)]
    assert proxy.asked("/instances") == asked


def test_a_server_that_names_instances_twice_is_heard_once(pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive) -> None:
    pacs.store(radiograph(1))

    def twice(answer: Answer) -> None:
        answer.body = json.dumps(json.loads(answer.body) * 2).encode()

    proxy.faults["/instances"] = twice
    (study,) = archive.studies(Query(("CR",)))
    assert [instance.uid for instance in archive.instances(study, QUERY)] == [FIRST.uid]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        JPEGBaseline8Bit,
        JPEG2000Lossless,
        JPEGLSLossless,
        RLELossless,
    ],
    ids=lambda uid: UID(uid).name,
)
def test_a_file_comes_as_it_is_stored_to_the_byte(pacs: Orthanc, archive: DicomwebArchive, inbox: Inbox, syntax: str) -> None:
    content = radiograph(1, syntax=syntax)
    pacs.store(content)
    archive.fetch(FIRST, inbox)
    assert only_file(inbox).read_bytes() == content


def test_a_server_error_is_tried_again(pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, inbox: Inbox) -> None:
    pacs.store(radiograph(1))

    def fail_at_first(answer: Answer) -> None:
        answer.status = 500 if answer.number < 2 else 200

    proxy.faults["/studies"] = fail_at_first
    archive.check()
    proxy.counts.clear()
    archive.fetch(FIRST, inbox)
    assert proxy.asked(WADO) == 3
    assert only_file(inbox).exists()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_error_that_stays_is_told_in_our_words(
    pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, inbox: Inbox, status: int
) -> None:
    proxy.faults["/studies"] = lambda answer: setattr(answer, "status", status)
    with pytest.raises(
        PassingError, match=f"127.0.0.1:{proxy.port}: expected an answer, got HTTP status {status}; tried 3 times"
    ):
        archive.check()
    with pytest.raises(UndeliveredError, match=f"got HTTP status {status}; tried 3 times"):
        archive.fetch(FIRST, inbox)


def test_a_pause_that_is_no_number_is_none(proxy: Proxy, archive: DicomwebArchive) -> None:
    def busy(answer: Answer) -> None:
        answer.status, answer.headers["Retry-After"] = 503, "\u00b2"

    proxy.faults["/studies"] = busy
    with pytest.raises(PassingError, match="HTTP status 503; tried 3 times"):
        archive.check()


def test_a_redirect_is_not_followed(pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, inbox: Inbox) -> None:
    """UIDs, credentials and images would go who knows where, encrypted or not."""
    pacs.store(radiograph(1))

    def redirect(answer: Answer) -> None:
        answer.status, answer.headers["Location"] = 302, f"{pacs.dicomweb}/elsewhere"

    proxy.faults["/studies"] = redirect
    for ask in (archive.check, lambda: archive.fetch(FIRST, inbox)):
        with pytest.raises(ServiceError, match="expected an answer, got a redirect, which is not followed"):
            ask()


@pytest.fixture
def encrypted(pacs: Orthanc, certificates: TlsSection) -> Iterator[Proxy]:
    """A server that talks encrypted, and asks who we are."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificates.ca)
    context.load_cert_chain(str(certificates.certificate), certificates.key)
    context.verify_mode = ssl.CERT_REQUIRED
    with proxied(pacs, context) as front:
        yield front


@pytest.mark.parametrize(("bundle", "trusted"), [("REQUESTS_CA_BUNDLE", False), ("SSL_CERT_FILE", True)])
def test_certificates_are_checked_by_the_named_authority_or_else_by_those_of_the_system(
    encrypted: Proxy, hasty: Patience, certificates: TlsSection, monkeypatch: pytest.MonkeyPatch, bundle: str, trusted: bool
) -> None:
    section, ours = DicomwebSection(url=encrypted.dicomweb), certificates.model_copy(update={"ca": None})
    assert "answers" in DicomwebArchive(section, certificates, hasty).check()
    monkeypatch.setenv(bundle, str(certificates.ca))
    if trusted:
        assert "answers" in DicomwebArchive(section, ours, hasty).check()
        return
    with pytest.raises(ServiceError, match=r"expected a certificate that can be trusted.*ingest.tls.ca"):
        DicomwebArchive(section, ours, hasty).check()
    monkeypatch.setenv(bundle, certifi.where())
    assert "answers" in DicomwebArchive(section, certificates, hasty).check()


def test_a_server_that_asks_for_our_certificate_gets_it(encrypted: Proxy, hasty: Patience, certificates: TlsSection) -> None:
    with pytest.raises(ServiceError, match=f"127.0.0.1:{encrypted.port}: "):
        DicomwebArchive(DicomwebSection(url=encrypted.dicomweb), TlsSection(ca=certificates.ca), hasty).check()


@pytest.mark.parametrize("name", ["ca", "certificate"])
def test_a_certificate_that_cannot_be_read_is_said_to_be(hasty: Patience, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"ingest.tls: expected PEM files"):
        DicomwebArchive(DicomwebSection(url="https://pacs/x"), TlsSection.model_validate({name: "/nowhere.pem"}), hasty)


def test_a_pause_that_the_server_asks_for_is_kept(proxy: Proxy, archive: DicomwebArchive) -> None:
    def busy(answer: Answer) -> None:
        if answer.number == 0:
            answer.status = 503
            answer.headers["Retry-After"] = "1"

    proxy.faults["/studies"] = busy
    started = time.monotonic()
    archive.check()
    assert time.monotonic() - started >= 1


def test_an_instance_that_is_gone_is_undelivered_at_once(proxy: Proxy, archive: DicomwebArchive, inbox: Inbox) -> None:
    with pytest.raises(UndeliveredError, match="got HTTP status 404"):
        archive.fetch(FIRST, inbox)
    assert proxy.asked(WADO) == 1


@pytest.mark.parametrize("truncate", ["connection", "message", "head"])
def test_a_truncated_multipart_is_never_taken_for_a_file(
    pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, inbox: Inbox, truncate: str
) -> None:
    pacs.store(radiograph(1))

    def cut(answer: Answer) -> None:
        if truncate == "connection":
            answer.cut = len(answer.body) // 2
        else:
            answer.body = answer.body[: len(answer.body) // 2 if truncate == "message" else 20]

    proxy.faults[WADO] = cut
    with pytest.raises(UndeliveredError, match=r"broke off|multipart message that is broken"):
        archive.fetch(FIRST, inbox)
    assert inbox.waiting() == []
    assert list(inbox.incoming.iterdir()) == []


def test_a_truncated_multipart_is_fetched_again(pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, inbox: Inbox) -> None:
    content = radiograph(1)
    pacs.store(content)

    def cut_at_first(answer: Answer) -> None:
        answer.cut = 500 if answer.number == 0 else None

    proxy.faults[WADO] = cut_at_first
    archive.fetch(FIRST, inbox)
    assert only_file(inbox).read_bytes() == content


@pytest.mark.parametrize("slow", ["pause_s", "drip_s"])
def test_a_slow_answer_is_not_waited_for_without_end(
    pacs: Orthanc, proxy: Proxy, inbox: Inbox, slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs.store(radiograph(1))
    monkeypatch.setattr(dicomweb, "MOST_WAITS", 2)
    archive = DicomwebArchive(DicomwebSection(url=proxy.dicomweb), TlsSection(), Patience(0.3, 2, 0.01))
    proxy.faults["/studies"] = lambda answer: setattr(answer, slow, 0.8 if slow == "pause_s" else 0.1)
    started = time.monotonic()
    for ask in (archive.check, lambda: archive.fetch(FIRST, inbox)):
        with pytest.raises(ServiceError, match=r"expected an answer in time, got none|took too long"):
            ask()
    assert time.monotonic() - started < 6
    assert inbox.waiting() == []


def test_an_absurdly_long_answer_is_not_read_to_its_end(
    proxy: Proxy, archive: DicomwebArchive, monkeypatch: pytest.MonkeyPatch, hasty: Patience
) -> None:
    monkeypatch.setattr(dicomweb, "LARGEST", 1000)
    monkeypatch.setattr(dicomweb, "LARGEST_RESULT", 1000)
    proxy.faults["/studies"] = lambda answer: setattr(answer, "body", b"[" + b" " * 100_000)
    with pytest.raises(ServiceError, match="absurdly long"):
        DicomwebArchive(DicomwebSection(url=proxy.dicomweb), TlsSection(), hasty).check()


def test_nobody_at_home_is_tried_again_and_then_told(hasty: Patience) -> None:
    port = free_port()
    archive = DicomwebArchive(DicomwebSection(url=f"http://127.0.0.1:{port}/dicom-web"), TlsSection(), hasty)
    with pytest.raises(
        ServiceError, match=f"127.0.0.1:{port}: expected an answer, got a connection .* refused .*; tried 3 times"
    ):
        archive.check()


def test_an_address_that_is_no_dicomweb_says_so(pacs: Orthanc, hasty: Patience) -> None:
    with pytest.raises(ServiceError, match=r"got HTTP status 404; is params.yaml ingest.dicomweb.url right\?"):
        DicomwebArchive(DicomwebSection(url=f"{pacs.address}/nowhere"), TlsSection(), hasty).check()


DEEP, LONG = b"[" * 100_000, b"[" + b"9" * 5000 + b"]"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [("text/html", b"<html>"), *(("application/dicom+json", body) for body in (b"[{]", DEEP, LONG))],
    ids=["page", "broken", "deep", "long number"],
)
def test_an_answer_that_is_no_dicom_json_says_so(proxy: Proxy, archive: DicomwebArchive, content_type: str, body: bytes) -> None:
    def other(answer: Answer) -> None:
        answer.body, answer.headers = body, {"Content-Type": content_type}

    proxy.faults["/studies"] = other
    with pytest.raises(ServiceError, match="expected DICOM JSON"):
        archive.check()


def test_a_file_that_comes_bare_is_taken_and_an_html_page_is_not(
    pacs: Orthanc, proxy: Proxy, archive: DicomwebArchive, inbox: Inbox
) -> None:
    content = radiograph(1)

    def bare(answer: Answer) -> None:
        answer.status, answer.body, answer.headers = 200, content, {"Content-Type": "application/dicom"}

    def page(answer: Answer) -> None:
        answer.status, answer.body, answer.headers = 200, b"<html>", {"Content-Type": "text/html"}

    proxy.faults[WADO] = page
    with pytest.raises(UndeliveredError, match="an answer of another type"):
        archive.fetch(FIRST, inbox)
    proxy.faults[WADO] = bare
    archive.fetch(FIRST, inbox)
    assert only_file(inbox).read_bytes() == content


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "1.2.3?x=y", "1.2.3 4", "", None, 7, ["1.2"], "1" * 65])
def test_what_is_no_uid_is_never_put_into_a_url(proxy: Proxy, archive: DicomwebArchive, uid: object) -> None:
    hostile = json.dumps([{"0020000D": {"vr": "UI", "Value": [uid]}}, {"0020000D": {"vr": "UI"}}, {"0020000D": 3}, []]).encode()
    proxy.faults["/studies?"] = lambda answer: setattr(answer, "body", hostile)
    assert list(archive.studies(Query(("CR",)))) in ([], [Study("7")])


def test_credentials_come_from_the_environment(tmp_path: Path, hasty: Patience, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path / "guarded", auth=("reader", "s3cret")) as guarded:
        section = DicomwebSection(url=guarded.dicomweb)
        with pytest.raises(ServiceError, match=f"got HTTP status 401; set {web.TOKEN}, or {web.USER} and {web.PASSWORD}"):
            DicomwebArchive(section, TlsSection(), hasty).check()
        monkeypatch.setenv(web.USER, "reader")
        with pytest.raises(ConfigurationError, match=f"{web.PASSWORD}: expected a password"):
            DicomwebArchive(section, TlsSection(), hasty)
        monkeypatch.setenv(web.PASSWORD, "s3cret")
        assert "answers" in DicomwebArchive(section, TlsSection(), hasty).check()


def test_a_token_is_sent_even_where_netrc_has_a_password(
    proxy: Proxy, hasty: Patience, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv(web.TOKEN, "t0ken")
    DicomwebArchive(DicomwebSection(url=proxy.dicomweb), TlsSection(), hasty).check()
    assert proxy.headers[-1]["Authorization"] == "Bearer t0ken"


def test_the_address_is_asked_for_where_there_is_none(hasty: Patience) -> None:
    with pytest.raises(ConfigurationError, match=r"ingest.dicomweb.url: expected the address of a DICOMweb server, got null"):
        DicomwebArchive(DicomwebSection(), TlsSection(), hasty)


BREAKS: list[Callable[[Answer], None]] = [
    lambda answer: setattr(answer, "status", 500),
    lambda answer: setattr(answer, "status", 400),
    lambda answer: setattr(answer, "cut", 300),
    lambda answer: answer.headers.update({"Warning": f"299 secret: {FIRST.uid}"}),
]


@pytest.mark.parametrize("fault", BREAKS)
def test_no_identifier_is_logged_or_told(
    pacs: Orthanc,
    proxy: Proxy,
    archive: DicomwebArchive,
    inbox: Inbox,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[Answer], None],
) -> None:
    pacs.store(radiograph(1))
    proxy.faults["/studies"] = fault
    asked = (archive.check, lambda: archive.instances(Study(FIRST.study), QUERY), lambda: archive.fetch(FIRST, inbox))
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "urllib3.connectionpool"):
        errors = [error for ask in asked if (error := failure(ask))]
    assert ROOT not in caplog.text + "".join(map(str, errors))
    assert [error.__cause__ for error in errors] == [None] * len(errors)


def failure(ask: Callable[[], object]) -> ServiceError | None:
    try:
        ask()
    except ServiceError as error:
        return error
    return None
