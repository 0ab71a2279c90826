"""The source that params.yaml chooses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import date
from pathlib import Path

from pipelines import __version__
from pipelines.config import IngestSection
from pipelines.config_sources import NetworkSection
from pipelines.dicom.deidentify import Accept
from pipelines.dicom.pseudonyms import Pseudonyms
from pipelines.dicom.sources.inbox import Inbox
from pipelines.dicom.sources.local import FolderSource, InboxSource
from pipelines.dicom.sources.memory import Memory
from pipelines.dicom.sources.patience import Patience
from pipelines.dicom.sources.protocol import Archive, Source
from pipelines.dicom.sources.query import Query
from pipelines.dicom.sources.remote import RemoteSource
from pipelines.errors import ConfigurationError
from pipelines.paths import Paths

CHECK_S = 10.0


def source_of(section: IngestSection, paths: Paths, pseudonyms: Pseudonyms, accept: Accept) -> Source:
    """The source of `ingest.kind`; nothing is connected yet.

    Raises:
        ConfigurationError: it lacks a setting, or the inbox lies within the workspace.
    """
    if section.kind == "folder":
        return FolderSource(_folder(section, paths))
    inbox = open_inbox(paths, pseudonyms)
    options = sorted(option.name for option in accept.options)
    memory = Memory(paths.seen, _digest(accept.modalities, accept.burned_in, options, __version__))
    if section.kind == "inbox":
        return InboxSource(inbox, memory)
    archive = ARCHIVES[section.kind](section, inbox, patience(section.network))
    today = date.today()
    query = Query.of(section.query, section.modalities, today)
    return RemoteSource(archive, query, inbox, memory, wish=_wish(section, query), today=today)


def check(section: IngestSection, paths: Paths) -> str:
    """Say in a few words that the source of `ingest.kind` answers: C-ECHO, or one QIDO-RS query; nothing is fetched.

    Raises:
        RadtransferError: it does not, or lacks a setting.
    """
    once = section.network.model_copy(update={"attempts": 1, "timeout_s": min(section.network.timeout_s, CHECK_S)})
    keyless = Pseudonyms(b"")  # nothing comes, so nothing is named
    source = source_of(section.model_copy(update={"network": once}), paths, keyless, Accept(section.modalities))
    try:
        return source.check()
    finally:
        source.close()


def open_inbox(paths: Paths, pseudonyms: Pseudonyms) -> Inbox:
    """The inbox of a workspace.

    Raises:
        ConfigurationError: it lies within the workspace.
    """
    if paths.inbox.resolve().is_relative_to(paths.repository):
        raise ConfigurationError(
            "RADTRANSFER_INBOX: expected a folder outside the workspace and its git repository, got one within; "
            "what waits there is identified"
        )
    return Inbox(paths.inbox, pseudonyms)


def _wish(section: IngestSection, query: Query) -> str:
    """By which two servers, or wishes, are told apart: what one brought says nothing about the other."""
    pacs = section.dimse
    return _digest(section.kind, section.dicomweb.url, pacs.host, pacs.port, pacs.called_ae, query.fingerprint)


def _digest(*settings: object) -> str:
    """By which sets of settings are told apart; the same in every process."""
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:16]


def patience(section: NetworkSection) -> Patience:
    return Patience(section.timeout_s, section.attempts, section.back_off_s)


def _folder(section: IngestSection, paths: Paths) -> Path:
    if section.source is None:
        raise ConfigurationError(
            "params.yaml ingest.source: expected a folder of DICOM files, got null; "
            "name one with `radtransfer ingest SOURCE`, or another kind of source with ingest.kind"
        )
    return paths.workspace / Path(section.source).expanduser()


def _dicomweb(section: IngestSection, inbox: Inbox, patience: Patience) -> Archive:
    from pipelines.dicom.sources.dicomweb import DicomwebArchive

    return DicomwebArchive(section.dicomweb, section.tls, patience)


def _dimse(section: IngestSection, inbox: Inbox, patience: Patience) -> Archive:
    from pipelines.dicom.sources.dimse import DimseArchive

    return DimseArchive(section.dimse, section.receive, section.tls, patience, section.modalities, inbox)


ARCHIVES: dict[str, Callable[[IngestSection, Inbox, Patience], Archive]] = {"dicomweb": _dicomweb, "dimse": _dimse}
