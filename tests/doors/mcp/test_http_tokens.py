"""Access tokens at the proxy over HTTP: whose session they open, and what ends it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.auth.utils import extract_resource_metadata_from_www_auth
from mcp.shared.auth import ProtectedResourceMetadata

from pdp.client import AsyncClient
from pdp.doors.accesstokens import AccessTokens, Identities, read_identities
from pdp.doors.mcp.resources import ProtectedResource
from pdp.doors.tokensessions import MOST_OF_A_USER, TokenSessions
from pdp.errors import ConfigurationError
from pdp.identity.denied import DenyList
from pdp.identity.keysets import TrustedKeys
from pdp.identity.tokens import TokenRules
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer
from pdp.v1 import session_pb2
from tests.doors.mcp.conversation import MODERN, PATIENCE, STATED
from tests.doors.mcp.webworld import RESOURCE, World, message_of, private_file, world
from tests.machinery.credentials.issuer import ISSUER, Issuer

pytestmark = pytest.mark.anyio

IDENTITIES = Identities(
    users={"alice@example.org": "alice", "bob@example.org": "bob"},
    agents={"coder-client": "coder"},
    purpose="to try",
    tools=("desk/*",),
    environment="",
)
RULES = TokenRules(
    issuer=ISSUER,
    audience=RESOURCE,
    algorithms=frozenset({"ES256"}),
    types=frozenset({"at+jwt"}),
    leeway_seconds=30.0,
    longest_seconds=86400.0,
)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Return an issuer of access tokens."""
    return Issuer()


class Ticking:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def opener(
    issuer: Issuer,
    ticking: Ticking | None = None,
    made: list[TokenSessions] | None = None,
    denied: DenyList | None = None,
    identities: Identities = IDENTITIES,
) -> Callable[[AsyncClient], TokenSessions]:
    """Return what makes the sessions of the issuer's tokens, on a clock of seconds, and adds them to `made`."""

    def make(client: AsyncClient) -> TokenSessions:
        clock = FakeClock()
        keys = TrustedKeys(lambda: issuer.jwks("ES256"), name="issuer", clock=clock, longest_seconds=3600.0)
        keys.load()
        tokens = AccessTokens(keys, RULES, identities, clock=clock, denied=denied or DenyList(None))
        sessions = TokenSessions(client, tokens, identities, pdp_command="pdp {}".format, clock=ticking or Ticking())
        if made is not None:
            made.append(sessions)
        return sessions

    return make


def bearer(issuer: Issuer, **claims: Any) -> dict[str, str]:
    """Return the header of an access token."""
    return {"authorization": f"Bearer {issuer.token(**({'aud': RESOURCE, 'client_id': 'coder-client'} | claims))}"}


async def call(here: World, headers: Mapping[str, str], text: str = "x") -> httpx2.Response:
    """Call a tool with these headers."""
    named = {name.replace("-", "_"): value for name, value in headers.items()}
    return await here.call("echo", {"text": text}, handle="", **named)


def sessions(pdp: RunningServer, user: str = "alice") -> list[Any]:
    """Return the requests of a user that wait for a person."""
    return list(pdp.client("approver").list_sessions(user=user, state="requested"))


def approve(pdp: RunningServer, user: str = "alice") -> str:
    """Approve the one session of a user that waits."""
    [waiting] = sessions(pdp, user)
    shown = pdp.client("approver").get_session(waiting.session_id)
    pdp.client("approver").approve_session(shown.session_id, request_digest=shown.request_digest)
    return str(shown.session_id)


async def until_it_runs(here: World, headers: Mapping[str, str]) -> None:
    """Call until a call runs."""
    while not here.desk.ran["echo"]:
        await call(here, headers)


