"""The page of freezes: stopping all calls of a tenant at once, and lifting that again."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from pdp.client import AsyncClient, PermissionDeniedError
from pdp.client.fencing import Fence, fence_of
from pdp.console.revoking import revoke
from pdp.console.visits import Desk, Visit
from pdp.console.words import may
from pdp.v1.freeze_pb2 import Freeze

_BAD_REQUEST = 400
# Who may freeze their tenant, and who all of them; the server decides, and these only see the buttons.
_OF_TENANT, _OF_ALL = frozenset({"approver", "admin"}), frozenset({"operator"})


class Freezes:
    """Freezes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, visit: Visit) -> Response:
        """Show what is frozen, and what could be."""
        return await self._shown(visit, "")

    async def set(self, visit: Visit) -> Response:
        """Freeze a tenant or all, and revoke the tenant's sessions if that was wanted, too."""
        tenant, reason, client = visit.form.one("tenant"), visit.form.one("reason"), self._desk.client
        if not reason:
            return await self._shown(visit, "say why, for the record")
        fences: list[Fence] = []
        await client.set_freeze(reason=reason, tenant=tenant, all_tenants=not tenant, on_fence=fences.append)
        if tenant and visit.form.one("then") == "revoke":
            # INVARIANT: after the freeze, so that no session is requested between the two.
            return await revoke(self._desk, visit, reason, {"tenant": tenant})
        return self._desk.done(visit, "/freeze", fences[-1])

    async def lift(self, visit: Visit) -> Response:
        """Confirm that a freeze is to be lifted."""
        lifted = await self._desk.client.lift_freeze(visit.form.one("freeze"))
        return self._desk.done(visit, "/freeze", fence_of(lifted))

    async def _shown(self, visit: Visit, problem: str) -> Response:
        client, caller = self._desk.client, visit.login.caller
        tenants = sorted(caller.tenants) if may(caller, _OF_TENANT) else []
        stopped = await asyncio.gather(*(client.preview_freeze(tenant=tenant) for tenant in tenants))
        return self._desk.show(
            visit,
            "freeze.html",
            _BAD_REQUEST if problem else 200,
            freezes=await client.list_freezes(),
            tenants=list(zip(tenants, stopped, strict=True)),
            every=await client.preview_freeze(all_tenants=True) if may(caller, _OF_ALL) else None,
            problem=problem,
        )


async def freezes_of(client: AsyncClient) -> tuple[Freeze, ...]:
    """Return what freezes the caller's tenant; nothing for who may not know."""
    try:
        return await client.list_freezes()
    except PermissionDeniedError:
        return ()
