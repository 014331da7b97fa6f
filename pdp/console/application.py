"""The console as an ASGI application: its routes, and what is true of every request of a person."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pdp.client import PDPClientError
from pdp.console.access import Calls
from pdp.console.accounts import Accounts
from pdp.console.assets import Assets
from pdp.console.exposure import Exposures
from pdp.console.forms import Form, RefusedFormError, read_form
from pdp.console.freeze import Freezes
from pdp.console.live import Events, by_itself
from pdp.console.now import Now
from pdp.console.problems import Problem, problem_of
from pdp.console.reach import Reach
from pdp.console.record import Records
from pdp.console.requests import Requests
from pdp.console.revoking import PATH as REVOKED
from pdp.console.revoking import Revocations
from pdp.console.shell import Shell
from pdp.console.visits import Answer, Desk, Entry, Visit
from pdp.console.waiting import Waiting

_LOG = logging.getLogger(__name__)

_FORBIDDEN, _NOT_FOUND, _ERROR = 403, 404, 500
_NO_FORM = Form({})


def application(desk: Desk, entry: Entry, assets: Assets) -> ASGIApp:
    """Return the console."""
    return Shell(_Console(desk, entry).app, desk.place, assets)


class _Console:
    def __init__(self, desk: Desk, entry: Entry) -> None:
        self._desk = desk
        self._entry = entry
        requests, calls, now, freezes = Requests(desk, entry), Calls(desk, entry), Now(desk), Freezes(desk)
        record = Records(desk)
        reads: dict[str, Answer] = {
            "/": Waiting(desk).show,
            "/sessions/{session_id}": requests.show,
            "/sessions/{session_id}/less": requests.choose,
            "/approvals/{request_id}": calls.show,
            "/now": now.show,
            "/revoke": now.preview,
            REVOKED: Revocations(desk).show,
            "/freeze": freezes.show,
            "/reach": Reach(desk).show,
            "/record": record.show,
            "/record/export": record.export,
            "/record/sessions/{session_id}": record.session,
            "/record/decisions/{decision_id}": record.decision,
            "/record/plan": record.plan,
            "/events": Events(desk, entry).stream,
        }
        writes: dict[str, Answer] = {
            "/sessions/{session_id}/less": requests.chosen,
            "/sessions/{session_id}/approve": requests.approve,
            "/sessions/{session_id}/deny": requests.deny,
            "/sessions/{session_id}/narrow": now.narrow,
            "/approvals/{request_id}/approve": calls.approve,
            "/approvals/{request_id}/deny": calls.deny,
            "/approvals/{request_id}/revoke": calls.revoke,
            "/revoke": now.revoke,
            "/freeze": freezes.set,
            "/lift": freezes.lift,
            "/log-out": self._leave,
        }
        if desk.broker is not None:
            accounts = Accounts(desk, desk.broker)
            reads |= {
                "/connections": accounts.show,
                "/connections/finish": accounts.back,
                "/record/exposure": Exposures(desk, desk.broker).show,
            }
            writes |= {
                "/connections/begin": accounts.begin,
                "/connections/finish": accounts.finish,
                "/connections/end": accounts.end,
            }
        routes = [
            *(Route(path, self._reading(answer), methods=["GET"]) for path, answer in reads.items()),
            *(Route(path, self._writing(answer), methods=["POST"]) for path, answer in writes.items()),
            *entry.routes,
        ]
        self.app = Starlette(
            routes=routes, exception_handlers={HTTPException: self._no_page, Exception: self._unforeseen}
        )

    def _reading(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            # What a page or its script fetches by itself does not keep a log-in alive.
            return await self._visited(request, answer, used=not by_itself(request))

        return endpoint

    def _writing(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await self._visited(request, answer, used=True)

        return endpoint

    async def _visited(self, request: Request, answer: Answer, *, used: bool) -> Response:
        """Answer for the person of a request, as that person; there is no other way to an answer."""
        secret = request.cookies.get(self._desk.place.cookie, "")
        login = self._desk.logins.find(secret, used=used)
        if login is None or not await self._entry.renew(login):
            return self._entry.absent(request)
        try:
            form = await read_form(request, login) if request.method == "POST" else _NO_FORM
            self._desk.person.take(login.credential)
            return await answer(Visit(request=request, login=login, form=form))
        except RefusedFormError as error:
            refused = Problem(status=_FORBIDDEN, title="Nothing was done", advice=str(error))
            return self._desk.problem(refused, login=login)
        except PDPClientError as error:
            return self._desk.problem(problem_of(error), str(error), login)

    async def _leave(self, visit: Visit) -> Response:
        secret = visit.request.cookies.get(self._desk.place.cookie, "")
        self._desk.logins.end(secret)
        answer = await self._entry.leave(visit.login)
        answer.delete_cookie(self._desk.place.cookie, secure=self._desk.place.secure, httponly=True, samesite="lax")
        return answer

    async def _no_page(self, _: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else _NOT_FOUND
        problem = Problem(
            status=status, title="There is no such page", advice="Go to what waits, and find it from there."
        )
        return self._desk.problem(problem)

    async def _unforeseen(self, request: Request, error: Exception) -> Response:
        # Without its text, which can hold what others wrote.
        _LOG.error("`%s` could not be answered: %s", request.scope["path"], type(error).__name__)
        return PlainTextResponse("The console could not answer. Its log says where.\n", status_code=_ERROR)
