"""A broker in this process with connections in memory, and an upstream that notes what it is sent."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from pdp.broker.admitting import Admission, Record
from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.rules import rules_of
from pdp.broker.sealing.envelope import Sealed
from pdp.broker.templates import UpstreamRequest
from pdp.broker.using import Asked, Broker
from pdp.broker.words import Connection, Mode, Secret, UnknownConnectionError
from pdp.calltokens.canonical import arguments_digest
from pdp.calltokens.claims import CallClaims, encoded
from pdp.calltokens.uses import MemoryUses, Uses
from pdp.calltokens.verifying import Keys, LiveCheck, Verifier
from pdp.clock import SystemClock
from pdp.observer import Event
from tests.machinery.calltokens import CLAIMS, KEY, PRESENTER, OneKey

SECRET: Final = b"s3cr3t/canary-7f0e91"
AUDIENCE: Final = "https://broker.example"
ARGUMENTS: Final = {"owner": "o", "title": "t"}
# When all tokens here are issued and used, however long a test takes.
NOW: Final = float(int(time.time()))
RULES: Final = """
github:
  kind: github
  proxy: {methods: [GET, POST], paths: [/repos/, /user], request_headers: [x-version], response_headers: [x-more]}
  tools:
    create_issue: {method: POST, path: "/repos/{owner}/issues", body: {title: "{title}"}}
    read_issue: {method: GET, path: "/repos/{owner}"}
remote:
  kind: github
  proxy:
    methods: [GET, POST, DELETE]
    paths: [/mcp]
    mcp: {tenant: acme, compartment: prod, connection: github-1, presenters: [local]}
other:
  kind: github
  answer_seconds: 1
  tools: {create_issue: {method: POST, path: "/x", body: ["{owner}", "{title}"]}}
brief:
  kind: github
  answer_bytes: 1000
  tools: {create_issue: {method: POST, path: "/x", body: ["{owner}", "{title}"]}}
