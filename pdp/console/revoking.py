"""Revokes sessions, and leads to the page of which were live and what that has waited for.

A page of its own: a browser that loads it again revokes nothing more, such as what has begun meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from pdp.client.fencing import Fence, fence_text
from pdp.console.logins import Revoked
from pdp.console.visits import Desk, Visit, see

PATH: Final = "/revoked"
_NAME: Final = "done"
_NAME_BYTES: Final = 12


class Revocations:
    """What has been revoked."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what the person revoked last; only in the log-in in which they did."""
        done = visit.login.revoked.get(visit.given((_NAME,))[_NAME])
        if done is None:
            return see("/now")
        return self._desk.show(visit, "revoked.html", revoked=done.session_ids, fence=done.waited)


async def revoke(desk: Desk, visit: Visit, reason: str, selected: Mapping[str, str]) -> Response:
    """Revoke the sessions of one selector, and lead to the page about it."""
    fences: list[Fence] = []
    session_ids = await desk.client.revoke_sessions(reason=reason, on_fence=fences.append, **selected)
    name = secrets.token_urlsafe(_NAME_BYTES)
    visit.login.revoked.keep(name, Revoked(session_ids, fence_text(fences[-1])))
    return see(f"{PATH}?{urlencode({_NAME: name})}")
