"""Ask the PDP about one request of a client of MCP, and say what may be handed on of the answer to it.

Knows no transport: a request comes as a message, and what comes back is the text of one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pdp.client import (
    CallTokenRequest,
    NotFoundError,
    PDPClientError,
    ToolCall,
    ToolCallDenied,
    WrongStateError,
)
from pdp.client.aio.admitted import AsyncAdmittedCall
from pdp.doors import refusals
from pdp.doors.calltokens import NoCallTokenError, token_of_admitted
from pdp.doors.mcp import answers, elicitation
from pdp.doors.mcp.apart import apart
from pdp.doors.mcp.messages import InvalidMessageError, Message
from pdp.doors.mcp.methods import (
    CALL,
    CANCELLED,
    GREETINGS,
    LIST,
    LOGGED,
    PASSED,
    PING,
    PROGRESS,
    ROOTS,
    SAID,
    SERVER_ASKS,
    STATED,
    TOLD,
    TOOLS_CHANGED,
)
from pdp.doors.mcp.questions import RefusedError, question
from pdp.doors.mcp.results import handed_on, problem_of, redacts
from pdp.doors.mcp.tools import MOST_PAGES, Definitions, announcing, page, shown
from pdp.doors.observing import NO_RESULT, CallUnderWay, refuse
from pdp.doors.session import DoorSession, NoSessionError
from pdp.doors.traces import Carrier, placed
from pdp.model import Visibility
from pdp.observer import CallOutcome, DoorObserver, Refusal

_LOG = logging.getLogger(__name__)

# Asks the server for something in the proxy's own name, and returns the answer. Raises `InvalidMessageError`.
AskServer = Callable[[str, Mapping[str, Any]], Awaitable[Message]]

_NOTHING: Carrier = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedCall:
    """A request that the PDP has allowed, as it is sent on, and what is left to do about its result.

    `token` is its call token, which the server gets with it; empty for none.
    """

    request: Message
    token: str = field(default="", repr=False)
    call: AsyncAdmittedCall = field(repr=False)
    under_way: CallUnderWay = field(repr=False)


class Gate:
    """Asks about the requests for one server, which the catalogue knows by the name `server`.

    `passes` are the methods that the operator lets pass besides. `pdp_command` returns a whole command of `pdp` for its
    words, as a person must type it. `reveals` says that a message holds what no client may see. With `call_token` no
    call of a tool goes on without such a token. For `lasting` seconds a definition of a tool is taken for what the
    server does. `observer` is told of calls, which come over `transport`.
    """

    def __init__(
        self,
        *,
        server: str,
        session: DoorSession,
        ask_server: AskServer,
        pdp_command: Callable[[str], str],
        passes: frozenset[str] = frozenset(),
        lasting: float = math.inf,
        reveals: Callable[[Message], bool] = lambda _: False,
        call_token: CallTokenRequest | None = None,
        observer: DoorObserver | None = None,
        transport: str = "pipe",
    ) -> None:
        self._observer = observer
        self._transport = transport
        self._lasting = lasting
        self.definitions = Definitions(lasting=lasting)
        # The tools that the session could see when the client was last told of them; None until then.
        self.shown: Mapping[str, str] | None = None
        self._changed: frozenset[str] = frozenset()
        self._reveals = reveals
        self._call_token = call_token
        self._server = server
        self._session = session
        self._ask_server = ask_server
        self._pdp_command = pdp_command
        self._passes = passes
        self._listing: asyncio.Future[None] | None = None
        # Whether a call was allowed whose result must be redacted.
        self._redacts = False

    async def ask(self, request: Message, around: Carrier = _NOTHING) -> AllowedCall:
        """Ask whether a request may reach the server. Raise `RefusedError` when it may not.

        The arguments that are asked about are the text of the request, byte for byte. `around` are the headers
        that came with the request.
        """
        call = CallUnderWay(
            self._observer,
            request.method,
            placed=placed(request.meta, around),
            server=self._server,
            request_id=str(request.id),
            transport=self._transport,
        )
        try:
            with call:
                call.tool, arguments = question(request)
                return await self._allowed(request, arguments, call)
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the call does not run
            raise RefusedError(self._refusal(request, error)) from None

    async def handed_on(self, allowed: AllowedCall, said: Message) -> str:
        """Report what came of an allowed request, and return what the client gets of it."""
        allowed.under_way.came_back()
        return await handed_on(allowed.request, allowed.call, said, self.fits, allowed.under_way)

    def passed(self, request: Message, said: Message) -> str:
        """Return what the client gets of the answer to a request that was not asked about."""
        if problem := self.fits(said):
            return answers.error(request.id, answers.DENIED, problem)
        if request.method in GREETINGS:
            try:
                return announcing(said).text
            except InvalidMessageError as error:
                return answers.error(request.id, answers.INTERNAL_ERROR, str(error))
        return said.text

    async def answered(self, request: Message, allowed: AllowedCall | None, said: Message) -> str:
        """Return what the client gets of the answer to any request."""
        if allowed is not None:
            return await self.handed_on(allowed, said)
        return await self.listed(request, said) if request.method == LIST else self.passed(request, said)

    def told(self, message: Message) -> Message | None:
        """Return what the client gets of a notification of the server; None for nothing.

        A text of the server that belongs to no result cannot be redacted. It may hold what a result held, so that none
        is handed on after the first call whose result must be redacted.
        """
        if message.method not in TOLD or self._reveals(message):
            return None
        if message.method == TOOLS_CHANGED:
            self.definitions.forget()
        if self._redacts and message.method == LOGGED:
            return None
        if self._redacts and message.method == PROGRESS:
            return Message.read(answers.progress_alone(message).encode("utf-8"))
        return message

    def refused(self, why: Refusal) -> None:
        """Tell the observer that a message of the client is refused."""
        refuse(self._observer, why)

    def lets_say(self, message: Message) -> bool:
        """Say whether a notification of the client may reach the server.

        Some readers take `1.0` or `true` for the id 1: it would take a request back that the proxy takes for open.
        """
        return message.method in SAID and (
            message.method != CANCELLED or message.taken_back is not None or "requestId" not in message.params
        )

    def lets_pass(self, method: str) -> bool:
        """Say whether the client's requests of this method reach the server unasked."""
        return method in PASSED or method in self._passes

    def lets_server_ask(self, request: Message) -> bool:
        """Say whether a request of the server may reach the client.

        After the first call whose result must be redacted, none that has a text of the server: see `told`.
        """
        asks = self._passes & (ROOTS if self._redacts else SERVER_ASKS)
        return (request.method == PING or request.method in asks) and not self._reveals(request)

    async def lost(self, allowed: AllowedCall) -> None:
        """Report that an allowed request has brought nothing: it was cancelled, or the server is gone."""
        allowed.under_way.over(CallOutcome.ALLOW, NO_RESULT)
        await allowed.call.failed()

    def hearing(self) -> AbstractContextManager[asyncio.Event]:
        """Provide an event that is set whenever the session may see other tools than before."""
        return self._session.hearing()

    async def visible(self) -> Mapping[str, str]:
        """Return the tools that the session can see; those that it asked for while it waits for a person.

        Each has the digest of its approved definition. While the session waits, it is that of the one which a person is
        asked to approve, and empty for a tool with a downstream connection. Raise `PDPClientError` when the PDP does
        not say.
        """
        return await self.seen() or {}

    async def seen(self) -> Mapping[str, str] | None:
        """Return the same, and None when the session is over."""
        try:
            session = await self._session.current()
        except NoSessionError as missing:
            mine = f"{self._server}/"
            return {name.removeprefix(mine): digest for name, digest in missing.tools.items() if name.startswith(mine)}
        try:
            listed = await session.list_tools()
        except (WrongStateError, NotFoundError):
            return None
        return {
            one.tool: one.definition_digest
            for one in listed
            if one.server == self._server and one.visibility is not Visibility.NEVER
        }

    async def listed(self, request: Message, said: Message) -> str:
        """Return a page of the server's list of tools as the session sees it."""
        if problem := self.fits(said):
            return answers.error(request.id, answers.DENIED, problem)
        if "error" in said.value:
            return said.text
        try:
            digests, _ = await _taken(self.definitions, said, first=request.params.get("cursor") is None)
            visible = await self.visible()
            self.shown = visible if self.shown is None else self.shown
            names = self._approved(visible, digests)
            return await apart(lambda _: shown(said, names, modern=request.modern).text, said.text)
        except PDPClientError as error:
            _LOG.warning("the tools of the session cannot be listed: %s", error)
            return answers.error(request.id, answers.DENIED, "the policy decision point does not answer: try again")
        except Exception as error:  # noqa: BLE001 - fails closed: a list that could not be filtered is not shown
            _LOG.error("a list of tools is not shown, because handling it failed: %s", type(error).__name__)
            return answers.error(request.id, answers.INTERNAL_ERROR, "the server's list of tools cannot be read")

    def _approved(self, visible: Mapping[str, str], digests: Mapping[str, str]) -> Collection[str]:
        """Return the tools on a page whose definitions are the approved ones: a model does what it reads in another."""
        changed = {name for name in visible.keys() & digests.keys() if visible[name] not in ("", digests[name])}
        if changed - self._changed:
            text = "a tool is not shown, because its definition is not the approved one: see `pdp tools diff %s`"
            _LOG.warning(text, self._server)
            self._changed |= changed
        return (visible.keys() & digests.keys()) - changed

    def fits(self, said: Message) -> str:
        """Name what keeps a message of the server from the client; empty for nothing."""
        if self._reveals(said):
            return "what the server says holds a credential of this proxy"
        return problem_of(said, self._passes)

    def _refusal(self, request: Message, error: Exception) -> str:
        """Return what the client gets when a request may not reach the server."""
        if isinstance(error, NoSessionError):
            return answers.refusal(request, str(error))
        if isinstance(error, ToolCallDenied):
            if elicitation.points(request, error.answer):
                return answers.result_of(request.id, elicitation.pointing(error.answer))
            told = refusals.denied(error.answer, self._pdp_command)
            return answers.refusal(request, told, answers.decision_of(error.answer))
        if isinstance(error, NoCallTokenError):
            return answers.refusal(request, str(error), answers.decision_of(error.answer))
        # Without its text, which can hold arguments.
        _LOG.error("a call is denied, because asking about it failed: %s", type(error).__name__)
        return answers.refusal(request, refusals.UNDECIDED)

    async def _allowed(self, request: Message, arguments: bytes, under_way: CallUnderWay) -> AllowedCall:
        session = await self._session.current()
        digest, wanted = "", None
        if request.method == CALL:
            await self._know_definitions(request)
            digest, wanted = self.definitions.digest(under_way.tool), self._call_token
        call = ToolCall(
            server=self._server,
            tool=under_way.tool,
            arguments=arguments,
            definition_digest=digest,
            call_tokens=(wanted,) if wanted else (),
        )
        with under_way.asking():
            admitted = await _admitted(partial(session.admit, **under_way.joined), call, request)
        under_way.decided(admitted.answer)
        token = await token_of_admitted(admitted, call)
        self._redacts |= redacts(admitted.answer)
        under_way.sent()
        return AllowedCall(request=elicitation.sent_on(request), token=token, call=admitted, under_way=under_way)

    async def _know_definitions(self, request: Message) -> None:
        """Have the tools listed if they are not known. Calls that come meanwhile wait for the same list."""
        if self._listing is None or self._listing.done():
            if self.definitions.known:
                return
            # The server may need to know whose request it is: the proxy asks as the client does.
            stated = {name: request.meta[name] for name in STATED if name in request.meta}
            self._listing = asyncio.ensure_future(self._list({"_meta": stated} if stated else {}))
            # Whoever waits for it hears of its failure; maybe nobody does any more.
            self._listing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._listing)

    async def _list(self, params: dict[str, Any]) -> None:
        found = self.definitions = Definitions(lasting=self._lasting)
        # What the server says meanwhile counts: that its tools have changed makes this list an old one.
        found.begin()
        try:
            for number in range(MOST_PAGES):
                _, cursor = await _taken(found, await self._ask_server(LIST, params), first=not number)
                if not cursor:
                    break
                params = {**params, "cursor": cursor}
        except BaseException:
            found.forget()
            raise


async def _taken(definitions: Definitions, said: Message, *, first: bool) -> tuple[Mapping[str, str], str]:
    """Take the definitions of a page of the server's list. Return their digests, and the cursor of the next page."""
    tools, cursor = page(said)
    return await apart(lambda _: definitions.add(tools, first=first), said.text), cursor


async def _admitted(
    admit: Callable[..., Awaitable[AsyncAdmittedCall]], call: ToolCall, request: Message
) -> AsyncAdmittedCall:
    """Ask about a call. A client that can open a link for its person gets it at once, and its next try waits."""
    if not elicitation.can_be_pointed(request) or elicitation.pointed_to(request):
        return await admit(call)
    try:
        return await admit(call, wait=0.0)
    except ToolCallDenied as denied:
        if not denied.answer.waits or denied.answer.access_link:
            raise
        return await admit(replace(call, request_id=denied.answer.request_id))
