"""HTTP for DICOMweb: credentials from the environment, certificates, limits on every answer, and failures in our words."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth

from pipelines.config_sources import TlsSection
from pipelines.dicom.sources.patience import PassingError
from pipelines.dicom.sources.tls import client_tls
from pipelines.errors import ConfigurationError, ServiceError

TOKEN, USER, PASSWORD = "RADTRANSFER_DICOMWEB_TOKEN", "RADTRANSFER_DICOMWEB_USER", "RADTRANSFER_DICOMWEB_PASSWORD"
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHUNK = 1 << 16
_NO_JSON = "{}: expected DICOM JSON (PS3.18 F), got something else; is ingest.dicomweb.url right?"


class BearerToken(AuthBase):
    """A token, as an `AuthBase`, since requests puts credentials of ~/.netrc in the place of a plain header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Encrypting(HTTPAdapter):
    """Checks certificates by our rules alone: requests puts REQUESTS_CA_BUNDLE in the place of the authority of a session."""

    def __init__(self, tls: TlsSection) -> None:
        self._context = client_tls(tls)
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def build_connection_pool_key_attributes(self, request: requests.PreparedRequest, *_: Any) -> Any:
        return super().build_connection_pool_key_attributes(request, True)[0], {"cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, *_: Any) -> None:
        """Add no authority to those of the context."""


def session(tls: TlsSection) -> requests.Session:
    """A session with the credentials of the environment and the certificates of params.yaml, that goes nowhere else.

    Raises:
        ConfigurationError: a user without a password, or a PEM file that cannot be read.
    """
    made = requests.Session()
    made.max_redirects = 0  # UIDs and images stay between us and the server that params.yaml names
    made.mount("https://", _Encrypting(tls))
    token, user = os.environ.get(TOKEN), os.environ.get(USER)
    if token:
        made.auth = BearerToken(token)
    elif user:
        if PASSWORD not in os.environ:
            raise ConfigurationError(f"{PASSWORD}: expected a password in the environment, since {USER} is set; found none")
        made.auth = HTTPBasicAuth(user.encode(), os.environ[PASSWORD].encode())
    return made


def bounded(longest_s: float, largest: int) -> Callable[..., requests.Response]:
    """A response hook that ends an answer which is longer than `largest` bytes or takes longer than `longest_s` seconds.

    The timeouts of requests bound the pause between two bytes, so a server that drips would never end.
    """

    def bound(response: requests.Response, *_: Any, **__: Any) -> requests.Response:
        response.raw = _Bounded(response.raw, time.monotonic() + longest_s, largest)
        return response

    return bound


class _Bounded:
    """The raw body of an answer, with an end."""

    def __init__(self, raw: Any, deadline: float, largest: int) -> None:
        self._raw, self._deadline, self._left = raw, deadline, largest

    def stream(self, amount: int, decode_content: bool = True) -> Iterator[bytes]:
        while chunk := self._raw.read1(min(amount or _CHUNK, _CHUNK), decode_content=decode_content):
            self._left -= len(chunk)
            if self._left < 0:
                raise ServiceError("the server's answer is absurdly long")
            if time.monotonic() > self._deadline:
                raise PassingError("the server's answer took too long")
            yield chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


@contextmanager
def plain_words(where: str) -> Iterator[None]:
    """Tell what went wrong between us and a server without quoting either: URLs and bodies hold identifiers.

    Raises:
        PassingError: what may be over at the next try.
        ServiceError: anything else.
    """
    try:
        yield
    except requests.exceptions.SSLError:
        raise ServiceError(
            f"{where}: expected a certificate that can be trusted, got another; name the authority in params.yaml ingest.tls.ca"
        ) from None
    except requests.TooManyRedirects:
        raise ServiceError(
            f"{where}: expected an answer, got a redirect, which is not followed; "
            "set params.yaml ingest.dicomweb.url to where it leads, if you trust that"
        ) from None
    except requests.HTTPError as error:
        raise refused(where, cast(requests.Response, error.response)) from None
    except requests.Timeout:
        raise PassingError(f"{where}: expected an answer in time, got none (params.yaml ingest.network.timeout_s)") from None
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
        raise PassingError(f"{where}: expected an answer, got a connection that was refused or broke off") from None
    except PassingError as error:
        raise PassingError(f"{where}: {error}", error.after_s) from None
    except requests.exceptions.JSONDecodeError:
        raise PassingError(_NO_JSON.format(where)) from None
    except requests.RequestException as error:
        raise ServiceError(f"{where}: the request could not be made ({type(error).__name__})") from None
    except (ValueError, RecursionError):  # JSON with absurd numbers, or of absurd depth
        raise PassingError(_NO_JSON.format(where)) from None


def refused(where: str, response: requests.Response) -> ServiceError:
    """What an HTTP status means to us."""
    status = response.status_code
    if status in PASSING:
        after = response.headers.get("Retry-After", "")
        return PassingError(f"{where}: expected an answer, got HTTP status {status}", float(after) if after.isdecimal() else 0.0)
    if status in (401, 403):
        return ServiceError(
            f"{where}: expected to be let in, got HTTP status {status}; set {TOKEN}, or {USER} and {PASSWORD}, in the environment"
        )
    return ServiceError(f"{where}: expected an answer, got HTTP status {status}; is params.yaml ingest.dicomweb.url right?")
