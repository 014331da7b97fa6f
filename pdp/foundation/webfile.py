"""Fetch a file from a URL: within limits of size and time, and only when it has changed."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pdp.errors import ConfigurationError
from pdp.foundation.egress import (
    STEP_SECONDS,
    WHOLE_SECONDS,
    Egress,
    EgressError,
    NotAskedError,
    TooLargeError,
    read_whole,
)
from pdp.foundation.ownership import require_own

_OK, _NOT_MODIFIED, _REDIRECTS = 200, 304, range(300, 400)
_ENTITY_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,256}"')
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")


class WebFileError(Exception):
    """The file could not be fetched; the message continues after the URL: `did not answer in time`."""


class WebFileTooLargeError(WebFileError):
    """The file is larger than its limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebEndpoint:
    """The URL, the trusted authorities, and the token. Empty files: the system's roots, and no token."""

    url: str
    ca_file: str = ""
    token_file: str = ""

    @property
    def shown(self) -> str:
        """Return the URL for people, without its query, which can hold a secret."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


class WebFile:
    """A file at a URL, of at most `most` bytes. For one thread at a time, except `close`.

    Redirects are not followed, so that the token is not sent elsewhere. `step_seconds` and `whole_seconds` limit a
    fetch. The operator names the URL, so it may be at a private address.
    """

    def __init__(
        self,
        endpoint: WebEndpoint,
        most: int,
        *,
        accept: str = "application/octet-stream",
        step_seconds: float = STEP_SECONDS,
        whole_seconds: float = WHOLE_SECONDS,
    ) -> None:
        self._endpoint = endpoint
        self._most = most
        self._accept = accept
        self._egress = Egress(
            endpoint.url, ca_file=endpoint.ca_file, step_seconds=step_seconds, whole_seconds=whole_seconds
        )

    def fetch(self, known_tag: str = "") -> tuple[bytes, str] | None:
        """Return content and entity tag (or an empty one); None when the file still has `known_tag`.

        Raise `WebFileError`.
        """
        headers = {"Accept": self._accept, "Accept-Encoding": "identity"}
        headers |= {"If-None-Match": known_tag} if known_tag else {}
        headers |= {"Authorization": f"Bearer {self._token()}"} if self._endpoint.token_file else {}
        try:
            return self._egress.ask("GET", headers, lambda answer: self._taken(answer, changes_only=bool(known_tag)))
        except NotAskedError as error:
            raise WebFileError(f"is not fetched: {error}") from None
        except TooLargeError as error:
            raise WebFileTooLargeError(str(error)) from None
        except EgressError as error:
            raise WebFileError(str(error)) from None

    def close(self) -> None:
        """End a running fetch; later ones fail at once."""
        self._egress.close()

    def _taken(self, response: http.client.HTTPResponse, *, changes_only: bool) -> tuple[bytes, str] | None:
        if response.status == _NOT_MODIFIED and changes_only:
            return None
        if response.status == _NOT_MODIFIED:
            raise EgressError(f"answers `{_NOT_MODIFIED}`, but nothing was read before")
        if response.status in _REDIRECTS:
            raise EgressError(f"answers `{response.status}`, but redirects are not followed")
        if response.status != _OK:
            raise EgressError(f"answers `{response.status}`")
        if response.getheader("Content-Encoding", "identity") != "identity":
            raise EgressError("answers with an encoding that was not requested")
        body, tag = read_whole(response, self._most), response.getheader("ETag", "")
        return body, tag if _ENTITY_TAG.fullmatch(tag) else ""

    def _token(self) -> str:
        try:
            require_own(Path(self._endpoint.token_file), "anyone could choose what is presented")
            token = Path(self._endpoint.token_file).read_text(encoding="ascii").strip()
        except ConfigurationError as error:
            raise WebFileError(f"is not fetched: {error}") from None
        except (OSError, UnicodeDecodeError):
            token = ""
        if not _TOKEN.fullmatch(token):
            raise WebFileError(f"is not fetched: `{self._endpoint.token_file}` holds no token")
        return token
