"""Run a server of MCP over pipes whose key stays with the broker: it has a placeholder, and a base URL of this process.

A door in front puts a call token into each call. This process takes it out, and sends on with it what the server then
asks its base URL for. So that a request belongs to one call, one message at a time is with the server.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from pdp.calltokens.canonical import arguments_digest
from pdp.calltokens.claims import HEADER, MOST_SECONDS, decoded, read
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.requests import Requested, message_in

_PLACEHOLDER_BYTES: Final = 32
_REFUSED, _PARSE_ERROR, _INVALID = -32001, -32700, -32600
# What begins otherwise asks for something, and waits for its turn.
_NOTIFIES: Final = "notifications/"
_CANCELS: Final = "notifications/cancelled"
# A request that is cancelled gets no answer, and its server may need a moment to stop.
_STOP_SECONDS: Final = 5.0


def new_placeholder() -> str:
    """Make what a server has in the place of a key: it opens nothing but the base URL of this process."""
    return f"pdp-placeholder-{secrets.token_urlsafe(_PLACEHOLDER_BYTES)}"


@dataclass(slots=True)
class Turn:
    """The message that is with the server: its id, and the call token that it may use, or none."""

    id: str | int
    token: str = field(repr=False)
    answered: asyncio.Event = field(default_factory=asyncio.Event)


class Piping:
    """Passes lines between a client and a server. For one event loop.

    `server` is the name of the server in the catalogue; `to_server` and `to_client` take whole lines.
    """

    def __init__(
        self, server: str, *, to_server: Callable[[bytes], object], to_client: Callable[[bytes], object]
    ) -> None:
        self._server = server
        self._to_server, self._to_client = to_server, to_client
        self._turns = asyncio.Lock()
        self._turn: Turn | None = None
        self._asking: dict[asyncio.Task[None], str | int] = {}

    @property
    def token(self) -> str:
        """Return the call token of the message that is with the server; empty when it may use none."""
        return self._turn.token if self._turn else ""

    def from_client(self, line: bytes) -> None:
        """Take a line of the client."""
        try:
            message = message_in(line)
            written = _line(message)
        except (CallTokenRefusedError, RecursionError):
            # Another reader could find a call of a tool in it.
            self._answer(None, _PARSE_ERROR, "not a single JSON object that all readers read alike")
            return
        if "method" in message and isinstance(message.get("id"), str | int):
            task = asyncio.ensure_future(self._ask(message, message["id"]))
            self._asking[task] = message["id"]
            task.add_done_callback(self._asking.pop)
        elif "method" not in message or ("id" not in message and str(message["method"]).startswith(_NOTIFIES)):
            self._to_server(written)
            if message.get("method") == _CANCELS:
                self._cancel(message.get("params"))
        else:
            # INVARIANT: a server that answers it all the same would do so with the token of another call.
            self._answer(None, _INVALID, "no notification, and its id is neither a text nor a whole number")

    def from_server(self, line: bytes) -> None:
        """Take a line of the server."""
        self._to_client(line)
        turn = self._turn
        if turn is None:
            return
        try:
            message = json.loads(line)
        except RecursionError:
            # Nothing else than an answer is nested so deeply.
            turn.answered.set()
            return
        except ValueError:
            return
        if isinstance(message, dict) and "method" not in message and message.get("id") == turn.id:
            turn.answered.set()

    def _cancel(self, params: object) -> None:
        """End the turn of a request that is cancelled after a moment; one that has had none yet is not sent."""
        id_ = params.get("requestId") if isinstance(params, dict) else None
        if self._turn and self._turn.id == id_:
            asyncio.get_running_loop().call_later(_STOP_SECONDS, self._turn.answered.set)
            return
        for task in [task for task, asked in self._asking.items() if asked == id_]:
            task.cancel()

    async def _ask(self, message: dict[str, Any], id_: str | int) -> None:
        async with self._turns:
            try:
                token = self._token_of(message) if message["method"] == "tools/call" else ""
            except CallTokenRefusedError as error:
                self._answer(id_, _REFUSED, f"call token refused: {error}", error.reason)
                return
            self._turn = Turn(id=id_, token=token)
            self._to_server(_line(message))
            try:
                async with asyncio.timeout(None if not token else MOST_SECONDS):
                    await self._turn.answered.wait()
            except TimeoutError:
                # Its token is over. The server may still answer.
                return
            finally:
                self._turn = None

    def _token_of(self, message: dict[str, Any]) -> str:
        """Take the call token out of a call, and return it. Raise unless it is for this call.

        Its signature, and whether it counts, the broker sees: nothing is sent with a token that it refuses.
        """
        call = Requested.of_mcp(message.get("params"))
        if not call.token:
            raise CallTokenRefusedError(Reason.MALFORMED, f"no call token in `_meta` as `{HEADER}`")
        del message["params"]["_meta"][HEADER]
        parts = call.token.split(".")
        claims = read(decoded(parts[1])) if len(parts) == 3 else None  # noqa: PLR2004 - header, claims, signature
        if claims is None or (claims.server, claims.tool) != (self._server, call.tool):
            raise CallTokenRefusedError(Reason.TOOL, "for another tool")
        if arguments_digest(call.arguments, claims.salt) != claims.arguments_digest:
            raise CallTokenRefusedError(Reason.ARGUMENTS, "for other arguments")
        return call.token

    def _answer(self, id_: str | int | None, code: int, text: str, reason: str = "") -> None:
        problem = {"code": code, "message": text, **({"data": {"reason": reason}} if reason else {})}
        self._to_client(_line({"jsonrpc": "2.0", "id": id_, "error": problem}))


def _line(message: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
