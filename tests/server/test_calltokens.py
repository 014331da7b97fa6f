"""Call tokens as gateways get them and tool servers check them: for an allow alone, and while it would be one."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pdp.calltokens.claims import Presenter
from pdp.calltokens.keys import CallKey, claims_of, key_named_by, keys_of
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.verifying import Verifier
from pdp.client import Answer, CallTokenRequest, UnknownRevisionError
from pdp.client.calltokens import fetch_keys, live_check, session_end
from pdp.config.reading import load
from pdp.identity.callers import read_callers
from pdp.model import AT_EACH_CALL, Bounds, Call, Caller, CallRequest, Role
from pdp.registry.calltokens import TokenRequest
from pdp.server.revisions import revision_text
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer, running_server
from tests.machinery.calltokens import CLAIMS, ISSUER, refusal_of, server_verifier
from tests.machinery.pages import blocks

NOTES, BROKER = "https://notes.example", "https://broker.example"
GATEWAY, LEAD, ADMIN = "gateway", "lead", "admin"
CALLERS = (
    Caller(id=GATEWAY, kind="token", roles=frozenset({Role.PEP})),
    Caller(id=LEAD, kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL),
    Caller(id=ADMIN, kind="token", roles=frozenset({Role.ADMIN})),
    Caller(id="notes", kind="token", roles=frozenset({Role.BROKER})),
    Caller(id="elsewhere", kind="token", roles=frozenset({Role.BROKER}), tenant="elsewhere"),
    Caller(
        id="several",
        kind="token",
        roles=frozenset({Role.BROKER}),
        tenant="elsewhere",
        bounds=Bounds(tenants=frozenset({"elsewhere", "default"})),
    ),
    Caller(
        id="others",
        kind="token",
        roles=frozenset({Role.BROKER}),
        tenant="elsewhere",
        bounds=Bounds(tenants=frozenset({"elsewhere", "nowhere"})),
    ),
)
OVERLAY = f"""
audiences: [{NOTES}, {BROKER}]
tools:
  read: {{risk: read_only}}
  write: {{risk: mutating, audiences: [{NOTES}]}}
