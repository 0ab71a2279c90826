"""A PACS over DICOM's own protocol: C-FIND to find, C-GET or C-MOVE to fetch (PS3.4 C.4), in the study root model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from typing import TypeVar

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import build_context, build_role

from pipelines.config_sources import DimseSection, ReceiveSection, TlsSection
from pipelines.dicom.sources import answers, gate
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.listener import Listener
from pipelines.dicom.sources.patience import PassingError, Patience
from pipelines.dicom.sources.protocol import Instance, Study, UndeliveredError
from pipelines.dicom.sources.query import Query
from pipelines.dicom.sources.quiet import quiet
from pipelines.dicom.sources.spool import spooling
from pipelines.dicom.sources.storage import VERIFICATION, Reception, storage_classes, storage_contexts
from pipelines.dicom.sources.tls import client_tls
from pipelines.dicom.sources.transport import application_entity, line_handlers
from pipelines.errors import ConfigurationError, ServiceError

Answer = TypeVar("Answer")
# PS3.4 C.6.2, the study root information model
FIND, MOVE, GET = (UID(f"1.2.840.10008.5.1.4.1.2.2.{number}") for number in (1, 2, 3))
_PENDING = frozenset({0xFF00, 0xFF01})
_OVERLOADED = frozenset({0xA700, 0xA701, 0xA702})
_UNKNOWN_DESTINATION = 0xA801
_FOR_GOOD = 1
# PS3.8 9.3.4: by source and reason, where the rejection is permanent
_REJECTIONS = {
    (1, 3): "it does not know our AE title (ingest.dimse.calling_ae); have it registered there",
    (1, 7): "it does not go by the AE title of ingest.dimse.called_ae",
}


class DimseArchive:
    """A PACS.

    Args:
        section: where it is and under which names we talk.
        receive: where we listen, if images come by C-MOVE.
        modalities: what we take.
        inbox: where images arrive.
    """

    def __init__(
        self,
        section: DimseSection,
        receive: ReceiveSection,
        tls: TlsSection,
        patience: Patience,
        modalities: tuple[str, ...],
        inbox: Inbox,
    ) -> None:
        if section.host is None:
            raise ConfigurationError("params.yaml ingest.dimse.host: expected the name or address of a PACS, got null")
        self._host, self._section, self._receive, self._tls, self._patience = section.host, section, receive, tls, patience
        self._where = f"{section.host}:{section.port}"
        self._model = GET if section.retrieve == "get" else MOVE
        self._reception = Reception(inbox)
        self._association: Association | None = None
        self._inbox = inbox
        self._modalities = tuple(modalities)
        storage_classes(modalities)  # refuses what is no radiograph before anybody is called
        self._lifetime = ExitStack()
        self._listener: Listener | None = None

    def check(self) -> str:
        self._ask(self._echo)
        return f"the PACS {self._where} answers"

    def _echo(self) -> None:
        if _status(self._connected().send_c_echo()) != 0:
            raise PassingError("expected an answer to C-ECHO, got none")

    def studies(self, query: Query) -> Iterator[Study]:
        today = date.today()
        for window in query.windows(self._section.find_days, today):
            for modality in query.modalities:
                keys = {"StudyInstanceUID": "", "NumberOfStudyRelatedInstances": "", "StudyDate": window}
                for found in self._find("STUDY", **keys, ModalitiesInStudy=modality):
                    study = answers.study(*(found[keyword] for keyword in keys))
                    if study:
                        yield study

    def instances(self, study: Study, query: Query) -> list[Instance]:
        found: list[Instance] = []
        keys = {"StudyInstanceUID": study.uid, "SeriesInstanceUID": "", "Modality": "", "BodyPartExamined": ""}
        for series in self._find("SERIES", **keys):
            uid = answers.uid(series["SeriesInstanceUID"])
            if uid and query.admits(series["Modality"], series["BodyPartExamined"]):
                found += self._of_series(study.uid, uid)
        return found

    def _of_series(self, study: str, series: str) -> Iterator[Instance]:
        for image in self._find("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=""):
            if uid := answers.uid(image["SOPInstanceUID"]):
                yield Instance(study, series, uid)

    def fetch(self, instance: Instance, inbox: Inbox) -> None:
        try:
            self._ask(lambda: self._fetch_once(instance))
        except PassingError as error:
            raise UndeliveredError(str(error)) from None

    def _fetch_once(self, instance: Instance) -> None:
        keys = _identifier(
            "IMAGE", StudyInstanceUID=instance.study, SeriesInstanceUID=instance.series, SOPInstanceUID=instance.uid
        )
        reception = self._listening() if self._model == MOVE else self._reception
        reception.expect(instance.uid)
        status = self._retrieve(keys)
        complete = status == 0 and self._model == MOVE  # some archives say so before they have sent
        if reception.arrived(instance.uid, self._patience.timeout_s if complete else 0):
            return
        if status is None or status in _OVERLOADED:
            raise PassingError("expected an image, got none in time")
        if status == _UNKNOWN_DESTINATION:
            raise ServiceError(
                f"expected the PACS to know our AE title {self._receive.ae_title} as the destination of C-MOVE, it does not; "
                "have ingest.receive.ae_title, host and port registered there, or set ingest.dimse.retrieve: get"
            )
        raise UndeliveredError(f"expected an image, got status 0x{status:04X}")

    def _retrieve(self, keys: Dataset) -> int | None:
        """Ask for an instance; the final status, None if the association ended before."""
        association = self._connected()
        if self._model == MOVE:
            replies = association.send_c_move(keys, self._receive.ae_title, MOVE)
        else:
            replies = association.send_c_get(keys, GET)
        final: int | None = None
        for status, _ in replies:
            final = _status(status)
        return None if final in _PENDING else final

    def _find(self, level: str, **keys: str) -> list[dict[str, str]]:
        return self._ask(lambda: self._find_once(level, keys))

    def _find_once(self, level: str, keys: dict[str, str]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        for status, identifier in self._connected().send_c_find(_identifier(level, **keys), FIND):
            code = _status(status)
            if code in _PENDING and identifier is not None:
                found.append({keyword: _text(identifier, keyword) for keyword in keys})
            elif code is None or code in _OVERLOADED:
                raise PassingError(
                    "expected an answer to C-FIND, got none in time, or that it is overloaded; "
                    "fewer ingest.dimse.find_days make answers shorter"
                )
            elif code not in _PENDING and code != 0:
                raise ServiceError(f"expected matches for a C-FIND, got status 0x{code:04X}")
        return found

    def _connected(self) -> Association:
        """The association, made anew where there is none or it ended, ready for one question.

        Raises:
            PassingError: the PACS does not answer, or refuses for now.
            ServiceError: it refuses for good, or does not offer what we need.
        """
        if self._association is None or not self._association.is_established:
            if self._association is None:
                self._set_up()
            self._association = self._associate()
        gate.hold(self._association)
        return self._association

    def _set_up(self) -> None:
        self._lifetime.enter_context(quiet())
        self._lifetime.enter_context(spooling(self._inbox.incoming))

    def _associate(self) -> Association:
        entity = application_entity(self._section.calling_ae, self._patience.timeout_s)
        contexts = [build_context(uid) for uid in (VERIFICATION, FIND, self._model)]
        by_get = self._model == GET
        storage = storage_contexts(self._modalities) if by_get else []
        classes = storage_classes(self._modalities) if by_get else ()
        association = entity.associate(
            self._host,
            self._section.port,
            contexts=[*contexts, *storage],
            ae_title=self._section.called_ae,
            ext_neg=[build_role(uid, scp_role=True) for uid in classes],
            evt_handlers=self._reception.handlers if by_get else line_handlers(),
            tls_args=(client_tls(self._tls), self._host) if self._section.tls else None,
        )
        if not association.is_established:
            raise _not_established(association, tls=self._section.tls)
        gate.install(association)
        offered = {context.abstract_syntax for context in association.accepted_contexts}
        if not {FIND, self._model} <= offered:
            association.release()
            other = "move" if by_get else "get"
            raise ServiceError(
                f"expected the PACS to offer C-FIND and C-{self._section.retrieve.upper()} to us, it does not; "
                f"have it allow them to {self._section.calling_ae}, or set ingest.dimse.retrieve: {other}"
            )
        return association

    def _listening(self) -> Reception:
        """Our own port, open from the first image on."""
        if self._listener is None:
            listener = Listener(self._receive, self._tls, self._modalities, self._patience.timeout_s, self._inbox)
            self._listener = self._lifetime.enter_context(listener)
        return self._listener.reception

    def _ask(self, question: Callable[[], Answer]) -> Answer:
        """Ask with patience, and say in every failure who it was about."""

        def once() -> Answer:
            try:
                return question()
            except PassingError as error:
                self._hang_up()
                raise PassingError(f"PACS {self._where}: {error}") from None
            except UndeliveredError as error:
                raise UndeliveredError(f"PACS {self._where}: {error}") from None
            except ConfigurationError:
                raise
            except ServiceError as error:
                raise ServiceError(f"PACS {self._where}: {error}") from None

        return self._patience.ask(once)

    def _hang_up(self) -> None:
        """End an association in which something went wrong: what is still on its way there must not be taken for an answer."""
        if self._association is not None and self._association.is_established:
            self._association.abort()

    def close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._lifetime.close()


def _not_established(association: Association, *, tls: bool) -> ServiceError:
    """Why there is no association, and whether there may be one later (PS3.8 9.3.4)."""
    answer = association.acceptor.primitive
    if not association.is_rejected or answer is None:
        encryption = " encrypted, with a certificate that ingest.tls.ca trusts" if tls else ", not encrypted (ingest.dimse.tls)"
        return PassingError(f"expected a connection, it was refused or broke off; the PACS has to run and to talk{encryption}")
    if answer.result == _FOR_GOOD:
        why = _REJECTIONS.get((answer.result_source or 0, answer.diagnostic or 0), "it does not say why")
        return ServiceError(f"expected an association, it was refused: {why}")
    return PassingError("expected an association, it was refused for now")


def _identifier(level: str, **keys: str) -> Dataset:
    made = Dataset()
    made.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(made, keyword, value)
    return made


def _status(answer: Dataset) -> int | None:
    """The status of a response, None where there is none: it did not come in time, or the association ended."""
    return int(answer.Status) if "Status" in answer else None


def _text(identifier: Dataset, keyword: str) -> str:
    """A value of a response as text, "" where there is none or it cannot be read."""
    try:
        value = identifier.get(keyword)
    except Exception:  # a header that a hostile or broken peer wrote
        return ""
    return "" if value is None else str(value).strip(" \0")