"""


class Upstream(ThreadingHTTPServer):
    """Answers with what `answer` makes of a request, and notes each: method, target, headers and body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.got: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.status = 200
        self.headers: list[tuple[str, str]] = [("Content-Type", "application/json")]
        self.pieces: Callable[[], Iterator[bytes]] = lambda: iter([b'{"done":true}'])

    @property
    def origin(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that hang up."""


class _Request(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        sent = {name.lower(): value for name, value in self.headers.items()}
        self.server.got.append((self.command, self.path, sent, body))
        status = self.server.status
        self.send_response(status)
        if status == HTTPStatus.NO_CONTENT:
            self.end_headers()
            return
        for name, value in self.server.headers:
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in self.server.pieces():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_POST = do_DELETE = do_GET  # noqa: N815 - the library's names

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Noting:
    """A record in memory, which may fail: from the start, or with the first event of a kind."""

    def __init__(self, beside: Record | None = None) -> None:
        self.events: list[Event] = []
        self.permits = True
        self.fails_with = ""
        self._beside = beside

    def event(self, event: Event) -> None:
        """Keep an event, unless it fails with it."""
        if event.kind.value == self.fails_with:
            self.permits = False
            return
        self.events.append(event)
        if self._beside is not None:
            self._beside.event(event)

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of all events."""
        return [event.kind.value for event in self.events]


@dataclass
class Memory:
    """Connections with secrets in memory. `opened` lists which were opened."""

    rows: list[Connection]
    secret: bytes = field(default=SECRET, repr=False)
    opened: list[str] = field(default_factory=list)

    def of_kind(self, tenant: str, compartment: str, kind: str, user: str) -> Connection:
        """Return the user's connection, or else the tenant's."""
        mine = [row for row in self.rows if (row.tenant, row.compartment, row.kind) == (tenant, compartment, kind)]
        for owner in (user, ""):
            for row in mine:
                if row.owner == owner:
                    return row
        raise UnknownConnectionError(f"no connection of kind `{kind}`")

    def connection(
        self, connection_id: str, *, tenant: str | None = None, compartment: str | None = None
    ) -> Connection:
        """Return a connection by its id."""
        for row in self.rows:
            if row.id == connection_id and tenant in (None, row.tenant) and compartment in (None, row.compartment):
                return row
        raise UnknownConnectionError(f"no such connection: `{connection_id}`")

    def open(self, connection: Connection) -> Secret:
        """Return the secret."""
        self.opened.append(connection.id)
        return Secret(self.secret, version=connection.version)

    def client(self, tenant: str, compartment: str, kind: str) -> Connection:
        """Return none: people connect with nothing here."""
        raise UnknownConnectionError(f"nobody can connect to `{kind}` of `{tenant}` in `{compartment}`")

    def connections(self) -> tuple[Connection, ...]:
        """Return all connections."""
        return tuple(self.rows)

    def seal_for(self, connection: Connection, checkout_id: str, credential: Secret) -> Sealed:
        """Keep a credential as it is."""
        return Sealed(kek_id="", wrapped_key=f"{connection.id} {checkout_id}".encode(), text=credential.reveal())

    def open_for(self, connection: Connection, checkout_id: str, kept: Sealed) -> Secret:
        """Return a credential that was kept."""
        assert f"{connection.id} {checkout_id}".encode() == kept.wrapped_key
        return Secret(kept.text)


@dataclass
class World:
    """A broker with all that it needs."""

    broker: Broker
    upstream: Upstream
    record: Noting
    memory: Memory


@contextmanager
def upstream_here() -> Iterator[Upstream]:
    """Provide an upstream on this machine."""
    upstream = Upstream()
    threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield upstream
    finally:
        upstream.shutdown()
        upstream.server_close()


def connection_to(there: Upstream, /, **row: Any) -> Connection:
    """Return the connection of kind `github` that the tenant `acme` has; `row` has other values of it."""
    known = {"id": "github-1", "tenant": "acme", "compartment": "prod", "kind": "github", "version": 3}
    uses = {"upstream": there.origin, "modes": (Mode.CONNECTOR, Mode.PROXY), "scopes": ("issues", "pulls")}
    return Connection(**{**known, **uses, **row})


@contextmanager
def world(
    *,
    live: LiveCheck | None = None,
    uses: Uses | None = None,
    keys: Keys | None = None,
    record: Record | None = None,
    **row: Any,
) -> Iterator[World]:
    """Provide a broker with a connection; `row` has other values of it. `record` is written beside what is noted."""
    with upstream_here() as upstream:
        memory, noted, keys = Memory([connection_to(upstream, **row)]), Noting(record), keys or OneKey()
        verifier = Verifier(
            issuer=CLAIMS.issuer,
            audience=AUDIENCE,
            keys=keys,
            uses=uses or MemoryUses(wall=lambda: NOW - 60),
            live=live or (lambda _, __: None),
            wall=lambda: NOW,
        )
        admission = Admission(
            rules=rules_of("rules.yaml", RULES.encode(), Path()),
            verifier=verifier,
            keys=keys,
            connections=AccessTokens(memory, noted.event, SystemClock()),
            record=noted,
            wall=time.time,
        )
        yield World(Broker(admission), upstream, noted, memory)


def claims(arguments: Mapping[str, Any] = ARGUMENTS, **changes: Any) -> CallClaims:
    """Return what a token states that was issued now for a call of `github/create_issue`."""
    said = replace(
        CLAIMS,
        audience=AUDIENCE,
        id=encoded(sha256(str(time.perf_counter_ns()).encode()).digest()),
        issued_at=int(NOW),
        expires_at=int(NOW) + 15,
        server="github",
        tool="create_issue",
        arguments_digest=arguments_digest(json.dumps(arguments).encode(), CLAIMS.salt),
        resource_type="Repository",
        resource_id="o",
        connection="github",
        scopes=("issues",),
    )
    return replace(said, **changes)


def token(arguments: Mapping[str, Any] = ARGUMENTS, **changes: Any) -> str:
    """Return a good call token, with other claims where they are given."""
    return KEY.signed(claims(arguments, **changes))


def ask(here: World, text: str, **changes: Any) -> tuple[int, bytes]:
    """Use a call token for `github/create_issue`, and return status and body of the answer."""
    server, tool = changes.get("server", "github"), changes.get("tool", "create_issue")
    arguments = changes.get("arguments", ARGUMENTS)
    template = here.broker.rules[server].templates.get(tool)
    request = (
        template.filled(ARGUMENTS)
        if template and tool == "create_issue"
        else UpstreamRequest(method="GET", target="/repos/o", headers={})
    )
    known = {"server": "github", "tool": "create_issue", "arguments": arguments, "presenter": PRESENTER}
    asked = Asked(**{"token": text, "request": request, "mode": Mode.CONNECTOR, **known, **changes})
    return here.broker.use(asked, lambda answer: (answer.status, b"".join(answer.pieces)))


@dataclass
class Got:
    """The answer of an ASGI application. `pieces` are the parts of its body."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.pieces)

    @property
    def said(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def request(
    app: Any,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    pieces: list[bytes] | None = None,
) -> Got:
    """Send a request to an ASGI application, and stay until its answer is over. Its parts are put into `pieces`."""
    got, waiting = Got(pieces=[] if pieces is None else pieces), [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        await asyncio.Event().wait()
        return None

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got.status = message["status"]
            got.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message.get("body"):
            got.pieces.append(message["body"])

    path, _, query = url.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "raw_path": path.encode(),
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    asyncio.run(app(scope, receive, send))
    return got
