"""Connect people's accounts: begin as the person, come back in the browser, and finish as the same person.

The provider sends the browser back to the broker, which cannot know who sits there. So it takes the code, hands the
browser a ticket, and the person brings that with a token of their own. Only when this is the person who began does the
code leave. Somebody who lures another person into agreeing gets nothing: the tickets of the two differ.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode

from pdp.broker.oauth.account import account_of, require_nonce
from pdp.broker.oauth.ending import refused_ones_ended
from pdp.broker.oauth.granting import exchange_code
from pdp.broker.oauth.pair import TokenPair
from pdp.broker.oauth.people import People, consenting_of, source_of
from pdp.broker.oauth.severing import Ended, Severing
from pdp.broker.persons import Person
from pdp.broker.store.flows import AWAY, BACK, Flow, Flows
from pdp.broker.vault import Vault
from pdp.broker.words import Connection, TokenRefusedError, TokensUnavailableError
from pdp.clock import Clock
from pdp.errors import NotFoundError, PermissionDeniedError
from pdp.foundation.egress import Roots
from pdp.foundation.ids import new_connection_id
from pdp.observer import Event, EventKind

_LOG: Final = logging.getLogger("pdp.broker")
_FLOW_SECONDS: Final = 600.0
_OPENID: Final = "openid"


class WayBackError(NotFoundError):
    """What came back belongs to nothing that was begun, or not to this: connect again. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Where the browser of a person is sent, and until when it may come back, in unix seconds.

    `former` is what became of the tokens of the connection that the person had; None without one.
    """

    url: str
    until: float
    former: Ended | None = None


class Connecting:
    """The ways of people to providers and back. Safe for threads and for several processes.

    `back` is where providers send browsers: the client's id is added to it, so that no provider is taken for another.
    """

    def __init__(
        self,
        vault: Vault,
        flows: Flows,
        people: People,
        severing: Severing,
        observe: Callable[[Event], None],
        clock: Clock,
        back: str,
    ) -> None:
        self._vault, self._flows, self._people, self._severing = vault, flows, people, severing
        self._observe, self._clock, self._back = observe, clock, back
        self._roots = Roots()

    def begin(self, person: Person, kind: str, tenant: str, compartment: str) -> Begun:
        """Begin to connect, and return where the person agrees.

        What the person had connected before is disconnected first: some providers end with its tokens all that the
        person agrees to afterwards. Raise `UnknownConnectionError`, and what `Severing.end` raises.
        """
        person.require_tenant(tenant)
        client = self._vault.client(tenant, compartment, kind)
        former, now_at = self._severing.end_former(client, person.id), self._clock.now().wall_at
        source, verifier, nonce = source_of(client), _random(), _random()
        held = {"verifier": verifier, "nonce": nonce}
        flow = Flow(person=person.id, client=client.id, until=now_at + _FLOW_SECONDS, held=held)
        asked = {
            "response_type": "code",
            "client_id": source.client_id,
            "redirect_uri": self._redirect(client),
            "state": self._flows.open(AWAY, flow, now_at=now_at),
            "code_challenge": _encoded(sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            **({"scope": " ".join(client.scopes)} if client.scopes else {}),
            **({"resource": source.resource} if source.resource else {}),
            **({"nonce": nonce} if _OPENID in client.scopes else {}),
        }
        self._tell(EventKind.CONNECTION_BEGUN, client, person.id)
        endpoint = consenting_of(client).authorization
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"
        return Begun(url=url, until=flow.until, former=former)

    def back(self, client_id: str, said: Mapping[str, str]) -> str:
        """Take what a browser comes back with, and return the ticket with which its person finishes.

        Raise `WayBackError`. What was begun is over then.
        """
        now_at = self._clock.now().wall_at
        flow = self._flows.take(AWAY, said.get("state", ""), now_at=now_at)
        if flow is None:
            raise WayBackError("this way back was never begun, has been taken, or has closed")
        client = self._vault.connection(flow.client)
        if client_id != client.id:
            raise self._refused(client, flow, "redirect", "it leads back from another provider")
        if not hmac.compare_digest(said.get("iss", issuer := consenting_of(client).issuer).encode(), issuer.encode()):
            raise self._refused(client, flow, "issuer", "it comes back from another provider")
        if not (code := said.get("code", "")):
            raise self._refused(client, flow, "no_code", "the provider, or the person there, has not agreed")
        held = {**flow.held, "code": code}
        return self._flows.open(BACK, replace(flow, held=held), now_at=now_at)

    def finish(self, person: Person, ticket: str) -> Connection:
        """Exchange the code of a ticket for the tokens of the person who began, and return the new connection.

        One of the same kind that they made in between is disconnected first. Raise `WayBackError` for another ticket,
        `PermissionDeniedError` for another person, and `TokenRefusedError` or `TokensUnavailableError`. In each case
        the ticket is used up, and a code is never sent twice.
        """
        now = self._clock.now()
        flow = self._flows.take(BACK, ticket, now_at=now.wall_at)
        if flow is None:
            raise WayBackError("this ticket was never given, has been used, or has ended: connect again")
        # It is the one with which this began: with another one in its place, the ticket would be over.
        client = self._vault.connection(flow.client)
        if flow.person != person.id:
            self._refused(client, flow, "person", "")
            raise PermissionDeniedError("another person began this: connect again, and let nobody do it for you")
        person.require_tenant(client.tenant)
        self._severing.end_former(client, person.id)
        source, issuer, secret = source_of(client), consenting_of(client).issuer, self._vault.open(client)
        try:
            got = exchange_code(
                source, secret, flow.held["code"], flow.held["verifier"], self._redirect(client), self._roots
            )
            scopes = client.scopes if got.scopes is None else got.scopes
            with refused_ones_ended(source, secret, got.tokens, self._roots):
                if {*scopes} - {*client.scopes}:
                    raise TokenRefusedError("it grants a scope that nobody asked for")
                said = require_nonce(got, source, issuer, flow.held["nonce"]) if _OPENID in client.scopes else {}
                packed = TokenPair.of(got, asked=now, share=self._people.share()).packed()
        except (TokenRefusedError, TokensUnavailableError) as error:
            self._refused(client, flow, "provider", "")
            raise type(error)(f"`{client.kind}` is not connected: of `{source.host}`, {error}") from None
        made = replace(client, id=new_connection_id(), owner=person.id, scopes=scopes)
        account = account_of(said, source, got.secret, self._roots)
        with refused_ones_ended(source, secret, got.tokens, self._roots):
            return self._people.add(made, packed, account=account)

    def _redirect(self, client: Connection) -> str:
        return f"{self._back}/{client.id}"

    def _refused(self, client: Connection, flow: Flow, reason: str, text: str) -> WayBackError:
        """Record what came back and is not taken, and return the error that says so."""
        self._tell(EventKind.CONNECTION_REFUSED, client, flow.person, reason=reason)
        return WayBackError(text)

    def _tell(self, kind: EventKind, client: Connection, person: str, **facts: str) -> None:
        self._observe(
            Event(
                kind=kind,
                at=self._clock.now().wall_at,
                caller_id=person,
                user=person,
                tenant=client.tenant,
                facts={**client.facts, "provider": source_of(client).host, **facts},
            )
        )


def _random() -> str:
    return _encoded(secrets.token_bytes(32))


def _encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
