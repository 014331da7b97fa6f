"""What a caller of AuthZEN gets over HTTP: one JSON object, or a status alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pdp.serving.web import Scope, Send

REQUEST_ID: Final = "x-request-id"
MOST_ID_CHARACTERS: Final = 512
# An answer is for one caller: nothing between keeps it, or changes it.
_PRIVATE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request is answered; without a body when it is None."""

    status: int = _OK
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


def failed(status: int, text: str, **headers: str) -> Reply:
    """Return the answer for a request that got no decision; of names of headers, `_` is `-`."""
    error = {"error": {"status": status, "message": text}}
    return Reply(status=status, body=error, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def send_reply(reply: Reply, scope: Scope, send: Send) -> None:
    """Send an answer to the request of a scope, with the id by which the caller knows it."""
    body = b"" if reply.body is None else json.dumps(reply.body, ensure_ascii=False).encode("utf-8")
    headers = {**_PRIVATE, **reply.headers}
    if reply.body is not None:
        headers |= {"content-type": reply.kind, "content-length": str(len(body))}
    sent = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    name = REQUEST_ID.encode("ascii")
    # As it was sent, byte for byte.
    ids = [value for header, value in scope["headers"] if header.lower() == name]
    if len(ids) == 1 and len(ids[0]) <= MOST_ID_CHARACTERS:
        sent.append((name, ids[0]))
    await send({"type": "http.response.start", "status": reply.status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
