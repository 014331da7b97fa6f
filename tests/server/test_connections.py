"""What a session may use downstream is a part of what a person approves, and of what a call token states."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.calltokens.claims import CallClaims
from pdp.calltokens.keys import claims_of, key_named_by, keys_of
from pdp.client import CallTokenRequest, WrongStateError
from pdp.client.connectionwords import call_connection_text, connection_text, connections_text
from pdp.limits import Limits
from pdp.policy.tools.catalogue import load_catalogue
from pdp.policy.tools.overlay import ToolConnection
from pdp.registry.accessreview import AccessView, review
from pdp.sessions.access import AccessState
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from tests.machinery.calltokens import AUDIENCE, ISSUER
from tests.machinery.pages import blocks
from tests.machinery.servers.waitingcalls import waiting

WANTED = CallTokenRequest(audience=AUDIENCE)
READS = "{kind: github, scopes: ['repo:read']}"
WRITES = "{kind: github, scopes: ['repo:write', 'repo:read']}"


def files(writes: str = WRITES) -> dict[str, bytes]:
    """Return a bundle of a server whose tools use a connection, each with scopes of its own, but for one."""
    overlay = f"""
audiences: ['{AUDIENCE}']
connection: {READS}
risk: read_only
tools:
  write: {{connection: {writes}}}
  help: {{connection: {{}}}}
"""
    return bundle_files(
        policies={"issues": '@id("issues/all") permit (principal, action, resource);'},
        tools={"issues": [tool("read"), tool("write"), tool("help")]},
        directory="{users: {alice: {}, approver: {}}, agents: {coder: {ceiling: ['issues/*']}}}",
        overlays={"issues": overlay},
    )


@pytest.fixture
def server() -> Iterator[RunningServer]:
    """Return a server of its own: its bundle changes."""
    with running_server(files(), call_token_issuer=ISSUER) as running:
        yield running


def requested(server: RunningServer) -> Any:
    """Request a session for all tools."""
    return server.client("pep").request_session(user="alice", agent="coder", purpose="p", tools=["issues/*"])


def approve(server: RunningServer, opened: Any) -> None:
    """Approve a session as it was when it was requested."""
    server.client("approver").approve_session(opened.session.session_id, request_digest=opened.session.request_digest)


def replace_bundle(server: RunningServer, writes: str) -> None:
    """Have `write` use another connection from now on."""
    server.write_policies(files(writes))
    server.client("author").reload_bundle()


def claims(server: RunningServer, opened: Any, name: str) -> CallClaims:
    """Return what the token of a call states."""
    pep = server.client("pep")
    answer = pep.authorize(opened.session_handle, "issues", name, {}, call_tokens=(WANTED,))
    token = answer.call_tokens[0].token
    return claims_of(token, keys_of(pep.get_call_token_keys().jwks_json)[key_named_by(token)])


def test_the_approver_sees_what_calls_use(server: RunningServer) -> None:
    """For each tool, and for all of them together; a tool that uses nothing says nothing."""
    session = server.client("approver").review_session(requested(server).session.session_id).session

    assert {"help": "", "read": "github: repo:read", "write": "github: repo:read repo:write"} == {
        one.tool: connection_text(one) for one in session.tools
    }
    assert ("github of alice, or else of the tenant: repo:read repo:write",) == connections_text(session.tools, "alice")


def test_a_token_states_the_connection_of_its_call_alone(server: RunningServer) -> None:
    """Another call of the same session gives no scope to this one."""
    opened = requested(server)
    approve(server, opened)
    said = {name: claims(server, opened, name) for name in ("read", "write", "help")}

    assert {
        "read": ("github", ("repo:read",)),
        "write": ("github", ("repo:read", "repo:write")),
        "help": ("", ()),
    } == {name: (one.connection, one.scopes) for name, one in said.items()}


@pytest.mark.parametrize("writes", [READS, "{kind: github, scopes: [admin]}", "{kind: gitlab}", "{}"])
def test_what_was_shown_is_what_is_approved(server: RunningServer, writes: str) -> None:
    """The digest covers connections: after a change, the request must be read again."""
    opened = requested(server)
    replace_bundle(server, writes)

    with pytest.raises(WrongStateError, match="read the session again"):
        approve(server, opened)


def test_an_approver_of_a_call_sees_what_it_uses(server: RunningServer) -> None:
    """The digest of what was shown covers it, beside the bundle that says so."""
    opened = requested(server)
    approve(server, opened)
    embedded, clock, session_id = server.embedded, server.clock, opened.session.session_id
    request = waiting(embedded, clock, session_id, by="pep", action="issues/write", arguments=b"{}")
    shown = server.client("approver").get_access_request(request.id)
    seen, chain = AccessView(request=request, state=AccessState.OPEN), embedded.sessions.get(session_id)
    digests = set()
    for writes in (WRITES, READS, "{kind: gitlab}", "{}"):
        replace_bundle(server, writes)
        bundle = embedded.keeper.current()
        digests.add(review(seen, chain, bundle, b"{}", Limits(), for_approver=True).request_digest)

    assert "github of alice, or else of the tenant: repo:read repo:write" == call_connection_text(shown)
    assert (4, True) == (len(digests), shown.request_digest in digests)


@pytest.mark.parametrize("writes", [READS, "{kind: github, scopes: [admin]}", "{kind: gitlab}", "{}"])
def test_an_approval_freezes_the_connection(server: RunningServer, writes: str) -> None:
    """A tool that uses another one since then is denied, and shows none; the others go on."""
    opened = requested(server)
    approve(server, opened)
    replace_bundle(server, writes)
    pep = server.client("pep")
    bases = {name: pep.authorize(opened.session_handle, "issues", name, {}).basis for name in ("read", "write")}
    shown = {one.tool: one.connection_kind for one in pep.get_session(opened.session.session_id).tools}

    assert {"read": "permit", "write": "tool_changed"} == bases
    assert {"help": "", "read": "github", "write": ""} == shown


def test_a_bundle_that_says_the_same_in_another_order_changes_nothing(server: RunningServer) -> None:
    """Scopes are a set."""
    opened = requested(server)
    approve(server, opened)
    replace_bundle(server, "{scopes: ['repo:read', 'repo:write', 'repo:read'], kind: github}")

    assert server.client("pep").authorize(opened.session_handle, "issues", "write", {}).basis == "permit"


def test_the_page_says_it_so(project_root: Path) -> None:
    """What the overlay says at the top holds for each tool that says nothing else."""
    overlay = blocks(project_root / "pdp" / "calltokens" / "README.md", "yaml overlay")[1]
    tools = [tool("git_log"), tool("git_commit"), tool("git_help")]
    found = load_catalogue({"tools/git.json": json.dumps(tools).encode(), "tools/git.yaml": overlay.encode()}).tools

    assert {
        "git/git_log": ToolConnection(kind="github", scopes=("repo:read",)),
        "git/git_commit": ToolConnection(kind="github", scopes=("repo:read", "repo:write")),
        "git/git_help": None,
    } == {name: one.connection for name, one in found.items()}
