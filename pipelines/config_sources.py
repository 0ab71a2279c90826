"""The sections of params.yaml about servers: what to ask for, where they are, how we talk, and with how much patience."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from pipelines.config_types import AeTitle, Day, Section


class QuerySection(Section):
    """what to ask a server for, besides `modalities`"""

    body_parts: tuple[str, ...] = Field((), description="values of BodyPartExamined, e.g. [CHEST]; [] asks for all")
    last_days: int | None = Field(
        None, ge=0, description="studies of so many days before the last run that got all, or before today; null: by date"
    )
    date_from: Day | None = Field(None, description="earliest StudyDate as DICOM writes it, e.g. 20240131; null has no limit")
    date_to: Day | None = Field(None, description="latest StudyDate; null has no limit")

    @model_validator(mode="after")
    def _consistent(self) -> QuerySection:
        if self.last_days is not None and (self.date_from or self.date_to):
            raise ValueError("last_days, or date_from and date_to, not both")
        if self.date_from and self.date_to and self.date_from > self.date_to:
            raise ValueError("date_from ≤ date_to")
        return self


class DicomwebSection(Section):
    """a DICOMweb server; credentials: RADTRANSFER_DICOMWEB_TOKEN, or _USER and _PASSWORD"""

    url: str | None = Field(None, description="where QIDO-RS and WADO-RS are, e.g. https://pacs.example.org/dicom-web")
    page: int = Field(100, ge=1, le=10000, description="studies per answer")

    @model_validator(mode="after")
    def _plain(self) -> DicomwebSection:
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError("url: an address such as https://pacs.example.org/dicom-web")
            if parts.username or parts.password:
                raise ValueError("url: no user or password; set them in the environment (RADTRANSFER_DICOMWEB_USER, _PASSWORD)")
        return self


class DimseSection(Section):
    """a PACS"""

    host: str | None = Field(None, min_length=1, description="its name or address")
    port: int = Field(104, ge=1, le=65535, description="its DICOM port")
    called_ae: AeTitle = Field("ANY-SCP", description="its AE title")
    calling_ae: AeTitle = Field("RADTRANSFER", description="our AE title, as the PACS knows it")
    retrieve: Literal["get", "move"] = Field("get", description="get (C-GET), or move (C-MOVE to `receive`, below)")
    find_days: int = Field(
        1, ge=1, le=36600, description="days of studies per C-FIND, since archives cut long answers short; needs a first date"
    )
    tls: bool = Field(False, description="talk encrypted")


class ReceiveSection(Section):
    """our own DICOM port: `radtransfer receive`, and the destination of C-MOVE"""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 lets other machines in")
    port: int = Field(11112, ge=1, le=65535, description="port to listen on")
    ae_title: AeTitle = Field("RADTRANSFER", description="our AE title")
    calling_aes: tuple[AeTitle, ...] = Field((), description="AE titles that may send; [] takes from any")
    tls: bool = Field(False, description="talk encrypted; with tls.ca, senders must show a certificate")


class TlsSection(Section):
    """PEM files"""

    ca: str | None = Field(None, description="authority to trust; null takes the system's")
    certificate: str | None = Field(None, description="our certificate, where one is asked for")
    key: str | None = Field(None, description="its key, without a passphrase")


class NetworkSection(Section):
    """patience with servers"""

    timeout_s: float = Field(60, gt=0, le=3600, description="longest wait for an answer, in seconds")
    attempts: int = Field(4, ge=1, le=20, description="tries in all, where trouble may pass")
    back_off_s: float = Field(1, ge=0, le=60, description="first pause between tries, in seconds; each next one is twice as long")
