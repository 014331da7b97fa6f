"""What tool servers over HTTP have in common: which call a request makes, and the answer to one that is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pdp.calltokens.canonical import parse
from pdp.calltokens.claims import HEADER, Presenter
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.strictjson import JSON_RPC_MEMBERS, mistakable
from pdp.calltokens.verifying import Verifier

MOST_BYTES: Final = 4 * 1024 * 1024
_PARAMS: Final = frozenset({"name", "arguments", "_meta"})
_UTF_8: Final = re.compile(r"[^;]*;\s*charset=(?:utf-?8|\"utf-?8\")\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """The call that a request makes: a tool, and its arguments as they will be executed. `id` is for its answer.

    `token` is a call token in the request's body, for a gateway that can add no header.
    """

    tool: str
    arguments: dict[str, Any] = field(repr=False)
    id: str | int | None = None
    token: str = field(default="", repr=False)

    @classmethod
    def of_mcp(cls, params: object, id_: object = None) -> Self:
        """Read the parameters of `tools/call` of MCP. Raise `CallTokenRefusedError` for what calls no tool."""
        said = params if isinstance(params, Mapping) else {}
        name, arguments, meta = said.get("name"), said.get("arguments", {}), said.get("_meta")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise CallTokenRefusedError(Reason.MALFORMED, "not a call of a tool")
        if others := mistakable(map(str, said), _PARAMS):
            raise CallTokenRefusedError(Reason.MALFORMED, f"`params.{others[0]}` is not what some readers take it for")
        token = meta.get(HEADER) if isinstance(meta, Mapping) else None
        return cls(
            tool=name,
            arguments=arguments,
            id=id_ if isinstance(id_, str | int) else None,
            token=token if isinstance(token, str) else "",
        )


# Returns the call that a request with a method, a path and a body makes; None for a request that calls no tool. Raises
# `CallTokenRefusedError` for what cannot be read.
CallOf = Callable[[str, str, bytes], Requested | None]


def message_in(body: bytes) -> dict[str, Any]:
    """Return a message of MCP that all readers read alike. Raise `CallTokenRefusedError`.

    Lists of messages are refused: no version of MCP has them now.
    """
    message = parse(body)
    if not isinstance(message, dict):
        raise CallTokenRefusedError(Reason.MALFORMED, "not a single message")
    if not message.keys() <= JSON_RPC_MEMBERS:
        raise CallTokenRefusedError(Reason.MALFORMED, "a message with a member that JSON-RPC does not have")
    return message


def mcp_call(method: str, _: str, body: bytes) -> Requested | None:
    """Return the call in a message of MCP over HTTP."""
    if method != "POST":
        return None
    message = message_in(body)
    if message.get("method") != "tools/call":
        return None
    return Requested.of_mcp(message.get("params"), message.get("id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Lets each call of one tool server pass that has a call token, and every request that calls no tool."""

    verifier: Verifier
    server: str
    call_of: CallOf = mcp_call

    def refusal(
        self, method: str, path: str, body: bytes, token: str, presenter: Presenter | None, content_type: str = ""
    ) -> bytes | None:
        """Return the body of the answer to a request that is refused; None for one that may pass. May wait."""
        call = None
        try:
            if "charset" in content_type.lower() and not _UTF_8.fullmatch(content_type):
                # Who reads its text by that, such as UTF-7, reads another call.
                raise CallTokenRefusedError(Reason.MALFORMED, "not in UTF-8")
            call = self.call_of(method, path, body)
            if call is None:
                return None
            presented = token or call.token
            if not presented:
                raise CallTokenRefusedError(Reason.MALFORMED, f"no call token in `{HEADER}`")
            self.verifier.verify(
                presented, server=self.server, tool=call.tool, arguments=call.arguments, presenter=presenter
            )
        except CallTokenRefusedError as error:
            return _refused(call, error)
        return None


def too_large(most: int) -> bytes:
    """Return the body of the answer to a request with too large a body."""
    return _refused(None, CallTokenRefusedError(Reason.MALFORMED, f"larger than {most} bytes"))


def _refused(call: Requested | None, error: CallTokenRefusedError) -> bytes:
    """Write an error of JSON-RPC."""
    problem = {"code": -32001, "message": f"call token refused: {error}", "data": {"reason": error.reason}}
    return json.dumps({"jsonrpc": "2.0", "id": call.id if call else None, "error": problem}).encode()
