"""A session as the gateway holds it: asks about calls, and guards Python functions."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from pdp.client.definitions import DefinitionDigests
from pdp.client.guard import BoundCall, GuardedSignature, require_allowed
from pdp.client.values import Answer, ListedTool, ToolCall

if TYPE_CHECKING:  # The clients make sessions, so a real import would go in a circle.
    from pdp.client.aio import AsyncClient
    from pdp.client.sync import Client

P = ParamSpec("P")
R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldSession:
    """What a gateway knows of a session: its secret handle, its public id, and the definitions of live tools."""

    handle: str = dataclasses.field(repr=False)
    id: str = ""
    definitions: DefinitionDigests = dataclasses.field(default_factory=dict, repr=False)

    def completed(self, call: ToolCall) -> ToolCall:
        """Return the call with this session, and with the tool's definition digest where it is known."""
        return dataclasses.replace(
            call,
            session_handle=self.handle,
            session_id=self.id,
            definition_digest=call.definition_digest or self.definitions.get((call.server, call.tool), ""),
        )


class ClientSession:
    """A session of a `Client`."""

    def __init__(self, client: Client, held: HeldSession) -> None:
        self._client = client
        self._held = held

    @property
    def id(self) -> str:
        """Return the public id (`ses_…`)."""
        return self._held.id

    @property
    def handle(self) -> str:
        """Return the secret handle; never log it."""
        return self._held.handle

    def authorize(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        request_id: str = "",
        tool_call_id: str = "",
        traceparent: str = "",
        tracestate: str = "",
    ) -> Answer:
        """Ask about one call, as `Client.authorize` does; the definition digest is stated where it is known."""
        call = ToolCall(
            server=server,
            tool=tool,
            arguments=arguments,
            definition_digest=definition_digest,
            facts=facts,
            request_id=request_id,
            tool_call_id=tool_call_id,
        )
        return self._client.ask(self._held.completed(call), traceparent=traceparent, tracestate=tracestate)

    def batch(self, calls: Sequence[ToolCall], *, traceparent: str = "", tracestate: str = "") -> tuple[Answer, ...]:
        """Ask about several calls of this session, as `Client.batch` does."""
        completed = [self._held.completed(call) for call in calls]
        return self._client.batch(completed, traceparent=traceparent, tracestate=tracestate)

    def list_tools(self) -> tuple[ListedTool, ...]:
        """Return every tool of the catalogue as this session sees it."""
        return self._client.list_tools(self.handle, session_id=self.id)

    def guard(
        self, *, server: str, tool: str, skip: Collection[str] = ()
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make a decorator that asks before each call of a function and raises `ToolCallDenied` on a deny.

        The arguments are asked about by the names of the parameters, defaults included; those in `skip` are not.
        An `async def` function is asked about on another thread, so that its event loop goes on.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            signature = GuardedSignature(function, skip)

            def check(bound: BoundCall) -> None:
                require_allowed(self.authorize(server, tool, bound.arguments))

            @wraps(function)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
                bound = signature.bind(args, kwargs)
                check(bound)
                return function(*bound.positional, **bound.named)

            @wraps(function)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401 - what the function gives
                bound = signature.bind(args, kwargs)
                await asyncio.to_thread(check, bound)
                return await cast("Callable[..., Awaitable[Any]]", function)(*bound.positional, **bound.named)

            return cast("Callable[P, R]", guarded_async) if inspect.iscoroutinefunction(function) else guarded

        return decorate


class AsyncClientSession:
    """A session of an `AsyncClient`."""

    def __init__(self, client: AsyncClient, held: HeldSession) -> None:
        self._client = client
        self._held = held

    @property
    def id(self) -> str:
        """Return the public id (`ses_…`)."""
        return self._held.id

    @property
    def handle(self) -> str:
        """Return the secret handle; never log it."""
        return self._held.handle

    async def authorize(
        self,
        server: str,
        tool: str,
        arguments: Mapping[str, Any] | bytes | None = None,
        *,
        definition_digest: str = "",
        facts: Mapping[str, Any] | bytes | None = None,
        request_id: str = "",
        tool_call_id: str = "",
        traceparent: str = "",
        tracestate: str = "",
    ) -> Answer:
        """Ask about one call, as `AsyncClient.authorize` does; the definition digest is stated where it is known."""
        call = ToolCall(
            server=server,
            tool=tool,
            arguments=arguments,
            definition_digest=definition_digest,
            facts=facts,
            request_id=request_id,
            tool_call_id=tool_call_id,
        )
        return await self._client.ask(self._held.completed(call), traceparent=traceparent, tracestate=tracestate)

    async def batch(
        self, calls: Sequence[ToolCall], *, traceparent: str = "", tracestate: str = ""
    ) -> tuple[Answer, ...]:
        """Ask about several calls of this session, as `AsyncClient.batch` does."""
        completed = [self._held.completed(call) for call in calls]
        return await self._client.batch(completed, traceparent=traceparent, tracestate=tracestate)

    async def list_tools(self) -> tuple[ListedTool, ...]:
        """Return every tool of the catalogue as this session sees it."""
        return await self._client.list_tools(self.handle, session_id=self.id)

    def guard(
        self, *, server: str, tool: str, skip: Collection[str] = ()
    ) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
        """Make a decorator that asks before each call of an async function and raises `ToolCallDenied` on a deny.

        The arguments are asked about by the names of the parameters, defaults included; those in `skip` are not.
        """

        def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
            if not inspect.iscoroutinefunction(function):
                raise TypeError("a session of `AsyncClient` guards `async def` functions only")
            signature = GuardedSignature(function, skip)

            @wraps(function)
            async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
                bound = signature.bind(args, kwargs)
                require_allowed(await self.authorize(server, tool, bound.arguments))
                return await function(*bound.positional, **bound.named)

            return guarded

        return decorate
