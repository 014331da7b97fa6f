"""Revokes sessions, and shows which were live and what that has waited for."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from pdp.client.fencing import Fence, fence_text
from pdp.console.visits import Desk, Visit


async def revoked_page(desk: Desk, visit: Visit, reason: str, selected: Mapping[str, str]) -> Response:
    """Revoke the sessions of one selector, and show the page about it."""
    fences: list[Fence] = []
    revoked = await desk.client.revoke_sessions(reason=reason, on_fence=fences.append, **selected)
    return desk.show(visit, "revoked.html", revoked=revoked, fence=fence_text(fences[-1]))
