"""The examples of the page about doors, and a server for them that allows every call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pdp.client import Client, ClientSession
from pdp.v1.authorization_pb2 import ReportOutcomeResponse
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


def obliged(server: ScriptedServer, **obligations: Any) -> None:
    """Have the server ask for obligations with each call, by their ids, and want to know what came of it."""
    honest = server.honest

    def decide(request: Any, _: Any) -> Any:
        decision = honest(request)
        decision.outcome_token = "pdpo_1"  # noqa: S105 - of the test's own server
        for name, parameters in obligations.items():
            decision.obligations.add(id=name, parameters_json=json.dumps(parameters).encode())
        return decision

    server.decide = decide
    server.scripts["ReportOutcome"] = lambda *_: ReportOutcomeResponse(decision_id="dec_1")


def asked(server: ScriptedServer) -> list[tuple[str, str]]:
    """Return server and tool of each call that was asked about."""
    return [(one.call.server, one.call.tool) for one in server.sent("Authorize")]
