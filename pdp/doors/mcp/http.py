"""The proxy over streamable HTTP: which server each request is for, and what is answered when it is for none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from pdp.doors.mcp import answers
from pdp.doors.mcp import headers as http
from pdp.doors.mcp.admission import Admission, TokenSource
from pdp.doors.mcp.conversations import Background
from pdp.doors.mcp.load import Load
from pdp.doors.mcp.replies import Reply
from pdp.doors.mcp.resources import WELL_KNOWN, ProtectedResource
from pdp.doors.mcp.site import ServerBehind, Site
from pdp.doors.observing import refuse
from pdp.doors.session import DoorSession
from pdp.observer import DoorObserver
from pdp.serving.web import (
    NOT_ALLOWED,
    NOT_FOUND,
    ClientGoneError,
    Doorstep,
    Receive,
    RefusedRequestError,
    Scope,
    Send,
)

_LOG = logging.getLogger(__name__)

_INTERNAL = 500


class HTTPDoor:
    """The proxy before its servers, as an ASGI application.

    `session_of` returns the session of a handle. `pdp_command` is that of `Gate`. With `tokens` clients may present
    access tokens instead of a handle, at servers that are resources. `observer` is told of calls, and of refusals.
    """

    def __init__(
        self,
        servers: Collection[ServerBehind],
        *,
        session_of: Callable[[str], DoorSession],
        doorstep: Doorstep,
        pdp_command: Callable[[str], str],
        tokens: TokenSource | None = None,
        observer: DoorObserver | None = None,
    ) -> None:
        self._observer = observer
        self._doorstep = doorstep
        self._background = Background()
        load = Load()
        admission = Admission(session_of, tokens, load=load)
        self._sites = {
            server.path: Site(
                server,
                admission=admission,
                background=self._background,
                load=load,
                pdp_command=pdp_command,
                observer=observer,
            )
            for server in servers
        }
        if observer is not None:
            observer.watch_sessions(lambda: admission.visitors)
        self._resources = {server.path: server.resource for server in servers if server.resource is not None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        if scope["type"] != "http":
            return
        reply = Reply(send)
        try:
            await self._answer(scope, receive, reply)
        except RefusedRequestError as refused:
            refuse(self._observer, refused.why)
            # What has not been read of the request is not.
            allowed = {"allow": "DELETE, GET, POST"} if refused.status == NOT_ALLOWED else {}
            headers = {"connection": "close", **allowed, **refused.headers}
            text = answers.error(None, answers.INVALID_REQUEST, str(refused)) if str(refused) else ""
            await reply.message(text, status=refused.status, headers=headers)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # The proxy ends. Its server would write how it came here into the log.
            if reply.begun and not reply.ended:
                await reply.end()
        except Exception as error:  # noqa: BLE001 - fails closed: nothing more of this request is sent on, or shown
            # Without its text, which can hold arguments.
            _LOG.error("a request could not be handled: %s", type(error).__name__)
            if not reply.begun:
                await reply.nothing(_INTERNAL)
            elif not reply.ended:
                await reply.end()

    async def close(self) -> None:
        """Wait for what must still be reported."""
        await self._background.close()

    async def _answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        headers = http.read(scope["headers"])
        self._doorstep.check(headers)
        # As it was sent: by an escape, a path would not be what a proxy before this door has looked at.
        path = scope["raw_path"].decode("latin-1")
        if scope["method"] == "GET" and (resource := self._resource_at(path)) is not None:
            await reply.message(resource.metadata)
            return
        site = self._sites.get(path)
        if site is None:
            raise RefusedRequestError(NOT_FOUND)
        await site.answer(scope["method"], headers, receive, reply)

    def _resource_at(self, path: str) -> ProtectedResource | None:
        """Return the resource whose metadata is at a path; None for any other path."""
        if not path.startswith(WELL_KNOWN):
            return None
        if len(self._sites) == 1:
            # Some clients ask at the root.
            return next(iter(self._resources.values()), None)
        wanted = path.removeprefix(WELL_KNOWN)
        return next((one for at, one in self._resources.items() if wanted in (at, one.path)), None)
