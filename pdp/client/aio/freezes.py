"""Freeze a tenant or all, and lift it."""

from __future__ import annotations

from pdp.client import fencing, freezes
from pdp.client.aio.calls import AsyncCalls
from pdp.v1 import freeze_pb2


class AsyncFreezeCalls:
    """The calls of a client about freezes."""

    _calls: AsyncCalls

    async def set_freeze(
        self, *, reason: str, tenant: str = "", all_tenants: bool = False, on_fence: fencing.OnFence = None
    ) -> freeze_pb2.Freeze:
        """Stop all calls of the caller's tenant, or of all tenants. It ends no session.

        It replaces an earlier freeze of the same.
        """
        return await self._calls.manage(
            freezes.set_freeze(tenant=tenant, all_tenants=all_tenants, reason=reason, on_fence=on_fence)
        )

    async def preview_freeze(self, *, tenant: str = "", all_tenants: bool = False) -> int:
        """Return how many live sessions `set_freeze` would stop now. Nothing is frozen."""
        return await self._calls.manage(freezes.preview_freeze(tenant=tenant, all_tenants=all_tenants))

    async def lift_freeze(self, freeze_id: str) -> freeze_pb2.LiftFreezeResponse:
        """Confirm that a freeze is to be lifted; the second who does so within an hour lifts it.

        Neither may be who set it.
        """
        return await self._calls.manage(freezes.lift_freeze(freeze_id))

    async def list_freezes(self) -> tuple[freeze_pb2.Freeze, ...]:
        """Return what freezes the caller's tenant: that of all tenants first."""
        return await self._calls.manage(freezes.list_freezes())
