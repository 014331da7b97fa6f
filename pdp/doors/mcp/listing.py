"""List the tools of a server at a URL, in either era of MCP: what its catalogue is made of."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pdp import __version__
from pdp.doors.mcp import answers
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.messages import MOST_BYTES, InvalidMessageError, Message
from pdp.doors.mcp.methods import INITIALIZE, LIST, STATED
from pdp.doors.mcp.tools import page
from pdp.doors.mcp.upstream import Upstream, UpstreamAnswer, UpstreamError
from pdp.errors import InvalidJSONError, one_line
from pdp.policy.tools.catalogue import tool_definitions
from pdp.serving.web import FORBIDDEN, NOT_ALLOWED, NOT_FOUND, UNAUTHORIZED, is_json

_MOST_PAGES, _SHOWN = 1000, 200
_HANDSHAKE: Final = "2025-11-25"
_VERSION = re.compile(r"[0-9-]{1,32}")
_INITIALIZED: Final = '{"jsonrpc":"2.0","method":"notifications/initialized"}'
_CLIENT: Final[Mapping[str, str]] = {"name": "pdp", "version": __version__}
_STATED: Final[Mapping[str, Any]] = dict(zip(STATED, (http.MODERN, {}, _CLIENT), strict=True))
_OK, _ACCEPTED = 200, 202
_ELSEWHERE: Final = "the URL of a server often ends in `/mcp`"


class ListingError(Exception):
    """The tools cannot be listed. The text says why and what to do, for whoever wants the list."""


class _OtherEraError(ListingError):
    """The server answers as one of the other era can."""


async def listed_tools(upstream: Upstream) -> list[dict[str, Any]]:
    """Return the entries of all pages of a server's list of tools, as it writes them.

    A server with a handshake refuses what is asked without one, and is asked again. Raise `ListingError` when the
    server answers wrongly or too much, and `UpstreamError` when it does not answer.
    """
    modern = _Listing(upstream=upstream, headers={http.VERSION: http.MODERN, http.METHOD: LIST}, meta=_STATED)
    try:
        return await modern.pages()
    except _OtherEraError:
        legacy = _Listing(upstream=upstream, left=modern.left)
    await legacy.greet()
    try:
        return await legacy.pages()
    finally:
        await legacy.leave()


@dataclass(slots=True, kw_only=True)
class _Listing:
    """Asks in one era. `left` is how many bytes all answers together may still have."""

    upstream: Upstream
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    meta: Mapping[str, Any] = field(default_factory=dict)
    left: int = MOST_BYTES

    async def pages(self) -> list[dict[str, Any]]:
        tools: list[dict[str, Any]] = []
        params: dict[str, Any] = {"_meta": dict(self.meta)} if self.meta else {}
        for _ in range(_MOST_PAGES):
            said, _headers = await self._ask(LIST, params)
            try:
                _entries, cursor = page(said)
                found = tool_definitions((said.part("result", "tools") or "").encode("utf-8"))
            except (InvalidMessageError, InvalidJSONError) as error:
                raise ListingError(f"it answers `{LIST}` wrongly: {error}") from None
            # A field that is null says nothing.
            tools += [{name: value for name, value in one.items() if value is not None} for one in found]
            if not cursor:
                return tools
            params["cursor"] = cursor
        raise ListingError(f"its list has more than {_MOST_PAGES} pages")

    async def greet(self) -> None:
        hello = {"protocolVersion": _HANDSHAKE, "capabilities": {}, "clientInfo": _CLIENT}
        said, headers = await self._ask(INITIALIZE, hello)
        version = said.value["result"].get("protocolVersion")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise ListingError(f"it answers `{INITIALIZE}` without a revision of MCP")
        self.headers = {http.VERSION: version}
        if http.is_session(session := headers.get(http.SESSION, "")):
            self.headers[http.SESSION] = session
        async with self._sent(_INITIALIZED) as answer:
            if answer.status not in (_OK, _ACCEPTED):
                raise self._refused(answer, None)

    async def leave(self) -> None:
        """End the session of MCP. Never raises."""
        if http.SESSION in self.headers:
            with suppress(UpstreamError):
                async with self.upstream.exchange("DELETE", self.headers):
                    pass

    async def _ask(self, method: str, params: Mapping[str, Any]) -> tuple[Message, http.Headers]:
        """Return the answer to a request, which has a result, and its headers."""
        number = f"pdp-{secrets.token_hex(8)}"
        async with self._sent(answers.request(number, method, params)) as answer:
            said = await self._answer(answer, number)
            if answer.status != _OK or said is None or not isinstance(said.value.get("result"), dict):
                raise self._refused(answer, said)
            return said, answer.headers

    @asynccontextmanager
    async def _sent(self, text: str) -> AsyncIterator[UpstreamAnswer]:
        headers = {"accept": "application/json, text/event-stream", "user-agent": f"pdp/{__version__}", **self.headers}
        async with self.upstream.exchange("POST", headers, text.encode("utf-8")) as answer:
            yield replace(answer, pieces=self._counted(answer.pieces))

    async def _counted(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.left -= len(piece)
            if self.left < 0:
                raise ListingError(f"it answers more than {MOST_BYTES} bytes")
            yield piece

    async def _answer(self, answer: UpstreamAnswer, number: str) -> Message | None:
        """Return the message that answers a request; None when there is none."""
        if http.is_stream(answer.headers):
            async with aclosing(answer.messages()) as messages:
                async for message in messages:
                    if message is not None and message.id == number and not message.method:
                        return message
        elif is_json(answer.headers):
            with suppress(InvalidMessageError):
                return Message.read(await answer.body())
        return None

    def _refused(self, answer: UpstreamAnswer, said: Message | None) -> ListingError:
        """Return what to do about an answer that is no result."""
        if objection := _objection(answer, presented=bool(self.upstream.credentials.headers())):
            return ListingError(objection)
        error = said.value.get("error") if said is not None else None
        if isinstance(error, dict) and isinstance(text := error.get("message"), str):
            return _OtherEraError(f"it answers with an error: {one_line(text)[:_SHOWN]}")
        if answer.status == _OK:
            return _OtherEraError(f"it does not answer as an MCP server does: {_ELSEWHERE}")
        where = f": {_ELSEWHERE}" if answer.status in (NOT_FOUND, NOT_ALLOWED) else ""
        return _OtherEraError(f"it answers with the status {answer.status}{where}")


def _objection(answer: UpstreamAnswer, *, presented: bool) -> str:
    """Return why a server answers no client of either era; empty when that cannot be told."""
    if answer.status == UNAUTHORIZED and presented:
        return "it does not accept the credentials in the file of headers (status 401)"
    if answer.status == UNAUTHORIZED:
        return (
            "it wants credentials (status 401): give them in a file of headers, with a line such as "
            "`Authorization: Bearer …`"
        )
    if answer.status == FORBIDDEN:
        return "it refuses to list its tools for this client or these credentials (status 403)"
    if answer.headers.get("content-type", "").lower().startswith("text/html"):
        return f"it answers with a web page, so no MCP server is at this URL: {_ELSEWHERE}"
    return ""
