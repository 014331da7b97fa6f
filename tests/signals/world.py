"""A receiver of signals before a running server, and a transmitter that signs with another library than ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from pdp.clock import Clock
from pdp.model import AT_EACH_CALL, Bounds, Caller, Role
from pdp.observer import Event
from pdp.signals.applying import Applier
from pdp.signals.receiving import Receiver
from pdp.signals.serving import STORE_FILE, source_of
from pdp.signals.settings import SignalSettings, read_settings
from pdp.signals.store import SignalStore
from pdp.signals.words import Signal
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.session_pb2 import SESSION_STATE_REVOKED

# A server, and the clock that it goes by.
Site = tuple[RunningServer, FakeClock]

ISSUER, AUDIENCE = "https://idp.example", "https://signals.example/idp"
MINE, FOREIGN = "acme", "initech"
EVENTS: Final = "https://schemas.openid.net/secevent/"
DISABLED: Final = f"{EVENTS}risc/event-type/account-disabled"
REVOKED: Final = f"{EVENTS}caep/event-type/session-revoked"
CREDENTIAL: Final = f"{EVENTS}caep/event-type/credential-change"
SETTINGS: Final = """
listen: 127.0.0.1:0
pdp: {address: "127.0.0.1:50151"}
transmitters:
  idp:
    issuer: https://idp.example
    audience: https://signals.example/idp
    keys_file: idp.jwks
    algorithms: [ES256]
    most_users: 3
    most_sessions: 5
    subjects:
      - {format: iss_sub, tenant: acme}
      - {format: email, domain: example.org, tenant: acme, strip_domain: true}
      - {format: opaque, tenant: acme, names: {"0x1": alice}}
      - {format: opaque, tenant: acme, about: connection, names: {"app-7": github-1}}
"""
USERS: Final = ("alice", "bob", "carol", "dora", "erin")
FILES = bundle_files(
    policies={"sessions": OPEN_SESSIONS},
    tools={"git": [tool("log")]},
    directory=f"{{users: {{{', '.join(f'{one}: {{}}' for one in USERS)}}}, agents: {{coder: {{ceiling: ['git/*']}}}}}}",
)
CALLERS = (
    *(
        Caller(
            id=f"{role.value}-{tenant}",
            kind="token",
            roles=frozenset({role}),
            tenant=tenant,
            authenticated_at=AT_EACH_CALL,
        )
        for tenant in (MINE, FOREIGN)
        for role in (Role.PEP, Role.APPROVER)
    ),
    Caller(
        id="signals",
        kind="token",
        roles=frozenset({Role.REVOKER}),
        tenant=MINE,
        bounds=Bounds(tenants=frozenset({MINE})),
    ),
)


class Transmitter:
    """Signs security event tokens by PyJWT, right or wrong."""

    def __init__(self, clock: Clock, kid: str = "first") -> None:
        self._clock, self._count = clock, 0
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), kid

    def jwks(self) -> bytes:
        """Return the public key as it is published."""
        public = ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**public, "kid": self.kid, "alg": "ES256", "use": "sig"}]}).encode()

    def claims(self, subject: object, event: str = DISABLED, **payload: object) -> dict[str, Any]:
        """Return good claims about a subject."""
        self._count += 1
        return {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": int(self._clock.now().wall_at),
            "jti": f"jti-{self._count}-{id(self)}",
            "sub_id": subject,
            "events": {event: payload},
        }

    def token(self, claims: Mapping[str, Any], **header: Any) -> str:
        """Sign claims, with other parameters in the header."""
        head = {"typ": "secevent+jwt", "kid": self.kid, **header}
        return jwt.encode(dict(claims), self.key, algorithm="ES256", headers=head)

    def about(self, user: str, event: str = DISABLED, **payload: object) -> str:
        """Return a good token about a user."""
        return self.token(self.claims(iss_sub(user), event, **payload))


def iss_sub(user: str, issuer: str = ISSUER) -> dict[str, str]:
    """Return the identifier of a user at an issuer."""
    return {"format": "iss_sub", "iss": issuer, "sub": user}


@dataclass(frozen=True, kw_only=True)
class World:
    """A receiver without threads: signals are carried out when a test says so."""

    server: RunningServer
    clock: FakeClock
    transmitter: Transmitter
    receiver: Receiver
    applier: Applier
    store: SignalStore
    settings: SignalSettings
    folder: Path
    events: list[Event] = field(default_factory=list)

    def session(self, user: str = "alice", tenant: str = MINE) -> str:
        """Have a session opened; return its id."""
        pep = self.server.client(f"pep-{tenant}")
        return pep.request_session(user=user, agent="coder", purpose="p", tools=["git/*"]).session.session_id

    def ended(self, session_id: str, tenant: str = MINE) -> bool:
        """Say whether a session was revoked."""
        return self.server.client(f"approver-{tenant}").get_session(session_id).state == SESSION_STATE_REVOKED

    def push(self, token: str | bytes, **headers: str) -> tuple[int, dict[str, str], Any]:
        """Push a token; return status, headers and the JSON of the answer."""
        return push(self.receiver, token if isinstance(token, bytes) else token.encode(), **headers)

    def sent(self, token: str) -> Signal:
        """Push a token that is accepted, carry it out, and return what has become of it."""
        status, _, problem = self.push(token)
        assert (202, None) == (status, problem)
        self.applier.run()
        return self.store.signals(limit=1000)[-1]


def push(
    app: Receiver, body: bytes, path: str = "/signals/idp", method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Send a request to an application; return status, headers and the JSON of the answer."""
    rows = {"content-type": "application/secevent+jwt", "content-length": str(len(body))}
    rows |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in rows.items()],
    }
    asyncio.run(app(scope, receive, send))
    started, answered = sent
    found = {name.decode(): value.decode() for name, value in started["headers"]}
    return started["status"], found, json.loads(answered["body"]) if answered["body"] else None


@contextmanager
def served() -> Iterator[Site]:
    """Serve two tenants, of which the receiver may revoke in one."""
    clock = FakeClock()
    with running_server(FILES, callers=CALLERS, clock=clock) as server:
        yield server, clock


@contextmanager
def world(
    server: RunningServer,
    clock: FakeClock,
    folder: Path,
    *,
    settings: str = SETTINGS,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> Iterator[World]:
    """Provide a receiver before a server, with the settings of a text. What others left open there ends."""
    for tenant in (MINE, FOREIGN):
        server.client(f"approver-{tenant}").revoke_sessions(tenant=tenant, reason="the next test")
    transmitter = Transmitter(clock)
    (folder / "idp.jwks").write_bytes(transmitter.jwks())
    (folder / "signals.yaml").write_text(settings)
    found, events = read_settings(folder / "signals.yaml"), list[Event]()
    with closing(SignalStore(folder / STORE_FILE)) as store:
        applier = Applier(
            store=store,
            revoker=server.client("signals"),
            senders=found.senders,
            broker_record=found.broker_record,
            observe=events.append,
            wall=lambda: clock.now().wall_at,
        )
        sources = {name: source_of(one, found, clock, monotonic) for name, one in found.senders.items()}
        for source in sources.values():
            source.reader.keys.refresh()
        receiver = Receiver(
            sources=sources,
            store=store,
            clock=clock,
            wake=lambda: None,
            problem=lambda: applier.problem,
            observe=events.append,
        )
        yield World(
            server=server,
            clock=clock,
            transmitter=transmitter,
            receiver=receiver,
            applier=applier,
            store=store,
            settings=found,
            folder=folder,
            events=events,
        )