async def test_a_token_opens_a_session_that_a_person_approves(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """Until then a call is a deny that says what to do; the session is the user's and the agent's of the file."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        headers = bearer(issuer)
        waiting = await call(here, headers)
        again = await call(here, headers)
        session_id = approve(desk_pdp)
        await until_it_runs(here, headers)
        shown = desk_pdp.client("approver").get_session(session_id)

        assert all(f"pdp session approve {session_id}" in one.text for one in (waiting, again))
        assert ("alice", "coder", "to try") == (shown.user, shown.agent, shown.purpose)
        assert "authorization" not in here.desk.headers
    assert session_pb2.SESSION_STATE_ENDED == desk_pdp.client("approver").get_session(session_id).state


async def test_a_server_that_the_catalogue_does_not_know_is_named(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """With the setting that says what is asked for, in the answer to a call: no session opens."""
    identities = replace(IDENTITIES, tools=("desk/*", "git/*"))
    async with world(desk_pdp, tokens_of=opener(issuer, identities=identities)) as here:
        said = await call(here, bearer(issuer))

    assert "`git/*` matches no tool that the agent may use (`session` in the file of --access-tokens)" in said.text
    assert not here.desk.ran["echo"]


async def test_each_task_has_a_session_of_its_own(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """The name of a task is its purpose. The requests of a door that ends are taken back."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        for task in ("one", "two", "one"):
            await call(here, {**bearer(issuer), "x-pdp-task": task})
        asked = sessions(desk_pdp)

        assert {"one", "two"} == {one.purpose for one in asked}
        assert 2 == len(asked)
    assert [] == sessions(desk_pdp)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "pdp.example.org"},
        {"iss": "https://other.example.org"},
        {"exp": 1},
        {"cnf": {"jkt": "x"}},
    ],
)
async def test_a_token_for_others_is_refused(desk_pdp: RunningServer, issuer: Issuer, claims: dict[str, Any]) -> None:
    """A token for another server, of another issuer, or that is over leads the client to the issuer."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        answer = await call(here, bearer(issuer, **claims))

        assert 401 == answer.status_code
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_without_a_token_a_client_learns_where_to_get_one(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """The challenge names the metadata, and the metadata the issuer (RFC 9728)."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here, httpx2.AsyncClient(timeout=PATIENCE) as http:
        answer = await call(here, {})
        place = "/.well-known/oauth-protected-resource/mcp"
        metadata = await http.get(here.url.removesuffix("/mcp") + place)

        assert (401, f'Bearer resource_metadata="https://door.example.org{place}"') == (
            answer.status_code,
            answer.headers["www-authenticate"],
        )
        assert {"resource": RESOURCE, "authorization_servers": [ISSUER], "bearer_methods_supported": ["header"]} == (
            metadata.json()
        )
        # As the SDK for clients reads both.
        assert f"https://door.example.org{place}" == extract_resource_metadata_from_www_auth(answer)
        assert ISSUER == str(ProtectedResourceMetadata.model_validate_json(metadata.content).authorization_servers[0])


@pytest.mark.parametrize("claims", [{"sub": "eve@example.org"}, {"client_id": "other"}, {"azp": "other"}])
async def test_who_is_not_in_the_file_is_nobody(
    desk_pdp: RunningServer, issuer: Issuer, claims: dict[str, Any]
) -> None:
    """A subject, a client id, or two client ids that the file does not know: nothing is asked for."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        answer = await call(here, bearer(issuer, **claims))

        assert "This proxy knows no" in message_of(answer)["result"]["content"][0]["text"]
        assert {} == here.desk.headers


async def test_a_handle_is_preferred_to_a_token(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """A client that has a session needs no other."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        _, handle = here.session("bob")
        answer = await here.call("echo", {"text": "mine"}, handle=handle, **bearer(issuer))

        assert "mine" in answer.text
        assert [] == sessions(desk_pdp)


