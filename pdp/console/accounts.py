"""The page of connected accounts: what agents may use of a person elsewhere, and how that begins and ends."""

from __future__ import annotations

from starlette.responses import Response

from pdp.client.broker import AsyncBrokerClient
from pdp.console.visits import Desk, Visit, see
from pdp.console.words import may

# Who sees the connections of others; the broker decides.
_OF_OTHERS = frozenset({"approver", "admin", "auditor"})


class Accounts:
    """Connected accounts."""

    def __init__(self, desk: Desk, broker: AsyncBrokerClient) -> None:
        self._desk, self._broker = desk, broker

    async def show(self, visit: Visit) -> Response:
        """Show the person's accounts, those of others to who may see them, and what can be connected."""
        mine = await self._broker.list_connections()
        connected = {(one.kind, one.tenant, one.compartment) for one in mine.connections}
        everybody = may(visit.login.caller, _OF_OTHERS)
        others = (await self._broker.list_connections(of_others=True)).connections if everybody else ()
        me = visit.login.caller.caller_id
        return self._desk.show(
            visit,
            "accounts.html",
            mine=mine.connections,
            others=[one for one in others if one.user != me],
            connectable=[(one, (one.kind, one.tenant, one.compartment) in connected) for one in mine.connectable],
        )

    async def begin(self, visit: Visit) -> Response:
        """Begin to connect, and show where the person goes: no form leads to another site."""
        form = visit.form
        kind, tenant, compartment = (form.one(name) for name in ("kind", "tenant", "compartment"))
        begun = await self._broker.begin_connection(kind, tenant=tenant, compartment=compartment)
        return self._desk.show(visit, "agree.html", kind=kind, begun=begun)

    async def back(self, visit: Visit) -> Response:
        """Show what is about to be connected: coming back alone connects nothing."""
        return self._desk.show(visit, "finish.html", ticket=visit.given(("ticket",))["ticket"])

    async def finish(self, visit: Visit) -> Response:
        """Connect."""
        await self._broker.finish_connection(visit.form.one("ticket"))
        return see("/connections")

    async def end(self, visit: Visit) -> Response:
        """Disconnect, and say what became of the tokens."""
        ended = await self._broker.end_connection(visit.form.one("connection"))
        return self._desk.show(visit, "disconnected.html", ended=ended)
