"""What people ask the broker over gRPC about a secret that leaked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from pdp.broker.checkouts.words import Checkout
from pdp.broker.personalcalls import handlers_of, time_of
from pdp.broker.persons import Person, Persons
from pdp.broker.replacing import Replacement, Replacing
from pdp.broker.v1 import secret_pb2 as messages
from pdp.broker.words import UnknownConnectionError
from pdp.model import Role

SERVICE: Final = "pdp.broker.v1.SecretService"
_REPLACEMENTS: Final = {
    Replacement.REPLACED: messages.REPLACEMENT_REPLACED,
    Replacement.DISCONNECTED: messages.REPLACEMENT_DISCONNECTED,
    Replacement.EXPIRES: messages.REPLACEMENT_EXPIRES,
    Replacement.FAILED: messages.REPLACEMENT_FAILED,
    Replacement.FORMER: messages.REPLACEMENT_FORMER,
    Replacement.BY_HAND: messages.REPLACEMENT_BY_HAND,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFace:
    """Answers what people ask, each call as the person whose token it brings. Safe for threads."""

    persons: Persons
    replacing: Replacing

    @property
    def handlers(self) -> Mapping[str, Any]:
        """Return the handlers of the service, by RPC."""
        return handlers_of({"ReplaceSecret": (messages.ReplaceSecretRequest, self.replace)}, self.persons)

    def replace(self, request: messages.ReplaceSecretRequest, person: Person) -> Message:
        """Replace a secret that leaked, as an approver or admin of its tenant."""
        row = self.replacing.vault.connection(request.connection_id)
        if row.tenant not in person.tenants or not person.has(Role.APPROVER, Role.ADMIN):
            raise UnknownConnectionError(f"no such connection: `{request.connection_id}`")
        done = self.replacing.replace(row.id, request.version, by=person.id)
        return messages.ReplaceSecretResponse(
            replacement=_REPLACEMENTS[done.replacement],
            version=done.version,
            expire_time=time_of(done.expires_at),
            ended_count=done.ended,
            left=[_left(one) for one in done.left],
        )


def _left(one: Checkout) -> messages.CredentialLeft:
    return messages.CredentialLeft(
        checkout_id=one.id,
        session_id=one.session_id,
        expire_time=time_of(one.ends_at),
        problem=one.problem,
    )
