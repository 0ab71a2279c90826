"""A DICOMweb server: QIDO-RS to find (PS3.18 10.6), WADO-RS to fetch (PS3.18 10.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.message import Message
from functools import partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client.uri import URI
from dicomweb_client.web import DICOMwebClient

from pipelines.config_sources import DicomwebSection, TlsSection
from pipelines.dicom.header import tag_of
from pipelines.dicom.sources import answers, web
from pipelines.dicom.sources.inbox import LARGEST, Inbox
from pipelines.dicom.sources.multipart import BrokenMultipartError, copy_part
from pipelines.dicom.sources.patience import PassingError, Patience
from pipelines.dicom.sources.protocol import Instance, Study, UndeliveredError
from pipelines.dicom.sources.query import Query
from pipelines.dicom.sources.quiet import quiet
from pipelines.errors import ConfigurationError

Result = dict[str, Any]
Answer = TypeVar("Answer")
LARGEST_RESULT = 1 << 28
"""Bytes of a QIDO-RS answer; a server that ignores `limit` sends a thousand bytes for each study."""
CHUNK = 1 << 16
SHORTEST_CAP = 100
"""Results; where a server sends fewer of the series or instances that it was asked for, these are all."""
MOST_WAITS = 10
"""An answer as a whole may take so many times `timeout_s`, the longest pause within it."""
_WHOLE_FILE = 'multipart/related; type="application/dicom"; transfer-syntax=*'


class DicomwebArchive:
    """A DICOMweb server.

    Args:
        section: where it is.
        tls: which authority to trust, and our certificate if it asks for one.
    """

    def __init__(self, section: DicomwebSection, tls: TlsSection, patience: Patience) -> None:
        if section.url is None:
            raise ConfigurationError("params.yaml ingest.dicomweb.url: expected the address of a DICOMweb server, got null")
        self._url, self._page, self._patience = section.url.rstrip("/"), section.page, patience
        self._session = web.session(tls)
        self._where = urlsplit(self._url).netloc
        self._client = DICOMwebClient(
            self._url,
            session=self._session,
            callback=web.bounded(MOST_WAITS * patience.timeout_s, max(LARGEST, LARGEST_RESULT)),
            permissive_uid=True,
            timeout=patience.timeout_s,
        )
        self._client.set_http_retry_params(retry=False)

    def check(self) -> str:
        self._ask(lambda: self._client.search_for_studies(limit=1))
        return f"the DICOMweb server {self._where} answers"

    def studies(self, query: Query) -> Iterator[Study]:
        for modality in query.modalities:
            filters = {"ModalitiesInStudy": modality} | ({"StudyDate": query.dates} if query.dates else {})
            yield from self._paged(filters)

    def _paged(self, filters: dict[str, str]) -> Iterator[Study]:
        """Page by page until one brings nothing new: servers cap pages below `limit`, and some ignore `offset`."""
        met: set[str] = set()
        pages = offset = 0
        while True:
            new, count = self._unmet(filters, self._page, offset, met)
            if not new:
                break
            yield from new
            pages, offset = pages + 1, offset + count
        if pages == 1 and offset == self._page:
            yield from self._longer_and_longer(filters, met)

    def _longer_and_longer(self, filters: dict[str, str], met: set[str]) -> Iterator[Study]:
        """Ever longer first pages, until one is not full.

        Some servers (Orthanc's DICOMweb 1.7) apply `limit` before `offset`: nothing seems to stand behind a full first page.
        """
        limit = self._page
        new, count = [Study("")], limit
        while new and count >= limit:
            limit *= 2
            new, count = self._unmet(filters, limit, 0, met)
            yield from new

    def _unmet(self, filters: dict[str, str], limit: int, offset: int, met: set[str]) -> tuple[list[Study], int]:
        """The studies of one page that are not in `met`, which they join, and how many there are on the page."""
        page = self._ask(
            lambda: self._client.search_for_studies(
                limit=limit, offset=offset, fields=["NumberOfStudyRelatedInstances"], search_filters=filters
            )
        )
        new = {study.uid: study for study in map(_study, page) if study is not None and study.uid not in met}
        met.update(new)
        return list(new.values()), len(page)

    def instances(self, study: Study, query: Query) -> list[Instance]:
        fields = ["BodyPartExamined"]
        listed = self._listed(
            "SeriesInstanceUID", lambda skipped: self._client.search_for_series(study.uid, offset=skipped, fields=fields)
        )
        wanted = [uid for uid, it in listed.items() if query.admits(_value(it, "Modality"), _value(it, "BodyPartExamined"))]
        return [instance for series in wanted for instance in self._of_series(study.uid, series)]

    def _of_series(self, study: str, series: str) -> Iterator[Instance]:
        listed = self._listed("SOPInstanceUID", lambda skipped: self._client.search_for_instances(study, series, offset=skipped))
        return (Instance(study, series, uid) for uid in listed)

    def _listed(self, keyword: str, question: Callable[[int | None], list[Result]]) -> dict[str, Result]:
        """The results of a question that can skip the first ones, by UID: some servers cap answers that nobody limited."""
        listed: dict[str, Result] = {}
        skipped = 0
        while True:
            page = self._ask(partial(question, skipped or None))
            new = {uid: result for result in page if (uid := answers.uid(_value(result, keyword))) and uid not in listed}
            listed |= new
            skipped += len(page)
            if not new or len(page) < SHORTEST_CAP:
                return listed

    def fetch(self, instance: Instance, inbox: Inbox) -> None:
        """Stream one instance into the inbox, as it is stored: no transcoding, no decoding."""
        try:
            self._ask(lambda: self._fetch_once(instance, inbox))
        except PassingError as error:
            raise UndeliveredError(str(error)) from None

    def _fetch_once(self, instance: Instance, inbox: Inbox) -> None:
        url = str(URI(self._url, instance.study, instance.series, instance.uid, permissive=True))
        with (
            inbox.arriving() as path,
            self._session.get(url, headers={"Accept": _WHOLE_FILE}, stream=True, timeout=self._patience.timeout_s) as response,
        ):
            _check_delivered(self._where, response)
            try:
                with path.open("wb") as target:
                    _copy_body(response, target)
            except BrokenMultipartError as error:
                raise PassingError(f"expected one whole file, got a multipart message that is broken: {error}") from None
            inbox.deliver(path, instance.uid)

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        def once() -> Answer:
            with quiet(), web.plain_words(self._where):
                return question()

        return self._patience.ask(once)

    def close(self) -> None:
        self._session.close()


def _check_delivered(where: str, response: requests.Response) -> None:
    """Tell an answer that no other try will change from one that may be better next time."""
    if response.status_code == requests.codes.ok:
        return
    error = web.refused(where, response)
    raise error if isinstance(error, PassingError) else UndeliveredError(str(error))


def _copy_body(response: requests.Response, target: BinaryIO) -> None:
    """Write the file that an answer holds: the one part of a multipart message, or, as some servers send it, bare."""
    message = Message()
    message["Content-Type"] = response.headers.get("Content-Type", "")
    chunks: Iterator[bytes] = response.iter_content(CHUNK)
    boundary = message.get_boundary()
    if message.get_content_type() == "multipart/related" and boundary:
        copy_part(chunks, boundary.encode(), target)
    elif message.get_content_type() == "application/dicom":
        target.writelines(chunks)
    else:
        raise UndeliveredError("expected a DICOM file, got an answer of another type")


def _value(result: Result, keyword: str) -> str | None:
    """The first value of an attribute in the DICOM JSON model (PS3.18 F.2), as text."""
    element = result.get(f"{tag_of(keyword):08X}") if isinstance(result, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values and values[0] is not None else None


def _study(result: Result) -> Study | None:
    said = ("StudyInstanceUID", "NumberOfStudyRelatedInstances", "StudyDate")
    return answers.study(*(_value(result, keyword) for keyword in said))