async def test_a_no_stands_for_a_while(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """A person who has refused is not asked again at once, and after ten minutes they are."""
    ticking = Ticking()
    async with world(desk_pdp, tokens_of=opener(issuer, ticking)) as here:
        headers = bearer(issuer)
        await call(here, headers)
        [asked] = sessions(desk_pdp)
        desk_pdp.client("approver").deny_session(asked.session_id, reason="not now")
        text = ""
        while "not now" not in text:
            text = (await call(here, headers)).text
        # The time of the no is that of the first request that finds it.
        await call(here, headers)
        ticking.now += 599.0
        still = await call(here, headers)
        ticking.now += 2.0
        after = await call(here, headers)

        assert "not now" in still.text
        assert "pdp session approve" in after.text


async def test_an_idle_session_ends(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """After ten minutes without a request the session is over, and the next request asks for another."""
    ticking = Ticking()
    made: list[TokenSessions] = []
    async with world(desk_pdp, tokens_of=opener(issuer, ticking, made)) as here:
        headers = bearer(issuer)
        await call(here, headers)
        session_id = approve(desk_pdp)
        await until_it_runs(here, headers)
        # The proxy may still be ending the request whose answer is here.
        await here.until(lambda: not any(one.open for one in made[0]._kept.values()))
        ticking.now += 601.0
        after = await call(here, headers)
        ended = session_pb2.SESSION_STATE_ENDED
        await here.until(lambda: desk_pdp.client("approver").get_session(session_id).state == ended)

        assert "pdp session approve" in after.text


async def test_a_session_that_is_over_is_asked_for_anew(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """A revocation is told once, and then a person is asked again: nobody else can decide that."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        headers = bearer(issuer)
        await call(here, headers)
        session_id = approve(desk_pdp)
        await until_it_runs(here, headers)
        here.revoke(session_id)
        texts: list[str] = []
        while not texts or "session approve" not in texts[-1]:
            texts.append((await call(here, headers)).text)

        assert all("did not run" in one or "is over" in one for one in texts[:-1])
        assert {"echo": 1} == here.desk.ran


@pytest.mark.parametrize(
    "entry", ["jwt_ids: [token-1]", "jwt_subjects: [alice@example.org]", "token_sha256: [{digest}]"]
)
async def test_a_token_on_the_deny_list_is_refused(
    desk_pdp: RunningServer, issuer: Issuer, tmp_path: Path, entry: str
) -> None:
    """As soon as the list is read again, and the session that the token has used ends; other users keep theirs."""
    denied = DenyList(private_file(tmp_path, ""))
    async with world(desk_pdp, tokens_of=opener(issuer, denied=denied)) as here:
        headers, other = bearer(issuer, jti="token-1"), bearer(issuer, sub="bob@example.org", jti="token-2")
        await call(here, headers)
        session_id = approve(desk_pdp)
        await until_it_runs(here, headers)
        token = headers["authorization"].removeprefix("Bearer ")
        private_file(tmp_path, entry.format(digest=hashlib.sha256(token.encode()).hexdigest()))
        denied.refresh()
        after, still = await call(here, headers), await call(here, other)
        ended = session_pb2.SESSION_STATE_ENDED
        await here.until(lambda: desk_pdp.client("approver").get_session(session_id).state == ended)

        assert 401 == after.status_code
        assert 'error="invalid_token"' in after.headers["www-authenticate"]
        assert 200 == still.status_code


async def test_one_user_has_few_sessions(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """An agent cannot ask for a session with each request by naming another task."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        answers = [await call(here, {**bearer(issuer), "x-pdp-task": f"{n}"}) for n in range(MOST_OF_A_USER + 1)]
        other = await call(here, bearer(issuer, sub="bob@example.org"))

        assert "Too many tasks" in answers[-1].text
        assert not any("Too many tasks" in one.text for one in (*answers[:-1], other))


async def test_a_client_is_greeted_while_a_person_is_asked(desk_pdp: RunningServer, issuer: Issuer) -> None:
    """It sees the tools that it asks for, so that it can say what it waits for."""
    async with world(desk_pdp, tokens_of=opener(issuer)) as here:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": STATED}}
        headers = {**bearer(issuer), "mcp-protocol-version": MODERN, "mcp-method": "tools/list"}
        answer = await here.post(body, headers)

        assert "echo" in {tool["name"] for tool in message_of(answer)["result"]["tools"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "`users` must be a mapping that is not empty"),
        ("users: {a: b}\nagents: {}", "`agents` must be a mapping"),
        ("users: {a: 1}\nagents: {a: b}", ":1: `users`: the value of each entry must be a name"),
        ("users: {a: b}\nagents: {a: b}\nsesion: {}", "unknown key: `sesion`; did you mean `session`"),
        ("users: {a: b}\nagents: {a: b}\nsession: x", ":3: `session` must be a mapping"),
        ("users: {a: b}\nagents: {a: b}\nsession: {tools: git}", "`tools` must be a list of patterns"),
        ("users: {a: b}\nagents: {a: b}\nsession: {purpose: 1}", "`purpose` must be a text"),
    ],
)
def test_a_wrong_file_of_identities_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """Each problem names the line and the key."""
    with pytest.raises(ConfigurationError) as refused:
        read_identities(private_file(tmp_path, text), ["desk"])

    assert says in str(refused.value)


@pytest.mark.parametrize("url", ["pdp.example.org", "http://example.org/mcp", "https://example.org/mcp?a=b", ""])
def test_an_audience_that_is_no_url_of_the_proxy_is_refused(url: str) -> None:
    """A token for the PDP itself, or for any other server, must not open a session here."""
    with pytest.raises(ConfigurationError, match=r"jwt\.audience"):
        ProtectedResource(url=url, issuer=ISSUER)
