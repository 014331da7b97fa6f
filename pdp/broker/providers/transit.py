"""Have OpenBao or Vault wrap the keys of secrets: their engine `transit` never gives its keys away.

Each of our keys is one there, derived: what we associate with a wrapped key is, as a digest, the `context` from which
the engine derives what it encrypts with. Its `associated_data` would do the same, but what was encrypted so cannot be
wrapped again there.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final, NamedTuple

from pdp.broker.providers import required_id
from pdp.broker.words import ProviderUnavailableError, SealBrokenError, UnknownKeyError
from pdp.errors import InvalidJSONError
from pdp.foundation.egress import Egress, EgressError, Roots, read_whole
from pdp.foundation.jsontext import parse_object
from pdp.foundation.ownership import read_secret

_STEP_SECONDS, _WHOLE_SECONDS = 5.0, 10.0
_MOST_BYTES: Final = 64 * 1024
# There is no such key: it asks whether the token may look.
_PROBE: Final = f"kek_{'a' * 16}_{'a' * 16}"


class _Answer(NamedTuple):
    """The status of an answer, and what it holds."""

    status: int
    content: dict[str, Any]


class TransitProvider:
    """The engine `transit` at an address such as `https://bao.example.org:8200`, mounted at `mount`.

    The token is read for each request, because others renew it. Without `ca_file` the system's roots are trusted.
    """

    def __init__(
        self, address: str, *, token_file: Path, mount: str = "transit", namespace: str = "", ca_file: str = ""
    ) -> None:
        self._address, self._mount, self._namespace = address.rstrip("/"), mount, namespace
        self._token_file, self._roots = token_file, Roots(ca_file)

    def create(self, kek_id: str) -> None:
        """Create a random key."""
        self._done(self._ask("POST", f"keys/{required_id(kek_id)}", {"type": "aes256-gcm96", "derived": True}))

    def wrap(self, kek_id: str, key: bytes, associated: bytes) -> bytes:
        """Return a key, sealed with its associated data."""
        # The engine makes a key that it does not have when it is asked to encrypt with it, unless its policy forbids.
        self._require(kek_id)
        body = {"plaintext": b64encode(key).decode(), "context": _context(associated)}
        return self._text(self._ask("POST", f"encrypt/{kek_id}", body), "ciphertext").encode()

    def unwrap(self, kek_id: str, wrapped: bytes, associated: bytes) -> bytes:
        """Return a key that was wrapped."""
        body = {"ciphertext": wrapped.decode("ascii", "replace"), "context": _context(associated)}
        answer = self._ask("POST", f"decrypt/{required_id(kek_id)}", body)
        if answer.status == HTTPStatus.BAD_REQUEST:
            # It answers so for a missing key, too.
            self._require(kek_id)
            raise SealBrokenError("the seal does not fit")
        return b64decode(self._text(answer, "plaintext"))

    def destroy(self, kek_id: str) -> None:
        """Delete a key, which the engine allows only after it was told so."""
        if self._ask("GET", f"keys/{required_id(kek_id)}").status == HTTPStatus.NOT_FOUND:
            return
        self._done(self._ask("POST", f"keys/{kek_id}/config", {"deletion_allowed": True}))
        self._done(self._ask("DELETE", f"keys/{kek_id}"))

    def check(self) -> None:
        """Look whether the engine answers, and takes the token."""
        answer = self._ask("GET", f"keys/{_PROBE}")
        if answer.status != HTTPStatus.NOT_FOUND:
            self._done(answer)

    def close(self) -> None:
        """Do nothing: each request has a connection of its own."""

    def _require(self, kek_id: str) -> None:
        answer = self._ask("GET", f"keys/{required_id(kek_id)}")
        if answer.status == HTTPStatus.NOT_FOUND:
            raise UnknownKeyError(f"the provider has no key `{kek_id}`")
        self._done(answer)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> _Answer:
        url = f"{self._address}/v1/{self._mount}/{path}"
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        egress = Egress(url, roots=self._roots, step_seconds=_STEP_SECONDS, whole_seconds=_WHOLE_SECONDS)
        try:
            return egress.ask(method, headers, _read, body=json.dumps(body).encode() if body else None)
        except EgressError as error:
            raise ProviderUnavailableError(f"the key provider `{self._address}` {error}") from None
        finally:
            egress.close()

    def _done(self, answer: _Answer) -> None:
        if answer.status not in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            raise ProviderUnavailableError(f"the key provider `{self._address}` answered {answer.status}")

    def _text(self, answer: _Answer, name: str) -> str:
        self._done(answer)
        data = answer.content.get("data")
        found = data.get(name) if isinstance(data, dict) else None
        if not isinstance(found, str):
            raise ProviderUnavailableError(f"the key provider `{self._address}` answered without `{name}`")
        return found

    def _token(self) -> str:
        return read_secret(self._token_file, "anyone could choose the token", most=_MOST_BYTES).strip()


def _read(response: HTTPResponse) -> _Answer:
    content = read_whole(response, _MOST_BYTES)
    try:
        return _Answer(response.status, parse_object(content) if content.strip() else {})
    except InvalidJSONError:
        raise EgressError("answered with what is no JSON") from None


def _context(associated: bytes) -> str:
    return b64encode(sha256(associated).digest()).decode()
