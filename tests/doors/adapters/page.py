"""The examples of the page about doors, and a server for them that allows every call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdp.client import Client, ClientSession
from tests.machinery.pages import blocks
from tests.machinery.servers.scripted import ScriptedServer

_PAGE = Path(__file__).parents[3] / "pdp" / "doors" / "README.md"


@contextmanager
def example(kind: str) -> Iterator[tuple[dict[str, Any], ClientSession, ScriptedServer]]:
    """Yield what an example of the page defines, a session for it, and the server that it asks."""
    (text,) = blocks(_PAGE, kind)
    defined: dict[str, Any] = {}
    exec(text, defined)  # noqa: S102 - our own page
    server = ScriptedServer()
    try:
        with Client(server.start(), token="sesame", plaintext=True) as client:  # noqa: S106 - of the test's own server
            yield defined, client.attach("pdps_secret"), server
    finally:
        server.stop()


def asked(server: ScriptedServer) -> list[tuple[str, str]]:
    """Return server and tool of each call that was asked about."""
    return [(one.call.server, one.call.tool) for one in server.sent("Authorize")]
