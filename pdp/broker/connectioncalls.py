"""What people ask the broker over gRPC: their connections, and how these begin and end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from pdp.broker.checkouts.words import Outcome
from pdp.broker.oauth.connecting import Connecting
from pdp.broker.oauth.people import People, source_of
from pdp.broker.oauth.severing import Severing
from pdp.broker.personalcalls import Answer, handlers_of, time_of
from pdp.broker.persons import Person, Persons
from pdp.broker.v1 import connection_pb2 as messages
from pdp.broker.vault import Vault
from pdp.broker.words import Connection, ConsentState, UnknownConnectionError
from pdp.errors import PermissionDeniedError
from pdp.model import Role

SERVICE: Final = "pdp.broker.v1.ConnectionService"
_STATES: Final = {
    ConsentState.CONNECTED: messages.CONNECTION_STATE_CONNECTED,
    # Its tokens are good, or somebody gets others at this moment.
    ConsentState.REFRESHING: messages.CONNECTION_STATE_CONNECTED,
    ConsentState.NEEDS_PERSON: messages.CONNECTION_STATE_NEEDS_PERSON,
    ConsentState.ENDING: messages.CONNECTION_STATE_ENDING,
}

# A connection that is not there any more is unknown, so none is `gone`.
_OUTCOMES: Final = {
    Outcome.REVOKED: messages.END_OUTCOME_REVOKED,
    Outcome.EXPIRES_AT: messages.END_OUTCOME_EXPIRES,
    Outcome.FAILED: messages.END_OUTCOME_FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFace:
    """Answers what people ask, each call as the person whose token it brings. Safe for threads."""

    persons: Persons
    vault: Vault
    people: People
    connecting: Connecting
    severing: Severing

    @property
    def handlers(self) -> Mapping[str, Any]:
        """Return the handlers of the service, by RPC."""
        answers: Mapping[str, tuple[type[Any], Answer]] = {
            "ListConnections": (messages.ListConnectionsRequest, self.show),
            "BeginConnection": (messages.BeginConnectionRequest, self.begin),
            "FinishConnection": (messages.FinishConnectionRequest, self.finish),
            "EndConnection": (messages.EndConnectionRequest, self.end),
        }
        return handlers_of(answers, self.persons)

    def show(self, request: messages.ListConnectionsRequest, person: Person) -> Message:
        """List the person's connections, or those of their tenants, and what they can connect to."""
        if request.of_others and not person.has(Role.APPROVER, Role.ADMIN, Role.AUDITOR):
            raise PermissionDeniedError("only approvers, admins and auditors see the connections of others")
        rows = [row for tenant in person.tenants for row in self.vault.connections(tenant=tenant)]
        theirs = [row for row in rows if row.is_consented and (request.of_others or row.owner == person.id)]
        return messages.ListConnectionsResponse(
            connections=[self._shown(row) for row in sorted(theirs, key=lambda row: (row.kind, row.owner))],
            connectable=[_connectable(row) for row in sorted(rows, key=lambda row: row.kind) if row.is_client],
        )

    def begin(self, request: messages.BeginConnectionRequest, person: Person) -> Message:
        """Begin to connect."""
        begun = self.connecting.begin(person, request.kind, request.tenant, request.compartment)
        return messages.BeginConnectionResponse(
            authorization_url=begun.url,
            expire_time=time_of(begun.until),
            former_outcome=_OUTCOMES[begun.former.outcome] if begun.former else None,
        )

    def finish(self, request: messages.FinishConnectionRequest, person: Person) -> Message:
        """Finish as the person who began."""
        return messages.FinishConnectionResponse(connection=self._shown(self.connecting.finish(person, request.ticket)))

    def end(self, request: messages.EndConnectionRequest, person: Person) -> Message:
        """Disconnect one's own connection, or as an approver or admin one of the tenant."""
        row = self.vault.connection(request.connection_id)
        may = row.owner == person.id or person.has(Role.APPROVER, Role.ADMIN)
        if row.tenant not in person.tenants or not may:
            raise UnknownConnectionError(f"no such connection: `{request.connection_id}`")
        ended = self.severing.end(row.id, by=person.id)
        expire_time = time_of(ended.expires_at)
        return messages.EndConnectionResponse(outcome=_OUTCOMES[ended.outcome], expire_time=expire_time)

    def _shown(self, row: Connection) -> messages.PersonalConnection:
        consent = self.people.standing(row)
        return messages.PersonalConnection(
            connection_id=row.id,
            kind=row.kind,
            tenant=row.tenant,
            compartment=row.compartment,
            user=row.owner,
            account=consent.account,
            scopes=row.scopes,
            state=_STATES[consent.state],
            upstream=row.upstream,
            create_time=time_of(row.created_at),
            use_time=time_of(consent.used_at),
        )


def _connectable(row: Connection) -> messages.Connectable:
    return messages.Connectable(
        kind=row.kind,
        tenant=row.tenant,
        compartment=row.compartment,
        provider=source_of(row).host,
        scopes=row.scopes,
    )
