"""The system that brokered calls are made of, and its token endpoint: `python -m pdp.bench.otherside`.

It answers at once, and only to the key or the access token that is right for the path. Its token endpoint grants one
access token: a broker that asks for another one does not hold the first.
"""

from __future__ import annotations

import json
from base64 import b64encode
from http import HTTPStatus

from pdp.bench.webserver import Request, serve

# The kinds of connections, which are the servers of the catalogue too, and their secrets.
KEYED, GRANTED = "keyed", "granted"
KEY, CLIENT, CLIENT_SECRET = "a-key-of-the-other-side", "bench", "a-secret-of-the-client"
TOKEN_PATH = "/token"  # noqa: S105 - a path
ANSWER = b'{"done": true}'

_TOKEN = "an-access-token-of-the-other-side"  # noqa: S105 - an example
_TOKEN_SECONDS = 86_400
_RIGHT = {KEYED: f"Bearer {KEY}", GRANTED: f"Bearer {_TOKEN}"}
_CLIENT = "Basic " + b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()


class OtherSide:
    """Answers requests."""

    def __init__(self) -> None:
        self._granted = False

    def answer(self, request: Request) -> tuple[HTTPStatus, bytes]:
        """Return status and body."""
        if request.path == TOKEN_PATH:
            return self._grant(request)
        right = _RIGHT.get(request.path.split("/")[1])
        if right is None or request.headers.get("authorization") != right:
            return HTTPStatus.UNAUTHORIZED, b"{}"
        return HTTPStatus.OK, ANSWER

    def _grant(self, request: Request) -> tuple[HTTPStatus, bytes]:
        if request.method != "POST" or request.headers.get("authorization") != _CLIENT:
            return HTTPStatus.UNAUTHORIZED, b'{"error": "invalid_client"}'
        if self._granted:
            return HTTPStatus.BAD_REQUEST, b'{"error": "invalid_grant"}'
        self._granted = True
        granted = {"access_token": _TOKEN, "token_type": "Bearer", "expires_in": _TOKEN_SECONDS}
        return HTTPStatus.OK, json.dumps(granted).encode()


if __name__ == "__main__":
    serve(OtherSide().answer)