"""
POLICIES = """
@id("notes/all") permit (principal, action, resource);
@id("notes/never") forbid (principal, action == Action::"notes/drop", resource);
"""
FILES = bundle_files(
    policies={"notes": POLICIES},
    tools={"notes": [tool("read", {"path": {"type": "string"}, "more": {}}), tool("write"), tool("drop")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['notes/*']}}}",
    overlays={"notes": OVERLAY},
    labels=["seen"],
)
ARGUMENTS = {"path": "/n"}
PRESENTER = Presenter(certificate="c" * 43)
WANTED = CallTokenRequest(audience=NOTES, certificate_thumbprint=PRESENTER.certificate)


class Site:
    """A server, and what gateways, tool servers and people do at it."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server

    def session(self, *tools: str, duration: float = 600.0, **more: Any) -> tuple[str, str]:
        """Open a session; return its id and its handle."""
        opened = self.server.client(GATEWAY).request_session(
            user="alice", agent="coder", purpose="p", tools=tools or ("notes/*",), duration=duration, **more
        )
        shown = opened.session
        if shown.state == 1:  # it waits
            self.server.client(LEAD).approve_session(shown.session_id, request_digest=shown.request_digest)
        return shown.session_id, opened.session_handle

    def ask(self, handle: str, name: str = "read", *wanted: CallTokenRequest, **more: Any) -> Answer:
        """Ask about a call, and for tokens with its answer."""
        arguments = more.pop("arguments", ARGUMENTS if name == "read" else {})
        asked = wanted or (WANTED,)
        return self.server.client(GATEWAY).authorize(handle, "notes", name, arguments, call_tokens=asked, **more)

    def token(self, handle: str, **more: Any) -> str:
        """Return the token of an allowed call."""
        return self.ask(handle, **more).call_tokens[0].token

    def verifier(self, by: str = "notes") -> Verifier:
        """Return the verifier of a tool server, whose clock is that of the server."""
        return server_verifier(self.server, by, audience=NOTES)

    def records(self, kind: str, session_id: str) -> list[dict[str, Any]]:
        """Return the records of a kind about a session."""
        found = self.server.evidence.records
        return [one for one in found if one["kind"] == kind and one.get("session_id") == session_id]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve to all tests of this module; each opens sessions of its own."""
    with running_server(FILES, callers=CALLERS, call_token_issuer=ISSUER) as server:
        yield Site(server)


def verify(verifier: Verifier, token: str, **other: Any) -> Reason | None:
    """Verify a token of the call that tests make; return why not."""
    call = {"server": "notes", "tool": "read", "arguments": ARGUMENTS, "presenter": PRESENTER}
    return refusal_of(verifier, token, **{**call, **other})


def test_an_allowed_call_brings_a_token_for_it_alone(site: Site) -> None:
    """It states what was decided, is recorded without itself, and is good once."""
    session_id, handle = site.session()
    answer = site.ask(handle)
    (token,) = answer.call_tokens
    claims = claims_of(token.token, fetch_keys(site.server.client("notes"))()[key_named_by(token.token)])
    verifier = site.verifier()

    assert (answer.decision_id, session_id, "alice", "coder") == (
        claims.decision_id,
        claims.session_id,
        claims.user,
        claims.agent,
    )
    assert (15, token.expires_at) == (claims.expires_at - claims.issued_at, claims.expires_at)
    assert Reason.TOOL is verify(verifier, token.token, tool="write")
    assert Reason.ARGUMENTS is verify(verifier, token.token, arguments={"path": "/m"})
    assert [None, Reason.USED] == [verify(verifier, token.token) for _ in range(2)]
    (recorded,) = site.records("calltoken.issued", session_id)
    assert claims.id == recorded["facts"]["token_id"]
    assert token.token not in str(site.server.evidence.records)


def test_a_deny_brings_none(site: Site) -> None:
    """Whatever was asked for."""
    _, handle = site.session()

    assert () == site.ask(handle, "drop").call_tokens


@pytest.mark.parametrize(
    ("name", "arguments", "wanted", "refusal"),
    [
        ("read", ARGUMENTS, CallTokenRequest(audience="https://evil.example"), "not an audience of `notes/read`"),
        ("write", {}, CallTokenRequest(audience=BROKER), "not an audience of `notes/write`"),
        ("read", b'{"path":"/n","more":9007199254740993}', WANTED, "an integer is beyond 2^53"),
    ],
)
def test_an_allow_can_come_without_a_token(
    site: Site, name: str, arguments: Any, wanted: CallTokenRequest, refusal: str
) -> None:
    """The answer says why, and stays an allow: only what needs the token cannot be called."""
    _, handle = site.session()
    answer = site.ask(handle, name, wanted, arguments=arguments)

    assert answer.allowed
    assert [("", True)] == [(one.token, refusal in one.refusal) for one in answer.call_tokens]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ((WANTED,) * 3, "call_tokens"),
        ((WANTED, CallTokenRequest(audience="")), "call_tokens[1].audience"),
        ((CallTokenRequest(audience="a b"),), "call_tokens[0].audience"),
        ((CallTokenRequest(audience="a", key_thumbprint="short"),), "call_tokens[0].key_thumbprint"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(site: Site, wanted: tuple[CallTokenRequest, ...], field: str) -> None:
    """What the gateway wrote is its mistake."""
    _, handle = site.session()

    assert f"`{field}`" in site.ask(handle, "read", *wanted).error


def test_a_retry_gives_a_token_with_the_same_id(site: Site) -> None:
    """So it is no second use; another audience or presenter is another token."""
    _, handle = site.session()
    key = CallTokenRequest(audience=NOTES, key_thumbprint="k" * 43)
    first, again = (site.ask(handle, "read", WANTED, key, request_id="one") for _ in range(2))
    other = site.ask(handle, request_id="two")
    keys = fetch_keys(site.server.client("notes"))()

    def ids(answer: Answer) -> list[str]:
        return [claims_of(one.token, keys[key_named_by(one.token)]).id for one in answer.call_tokens]

    assert ids(first) == ids(again)
    assert 3 == len({*ids(first), *ids(other)})


def test_a_token_ends_with_its_session(site: Site) -> None:
    """It is never good for longer."""
    _, handle = site.session(duration=7.5)
    (token,) = site.ask(handle).call_tokens

    assert 0 < token.expires_at - site.server.clock.now().wall_at <= 7.5


def withdraw(site: Site) -> None:
    """Withdraw the key of the latest tokens."""
    client = site.server.client(ADMIN)
    client.withdraw_call_token_key(client.get_call_token_keys().keys[0].key_id, reason="it leaked")


def revoke(site: Site, session_id: str) -> None:
    """Revoke a session."""
    site.server.client(LEAD).revoke_sessions(session_id=session_id, reason="enough")


# What can happen between an answer and its call, to a session with a public id and a handle.
CHANGES: dict[str, Callable[[Site, str, str], object]] = {
    "revoked": lambda site, session_id, _: revoke(site, session_id),
    "ended": lambda site, _, handle: site.server.client(GATEWAY).end_session(handle),
    "narrowed": lambda site, session_id, _: site.server.client(LEAD).narrow_session(session_id, tools=("notes/write",)),
    "labelled": lambda site, session_id, _: site.server.client(LEAD).narrow_session(session_id, labels=("seen",)),
    "late": lambda site, *_: site.server.clock.advance(21.0),
    "withdrawn": lambda site, *_: withdraw(site),
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("revoked", Reason.REVOKED),
        ("ended", Reason.REVOKED),
        ("narrowed", Reason.REVOKED),
        ("labelled", None),
        ("late", Reason.TIME),
        ("withdrawn", Reason.REVOKED),
    ],
)
def test_the_live_check_asks_the_gate(site: Site, change: str, expected: Reason | None) -> None:
    """What ended the authority between the answer and the call ends the token; what did not, does not."""
    session_id, handle = site.session()
    verifier, token = site.verifier(), site.token(handle)
    # Until then it counts.
    assert verify(verifier, site.token(handle)) is None
    CHANGES[change](site, session_id, handle)

    assert expected is verify(verifier, token)


def test_the_live_check_insists_on_what_was_heard(site: Site) -> None:
    """A server that does not know it says nothing of the token, which is a refusal."""
    _, handle = site.session()
    client, token = site.server.client("notes"), site.token(handle)
    known = site.server.embedded.sessions.head()
    heard = [revision_text(known), revision_text(replace(known, revision=known.revision + 1))]
    has, lacks = (live_check(client, partial(str, one)) for one in heard)

    has(token, CLAIMS)
    with pytest.raises(UnknownRevisionError):
        lacks(token, CLAIMS)


def test_no_token_counts_or_is_issued_while_frozen(site: Site) -> None:
    """Not even for a call that was allowed before; one from before counts again when the freeze is lifted."""
    _, handle = site.session()
    pdp, token = site.server.embedded, site.token(handle)
    call = Call(session_handle=handle, server="notes", tool="read", arguments_json=b'{"path": "/n"}')
    gateway, request = CALLERS[0], CallRequest(call=call)
    allowed = pdp.authorizer.authorize(request, gateway)
    freeze = site.server.client(ADMIN).set_freeze(tenant="default", reason="acts strangely")
    try:
        during = verify(site.verifier(), token)
        (late,) = pdp.call_tokens.issue(allowed, request, (TokenRequest(audience=NOTES),), gateway)
    finally:
        pdp.sessions.change_freeze(freeze.freeze_id, lambda _: None, wall_at=0.0)

    assert allowed.allowed
    assert (Reason.REVOKED, "", True) == (during, late.token, "frozen since the decision" in late.refusal)
    assert verify(site.verifier(), token) is None


def test_the_end_of_an_ancestor_ends_the_token(site: Site) -> None:
    """As it ends every call below."""
    parent_id, parent = site.session(may_delegate=True)
    _, child = site.session(parent_session_handle=parent, duration=60.0)
    token = site.token(child)
    revoke(site, parent_id)

    assert Reason.REVOKED is verify(site.verifier(), token)


def test_the_live_check_says_until_when_the_session_lives(site: Site) -> None:
    """That of the whole chain: the end of the session above ends it, also one that was set afterwards."""
    parent_id, parent = site.session(may_delegate=True, duration=600.0)
    child_id, child = site.session(parent_session_handle=parent, duration=300.0)
    token, ends = site.token(child), session_end(site.server.client("notes"))
    (own, above) = (site.server.client(LEAD).get_session(one).expire_time for one in (child_id, parent_id))

    assert own.ToMicroseconds() / 1e6 == ends(token) < above.ToMicroseconds() / 1e6
    earlier = ends(token) - 100
    site.server.client(LEAD).narrow_session(parent_id, expires_at=earlier)
    assert earlier == pytest.approx(ends(token), abs=1e-3)
    revoke(site, child_id)
    with pytest.raises(CallTokenRefusedError) as refused:
        ends(token)
    assert Reason.REVOKED is refused.value.reason


def test_a_withdrawn_key_signs_nothing_more(site: Site) -> None:
    """Its worker makes another one, and it is not published any longer."""
    _, handle = site.session()
    before = key_named_by(site.token(handle))
    withdraw(site)
    after = key_named_by(site.token(handle))

    published = site.server.client(ADMIN).get_call_token_keys()
    assert before != after
    assert {after} == set(keys_of(published.jwks_json)) == {one.key_id for one in published.keys}


def test_a_key_signs_for_an_hour_and_is_published_until_its_last_token_ends(site: Site) -> None:
    """A restart is a rotation, and so is an hour."""
    _, handle = site.session(duration=8 * 3600)
    first = key_named_by(site.token(handle))
    site.server.clock.advance(3601.0)
    second = key_named_by(site.token(handle))
    both = {one.key_id for one in site.server.client(ADMIN).get_call_token_keys().keys}
    site.server.clock.advance(70.0)
    later = {one.key_id for one in site.server.client(ADMIN).get_call_token_keys().keys}

    assert first != second
    assert {first, second} <= both
    assert first not in later
    assert second in later


def test_a_stolen_key_signs_nothing_that_counts_after_its_end(site: Site) -> None:
    """Also while no other key has taken its place, as at a server that nobody asks for tokens any more."""
    _, handle = site.session(duration=8 * 3600)
    token = site.token(handle)
    stolen = next(one for one in gc.get_objects() if isinstance(one, CallKey) and one.public.id == key_named_by(token))
    site.server.clock.advance(3600.0 + 66.0)
    now = int(site.server.clock.now().wall_at)
    forged = stolen.signed(replace(claims_of(token, stolen.public), issued_at=now, expires_at=now + 15))

    answer = site.server.client("notes").check_call_token(forged)

    assert (False, Reason.UNKNOWN_KEY) == (answer.valid, answer.reason)


def test_another_bundle_ends_tokens() -> None:
    """Its policies were not asked."""
    with running_server(FILES, callers=CALLERS, call_token_issuer=ISSUER) as server:
        site = Site(server)
        _, handle = site.session()
        verifier, token = site.verifier(), site.token(handle)
        server.write_policies({**FILES, "notes.cedar": FILES["notes.cedar"] + b" "})
        server.embedded.keeper.reload(by="test")

        assert Reason.REVOKED is verify(verifier, token)


@pytest.mark.parametrize(
    ("caller", "expected"), [("elsewhere", Reason.REVOKED), ("others", Reason.REVOKED), ("several", None)]
)
def test_a_tool_server_checks_tokens_of_its_tenants(site: Site, caller: str, expected: Reason | None) -> None:
    """A session elsewhere is the same as none."""
    _, handle = site.session()

    assert expected is verify(site.verifier(caller), site.token(handle))


def test_a_foreign_token_is_not_checked(site: Site) -> None:
    """A key that is not published has signed nothing, and neither has another issuer."""
    _, handle = site.session()
    token = site.token(handle)
    known = fetch_keys(site.server.client("notes"))()[key_named_by(token)]
    forged = CallKey().signed(replace(claims_of(token, known), user="mallory"))
    checks = [site.server.client("notes").check_call_token(one) for one in (forged, token, token[:-5], "x")]

    assert [("unknown_key", False), ("", True)] == [(one.reason, one.valid) for one in checks[:2]]
    assert [False, False] == [one.valid for one in checks[2:]]


def test_a_check_knows_the_revision_that_it_must(site: Site) -> None:
    """Or there is no answer."""
    _, handle = site.session()
    token, broker = site.token(handle), site.server.client("notes")
    latest = site.server.embedded.sessions.head()
    known = broker.check_call_token(token, min_revision=revision_text(latest))
    with pytest.raises(UnknownRevisionError, match="no such revision"):
        broker.check_call_token(token, min_revision=revision_text(replace(latest, tag="another")))

    assert known.valid


def test_withdrawing_an_unknown_key_says_so(site: Site) -> None:
    """A mistyped id is no silent success."""
    client = site.server.client(ADMIN)

    assert client.withdraw_call_token_key("k" * 43, reason="it leaked") is False


def test_without_an_issuer_there_are_no_tokens() -> None:
    """The answer names the setting."""
    with running_server(FILES, callers=CALLERS) as server:
        site = Site(server)
        _, handle = site.session()
        (token,) = site.ask(handle).call_tokens

        assert "`call_tokens.issuer`" in token.refusal
        assert "" == server.client(ADMIN).get_call_token_keys().issuer


def test_the_page_does_what_it_says(project_root: Path, tmp_path: Path) -> None:
    """With its settings and its overlay, its gateway calls a tool server with its middleware, once."""
    kinds = ("yaml settings", "yaml overlay", "yaml caller", "python gateway", "python tool server")
    shown = [blocks(project_root / "pdp" / "calltokens" / "README.md", kind)[0] for kind in kinds]
    for name, text in zip(("pdp.yaml", "callers.yaml"), (shown[0], shown[2]), strict=True):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text, encoding="utf-8")
    names: dict[str, Any] = {}
    for code in shown[3:]:
        exec(code, names)  # noqa: S102 - the code of the page
    (broker,) = read_callers(tmp_path / "callers.yaml", development=False).by_spiffe_id.values()
    issuer = load(environ={}, file=tmp_path / "pdp.yaml").call_tokens.issuer
    files = bundle_files(
        policies={"git": '@id("git/all") permit (principal, action, resource);'},
        tools={"git": [tool("git_commit", {"message": {"type": "string"}})]},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
        overlays={"git": shown[1]},
    )
    calls: list[bytes] = []

    async def app(_: Any, receive: Any, send: Any) -> None:
        calls.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    with running_server(files, callers=CALLERS, clock=Clock(), call_token_issuer=issuer) as server:
        opened = server.client(GATEWAY).request_session(user="alice", agent="coder", purpose="p", tools=("git/*",))
        waiting = opened.session
        server.client(LEAD).approve_session(waiting.session_id, request_digest=waiting.request_digest)
        guarded = names["guarded"](app, server.client("notes"), tmp_path / "uses.sqlite")
        # As the network brings the certificate that the gateway has, to a server that has run for a while.
        guarded._presenter, guarded._guard.verifier._uses._began_at = lambda _: PRESENTER, 0.0

        def send(arguments: Any, headers: dict[str, str]) -> list[int]:
            params = {"name": "git_commit", "arguments": arguments}
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
            return [asyncio.run(_post(guarded, body, headers)) for _ in range(2)]

        sent = names["commit"](
            server.client(GATEWAY), opened.session_handle, {"message": "m"}, PRESENTER.certificate, send
        )

    assert broker.bounds is not None
    assert {"acme", "globex"} == broker.bounds.tenants
    assert [200, 403] == sent
    assert 1 == len(calls)


class Clock(FakeClock):
    """A clock that stands at the present time, which the verifier of the page has too."""

    def __init__(self) -> None:
        super().__init__()
        self.advance(time.time() - self.now().wall_at)


async def _post(app: Any, body: bytes, headers: dict[str, str]) -> int:
    """Send a request to an ASGI application; return the status."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": "POST", "path": "/mcp", "headers": named}, receive, send)
    return int(sent[0]["status"])
