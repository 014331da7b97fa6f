"""What the proxy presents to the server behind it, and shows to nobody: headers from a private file, and call tokens.

A server can reflect what it was sent. So each of its messages is searched for these secrets before it is handed on.
"""

from __future__ import annotations

import base64
import logging
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pdp.calltokens.claims import HEADER, begin
from pdp.doors.mcp.messages import Message
from pdp.errors import ConfigurationError
from pdp.foundation.files import state_of
from pdp.foundation.ownership import read_own

_LOG = logging.getLogger(__name__)

_MOST_BYTES = 64 * 1024
_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(?P<value>[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)[ \t]*"
)
# What the proxy itself must say, and what is about one connection only.
_NOT_HERE = re.compile(
    r"accept|accept-encoding|connection|content-.*|expect|host|keep-alive|mcp-.*|te|trailer|transfer-encoding|upgrade|"
    + HEADER
)
# Shorter words occur by chance, and guard nothing.
_SHORTEST = 8
_GROUP, _OTHERS = stat.S_IRWXG, stat.S_IRWXO
_ROOT = 0


class Credentials:
    """The headers in a file of lines `Name: value`, read again when it changes; without a file there are none.

    With `call_tokens`, each call token is a secret too, whatever it states. Raise `ConfigurationError` when the file is
    invalid, or when others can read it.
    """

    def __init__(self, file: Path | None = None, *, call_tokens: bool = False) -> None:
        self._file = file
        self._headers: dict[str, str] = {}
        self._always = frozenset(_forms(begin())) if call_tokens else frozenset()
        self._secrets = self._always
        self._latest: frozenset[str] = frozenset()
        self._seen: tuple[int, ...] = ()
        if file is not None:
            self._seen = state_of(file)
            self._take(_read(file))

    def headers(self) -> Mapping[str, str]:
        """Return the headers as they are now; the last good ones while a changed file is invalid. Never raises."""
        if self._file is not None and (seen := state_of(self._file)) != self._seen:
            self._seen = seen
            try:
                self._take(_read(self._file))
            except ConfigurationError as error:
                _LOG.error("the headers could not be read again, so the last good ones stay in use: %s", error)
        return self._headers

    def shown_by(self, message: Message) -> bool:
        """Say whether a message of the server holds one of the secrets."""
        if not self._secrets:
            return False
        # A text without an escape holds each string as it is.
        texts = _texts(message.value) if "\\" in message.text else (message.text,)
        return any(self.shown_in(text) for text in texts)

    def shown_in(self, text: str) -> bool:
        """Say whether a text holds one of the secrets, as it is or in base64."""
        return any(secret in text for secret in self._secrets)

    def _take(self, headers: dict[str, str]) -> None:
        self._headers = headers
        # Answers to what was sent with the headers before are still on their way.
        latest = frozenset(form for value in headers.values() for secret in _secrets(value) for form in _forms(secret))
        self._secrets, self._latest = self._always | self._latest | latest, latest


def _read(file: Path) -> dict[str, str]:
    text = read_own(file, "anyone could choose what is presented to the server", most=_MOST_BYTES + 1)
    status = file.stat()
    # A group may read what root shares with it, as container platforms do.
    if status.st_mode & _OTHERS or (status.st_mode & _GROUP and status.st_uid != _ROOT):
        raise ConfigurationError(f"others can read `{file}`: `chmod 600` it")
    if len(text) > _MOST_BYTES:
        raise ConfigurationError(f"`{file}` is larger than {_MOST_BYTES} bytes")
    headers: dict[str, str] = {}
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        name = match["name"].lower() if match else ""
        # The line itself may be a secret.
        if match is None:
            raise ConfigurationError(f"{file}:{number}: not a line `Name: value` in ASCII")
        if _NOT_HERE.fullmatch(name):
            raise ConfigurationError(f"{file}:{number}: the header `{name}` is the proxy's own")
        if name in headers:
            raise ConfigurationError(f"{file}:{number}: the header `{name}` is there twice")
        headers[name] = match["value"]
    if not headers:
        raise ConfigurationError(f"`{file}` holds no headers")
    return headers


def _secrets(value: str) -> Iterator[str]:
    """Yield what is secret in a header's value: all of it, its last word, and a password in it."""
    word = value.rsplit(maxsplit=1)[-1]
    yield from {value, word}
    try:
        inside = base64.b64decode(word, validate=True).decode("utf-8")
    except ValueError:
        return
    # As in `Basic`.
    if ":" in inside and inside.isprintable():
        yield from (inside, inside.partition(":")[2])


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and how it looks within a longer text in base64, at each of the three places in it."""
    if len(secret) < _SHORTEST:
        return
    yield secret
    content = secret.encode("utf-8")
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + content).decode("ascii")
        # The first and last characters depend on what is beside the secret.
        begin = -(-before * 8 // 6)
        end = (before + len(content)) * 8 // 6
        yield whole[begin:end]
        yield whole[begin:end].replace("+", "-").replace("/", "_")


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any JSON value
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
