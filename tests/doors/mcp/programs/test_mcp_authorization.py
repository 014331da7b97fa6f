"""A real client of MCP gets a token from a real authorization server, and with it a session that a person approves."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, STATED
from tests.doors.mcp.programs.installed import ENGINE, NODE
from tests.doors.mcp.webprocess import program, web_door
from tests.doors.mcp.webworld import Desk, behind, desk_server, text_of
from tests.machinery.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.doors]

_CALLBACK = "http://127.0.0.1:1/callback"
_MACHINE = ("machine", "secret")
_LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": STATED}}
_READING = 503
_HEADERS = {"mcp-protocol-version": MODERN, "mcp-method": "tools/list"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """The proxy as a protected resource, the server behind it, and two authorization servers; it believes the first."""

    url: str
    desk: Desk
    issuer: str
    other: str


@asynccontextmanager
async def issued(pdp: RunningServer, folder: Path) -> AsyncIterator[Issued]:
    """Run all of it."""
    assert ENGINE is not None, "Node is absent: run `make doors`"
    desk, identities, settings = Desk(), folder / "identities.yaml", folder / "door.yaml"
    # The audience is the URL of the proxy, which must be known before it listens.
    listen = f"127.0.0.1:{free_port()}"
    async with (
        behind(desk, desk_server(desk).streamable_http_app()) as upstream,
        program(str(ENGINE), "authorizationserver.mjs", _CALLBACK, cwd=NODE) as servers,
    ):
        issuer, other = servers.said.split()
        identities.write_text(
            "users: {alice@example.org: alice, machine: bob}\nagents: {coder-client: coder, machine: coder}\n",
            encoding="ascii",
        )
        settings.write_text(
            f"jwt: {{issuer: '{issuer}', audience: 'http://{listen}/mcp', keys_url: '{issuer}/jwks'}}\n",
            encoding="ascii",
        )
        words = ("--config", str(settings), "--access-tokens", str(identities), "--listen", listen, "--wait", "1s")
        async with web_door(pdp, "desk", upstream, folder, *words) as door:
            yield Issued(url=door.last_word, desk=desk, issuer=issuer, other=other)


async def test_a_client_gets_a_token_and_with_it_a_session(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """From the 401 alone it finds where to log in; after a yes the call runs, and the record says whose it was."""
    person, memory, approver = _Person("alice@example.org"), _Memory(), desk_pdp.client("approver")
    async with issued(desk_pdp, tmp_path) as here:
        metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(_CALLBACK)])
        login = OAuthClientProvider(here.url, metadata, memory, person.visit, person.code)
        async with (
            httpx2.AsyncClient(auth=login, timeout=60) as http,
            Client(streamable_http_client(here.url, http_client=http), mode=MODERN) as client,
        ):
            waiting = await client.call_tool("echo", {"text": "x"})
            [asked] = approver.list_sessions(user="alice", state="requested")
            approver.approve_session(
                asked.session_id, request_digest=approver.get_session(asked.session_id).request_digest
            )
            text = ""
            while "hello" != text:
                text = text_of(await client.call_tool("echo", {"text": "hello"}))

        assert ["S256"] == person.asked["code_challenge_method"]
        assert [here.url] == person.asked["resource"]
        assert f"pdp session approve {asked.session_id}" in text_of(waiting)
        assert ["hello"] == here.desk.texts
        assert "authorization" not in here.desk.headers
        [decision] = [one for one in desk_pdp.evidence.records if one.get("outcome") == "allow"]
        assert ("alice", "coder", asked.session_id) == tuple(decision[name] for name in ("user", "agent", "session_id"))


async def test_only_a_token_for_this_proxy_is_taken(desk_pdp: RunningServer, tmp_path: Path) -> None:
    """One for another server, that is over, of another issuer, or that says nothing leads to the issuer again."""
    async with issued(desk_pdp, tmp_path) as here, httpx2.AsyncClient(timeout=60) as http:
        statuses, challenges = [], set()
        for issuer, resource in (
            (here.issuer, here.url),
            (here.issuer, here.url.replace("/mcp", "/other")),
            (here.issuer, f"{here.url}?kind=expired"),
            (here.issuer, f"{here.url}?kind=opaque"),
            (here.other, here.url),
        ):
            form = {"grant_type": "client_credentials", "scope": "tools", "resource": resource}
            token = (await http.post(f"{issuer}/token", data=form, auth=_MACHINE)).json()["access_token"]
            headers = {**_HEADERS, "authorization": f"Bearer {token}"}
            # The keys of the issuer are read again before the proxy says that it does not know one.
            while (answer := await http.post(here.url, json=_LIST, headers=headers)).status_code == _READING:
                pass
            statuses.append(answer.status_code)
            challenges.add(answer.headers.get("www-authenticate", ""))

        metadata = here.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
        assert [200, 401, 401, 401, 401] == statuses
        assert {"", f'Bearer resource_metadata="{metadata}", error="invalid_token"'} == challenges


class _Person:
    """Has a browser, in which it logs in and consents."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: dict[str, list[str]] = {}
        self._came_back = ""

    async def visit(self, url: str) -> None:
        """Follow the page of an authorization server until it leads back to the client."""
        self._asked = parse_qs(urlsplit(url).query)
        async with httpx2.AsyncClient(timeout=60) as browser:
            answer = await browser.get(url)
            while not (target := urljoin(str(answer.url), answer.headers.get("location", ""))).startswith(_CALLBACK):
                if answer.is_redirect:
                    answer = await browser.get(target)
                    continue
                prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
                action = re.search(r'action="([^"]+)"', answer.text)
                assert prompt is not None
                assert action is not None
                said = {"prompt": prompt[1], "login": self._name, "password": "any"}
                answer = await browser.post(urljoin(str(answer.url), action[1]), data=said)
        self._came_back = target

    async def code(self) -> AuthorizationCodeResult:
        """Return what the client got when the page led back."""
        back = {name: values[0] for name, values in parse_qs(urlsplit(self._came_back).query).items()}
        return AuthorizationCodeResult(code=back["code"], state=back["state"], iss=back["iss"])

    @property
    def asked(self) -> dict[str, list[str]]:
        """Return what the client asked the authorization server for."""
        return self._asked


class _Memory:
    """What a client keeps: as which client it is registered, and its tokens."""

    def __init__(self) -> None:
        self._tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return OAuthClientInformationFull(client_id="coder-client", redirect_uris=[AnyUrl(_CALLBACK)])

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError(f"`{client_info.client_id}` is registered already")
