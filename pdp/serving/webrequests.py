"""HTTP as this listener takes it: requests that have one reading, and few words in the log about all others."""

from __future__ import annotations

import logging
import re
import time
from typing import Any, Final

import h11

_ABSOLUTE = re.compile(rb"https?://(?P<host>[^/?#]*)(?P<target>.*)", re.IGNORECASE)
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_QUIET_SECONDS: Final = 60.0


class StrictConnection(h11.Connection):
    """A connection of h11 that refuses what servers read in several ways, and reads targets that are whole URLs."""

    def next_event(self) -> Any:  # noqa: ANN401 - h11 has many
        """Return what comes next, as h11 does. Raise `h11.RemoteProtocolError`."""
        event = super().next_event()
        if not isinstance(event, h11.Request):
            return event
        if {name for name, _ in event.headers} >= _FRAMING:
            # RFC 9112, section 6.1: it can be the beginning of another request, for what is in front of this server.
            raise h11.RemoteProtocolError("a request has two lengths")
        url = _ABSOLUTE.fullmatch(event.target)
        if url is None:
            return event
        # Section 3.2.2: the host of the URL counts, and no other.
        headers = [(name, url["host"] if name == b"host" else value) for name, value in event.headers]
        target = url["target"] if url["target"].startswith(b"/") else b"/" + url["target"]
        return h11.Request(method=event.method, headers=headers, target=target, http_version=event.http_version)


class Seldom(logging.Filter):
    """Lets one warning of each text pass in a minute: else anyone who sends nonsense could fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self._until: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is to be written. Texts are without what is filled in, so there are few."""
        now = time.monotonic()
        if record.levelno != logging.WARNING or now >= self._until.get(record.msg, 0.0):
            self._until[record.msg] = now + _QUIET_SECONDS
            return True
        return False
